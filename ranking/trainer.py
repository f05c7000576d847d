"""Online training: every batch is predicted, then learned, once, in the order it came."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ranking.calibration import Platt
from ranking.features import Feature
from ranking.model import PLACE, RankingModel, load_model
from ranking.moments import no_moments, normalise, widened
from ranking.optimiser import Optimiser
from ranking.ranker import retrieval_logits
from ranking.weights import OUTCOMES, Shape, Tensors, checked, part_of, shape_of

Head = Literal["click", "complete"]
#: A sampled candidate stands for at most e^12 others.
LEAST_LOG_Q = -12.0
_LATER = f"model.{PLACE}", "outcome.squares.2", "standing"
"""What checkpoints of earlier releases lack, and begins anew: what a place adds, its optimiser's part, a statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerSettings:
    """How the trainer steps.

    Attributes:
        rate: Adam's step for the shared weights.
        item_rate: Adagrad's step for what is learned of single items.
        step_rows: rows per step; a longer call is cut into several steps.
        learned_rows: rows before the model may replace retrieval order.
        horizon_rows: the progressive figures fade with this many rows.
        clip: largest norm of a step's gradient.
        moment_rows: the normalisation's means fade with this many candidate rows.
    """

    rate: float = 0.003
    item_rate: float = 0.03
    step_rows: int = 64
    learned_rows: int = 1000
    horizon_rows: float = 5000.0
    clip: float = 5.0
    moment_rows: float = 2e6


@dataclass(slots=True)
class Fading:
    """Means over the latest rows, fading exponentially; `sum_M` over `weight` of M figures."""

    sum_M: NDArray[np.float64]
    weight: float = 0.0

    def add(self, value_RM: NDArray[np.float64], horizon: float) -> None:
        """Fade by the number of rows, then add them."""
        fade = float(np.exp(-len(value_RM) / horizon))
        self.sum_M = self.sum_M * fade + value_RM.sum(0)
        self.weight = self.weight * fade + len(value_RM)

    def means(self) -> list[float]:
        """The M means, 0 before the first row."""
        return [float(total) for total in self.sum_M / max(self.weight, 1e-9)]

    def state(self) -> NDArray[np.float64]:
        """The sums, then the weight; shape (M + 1,)."""
        return np.append(self.sum_M, self.weight)

    @classmethod
    def of(cls, state: NDArray[np.generic]) -> "Fading":
        """The inverse of `state`."""
        values = state.astype(np.float64)
        return cls(values[:-1], float(values[-1]))


@dataclass(frozen=True, slots=True)
class ListwiseProgress:
    """Progressive figures (each row predicted before it is learned), over about the last `horizon_rows` rows.

    Hits count rows whose taken item stands among the first ten; `gain` is the mean of log rank by retrieval order
    minus log rank by the model: above 0 the model is the better order.
    """

    rows: int
    refused: int
    loss: float
    hits: float
    retrieval_hits: float
    gain: float


@dataclass(frozen=True, slots=True)
class OutcomeProgress:
    """Progressive log loss of the calibrated head, beside its mean prediction and the mean label."""

    rows: int
    loss: float
    predicted: float
    observed: float


@dataclass(slots=True)
class Outcome:
    """One pointwise head's calibration and figures."""

    platt: Platt = field(default_factory=Platt)
    rows: int = 0
    figures: Fading = field(default_factory=lambda: Fading(np.zeros(3)))


