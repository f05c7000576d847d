"""What binds each line item at a moment: its own budget or its campaign's, of the flight it is in, by its clock."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.ads.dayparts import HOURS, offset_min
from ranking.ads.market import Market
from ranking.ads.pacing import ENDLESS_MS, Limit, Plans
from ranking.ads.terms import open_hours

_MONEY = [Limit.lifetime_micros, Limit.day_micros]
_LIFE = [Limit.lifetime_micros, Limit.lifetime_count]
_MINUTE_MS = 60_000


class Promises(NamedTuple):
    """Plans as they hold now.

    Attributes:
        plans: for pacing: limits of the flight that runs, or ran last.
        spent_LG: what counts against these limits: less what earlier flights were to deliver, so below 0 where they
            did not.
        base_LG: what these were to deliver.
        shared_L2: whether the campaign's budget binds and not the line item's own, of all and of today.
    """

    plans: Plans
    spent_LG: NDArray[np.int64]
    base_LG: NDArray[np.int64]
    shared_L2: NDArray[np.bool_]


def promises(market: Market, spent_LG: NDArray[np.int64], campaign_L2: NDArray[np.int64], now_ms: int) -> Promises:
    """What binds line items now.

    A campaign's budget is shared: where it binds, what all its line items spent counts against each of them. It binds
    where a line item has none of its own, or has more left of it than the campaign has.

    Args:
        market: what was promised.
        spent_LG: what counts against a line item's own limits.
        campaign_L2: micros that count against its campaign's, in all and today.
        now_ms: the moment, for flights and clocks.
    """
    limit_LG, spent_LG = market.plans.limit_LG.copy(), spent_LG.copy()
    own_L2, theirs_L2 = limit_LG[:, _MONEY], market.campaign_limit_L2
    fewer_L2 = theirs_L2 - campaign_L2 < own_L2 - spent_LG[:, _MONEY]
    shared_L2 = (theirs_L2 >= 0) & ((own_L2 < 0) | fewer_L2)
    limit_LG[:, _MONEY] = np.where(shared_L2, theirs_L2, own_L2)
    spent_LG[:, _MONEY] = np.where(shared_L2, campaign_L2, spent_LG[:, _MONEY])
    start_L, end_L, before_L, upto_L = _flights(market, now_ms)
    base_LG = np.zeros_like(limit_LG)
    life_LG = np.zeros(limit_LG.shape, np.bool_)
    life_LG[:, _LIFE] = limit_LG[:, _LIFE] >= 0
    whole_LG = np.where(life_LG, limit_LG, 0)
    early_LG = np.floor(whole_LG * before_L[:, None]).astype(np.int64)
    due_LG = np.where(upto_L[:, None] < 1, np.ceil(whole_LG * upto_L[:, None]).astype(np.int64), whole_LG)
    limit_LG = np.where(life_LG, due_LG - early_LG, limit_LG)
    over_LG = market.plans.over_percent_L[:, None] * np.array([0, 0, 1, 1])
    base_LG = early_LG * (100 + over_LG) // 100
    offset_Z = np.array([offset_min(now_ms, zone) for zone in market.zones], np.int64) * _MINUTE_MS
    plans = replace(
        market.plans, start_ms_L=start_L, end_ms_L=end_L, limit_LG=limit_LG, offset_ms_L=offset_Z[market.zone_L]
    )
    return Promises(plans, spent_LG - base_LG, base_LG, shared_L2)


def _flights(
    market: Market, now_ms: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Begin and end of the flight that began last (of the first before any has); how much of all lies before these.

    Parts of the time of all flights. Four of shape (L,).
    """
    first_L, last_L = market.house.flight_start_L1[:-1], market.house.flight_start_L1[1:]
    flight_F2 = np.concatenate((market.house.flight_F2, np.zeros((1, 2), np.int64)))
    long_F1 = np.minimum(flight_F2[:, 1] - flight_F2[:, 0], ENDLESS_MS)
    upto_F1 = np.concatenate(([0], np.cumsum(long_F1)))
    begun_F1 = np.concatenate(([0], np.cumsum(flight_F2[:, 0] <= now_ms)))
    at_L = first_L + np.maximum(begun_F1[last_L] - begun_F1[first_L] - 1, 0)
    empty_L = first_L == last_L
    whole_L = np.maximum(upto_F1[last_L] - upto_F1[first_L], 1)
    before_L, until_L = (upto_F1[at_L] - upto_F1[first_L]) / whole_L, (upto_F1[at_L + 1] - upto_F1[first_L]) / whole_L
    start_L, end_L = (np.where(empty_L, 0, flight_F2[at_L, n]) for n in (0, 1))
    return start_L, end_L, before_L, until_L


def open_CH(market: Market, now_ms: int) -> NDArray[np.float64]:
    """Hours of the week by UTC in which each choice of `market.hours` may serve, as clocks are now. Shape (C, 168)."""
    out_CH = np.ones((len(market.hours), HOURS))
    for choice, hours in enumerate(market.hours):
        if hours is not None:
            bits = open_hours(hours, lambda zone: offset_min(now_ms, zone))
            out_CH[choice] = [bits >> hour & 1 for hour in range(HOURS)]
    return out_CH
