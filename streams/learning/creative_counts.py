"""How creatives did lately and whom they suit, by number; counts fade by event time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ranking.ads.features import OUTCOMES
from ranking.ads.heads import PRIOR_RATES, smoothed
from ranking.ads.prediction import UNKNOWN
from ranking.jit import kernel

Arrays = Mapping[str, NDArray[np.generic]]
_MOST = 1 << 16
_LEAST = 0.25
"""Who was shown less than this lately is told no more."""
_HORIZON = 100_000.0
"""Rates of all creatives together fade with so many impressions."""
_TRUST = 4.0
"""What a creative is taken to suit: a normal prior of this precision in each direction of taste."""


class Numbers:
    """Numbers for names, from 0 in the order they came, at most `most`; 0 is no name."""

    def __init__(self, most: int) -> None:
        """Know none."""
        self.most = most
        self._of: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._of)

    def of(self, name_R: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
        """The numbers of R names, `UNKNOWN` where there is no name or no room."""
        known, at_R = np.unique(name_R, return_inverse=True)
        number = np.full(len(known), UNKNOWN, np.int64)
        for at, name in enumerate(known.tolist()):
            if name and (name in self._of or len(self._of) < self.most):
                number[at] = self._of.setdefault(name, len(self._of))
        return number[at_R]

    def names(self) -> NDArray[np.uint64]:
        """All names by number."""
        return np.fromiter(self._of, np.uint64, len(self._of))

    def restore(self, names: NDArray[np.generic]) -> None:
        """Know these, in their order."""
        self._of = {int(name): at for at, name in enumerate(names.tolist())}


@dataclass(slots=True)
class CreativeCounts:
    """Impressions and what came of them, by creative; mutable, one owner.

    Attributes:
        half_life_s: of counts, in event time.
        total_O2: events and impressions of all creatives by outcome, of the latest.
    """

    half_life_s: float
    total_O2: NDArray[np.float64] = field(default_factory=lambda: np.zeros((len(OUTCOMES), 2)))
    _numbers: Numbers = field(default_factory=lambda: Numbers(_MOST))
    _count_GX: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, len(OUTCOMES) + 1)))
    _clock_s_G: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _suits_GD: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    _evidence_G: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def number(self, item_C: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The numbers of creatives by id; half of all give way, the least shown, where there is no room."""
        if len(self._numbers) + len(item_C) > _MOST:
            self._keep(np.argsort(-self._count_GX[: len(self._numbers), -1], kind="stable")[: _MOST // 2])
        number_C = self._numbers.of(item_C)
        missing = len(self._numbers) - len(self._clock_s_G)
        if missing > 0:
            missing = max(missing, len(self._clock_s_G))
            self._count_GX = np.concatenate((self._count_GX, np.zeros((missing, len(OUTCOMES) + 1))))
            self._clock_s_G = np.append(self._clock_s_G, np.zeros(missing, np.int64))
            self._suits_GD = np.concatenate((self._suits_GD, np.zeros((missing, self._suits_GD.shape[1]), np.float32)))
            self._evidence_G = np.append(self._evidence_G, np.zeros(missing))
        return number_C

    def _keep(self, number_K: NDArray[np.intp]) -> None:
        names = self._numbers.names()[number_K]
        self._numbers.restore(names)
        self._count_GX, self._clock_s_G = self._count_GX[number_K], self._clock_s_G[number_K]
        self._suits_GD, self._evidence_G = self._suits_GD[number_K], self._evidence_G[number_K]

    def count(
        self,
        number_C: NDArray[np.int64],
        label_CO: NDArray[np.bool_],
        weight_CO: NDArray[np.floating],
        time_s_C: NDArray[np.int64],
    ) -> None:
        """Count C impressions; one without any weight is no impression, but what came of one that was counted."""
        shown_C = (weight_CO > 0).any(1).astype(np.float64)
        value_CX = np.c_[label_CO, shown_C]
        known = np.flatnonzero(number_C >= 0)
        counted = self._count_GX, self._clock_s_G, number_C[known], value_CX[known], time_s_C[known]
        _count(*counted, self.half_life_s)
        self.total_O2 *= np.exp(-shown_C.sum() / _HORIZON)
        self.total_O2 += np.stack([label_CO.sum(0), weight_CO.sum(0)], 1)

    def suit(
        self,
        number_C: NDArray[np.int64],
        taste_CD: NDArray[np.float32],
        logit_C: NDArray[np.float64],
        label_C: NDArray[np.bool_],
    ) -> None:
        """Learn whom creatives suit: by how much a direction of taste lifts the log-odds above `logit_C`.

        One Newton step a row of a logistic regression for each creative, the curvature taken to be the same in all
        directions.
        """
        if self._suits_GD.shape[1] != taste_CD.shape[1] and len(taste_CD):
            self._suits_GD = np.zeros((len(self._clock_s_G), taste_CD.shape[1]), np.float32)
            self._evidence_G[:] = 0
        known = np.flatnonzero(number_C >= 0)
        rows = number_C[known], taste_CD[known], logit_C[known], label_C[known].astype(np.float64)
        _suit(self._suits_GD, self._evidence_G, *rows, _TRUST)

    def columns(
        self, number_C: NDArray[np.int64], taste_CD: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """What is known of C creatives by now, as columns have it: log rates (C, O), log(1 + shown), whom they suit."""
        at_C = np.maximum(number_C, 0)
        count_CX = self._count_GX[at_C] * (number_C >= 0)[:, None]
        suits_CD = self._suits_GD[at_C] if self._suits_GD.shape[1] == taste_CD.shape[1] else np.zeros_like(taste_CD)
        fit_C = np.einsum("cd,cd->c", suits_CD, taste_CD) * (number_C >= 0)
        rate_CO = smoothed(count_CX[:, :-1], count_CX[:, -1], self.rates())
        return rate_CO, np.log1p(count_CX[:, -1]).astype(np.float32), fit_C.astype(np.float32)

    def rates(self) -> NDArray[np.float64]:
        """Of all creatives together, begun at `PRIOR_RATES` with one event. Shape (O,)."""
        event_O, shown_O = self.total_O2.T
        rate_O: NDArray[np.float64] = (event_O + 1) / (shown_O + 1 / np.array(PRIOR_RATES))
        return rate_O

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """What serving is told of those that were shown lately, as of the latest event."""
        held = len(self._numbers)
        age_s_G = self._clock_s_G[:held].max(initial=0) - self._clock_s_G[:held]
        count_GX = self._count_GX[:held] * np.exp2(-age_s_G / self.half_life_s)[:, None]
        told = np.flatnonzero(count_GX[:, -1] >= _LEAST)
        return {
            "creative": self._numbers.names()[told],
            "count": count_GX[told, :-1].astype(np.float32),
            "shown": count_GX[told, -1].astype(np.float32),
            "learned": self._suits_GD[:held][told],
            "rate": self.rates(),
        }

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything needed to go on; copies."""
        held = len(self._numbers)
        return {
            "names": self._numbers.names(),
            "count": self._count_GX[:held].copy(),
            "clock_s": self._clock_s_G[:held].copy(),
            "suits": self._suits_GD[:held].copy(),
            "evidence": self._evidence_G[:held].copy(),
            "total": self.total_O2.copy(),
        }

    def restore(self, state: Arrays) -> None:
        """Go on from a `state`."""
        self._numbers.restore(state["names"])
        self._count_GX, self._clock_s_G = np.array(state["count"], np.float64), np.array(state["clock_s"], np.int64)
        self._suits_GD, self._evidence_G = np.array(state["suits"], np.float32), np.array(state["evidence"], np.float64)
        self.total_O2 = np.array(state["total"], np.float64)


@kernel
def _count(
    count_GX: NDArray[np.float64],
    clock_s_G: NDArray[np.int64],
    number_C: NDArray[np.int64],
    value_CX: NDArray[np.float64],
    time_s_C: NDArray[np.int64],
    half_life_s: float,
) -> None:
    for c in range(len(number_C)):
        g = number_C[c]
        passed_s = time_s_C[c] - clock_s_G[g]
        if passed_s > 0:
            count_GX[g] *= np.exp2(-passed_s / half_life_s)
            clock_s_G[g] = time_s_C[c]
        count_GX[g] += value_CX[c] * np.exp2(min(passed_s, 0) / half_life_s)


@kernel
def _suit(
    suits_GD: NDArray[np.float32],
    evidence_G: NDArray[np.float64],
    number_C: NDArray[np.int64],
    taste_CD: NDArray[np.float32],
    logit_C: NDArray[np.float64],
    label_C: NDArray[np.float64],
    trust: float,
) -> None:
    for c in range(len(number_C)):
        g, fit = number_C[c], 0.0
        for d in range(taste_CD.shape[1]):
            fit += suits_GD[g, d] * taste_CD[c, d]
        p = 1 / (1 + np.exp(-min(max(logit_C[c] + fit, -30.0), 30.0)))
        step = (label_C[c] - p) / (trust + evidence_G[g])
        evidence_G[g] += p * (1 - p)
        for d in range(taste_CD.shape[1]):
            suits_GD[g, d] += np.float32(step * taste_CD[c, d])
