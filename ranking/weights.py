"""What a snapshot holds of the ranking model: sizes, names and shapes of its tensors, checked. Without torch.

A worker serves from these alone; `ranking.model` is the same model where it learns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ranking.errors import WeightsRefused
from ranking.features import CONTEXTS, Feature

Scalar = TypeVar("Scalar", bound=np.generic)
Floats = NDArray[np.float32]
Tensors = Mapping[str, NDArray[np.generic]]

#: Columns the model reads as numbers; the last column, `Feature.context`, is read as a category.
NUMERIC = int(Feature.context)
#: Heads of the outcome tower.
OUTCOMES = ("click", "complete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of the model. `buckets` (a power of two) rows hold what is learned of single items, by hash."""

    buckets: int = 1 << 16
    width: int = 64
    item_width: int = 4
    crosses: int = 2


def shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters and buffers of `ranking.model.RankingModel`."""
    towers = {"next": tower_sizes(shape, 1, apart=True), "outcome": tower_sizes(shape, len(OUTCOMES), apart=False)}
    return {
        "centre_F": (NUMERIC,),
        "scale_F": (NUMERIC,),
        **{f"{tower}.{name}": size for tower, sizes in towers.items() for name, size in sizes.items()},
    }


def tower_sizes(shape: Shape, heads: int, *, apart: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of one `ranking.model.Tower`."""
    wide, deep = shape.width, shape.width // 2
    crosses = range(shape.crosses)
    return {
        **{f"crosses.{n}.weight": (NUMERIC, NUMERIC) for n in crosses},
        **{f"crosses.{n}.bias": (NUMERIC,) for n in crosses},
        "wide.weight": (wide, NUMERIC),
        "wide.bias": (wide,),
        **({"apart.weight": (wide, NUMERIC)} if apart else {}),
        "deep.weight": (deep, wide),
        "deep.bias": (deep,),
        "item.weight": (shape.buckets, shape.item_width),
        "item_in.weight": (wide, shape.item_width),
        "item_bias.weight": (shape.buckets, heads),
        "context.weight": (CONTEXTS, wide),
        "from_cross.weight": (heads, NUMERIC),
        "from_deep.weight": (heads, deep),
        "from_deep.bias": (heads,),
    }


def weights_of(tensors: Tensors) -> dict[str, Floats]:
    """The model's tensors, the entries `model.*`, copied; its shape is read off them.

    Raises:
        WeightsRefused: a tensor is missing, misshapen or not finite.
    """
    sizes = shapes(shape_of(tensors))
    return {name: np.array(checked(tensors, f"model.{name}", size), np.float32) for name, size in sizes.items()}


def part_of(tensors: Mapping[str, NDArray[Scalar]], prefix: str) -> dict[str, NDArray[Scalar]]:
    """The entries whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def shape_of(tensors: Tensors, tower: str = "next") -> Shape:
    """The sizes of the model among the tensors, read off one of its towers.

    Raises:
        WeightsRefused: there is none.
    """
    crosses = sum(name.startswith(f"model.{tower}.crosses.") and name.endswith("weight") for name in tensors)
    item, wide = tensors.get(f"model.{tower}.item.weight"), tensors.get(f"model.{tower}.wide.bias")
    if item is None or wide is None or item.ndim != 2 or wide.ndim != 1 or len(item).bit_count() != 1:
        raise WeightsRefused("no readable ranking model among the tensors")
    return Shape(buckets=len(item), width=len(wide), item_width=item.shape[1], crosses=crosses)


def checked(tensors: Tensors, name: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """An entry that is there, has this shape and only finite numbers.

    Raises:
        WeightsRefused: it is not so.
    """
    array = tensors.get(name)
    if array is None:
        raise WeightsRefused(f"{name} is missing")
    if array.shape != shape:
        raise WeightsRefused(f"{name} has shape {array.shape}, not {shape}")
    if not np.isfinite(array.astype(np.float64)).all():
        raise WeightsRefused(f"{name} holds a number that is not finite")
    return array
