"""A day of chances for line items that are paced: draws who comes, who passes, who wins, what it costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from ranking.ads.pacing import DAY_MS, SYSTEMS, UNLIMITED, Pace, Plans, Tick, pace
from ranking.ads.traffic import HOUR_MS, Traffic

START_MS = 28 * DAY_MS
MINUTE_MS = 60_000
EVENING = np.array([3, 2, 1, 1, 1, 1, 2, 4, 6, 7, 7, 8, 9, 8, 7, 7, 8, 10, 13, 16, 18, 17, 12, 6])


def plans(
    lines: int = 1,
    *,
    hours: float = 24,
    start_ms: int = START_MS,
    micros: int = UNLIMITED,
    day_micros: int = UNLIMITED,
    count: int = UNLIMITED,
    day_count: int = UNLIMITED,
    curve: Sequence[float] = (1.0,),
    asap: bool = False,
    over_percent: int = 0,
) -> Plans:
    """Line items that are all alike."""
    return Plans(
        start_ms_L=np.full(lines, start_ms),
        end_ms_L=np.full(lines, start_ms + int(hours * HOUR_MS)),
        limit_LG=np.tile(np.array([micros, day_micros, count, day_count]), (lines, 1)),
        curve_LK=np.tile(np.array(curve, np.float64), (lines, 1)),
        parts_L=np.full(lines, len(curve)),
        asap_L=np.full(lines, asap),
        over_percent_L=np.full(lines, over_percent),
        offset_ms_L=np.zeros(lines, np.int64),
        hours_L=np.zeros(lines, np.int64),
    )


@cache
def learned() -> Traffic:
    """Four weeks of evenings."""
    times = [
        np.arange(n) * (HOUR_MS // n) + (day * 24 + hour) * HOUR_MS
        for day in range(28)
        for hour, n in enumerate((EVENING * 5).tolist())
    ]
    return Traffic().learn(np.concatenate(times), START_MS)


@dataclass
class Market:
    """`per_day` chances by the hours of `shape_H`; wins cost between half and one and a half of `price`."""

    per_day: float = 400_000
    shape_H: np.ndarray = field(default_factory=lambda: EVENING)
    win_rate: float = 0.3
    price: int = 5_000
    system: str = "marquee"
    traffic: Traffic = field(default_factory=learned)
    seed: int = 0
    tick_ms: int = 5 * MINUTE_MS

    def run(self, plan: Plans, edit: Callable[[int, Plans], Plans] = lambda now_ms, plan: plan) -> "Run":
        """The whole flight in ticks; `edit` may change the plans at any of them."""
        draw, lines = np.random.default_rng(self.seed), len(plan.start_ms_L)
        begin, end = int(plan.start_ms_L.min()), int(plan.end_ms_L.max())
        share_H = self.shape_H / self.shape_H.sum()
        state, spent_LG = Pace.fresh(lines), np.zeros((lines, 4), np.int64)
        chances_L, passed_L, gained_LU = np.zeros(lines), np.zeros(lines), np.zeros((lines, 2))
        history: list[np.ndarray] = []
        for now in range(begin, end, self.tick_ms):
            plan = edit(now, plan)
            if now % DAY_MS == 0:
                spent_LG[:, [1, 3]] = 0
            tick = Tick(
                now_ms=now,
                before_ms=now - self.tick_ms,
                chances_L=chances_L,
                passed_L=passed_L,
                gained_LU=gained_LU,
                spent_LG=spent_LG.copy(),
            )
            state = pace(plan, self.traffic, tick, state, system=SYSTEMS[self.system])
            came = self.per_day * share_H[now // HOUR_MS % 24] * self.tick_ms / HOUR_MS
            open_L = self.traffic.open_CH[plan.hours_L, (now // HOUR_MS - 96) % 168]
            chances_L = draw.poisson(came * open_L).astype(float)
            passed_L = draw.binomial(chances_L.astype(int), state.pass_L).astype(float)
            gained_LU = np.zeros((lines, 2))
            for line, wins in enumerate(draw.binomial(passed_L.astype(int), self.win_rate)):
                sold = self._sell(draw, wins, state.allowed_LG[line], plan.targets()[line], spent_LG[line])
                if len(sold) < wins:
                    passed_L[line] *= len(sold) / wins
                gained_LU[line] = sold.sum(), len(sold)
                spent_LG[line] += np.array([sold.sum(), sold.sum(), len(sold), len(sold)], np.int64)
            history.append(spent_LG.copy())
        return Run(plan, spent_LG, np.array(history))

    def _sell(
        self, draw: np.random.Generator, wins: int, allowed_G: np.ndarray, target_G: np.ndarray, spent_G: np.ndarray
    ) -> np.ndarray:
        """Prices of what may be sold: while sums are below what is allowed, and never above a target."""
        micros_W = draw.integers(self.price // 2, self.price * 3 // 2, wins)
        sum_W, left_G = np.cumsum(micros_W), np.where(target_G >= 0, target_G - spent_G, 1 << 60)
        room_G = np.minimum(allowed_G - spent_G, left_G)
        fits_W = (sum_W - micros_W < min(room_G[0], room_G[1])) & (np.arange(wins) < min(room_G[2], room_G[3]))
        fits_W &= sum_W <= min(left_G[0], left_G[1])
        return micros_W[: wins if fits_W.all() else int(fits_W.argmin())]


@dataclass
class Run:
    """What was spent of each limit, at the end and tick by tick."""

    plan: Plans
    spent_LG: np.ndarray
    history_TLG: np.ndarray

    def error(self, limit: int) -> float:
        """The largest distance from a target, as a share of it."""
        target_L = self.plan.targets()[:, limit]
        return float(np.abs(self.spent_LG[:, limit] / target_L - 1).max())

    def by(self, part: float, limit: int) -> float:
        """The mean share of a target that was delivered by a part of the flight."""
        at = max(int(len(self.history_TLG) * part) - 1, 0)
        return float((self.history_TLG[at, :, limit] / self.plan.targets()[:, limit]).mean())


def edited(plan: Plans, **columns: np.ndarray) -> Plans:
    """Plans with other columns."""
    return replace(plan, **columns)
