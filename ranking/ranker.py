"""Frozen weights that score candidates, or retrieval order and popularity until there are any."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ranking.features import Feature
from ranking.frozen import FrozenTower
from ranking.weights import OUTCOMES, Floats, Shape, Tensors, checked, shapes, weights_of

State = Literal["no_snapshot", "few_examples", "behind_retrieval", "serves"]


def state_of(learned: bool, examples: float, wanted: float) -> State:
    """Whether the model's order serves, and why not: it has seen too little, or retrieval's own order is better."""
    return "serves" if learned else "few_examples" if examples < wanted else "behind_retrieval"


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
        state: why.
    """

    def __init__(
        self, weights: Mapping[str, Floats], *, version: int, state: State, platt_O2: NDArray[np.float64]
    ) -> None:
        self.version = version
        self.state = state
        self.learned = state == "serves"
        self._next, self._outcome = FrozenTower(weights, "next"), FrozenTower(weights, "outcome")
        self._platt_O2 = platt_O2.astype(np.float32)

    @classmethod
    def untaught(cls) -> Self:
        """What serves before the first snapshot: retrieval order, smoothed click rates, even odds of completion."""
        sizes = shapes(Shape(buckets=1, width=2, item_width=1, crosses=0))
        zeros = {name: np.zeros(size, np.float32) for name, size in sizes.items()}
        return cls(zeros, version=0, state="no_snapshot", platt_O2=np.tile([1.0, 0.0], (len(OUTCOMES), 1)))

    @classmethod
    def from_tensors(cls, tensors: Tensors, *, version: int) -> Self:
        """The ranker of a snapshot's tensors, as `Trainer.tensors` wrote them; they are copied.

        Raises:
            WeightsRefused: a tensor is missing, misshapen or not finite. Keep the ranker in use.
        """
        weights = weights_of(tensors)
        platt_O2 = checked(tensors, "platt", (len(OUTCOMES), 2))
        learned = bool(checked(tensors, "learned", (1,))[0])
        examples, wanted = checked(tensors, "standing", (3,))[:2].tolist() if "standing" in tensors else (0, 1)
        state = state_of(learned, examples, wanted)
        return cls(weights, version=version, state=state, platt_O2=np.asarray(platt_O2, np.float64))

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
        learned = self.learned
        logit_PK = self._next.logits(x_PKX, item_PK, mask_PK)[..., 0] if learned else retrieval_logits(x_PKX)
        none_PK = np.zeros(mask_PK.shape, np.float32)
        click_PK, complete_PK = self._outcomes(x_PKX, item_PK, mask_PK) if outcomes else (none_PK, none_PK)
        return Scores(_softmax(logit_PK, mask_PK), click_PK, complete_PK)

    def shares(
        self, x_PKX: Floats, item_PK: NDArray[np.int64], mask_PK: NDArray[np.bool_], index_PN: NDArray[np.int32]
    ) -> Floats:
        """What lifts some candidates above the mean one, column by column, in log-odds of `next`. Shape (P, N, F).

        First-order (`FrozenTower.shares`); of what clicks and completions add to an objective nothing is told.
        `index_PN` says which of the K; rows of -1 mean nothing.
        """
        if self.learned:
            return self._next.shares(x_PKX, item_PK, mask_PK, index_PN)
        return retrieval_shares(x_PKX, mask_PK, index_PN)

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


def retrieval_logits(x_PKX: Floats) -> Floats:
    """Retrieval order plus a touch of popularity: log(co-occurrence + vector score) + .01 log(1 + takes). (P, K)."""
    score_PK = np.exp(x_PKX[..., Feature.cooc_decayed]) + np.exp(x_PKX[..., Feature.dot])
    logit_PK: Floats = np.log(score_PK) + np.float32(0.01) * x_PKX[..., Feature.popularity_mid]
    return logit_PK


def retrieval_shares(x_PKX: Floats, mask_PK: NDArray[np.bool_], index_PN: NDArray[np.int32]) -> Floats:
    """First-order shares of `retrieval_logits`, as of `Ranker.shares`. (P, N, F)."""
    columns = [Feature.cooc_decayed, Feature.dot, Feature.popularity_mid]
    mean_P3 = np.sum(x_PKX[..., columns], axis=1, where=mask_PK[..., None]) / np.maximum(mask_PK.sum(1), 1)[:, None]
    x_PN3 = np.take_along_axis(x_PKX, np.maximum(index_PN, 0)[..., None], 1)[..., columns]
    score_PN2 = np.exp(x_PN3[..., :2])
    out_PNF = np.zeros((*index_PN.shape, int(Feature.context)), np.float32)
    slope_PN3 = np.concatenate(
        [score_PN2 / score_PN2.sum(-1, keepdims=True), np.full((*index_PN.shape, 1), 0.01, np.float32)], axis=-1
    )
    out_PNF[..., columns] = slope_PN3 * (x_PN3 - mean_P3[:, None])
    return out_PNF
