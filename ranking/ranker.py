"""Frozen weights that score candidates, or retrieval order and popularity until there are any."""

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ranking.errors import WeightsRefused
from ranking.features import Feature
from ranking.model import OUTCOMES, RankingModel, Shape

#: Positions per tensor call: 16 x 200 rows of intermediate results stay in a core's second-level cache.
CHUNK = 16

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
        self._model = model.eval().requires_grad_(False)
        self._platt_O2 = torch.tensor(platt_O2, dtype=torch.float32)

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
        x_PKX: NDArray[np.float32],
        item_PK: NDArray[np.int64],
        mask_PK: NDArray[np.bool_],
        *,
        outcomes: bool = True,
    ) -> Scores:
        """Score K candidates of P positions, each position by itself (to 1e-5, whatever else is in the call).

        One thread is enough: call `torch.set_num_threads(1)` at the start of a process that ranks.

        Args:
            x_PKX: columns of `ranking.features`.
            item_PK: item ids; they only pick what was learned of the item.
            mask_PK: where there is a candidate.
            outcomes: False leaves clicks and completions at 0 for half the time, where no objective uses them.
        """
        out_3PK = np.zeros((3, *mask_PK.shape), np.float32)
        with torch.inference_mode():
            for at in range(0, len(mask_PK), CHUNK):
                part = slice(at, at + CHUNK)
                x_pKX, item_pK = torch.from_numpy(x_PKX[part]), torch.from_numpy(item_PK[part])
                mask_pK = torch.from_numpy(mask_PK[part])
                z_pKF = self._model.normalised(x_pKX)
                out_3PK[0, part] = self._next(x_pKX, z_pKF, item_pK, mask_pK).numpy()
                if outcomes:
                    out_3PK[1:, part] = self._outcomes(x_pKX, z_pKF, item_pK, mask_pK).numpy()
        return Scores(out_3PK[0], out_3PK[1], out_3PK[2])

    def _next(self, x_PKX: Tensor, z_PKF: Tensor, item_PK: Tensor, mask_PK: Tensor) -> Tensor:
        if self.learned:
            logit_PK = self._model.next_logits(x_PKX, z_PKF, item_PK, mask_PK.to(torch.float32))
        else:
            logit_PK = retrieval_logits(x_PKX)
        return logit_PK.masked_fill(~mask_PK, -1e30).softmax(1).mul_(mask_PK)

    def _outcomes(self, x_PKX: Tensor, z_PKF: Tensor, item_PK: Tensor, mask_PK: Tensor) -> Tensor:
        logit_PKO = self._model.outcome_logits(x_PKX, z_PKF, item_PK)
        p_PKO = torch.addcmul(self._platt_O2[:, 1], logit_PKO, self._platt_O2[:, 0]).sigmoid_()
        return p_PKO.mul_(mask_PK[..., None]).movedim(2, 0)


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
