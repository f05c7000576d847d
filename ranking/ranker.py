"""Frozen weights that score candidates, or retrieval order and popularity until there are any."""

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ranking.errors import WeightsRefused
from ranking.features import Feature
from ranking.frozen import FrozenTower
from ranking.model import OUTCOMES, RankingModel, Shape

Floats = NDArray[np.float32]
Tensors = Mapping[str, NDArray[np.generic]]


class Scores(NamedTuple):
    """Probabilities per candidate, 0 where there is none.

    That it is taken next out of this set (they sum to 1 over K), clicked or played if shown, completed if shown.
    """

    next_PK: NDArray[np.float32]
    click_PK: NDArray[np.float32]
    complete_PK: NDArray[np.float32]


class Ranker:
    """Scores of one snapshot's weights; immutable, so a thread may use it while another swaps in the next.

    Attributes:
        version: that of the snapshot; 0 without one.
        learned: False while `next` is retrieval order plus popularity; slates say so.
    """

    def __init__(self, model: RankingModel, *, version: int, learned: bool, platt_O2: NDArray[np.float64]) -> None:
        self.version = version
        self.learned = learned
        self._next, self._outcome = FrozenTower(model, model.next), FrozenTower(model, model.outcome)
        self._platt_O2 = platt_O2.astype(np.float32)

    @classmethod
    def untaught(cls) -> Self:
        """What serves before the first snapshot: retrieval order, smoothed click rates, even odds of completion."""
        model = RankingModel(Shape(buckets=1, width=2, item_width=1, crosses=0))
        return cls(model, version=0, learned=False, platt_O2=np.tile([1.0, 0.0], (len(OUTCOMES), 1)))

    @classmethod
    def from_tensors(cls, tensors: Tensors, *, version: int) -> Self:
        """The ranker of a snapshot's tensors, as `Trainer.tensors` wrote them; they are copied.

        Raises:
            WeightsRefused: a tensor is missing, misshapen or not finite. Keep the ranker in use.
        """
        model = load_model(tensors)
        platt_O2 = checked(tensors, "platt", (len(OUTCOMES), 2))
        learned = bool(checked(tensors, "learned", (1,))[0])
        return cls(model, version=version, learned=learned, platt_O2=np.asarray(platt_O2, np.float64))

    def score(
        self,
        x_PKX: Floats,
        item_PK: NDArray[np.int64],
        mask_PK: NDArray[np.bool_],
        *,
        outcomes: bool = True,
    ) -> Scores:
        """Score K candidates of P positions, each position by itself (to 1e-5, whatever else is in the call).

        Args:
            x_PKX: columns of `ranking.features`.
            item_PK: item ids; they only pick what was learned of the item.
            mask_PK: where there is a candidate.
            outcomes: False leaves clicks and completions at 0 for half the time, where no objective uses them.
        """
        if self.learned:
            logit_PK = self._next.logits(x_PKX, item_PK, mask_PK)[..., 0]
        else:
            logit_PK = retrieval_logits(torch.from_numpy(x_PKX)).numpy()
        none_PK = np.zeros(mask_PK.shape, np.float32)
        click_PK, complete_PK = self._outcomes(x_PKX, item_PK, mask_PK) if outcomes else (none_PK, none_PK)
        return Scores(_softmax(logit_PK, mask_PK), click_PK, complete_PK)

    def _outcomes(self, x_PKX: Floats, item_PK: NDArray[np.int64], mask_PK: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        logit_PKO = self._outcome.logits(x_PKX, item_PK, mask_PK)
        rate_PK = np.exp(x_PKX[..., Feature.click_rate]).clip(1e-4, 0.99)
        logit_PKO[..., 0] += np.log(rate_PK / (1 - rate_PK))
        platt_PKO = (logit_PKO * self._platt_O2[:, 0] + self._platt_O2[:, 1]).clip(-60, 60)
        p_PKO = mask_PK[..., None] / (1 + np.exp(-platt_PKO))
        return p_PKO[..., 0], p_PKO[..., 1]


def _softmax(logit_PK: Floats, mask_PK: NDArray[np.bool_]) -> Floats:
    """Probabilities that sum to 1 over the candidates there are; 0 where there is none. Shape (P, K)."""
    logit_PK = np.where(mask_PK, logit_PK, np.float32(-1e30))
    odds_PK = np.exp(logit_PK - logit_PK.max(1, keepdims=True, initial=-1e30)) * mask_PK
    p_PK: Floats = odds_PK / np.maximum(odds_PK.sum(1, keepdims=True), np.float32(1e-30))
    return p_PK


def retrieval_logits(x_PKX: Tensor) -> Tensor:
    """Retrieval order plus a touch of popularity: log(co-occurrence + vector score) + .01 log(1 + takes). (P, K)."""
    score_PK = x_PKX[..., Feature.cooc_decayed].exp() + x_PKX[..., Feature.dot].exp()
    return score_PK.log() + 0.01 * x_PKX[..., Feature.popularity_mid]


def load_model(tensors: Tensors) -> RankingModel:
    """The model whose parameters are the entries `model.*`; its shape is read off them.

    Raises:
        WeightsRefused: a tensor is missing, misshapen or not finite.
    """
    model = RankingModel(shape_of(tensors))
    own = model.state_dict()
    model.load_state_dict(
        {name: torch.tensor(checked(tensors, f"model.{name}", tuple(have.shape))) for name, have in own.items()}
    )
    return model


def shape_of(tensors: Tensors) -> Shape:
    """The sizes of the model among the tensors.

    Raises:
        WeightsRefused: there is none.
    """
    crosses = sum(name.startswith("model.next.crosses.") and name.endswith("weight") for name in tensors)
    item, wide = tensors.get("model.next.item.weight"), tensors.get("model.next.wide.bias")
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
