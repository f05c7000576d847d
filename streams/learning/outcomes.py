"""What became of what was shown, for the pointwise heads: their rows, and whether what they say comes true.

What ranking chose to show says little of what it never shows. Where a share of places is filled by chance, what stands
there speaks for all that could have: an impression counts for one over the probability with which the item stood in its
place, at most `MOST_WEIGHT` (truncated importance sampling: Ionides 2008), over the mean of the latest
(self-normalised: Swaminathan & Joachims 2015). Where nothing was drawn by chance, that is 1. Calibration is that of
what is shown, and is not weighted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embeddings.contexts import keys_of
from ranking.trainer import Fading, Head, Trainer
from streams.contract.observations import Observation
from streams.learning.attribution import Attribution, Labelled
from streams.policies import with_built_in
from streams.settings import Settings

OTHER = "other"
"""Surfaces that the settings do not name, together: labels are bounded."""
_HORIZON = 5_000.0
MOST_WEIGHT = 2.0
"""More and the heads learn of too few impressions: `python -m benchmarks.exploration`."""


def surfaces_of(settings: Settings) -> tuple[str, ...]:
    """The surfaces that are told apart: that of slates nobody asked for, those that the settings name, all others."""
    slates = settings.slates
    named = slates.surface, *slates.repeat_surfaces, *with_built_in(settings.policies)
    return (*(name for name in dict.fromkeys(named) if name != OTHER), OTHER)


@dataclass(slots=True)
class Outcomes:
    """Attribution of rows to what was shown, and the heads' sums of what was predicted and of what came, by surface."""

    attribution: Attribution
    surfaces: tuple[str, ...] = (OTHER,)
    sums: dict[tuple[Head, str], Fading] = field(init=False, default_factory=dict)
    weights: Fading = field(init=False, default_factory=lambda: Fading(np.zeros(1)))
    """What the latest impressions counted for before they were divided by their mean."""
    _code_K: NDArray[np.int64] = field(init=False)
    _closed: NDArray[np.int64] = field(init=False, default_factory=lambda: np.zeros(3, np.int64))

    def __post_init__(self) -> None:
        self._code_K = np.full(1 << 16, self.surfaces.index(OTHER), np.int64)
        for code, surface in enumerate(self.surfaces):
            self._code_K[keys_of(surface, None, None, None)[0]] = code
        self._code_K[0] = 0  # nothing said: a slate that nobody asked for

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings say."""
        return cls(Attribution(window_s=settings.learner.attribution_s), surfaces_of(settings))

    def show(self, o: Observation) -> None:
        """Remember the slates that an observation tells."""
        self.attribution.shown.show(o.shown_L, o.shown_item_LN, o.shown_x_LNF, o.shown_propensity_LN)

    def learn(self, o: Observation, new_R: NDArray[np.bool_], trainer: Trainer) -> Labelled:
        """Teach the heads what the new rows of an observation make known; returns the impressions that it closed."""
        surface_R = np.zeros(len(o), np.int64)
        if o.context_RC.shape[1]:
            surface_R = self._code_K[o.context_RC[:, 0]]
        closed = self.attribution.happen(
            o.source,
            o.user_R[new_R],
            o.item_R[new_R],
            o.action_R[new_R],
            o.slate_R[new_R],
            o.slot_R[new_R],
            o.time_s_R[new_R],
            surface_R[new_R],
        )
        self._closed += (len(closed.item_C), int(closed.engaged_C.sum()), int(closed.completed_C.sum()))
        taught_T = closed.taught_T
        if len(taught_T):
            item_T = closed.item_C[taught_T].astype(np.int64)
            weight_T = self._weights(closed.propensity_T)
            for head, label_C in _labels(closed):
                p_T = trainer.learn_pointwise(closed.x_TF, item_T, label_C[taught_T], head, weight_T, closed.place_T)
                self._sum(head, closed.surface_T, p_T, label_C[taught_T])
        return closed

    def take_closed(self) -> tuple[int, int, int]:
        """How many windows closed since the last call, of how many answered impressions, and through to the end."""
        closed, engaged, completed = self._closed.tolist()
        self._closed[:] = 0
        return closed, engaged, completed

    def _weights(self, propensity_T: NDArray[np.float32]) -> NDArray[np.float32]:
        """How much each of T impressions counts."""
        weight_T = 1 / np.fmax(np.fmin(propensity_T.astype(np.float64), 1), 1 / MOST_WEIGHT)
        self.weights.add(weight_T[:, None], _HORIZON)
        return (weight_T / self.weights.means()[0]).astype(np.float32)

    def state(self) -> tuple[dict[str, NDArray[np.generic]], list[list[Any]]]:
        """What is open and what the latest counted for, to go on from: arrays, and partitions with their clocks."""
        arrays, clocks = self.attribution.state()
        return arrays | {"weights": self.weights.state()}, clocks

    def restore(self, arrays: Mapping[str, NDArray[np.generic]], clocks: list[list[Any]], features: int) -> None:
        """Go on from a `state`; earlier releases weighed nothing."""
        self.attribution.restore(arrays, clocks, features)
        if "weights" in arrays:
            self.weights = Fading.of(arrays["weights"])

    def _sum(
        self, head: Head, surface_T: NDArray[np.int64], p_T: NDArray[np.float32], label_T: NDArray[np.bool_]
    ) -> None:
        surface_T = np.minimum(surface_T, len(self.surfaces) - 1)  # of a checkpoint under other settings
        value_T2 = np.stack([p_T, label_T], 1).astype(np.float64)
        for code in np.unique(surface_T).tolist():
            mine_T = (surface_T == code) & np.isfinite(p_T)
            sums = self.sums.setdefault((head, self.surfaces[code]), Fading(np.zeros(2)))
            sums.add(value_T2[mine_T], _HORIZON)

    def calibration(self) -> dict[tuple[Head, str], float]:
        """By head and surface the sum of what was predicted over the sum of what came, of the latest rows.

        Only where something came.
        """
        sums = {which: fading.sum_M for which, fading in self.sums.items()}
        return {which: float(p / y) for which, (p, y) in sums.items() if y >= 0.5}


def _labels(closed: Labelled) -> tuple[tuple[Head, NDArray[np.bool_]], tuple[Head, NDArray[np.bool_]]]:
    return ("click", closed.engaged_C), ("complete", closed.completed_C)
