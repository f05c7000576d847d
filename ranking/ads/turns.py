"""Booked beyond what there is: line items of one tier take turns, each in proportion to what it still needs.

A line item with a booked number needs a share of all its coming chances: what is left of the number over what comes
until the end (the serving rate of Bharadwaj et al., "SHALE", 2012, and its predecessor HWM). While the shares of those
who compete for a place are no more than it has slots, price decides, and pacing makes good who lost. Where they are
more, the highest bid would have everything and the others nothing, so who comes first is drawn by need.
"""

import numpy as np
from numpy.typing import NDArray

from ranking.ads.pacing import Limit, Pace, Plans
from ranking.ads.traffic import Traffic
from ranking.jit import kernel

_COUNT = [Limit.lifetime_count, Limit.day_count]
_TURNS = 1 << 20
_NEVER = np.inf


def needs(
    plans: Plans, traffic: Traffic, pace: Pace, spent_LG: NDArray[np.int64], yield_L: NDArray[np.float64], now_ms: int
) -> NDArray[np.float64]:
    """The share of its chances until the end that each line item needs for its booked number. Shape (L,).

    Above 1: it cannot be had. 0 where no number is booked, nothing is left of it, or no chance has come yet. Of a
    number for life and one a day it is the one that needs less, for that one binds.

    Args:
        plans: what was promised.
        traffic: what is expected to come.
        pace: what came lately beside it.
        spent_LG: what counts against the limits.
        yield_L: how much of a number one win is, such as a click-through rate.
        now_ms: the moment.
    """
    target_LU = plans.targets()[:, _COUNT]
    end_LU = plans.windows(now_ms)[1][:, _COUNT]
    hours_L1 = plans.hours_L[:, None]
    coming_LU = traffic.until(end_LU, hours_L1) - traffic.until(np.array(now_ms), hours_L1)
    came_L = np.where(pace.traffic_L > 0, pace.chances_L / np.maximum(pace.traffic_L, 1e-12), 0.0)
    chances_LU = came_L[:, None] * coming_LU * np.maximum(yield_L, 1e-6)[:, None]
    left_LU = np.maximum(target_LU - spent_LG[:, _COUNT], 0)
    need_LU = np.where(target_LU >= 0, left_LU / np.maximum(chances_LU, 1.0), _NEVER)
    need_L = need_LU.min(1)
    return np.where(np.isfinite(need_L) & (came_L > 0), need_L, 0.0)


def crowded(
    start_P1: NDArray[np.int64], slots_P: NDArray[np.int64], tier_M: NDArray[np.int64], need_M: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The needs of candidates whose tier needs more of their place than it has slots; 0 for all others. Shape (M,)."""
    kept_M = np.zeros(len(tier_M))
    _crowded(start_P1, slots_P, tier_M, need_M, kept_M)
    return kept_M


def in_turn(tier_M: NDArray[np.int64], need_M: NDArray[np.float64], draw_M: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Tiers, divided where it is crowded so that who comes first there is drawn in proportion to need. Shape (M,).

    Each waits for -log(u) / need (an exponential race), and whoever waits less is of an earlier tier, by the logarithm
    to 10^-4; who needs nothing comes last. The order between tiers stays, as does all within one that is not crowded.

    Args:
        tier_M: lower is served first, from 0.
        need_M: what `crowded` says.
        draw_M: uniform numbers, by request and line item.
    """
    if not need_M.any():
        return tier_M
    u_M = ((draw_M >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    wait_M = np.log(-np.log(u_M)) - np.log(np.maximum(need_M, 1e-12))
    turn_M = np.where(need_M > 0, np.clip((wait_M + 50) * 1e4, 1, _TURNS - 2).astype(np.int64), _TURNS - 1)
    crowd = np.unique(tier_M[need_M > 0])
    return tier_M * _TURNS + np.where(np.isin(tier_M, crowd), turn_M, 0)


def yielded(
    start_P1: NDArray[np.int64],
    slots_P: NDArray[np.int64],
    tier_M: NDArray[np.int64],
    need_M: NDArray[np.float64],
    bid_M: NDArray[np.int64],
) -> NDArray[np.int64]:
    """What a candidate of a crowd pays at least: the best bid that yields to it, at most its own. 0 else. Shape (M,).

    So what is short does not get cheaper for being shared. Where a place has slots for all of a crowd nobody yields.

    Args:
        start_P1: where the candidates of each place begin.
        slots_P: slots of each place.
        tier_M: as they were before they were divided.
        need_M: what `crowded` said.
        bid_M: micros per impression.
    """
    least_M = np.zeros(len(tier_M), np.int64)
    if need_M.any():
        _yielded(start_P1, slots_P, tier_M, need_M, bid_M, least_M)
    return least_M


@kernel
def _yielded(
    start_P1: NDArray[np.int64],
    slots_P: NDArray[np.int64],
    tier_M: NDArray[np.int64],
    need_M: NDArray[np.float64],
    bid_M: NDArray[np.int64],
    least_M: NDArray[np.int64],
) -> None:
    tiers = tier_M.max() + 1
    most_T2, many_T = np.zeros((tiers, 2), np.int64), np.zeros(tiers, np.int64)
    for p in range(len(start_P1) - 1):
        for m in range(start_P1[p], start_P1[p + 1]):
            if need_M[m] > 0:
                t, bid = tier_M[m], bid_M[m]
                many_T[t] += 1
                if bid > most_T2[t, 0]:
                    most_T2[t, 0], most_T2[t, 1] = bid, most_T2[t, 0]
                else:
                    most_T2[t, 1] = max(most_T2[t, 1], bid)
        for m in range(start_P1[p], start_P1[p + 1]):
            t = tier_M[m]
            if need_M[m] > 0 and many_T[t] > slots_P[p]:
                best = most_T2[t, 1] if bid_M[m] == most_T2[t, 0] else most_T2[t, 0]
                least_M[m] = min(bid_M[m], best)
        for m in range(start_P1[p], start_P1[p + 1]):
            most_T2[tier_M[m]] = 0
            many_T[tier_M[m]] = 0


@kernel
def _crowded(
    start_P1: NDArray[np.int64],
    slots_P: NDArray[np.int64],
    tier_M: NDArray[np.int64],
    need_M: NDArray[np.float64],
    kept_M: NDArray[np.float64],
) -> None:
    tiers = tier_M.max() + 1 if len(tier_M) else 0
    needed_T, many_T = np.zeros(tiers), np.zeros(tiers, np.int64)
    for p in range(len(start_P1) - 1):
        for m in range(start_P1[p], start_P1[p + 1]):
            needed_T[tier_M[m]] += need_M[m]
            many_T[tier_M[m]] += need_M[m] > 0
        for m in range(start_P1[p], start_P1[p + 1]):
            if many_T[tier_M[m]] > 1 and needed_T[tier_M[m]] > slots_P[p]:
                kept_M[m] = need_M[m]
        for m in range(start_P1[p], start_P1[p + 1]):
            needed_T[tier_M[m]], many_T[tier_M[m]] = 0.0, 0
