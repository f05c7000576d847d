"""When people come: a curve over 24 hours of weekdays and weekends, learned from event times, that budgets follow.

>>> evening = np.repeat((np.arange(28) * 24 + 20) * HOUR_MS, 100)
>>> curve = Traffic().learn(evening, 28 * 24 * HOUR_MS)
>>> bool(curve.share(0, 24 * HOUR_MS, 18 * HOUR_MS) < 0.1), bool(curve.share(0, 24 * HOUR_MS, 22 * HOUR_MS) > 0.9)
(True, True)
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

HOUR_MS = 3_600_000
WEEK_H = 168
_MONDAY_H = 96  # 1970-01-05, a Monday, in hours
_KINDS = 48
_LEAST_SHARE = 1e-3  # of the mean hour: a plan for an hour that nobody came in is small, not nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What an hour of each kind brings: rows 0-23 are hours of a weekday, 24-47 of a Saturday or Sunday.

    A value; `learn` returns another. `chances_H` and `hours_H` count what came and how often such an hour was; both
    fade with `half_life_h` hours. Hours without anything count as seen. What falls into the hour that is still open
    waits in `waiting` until it closes, so that half an hour is never taken for a whole one. `offset_ms` is the house's
    clock against UTC. Nothing learned is a flat curve, which is linear time.

    `open_CH` are C choices of hours of the week, Monday's first: the share of each hour in which somebody may be
    served. There is one at least, all hours.
    """

    offset_ms: int = 0
    half_life_h: float = 21 * 24.0
    prior_hours: float = 1.0
    chances_H: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_KINDS))
    hours_H: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_KINDS))
    open_h: int | None = None
    waiting: float = 0.0
    open_CH: NDArray[np.float64] = field(default_factory=lambda: np.ones((1, WEEK_H)))
    up_to_CT: NDArray[np.float64] = field(init=False)
    """Chances in open hours from the beginning of Monday to that of each hour of the week, and to the week's end."""

    def __post_init__(self) -> None:
        week_H = self.hourly()[_kind(_MONDAY_H + np.arange(WEEK_H))]
        sums_CH = np.cumsum(week_H * self.open_CH, 1)
        object.__setattr__(self, "up_to_CT", np.concatenate((np.zeros((len(sums_CH), 1)), sums_CH), 1))

    def learn(self, time_ms_R: NDArray[np.int64], now_ms: int) -> "Traffic":
        """The curve after R more chances at these event times.

        `now_ms` is event time too: what is later comes from a wrong clock and is left out, as is what is older than ten
        half-lives (a log of years ago that is replayed says nothing of today). Late rows still count.
        """
        hour_R = (time_ms_R + self.offset_ms) // HOUR_MS
        now_h = (now_ms + self.offset_ms) // HOUR_MS
        hour_R = hour_R[(hour_R <= now_h) & (hour_R >= now_h - int(10 * self.half_life_h))]
        since_h = now_h if self.open_h is None else self.open_h
        if self.open_h is None and len(hour_R):
            since_h = max(int(hour_R.min()), now_h - int(10 * self.half_life_h))
        now_h = max(now_h, since_h)
        hour_N, count_N = np.unique(np.append(hour_R, since_h), return_counts=True)
        arrived_N = count_N - (hour_N == since_h) + np.where(hour_N == since_h, self.waiting, 0.0)
        closed_N = hour_N < now_h
        passed = np.arange(max(since_h, now_h - int(10 * self.half_life_h)), now_h)
        fade = 0.5 ** ((now_h - since_h) / self.half_life_h)
        chances_H, hours_H = self.chances_H * fade, self.hours_H * fade
        weight_N = 0.5 ** ((now_h - hour_N[closed_N]) / self.half_life_h)
        np.add.at(chances_H, _kind(hour_N[closed_N]), weight_N * arrived_N[closed_N])
        np.add.at(hours_H, _kind(passed), 0.5 ** ((now_h - passed) / self.half_life_h))
        waiting = float(arrived_N[~closed_N].sum())
        return replace(self, chances_H=chances_H, hours_H=hours_H, open_h=int(now_h), waiting=waiting)

    def hourly(self) -> NDArray[np.float64]:
        """Chances in an hour of each kind, smoothed; shape (48,), all 1 where nothing has been learned.

        A kind of hour that was seldom seen is drawn towards that hour of all days, and this towards the mean hour;
        neighbouring hours share a quarter each.
        """
        if not self.hours_H.sum() or not self.chances_H.sum():
            return np.ones(_KINDS)
        mean = self.chances_H.sum() / self.hours_H.sum()
        both_D, seen_D = self.chances_H.reshape(2, 24).sum(0), self.hours_H.reshape(2, 24).sum(0)
        daily_D = (both_D + self.prior_hours * mean) / (seen_D + self.prior_hours)
        prior_H = self.prior_hours * np.tile(daily_D, 2)
        rate_KD = ((self.chances_H + prior_H) / (self.hours_H + self.prior_hours)).reshape(2, 24)
        smooth_KD = (np.roll(rate_KD, 1, 1) + 2 * rate_KD + np.roll(rate_KD, -1, 1)) / 4
        return np.asarray(np.maximum(smooth_KD, _LEAST_SHARE * mean).ravel())

    def until(self, time_ms: NDArray[np.int64], choice: NDArray[np.int64] | int = 0) -> NDArray[np.float64]:
        """Chances expected from the beginning of time to each of these moments; any shape. For differences.

        `choice` is which of the C choices of open hours counts, of a shape that fits.
        """
        local_ms = np.asarray(time_ms) + self.offset_ms - _MONDAY_H * HOUR_MS
        hour, part_ms = local_ms // HOUR_MS, local_ms % HOUR_MS
        week, at = hour // WEEK_H, hour % WEEK_H
        begun, ended = self.up_to_CT[choice, at], self.up_to_CT[choice, at + 1]
        return np.asarray(week * self.up_to_CT[choice, -1] + begun + (ended - begun) * (part_ms / HOUR_MS))

    def share(
        self,
        start_ms: NDArray[np.int64] | int,
        end_ms: NDArray[np.int64] | int,
        at_ms: NDArray[np.int64] | int,
        choice: NDArray[np.int64] | int = 0,
    ) -> NDArray[np.float64]:
        """How much of the traffic between two moments has come by a third, 0 to 1. Shapes are broadcast.

        0 where none is expected between them.
        """
        begun = self.until(np.asarray(start_ms), choice)
        whole = np.maximum(self.until(np.asarray(end_ms), choice) - begun, 1e-12)
        return np.clip((self.until(np.asarray(at_ms), choice) - begun) / whole, 0.0, 1.0)


def _kind(hour_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of the curve for each hour since 1970, by the house's clock."""
    day_N = (hour_N - _MONDAY_H) // 24 % 7
    return hour_N % 24 + 24 * (day_N >= 5)
