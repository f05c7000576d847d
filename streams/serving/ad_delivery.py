"""What line items are to have delivered by now, for those who look: the promise beside what the ledger counted."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ranking.ads.campaigns import GoalKind, LineItem
from ranking.ads.pacing import Limit, Plans
from ranking.ads.traffic import Traffic

MONEY = "money"
#: What the ledger calls what a goal counts.
COUNT_OF: Mapping[str, str] = {
    GoalKind.impressions.name: "impressions",
    GoalKind.viewable.name: "viewable",
    GoalKind.completed.name: "complete",
    GoalKind.clicks.name: "clicks",
    GoalKind.conversions.name: "conversions",
}
_DAILY = {Limit.day_micros, Limit.day_count}
_MONEY = {Limit.lifetime_micros, Limit.day_micros}


class Promise(NamedTuple):
    """A limit of a line item: what it is in (`money`, or a kind of goal), per what, how much, and how much by now."""

    goal: str
    per: str
    target: int
    expected: float


class Promised(Protocol):
    """Line items with what was promised for them, row by row: a `Market` is one."""

    @property
    def lines(self) -> Sequence[LineItem | None]:
        """L line items; None where a row is free."""

    @property
    def plans(self) -> Plans:
        """Their plans."""


def promises_of(market: Promised, traffic: Traffic, now_ms: int) -> dict[str, tuple[Promise, ...]]:
    """Everything that binds each line item, by its key; nothing of those that have no limit.

    Nothing of anybody where the curve does not know the hours of these line items yet.

    Args:
        market: line items and plans.
        traffic: the curve that budgets follow.
        now_ms: event time.
    """
    if market.plans.hours_L.max(initial=0) >= len(traffic.open_CH):
        return {}
    target_LG = market.plans.targets()
    due_LG = market.plans.due(traffic, now_ms, np.full(target_LG.shape, now_ms))
    found: dict[str, list[Promise]] = {}
    for row, column in zip(*(place.tolist() for place in np.nonzero(target_LG >= 0)), strict=True):
        line = market.lines[row] if row < len(market.lines) else None
        if line is None:
            continue
        limit = Limit(column)
        goal = MONEY if limit in _MONEY else line.goal.kind.name
        per = "day" if limit in _DAILY else "lifetime"
        promise = Promise(goal, per, int(target_LG[row, column]), float(due_LG[row, column]))
        found.setdefault(line.key, []).append(promise)
    return {key: tuple(several) for key, several in found.items()}