class Trainer:
    """Learns both towers from observations; mutable, one owner.

    Deterministic: the same calls after the same seed give the same bits, across `state` and `restore` too.
    """

    def __init__(self, shape: Shape | None = None, settings: TrainerSettings | None = None, *, seed: int = 0) -> None:
        self.settings = settings or TrainerSettings()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._take_model(RankingModel(shape or Shape()))
        self.rows = 0
        self.refused = 0
        self._moments = no_moments()
        self._figures = Fading(np.zeros(4))
        self._outcomes = {head: Outcome() for head in OUTCOMES}

    def _take_model(self, model: RankingModel) -> None:
        steps = {"rate": self.settings.rate, "item_rate": self.settings.item_rate, "clip": self.settings.clip}
        self.model = model
        self._next = Optimiser(model.next, **steps)
        self._outcome = Optimiser(model.outcome, **steps)

    @property
    def learned(self) -> bool:
        """Has the model seen enough rows, and ordered them better than retrieval did?"""
        return self.rows >= self.settings.learned_rows and self.listwise().gain > 0

    def listwise(self) -> ListwiseProgress:
        """Figures of the `next` head so far."""
        return ListwiseProgress(self.rows, self.refused, *self._figures.means())

    def outcome(self, head: Head) -> OutcomeProgress:
        """Figures of a pointwise head so far."""
        state = self._outcomes[head]
        return OutcomeProgress(state.rows, *state.figures.means())

    def learn_listwise(
        self,
        x_RSX: NDArray[np.floating],
        item_RS: NDArray[np.int64],
        mask_RS: NDArray[np.bool_],
        log_q_RS: NDArray[np.float32],
    ) -> ListwiseProgress:
        """Learn R choices: slot 0 holds the item taken, the others a uniform sample of the rest of its candidates.

        `log_q_RS` is the log probability with which a candidate got into the sample (0 for the item taken), so that
        the softmax is that of the whole set (Bengio & Senécal 2008). Rows whose taken item no source had proposed are
        left out: learning from them teaches to prefer what looks least like a candidate (R@10 .2119 -> .1925). Rows
        with a non-finite number are refused and counted. One call is at least one step: gather some 32 rows first.
        """
        stands_for_RS = np.where(mask_RS, np.exp(-np.maximum(log_q_RS, LEAST_LOG_Q)), 0).astype(np.float32)
        finite_R = np.isfinite(x_RSX).all((1, 2)) & np.isfinite(stands_for_RS).all(1)
        self.refused += int((~finite_R).sum())
        proposed_R = (x_RSX[:, 0, Feature.from_vector : Feature.from_fresh + 1] > 0).any(1)
        keep = np.flatnonzero(finite_R & proposed_R & mask_RS[:, 0] & (mask_RS.sum(1) > 1))
        for rows in _steps(keep, self.settings.step_rows):
            x_RSx = torch.from_numpy(x_RSX[rows].astype(np.float32))
            weight_RS = torch.from_numpy(stands_for_RS[rows])
            self._widen_moments(x_RSx, weight_RS)
            self._learn_choice(x_RSx, torch.from_numpy(item_RS[rows]), weight_RS)
        return self.listwise()

    def _learn_choice(self, x_RSX: Tensor, item_RS: Tensor, weight_RS: Tensor) -> None:
        logit_RS = self.model.next_logits(x_RSX, self.model.normalised(x_RSX), item_RS, weight_RS)
        # log 0 = -inf leaves absent slots out of the softmax
        loss_R = -(logit_RS + weight_RS.log()).log_softmax(1)[:, 0]
        if not self._next.step(loss_R.mean()):
            self.refused += len(loss_R)
            return
        with torch.no_grad():
            plain_RS = torch.from_numpy(retrieval_logits(x_RSX.numpy()))
            rank_R, plain_R = _rank(logit_RS, weight_RS), _rank(plain_RS, weight_RS)
            figures = [loss_R, rank_R < 10, plain_R < 10, plain_R.log1p() - rank_R.log1p()]
            value_RM = torch.stack([figure.double() for figure in figures], 1).numpy()
        self.rows += len(loss_R)
        self._figures.add(value_RM, self.settings.horizon_rows)

    def learn_pointwise(
        self,
        x_RX: NDArray[np.floating],
        item_R: NDArray[np.int64],
        label_R: NDArray[np.bool_],
        head: Head,
        weight_R: NDArray[np.float32] | None = None,
        place_R: NDArray[np.integer] | None = None,
    ) -> NDArray[np.float32]:
        """Learn what became of R items that were really shown (an impression said so), in order.

        Rows with a non-finite number are refused and counted. `weight_R` defaults to 1, `place_R`, where in the slate
        an item stood, to 0, the first place. Returns what each row was predicted at, calibrated, before it was
        learned, NaN where it was refused; shape (R,).
        """
        weight_R = np.ones(len(x_RX), np.float32) if weight_R is None else weight_R
        places_R = np.zeros(len(x_RX), np.int64) if place_R is None else place_R.astype(np.int64)
        finite_R = np.isfinite(x_RX).all(1) & np.isfinite(weight_R)
        p_R = np.full(len(x_RX), np.nan, np.float32)
        self.refused += int((~finite_R).sum())
        for rows in _steps(np.flatnonzero(finite_R), self.settings.step_rows):
            x_R1X = torch.from_numpy(x_RX[rows].astype(np.float32))[:, None]
            if not self.rows:  # until candidates have come, what was shown sets the scale
                self._widen_moments(x_R1X, torch.ones(len(rows), 1))
            p_R[rows] = self._learn_outcome(x_R1X, item_R[rows], places_R[rows], label_R[rows], weight_R[rows], head)
        return p_R

    def _learn_outcome(
        self,
        x_R1X: Tensor,
        item_R: NDArray[np.int64],
        place_R: NDArray[np.int64],
        label_R: NDArray[np.bool_],
        weight_R: NDArray[np.float32],
        head: Head,
    ) -> NDArray[np.float32]:
        item_R1, place_R1 = torch.from_numpy(item_R)[:, None], torch.from_numpy(place_R)[:, None]
        logit_RO = self.model.outcome_logits(x_R1X, self.model.normalised(x_R1X), item_R1, place_R1)[:, 0]
        logit_R = logit_RO[:, OUTCOMES.index(head)]
        label = torch.from_numpy(label_R.astype(np.float32))
        loss_R = nn.functional.binary_cross_entropy_with_logits(logit_R, label, reduction="none")
        if not self._outcome.step((loss_R * torch.from_numpy(weight_R)).mean()):
            self.refused += len(loss_R)
            return np.full(len(loss_R), np.nan, np.float32)
        state = self._outcomes[head]
        shown_R = state.platt.learn(logit_R.detach().numpy(), label_R)
        p_R = shown_R.astype(np.float64).clip(1e-7, 1 - 1e-7)
        loss = -np.where(label_R, np.log(p_R), np.log1p(-p_R))
        state.rows += len(p_R)
        state.figures.add(np.stack([loss, p_R, label_R.astype(np.float64)], 1), self.settings.horizon_rows)
        return shown_R

    def _widen_moments(self, x_RSX: Tensor, weight_RS: Tensor) -> None:
        """Add candidates to the running mean and spread of each column, and fade them."""
        self._moments = widened(self._moments, x_RSX, weight_RS, self.settings.moment_rows)
        normalise(self._moments, self.model.centre_F, self.model.scale_F)

    def forget(self, item_G: NDArray[np.int64], kept_N: NDArray[np.int64]) -> None:
        """Leave nothing of single items that are gone, but for what they share with items that are kept."""
        buckets = self.model.buckets - 1
        rows = np.setdiff1d(item_G & buckets, kept_N & buckets)
        for tower, optimiser in ((self.model.next, self._next), (self.model.outcome, self._outcome)):
            optimiser.forget(rows, (tower.item.weight, tower.item_bias.weight))

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """What a snapshot carries and `Ranker.from_tensors` reads; copies."""
        return self._tensors(self.model.served())

    def _tensors(self, weights: Mapping[str, Tensor]) -> dict[str, NDArray[np.generic]]:
        platt_O2 = np.stack([self._outcomes[head].platt.state[:2] for head in OUTCOMES])
        tensors: dict[str, NDArray[np.generic]] = {"platt": platt_O2, "learned": np.array([self.learned], np.uint8)}
        tensors["standing"] = np.array([self.rows, self.settings.learned_rows, self.listwise().gain])
        for name, value in weights.items():
            tensors[f"model.{name}"] = value.numpy().copy()
        return tensors

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything needed to go on after a restart, optimiser included; copies."""
        state = self._tensors(self.model.state_dict())
        state["rows"] = np.array([self.rows, self.refused], np.int64)
        state["moments"] = self._moments.copy()
        state["figures"] = self._figures.state()
        for head, outcome in self._outcomes.items():
            state[f"{head}.platt"] = outcome.platt.state.copy()
            state[f"{head}.figures"] = np.append(outcome.figures.state(), outcome.rows)
        state.update(_prefixed("next.", self._next.state()))
        state.update(_prefixed("outcome.", self._outcome.state()))
        return state

    def restore(self, state: Tensors) -> None:
        """Go on from `state`; settings stay this trainer's.

        Raises:
            WeightsRefused: an entry is missing, misshapen or not finite; the trainer is unchanged.
        """
        model = load_model(state)
        blank = Trainer(shape_of(state), self.settings).state()
        state = {name: blank[name] for name in _LATER} | dict(state)
        state = {name: checked(state, name, have.shape) for name, have in blank.items()}
        self._take_model(model)
        self._next.restore(part_of(state, "next."))
        self._outcome.restore(part_of(state, "outcome."))
        self.rows, self.refused = (int(count) for count in state["rows"])
        self._moments = np.array(state["moments"])
        self._figures = Fading.of(state["figures"])
        for head, outcome in self._outcomes.items():
            outcome.platt.state = np.array(state[f"{head}.platt"])
            *figures, rows = state[f"{head}.figures"]
            outcome.figures, outcome.rows = Fading.of(np.array(figures)), int(rows)


def _steps(rows: NDArray[np.int64], size: int) -> Iterable[NDArray[np.int64]]:
    return (rows[at : at + size] for at in range(0, len(rows), size))


def _rank(logit_RS: Tensor, weight_RS: Tensor) -> Tensor:
    """Estimated place of slot 0 in the whole set: the candidates ahead, each counted for those it stands for."""
    ahead = (logit_RS[:, 1:] > logit_RS[:, :1]) + 0.5 * (logit_RS[:, 1:] == logit_RS[:, :1])
    rank_R: Tensor = (ahead * weight_RS[:, 1:]).sum(1)
    return rank_R


def _prefixed(prefix: str, state: Tensors) -> dict[str, NDArray[np.generic]]:
    return {prefix + name: array for name, array in state.items()}
