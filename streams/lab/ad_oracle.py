"""Which budgets can be delivered at all, by one who knows who will come: what others take first is gone.

In order of service, and of bids, every line item looks at the requests that are left to it: those it is for, in its
flight, with a slot free and a floor below its bid, no more of a person than its cap allows. It is deliverable where
these come to one and a half times what was booked, each counted with the chance that an ad is shown, and at a price
half way between its floor and the bid. Then it takes what it needs, evenly, and the next one looks.
"""

import numpy as np
from numpy.typing import NDArray

from ranking.ads.currencies import Currencies
from streams.lab.ad_audience import SHOW_RATE
from streams.lab.ad_bookings import CLICK_RATE, Booked
from streams.lab.ad_world import AdWorld

ENOUGH = 1.5


def deliverable(world: AdWorld, rates: Currencies, currency: str) -> dict[str, bool]:
    """Of every line item with a budget or a quantity: could it be delivered?"""
    free_R = world.slots_R.copy()
    found: dict[str, bool] = {}
    for line in sorted(world.lines, key=lambda one: (one.rank, -one.bid)):
        if line.unit == "":
            continue
        at = np.flatnonzero(world.matching(line) & (free_R > 0) & (_floor_R(world, line) <= line.bid))
        if line.cap:
            at = at[_within_cap(world, line, at)]
        if line.unit == "percent":
            free_R[_evenly(at, line.amount / 100)] -= 1
            continue
        supply = float(_brings(world, line, rates, currency)[at].sum())
        found[line.key] = supply >= ENOUGH * line.amount
        free_R[_evenly(at, line.amount / max(supply, 1e-9))] -= 1
    return found


def _floor_R(world: AdWorld, line: Booked) -> NDArray[np.int64]:
    """A deal has a price of its own, and nothing else counts."""
    return np.zeros_like(world.floor_R) if line.deal else world.floor_R


def _brings(world: AdWorld, line: Booked, rates: Currencies, currency: str) -> NDArray[np.float64]:
    """What a slot of each request brings, in the unit of what was booked. Shape (R,)."""
    if line.unit == "impressions":
        return np.full(len(world.time_ms_R), SHOW_RATE)
    price_R = np.full(len(world.floor_R), line.bid * 8 // 10) if line.deal else (world.floor_R + line.bid) // 2
    if line.click:
        price_R = (price_R * world.click_UC[world.user_R, line.category] / CLICK_RATE).astype(np.int64)
    return SHOW_RATE * rates.convert(price_R, currency, line.currency).astype(np.float64)


def _within_cap(world: AdWorld, line: Booked, at: NDArray[np.intp]) -> NDArray[np.bool_]:
    """The first few requests of each person in each window."""
    assert line.cap is not None
    windows = world.time_ms_R[at] // (1000 * line.cap.window_s)
    _, group = np.unique(np.column_stack((world.user_R[at], windows)), axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    sizes = np.bincount(group.ravel())
    place = np.empty(len(at), np.int64)
    place[order] = np.arange(len(at)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return place < line.cap.count


def _evenly(at: NDArray[np.intp], share: float) -> NDArray[np.intp]:
    many = round(len(at) * min(share, 1.0))
    return at[np.linspace(0, len(at) - 1, many).astype(np.intp)] if many else at[:0]
