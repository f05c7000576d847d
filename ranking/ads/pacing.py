"""How much of a budget is due by now, who may bid how often, and until which sum before the ledger is asked again.

All of it is pure arithmetic over columns of L line items: `Plans` say what was promised, a `Tick` what happened since
the last one, a `Pace` what holds until the next. Amounts are whole: micros of money, or a number of impressions, views
or clicks.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ranking.ads.traffic import HOUR_MS, Traffic

UNLIMITED = -1
DAY_MS = 24 * HOUR_MS
ENDLESS_MS = 3_650 * DAY_MS
"""A flight as long as this has no date by which anything is due."""
FRONT_LOADED = (0.625, 0.375)
"""Shares of the two halves of a flight: a quarter ahead of even at half-time, as Google Ad Manager has it."""


class Limit(IntEnum):
    """What may bind a line item; columns of `Plans.limit_LG`, G of them."""

    lifetime_micros = 0
    day_micros = 1
    lifetime_count = 2
    day_count = 3


_UNIT_G = np.array([0, 0, 1, 1])  # which of micros and count each limit is in
_DAY_G = np.array([False, True, False, True])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """What was promised for L line items. Times are event time in ms; a limit is `UNLIMITED` or a whole amount from 0.

    `curve_LK` are shares of equal parts of the flight, in order, rows that sum to 1 and are padded with zeros;
    `parts_L` is how many: 1 is even. Within a part delivery follows traffic. Days are those of `offset_ms_L` against
    UTC; one that the flight only touches has the whole daily budget in the hours that are left of it.
    """

    start_ms_L: NDArray[np.int64]
    end_ms_L: NDArray[np.int64]
    limit_LG: NDArray[np.int64]
    curve_LK: NDArray[np.float64]
    parts_L: NDArray[np.int64]
    asap_L: NDArray[np.bool_]
    over_percent_L: NDArray[np.int64]
    """Intended over-delivery of counts; money is never meant to be exceeded."""
    offset_ms_L: NDArray[np.int64]
    hours_L: NDArray[np.int64]
    """Which of `Traffic.open_CH` a line item's day-parts are: its budget is due in those hours. 0 is all hours."""

    def targets(self) -> NDArray[np.int64]:
        """Limits with intended over-delivery, `UNLIMITED` as it is. Shape (L, G)."""
        extra_LG = self.limit_LG * (self.over_percent_L[:, None] * (_UNIT_G == 1)) // 100
        return np.where(self.limit_LG < 0, UNLIMITED, self.limit_LG + extra_LG)

    def targets_of(self, row: int) -> list[int]:
        """The targets of one line item, whole whatever their size. G of them."""
        percents = (100 + int(self.over_percent_L[row]) * _UNIT_G).tolist()
        both = zip(self.limit_LG[row].tolist(), percents, strict=True)
        return [limit * percent // 100 if limit >= 0 else UNLIMITED for limit, percent in both]

    def windows(self, now_ms: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """From when to when each limit runs: the flight, or the part of today that lies in it. Two of shape (L, G)."""
        today_L = (now_ms + self.offset_ms_L) // DAY_MS * DAY_MS - self.offset_ms_L
        start_L, end_L = self.start_ms_L, np.minimum(self.end_ms_L, self.start_ms_L + ENDLESS_MS)
        begin_LG = np.where(_DAY_G, np.maximum(today_L, start_L)[:, None], start_L[:, None])
        day_end_L = np.minimum(today_L + DAY_MS, self.end_ms_L)
        return begin_LG, np.where(_DAY_G, day_end_L[:, None], end_L[:, None])

    def due(self, traffic: Traffic, now_ms: int, at_ms_LG: NDArray[np.int64]) -> NDArray[np.float64]:
        """How much of each target should have been delivered by a moment of its window. Shape (L, G); 0 if unlimited.

        Everything, for a line item that is to be delivered as soon as possible and whose flight has begun; of a flight
        without an end, all but what is due by day.
        """
        begin_LG, end_LG = self.windows(now_ms)
        parts_LG = np.where(_DAY_G, 1, self.parts_L[:, None])
        length_LG = np.maximum(end_LG - begin_LG, 1)
        part_LG = np.clip((at_ms_LG - begin_LG) * parts_LG // length_LG, 0, parts_LG - 1)
        from_LG = begin_LG + length_LG * part_LG // parts_LG
        to_LG = begin_LG + length_LG * (part_LG + 1) // parts_LG
        rows = np.arange(len(parts_LG))[:, None]
        share_LG = np.where(_DAY_G, 1.0, self.curve_LK[rows, part_LG])
        before_LG = np.where(_DAY_G, 0.0, (np.cumsum(self.curve_LK, 1) - self.curve_LK)[rows, part_LG])
        done_LG = before_LG + share_LG * traffic.share(from_LG, to_LG, at_ms_LG, self.hours_L[:, None])
        begun_LG = (at_ms_LG >= begin_LG) & (end_LG > begin_LG)
        endless_LG = length_LG >= ENDLESS_MS
        done_LG = np.where(self.asap_L[:, None] | endless_LG, 1.0, np.minimum(done_LG, 1.0))
        return np.where(begun_LG, done_LG, 0.0) * np.maximum(self.targets(), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What happened to L line items since the last tick, and the sums so far.

    `chances_L` counts requests in which a line item could have bid, `passed_L` those in which pacing let it;
    `gained_LU` is what came of these, micros and count. `spent_LG` is what counts against each limit, reservations
    included. `ledger_age_ms` is how old those sums are.
    """

    now_ms: int
    before_ms: int
    chances_L: NDArray[np.float64]
    passed_L: NDArray[np.float64]
    gained_LU: NDArray[np.float64]
    spent_LG: NDArray[np.int64]
    ledger_age_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What holds until the next tick, and what was learned on the way.

    `pass_L` is the share of chances in which a line item may bid. It bids while its sums are below `allowed_LG`, which
    is never above the targets: so ten impressions are spread over a day as ten million are. The rest is what was
    learned and fades: what came, what was let through, what it brought.
    """

    pass_L: NDArray[np.float64]
    allowed_LG: NDArray[np.int64]
    traffic_L: NDArray[np.float64]
    chances_L: NDArray[np.float64]
    passed_L: NDArray[np.float64]
    gained_LU: NDArray[np.float64]

    @classmethod
    def fresh(cls, lines: int) -> "Pace":
        """Of line items that have done nothing yet: they may not bid before the first tick."""
        nothing_L = np.zeros(lines)
        return cls(
            pass_L=nothing_L,
            allowed_LG=np.zeros((lines, len(Limit)), np.int64),
            traffic_L=nothing_L,
            chances_L=nothing_L,
            passed_L=nothing_L,
            gained_LU=np.zeros((lines, 2)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingSettings:
    """How far ahead pacing looks, how it starts, and when it stops trusting its own sums.

    A tick allows what is due within a `horizon_parts`-th of what the limit runs for, at most `horizon_ms` and at least
    two ticks. `slow_start` is the pass rate while a line item's yield is unknown; from there it grows by at most
    `growth` a tick. Sums older than `dead_man_ms` stop selling.
    """

    horizon_ms: int = HOUR_MS
    horizon_parts: int = 24
    slow_start: float = 0.05
    growth: float = 2.0
    band: float = 0.1
    dead_man_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class System:
    """A way to pace: by a learned or a linear target, and how a line item that is ahead of it is held back.

    `none` never holds back; `hard` stops whoever is ahead; `soft` lets through less, from all at `band` behind to
    nothing at `band` ahead; `look_ahead` is ours.
    """

    learned: bool
    throttle: str


SYSTEMS = {
    "none": System(False, "none"),
    "linear-hard": System(False, "hard"),
    "linear-soft": System(False, "soft"),
    "learned-hard": System(True, "hard"),
    "learned-soft": System(True, "soft"),
    "marquee": System(True, "look_ahead"),
}
"""Ours, and the five of Yahoo's open pacing simulator to measure it by."""


def pace(
    plans: Plans,
    traffic: Traffic,
    tick: Tick,
    last: Pace,
    settings: PacingSettings | None = None,
    system: System = SYSTEMS["marquee"],
) -> Pace:
    """What holds until the next tick; pure. A line item outside its flight may not bid.

    Where the ledger's sums are too old nobody may spend anything more, and what was learned stays as it was.
    """
    settings = settings or PacingSettings()
    if tick.ledger_age_ms > settings.dead_man_ms:
        allowed_LG = np.minimum(last.allowed_LG, tick.spent_LG)
        return replace(last, pass_L=np.zeros_like(last.pass_L), allowed_LG=allowed_LG)
    curve = traffic if system.learned else Traffic(offset_ms=traffic.offset_ms, open_CH=traffic.open_CH)
    target_LG = plans.targets()
    bound_LG = target_LG >= 0
    flying_L = (plans.start_ms_L <= tick.now_ms) & (tick.now_ms < plans.end_ms_L)
    now_LG = np.full(target_LG.shape, tick.now_ms)
    all_LG = np.where(bound_LG, target_LG, np.iinfo(np.int64).max)
    if system.throttle == "look_ahead":
        last = _learned(plans, traffic, tick, last, settings)
        pass_L, due_LG = _look_ahead(plans, curve, tick, last, settings)
        all_LG = np.where(bound_LG, np.minimum(np.ceil(due_LG).astype(np.int64), target_LG), all_LG)
    elif system.throttle == "none":
        pass_L = np.ones(len(flying_L))
    else:
        due_LG = plans.due(curve, tick.now_ms, now_LG)
        ahead_LG = tick.spent_LG / np.maximum(due_LG, 1e-9) - 1
        soft_LG = np.clip(0.5 - 0.5 * ahead_LG / settings.band, 0.0, 1.0)
        free_LG = np.where(bound_LG, soft_LG if system.throttle == "soft" else ahead_LG < 0, 1.0)
        pass_L = np.where(plans.asap_L, 1.0, free_LG.min(1))
    open_L = flying_L & (~bound_LG | (tick.spent_LG < all_LG)).all(1)
    allowed_LG = np.where(flying_L[:, None], all_LG, tick.spent_LG)
    return replace(last, pass_L=np.where(open_L, pass_L, 0.0), allowed_LG=allowed_LG)


def _horizons(plans: Plans, tick: Tick, settings: PacingSettings) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How far each limit looks ahead, in ms, and the moment at which that ends. Two of shape (L, G)."""
    begin_LG, end_LG = plans.windows(tick.now_ms)
    wide_LG = np.minimum((end_LG - begin_LG) // settings.horizon_parts, settings.horizon_ms)
    ahead_LG = np.maximum(wide_LG, 2 * max(tick.now_ms - tick.before_ms, 1))
    return ahead_LG, np.minimum(tick.now_ms + ahead_LG, end_LG)


def _learned(plans: Plans, traffic: Traffic, tick: Tick, last: Pace, settings: PacingSettings) -> Pace:
    """What came lately beside what the curve foresaw, and what passing brought.

    The first fades by half in a quarter of a horizon: chances are many, and a curve that is wrong is wrong now. The
    second in two horizons: of ten impressions a day there is one in hours.
    """
    ahead_L = _horizons(plans, tick, settings)[0].min(1)
    passed_horizons_L = (tick.now_ms - tick.before_ms) / np.maximum(ahead_L, 1)
    lately_L, kept_L = 0.5 ** (passed_horizons_L / 0.25), 0.5 ** (passed_horizons_L / 2)
    hours_L = plans.hours_L
    foreseen_L = traffic.until(np.array(tick.now_ms), hours_L) - traffic.until(np.array(tick.before_ms), hours_L)
    return replace(
        last,
        traffic_L=last.traffic_L * lately_L + foreseen_L,
        chances_L=last.chances_L * lately_L + tick.chances_L,
        passed_L=last.passed_L * kept_L + tick.passed_L,
        gained_LU=last.gained_LU * kept_L[:, None] + tick.gained_LU,
    )


def _look_ahead(
    plans: Plans, traffic: Traffic, tick: Tick, last: Pace, settings: PacingSettings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The pass rate that has everybody on plan at the horizon, and what is due then. Shapes (L,) and (L, G).

    What is lacking, over what all chances until then would bring: those that the curve foresees, corrected by how many
    came lately, times what one that was let through has brought lately. So a forecast that is wrong by a factor, a win
    rate or a price that moves, a budget that is raised are made good within a horizon. The last two ticks are not
    counted on: the last impression of ten would come to an end without a winner once in three times.
    """
    horizon_LG = _horizons(plans, tick, settings)[1]
    spare_LG = plans.windows(tick.now_ms)[1] - 2 * (tick.now_ms - tick.before_ms)
    until_LG = np.maximum(np.minimum(horizon_LG, spare_LG), tick.now_ms)
    due_LG = plans.due(traffic, tick.now_ms, horizon_LG)
    lacking_LG = np.maximum(due_LG - tick.spent_LG, 0.0)
    came_L = np.where(last.traffic_L > 0, last.chances_L / np.maximum(last.traffic_L, 1e-12), 0.0)
    hours_L1 = plans.hours_L[:, None]
    coming_LG = traffic.until(until_LG, hours_L1) - traffic.until(np.array(tick.now_ms), hours_L1)
    each_LU = last.gained_LU / np.maximum(last.passed_L, 1e-12)[:, None]
    brings_LG = came_L[:, None] * coming_LG * each_LU[:, _UNIT_G]
    known_L = (last.passed_L > 0) & (last.gained_LU[:, 1] > 0) & (last.chances_L > 0)
    wanted_LG = np.where(plans.targets() >= 0, lacking_LG / np.maximum(brings_LG, 1e-12), 1.0)
    wanted_L = np.where(known_L, wanted_LG.min(1), 1.0)
    most_L = np.maximum(settings.slow_start, settings.growth * last.pass_L)
    return np.where(plans.asap_L, 1.0, np.minimum(np.minimum(wanted_L, most_L), 1.0)), due_LG


def indicator(plans: Plans, traffic: Traffic, now_ms: int, spent_LG: NDArray[np.int64]) -> NDArray[np.float64]:
    """Delivered over expected by now, of the limit that is furthest behind; NaN where nothing is due. Shape (L,).

    Below .9 or above 1.1 somebody should know.
    """
    due_LG = plans.due(traffic, now_ms, np.full(plans.limit_LG.shape, now_ms))
    ratio_LG = np.where(due_LG > 0, spent_LG / np.maximum(due_LG, 1e-12), np.inf)
    least_L = ratio_LG.min(1)
    return np.where(np.isfinite(least_L), least_L, np.nan)


def overspend_bound(*, workers: int, chunk: int, outstanding: int, lag_ms: int = 0, per_s: int = 0) -> int:
    """How far a budget can be exceeded at worst, in its own unit, rounded up: a formula that tests hold us to.

    workers x chunk + outstanding + lag x rate: every worker may have leased a chunk that nobody remembers, every
    reservation may be billed after its release, and a replica that takes over may lack what was written within the
    replication lag. A budget below one chunk is leased as a whole, so `chunk` is at most the budget.
    """
    return workers * chunk + outstanding + -(-lag_ms * per_s // 1000)
