"""What a line item's record comes to for whoever sells and paces it: limits, curve, hours, and what it is billed by.

>>> from ranking.ads.campaigns import BidType, Goal, Status, Type
>>> line = LineItem(
...     key="c/l", id="l", campaign_id="c", advertiser="a", type=Type.standard, priority=8, status=Status.active,
...     bid_type=BidType.cpm, bid_micros=0, currency="EUR", time_zone="UTC",
...     goal=Goal(kind=GoalKind.clicks, quantity=9),
... )
>>> limits(line), BILLED_BY[billed_by(line)], COUNTED[counted(line)]
((-1, -1, 9, -1), 'impression', 'clicks')
"""

from collections.abc import Callable
from functools import reduce
from typing import TypeAlias

from ranking.ads.campaigns import BidType, Delivery, GoalKind, LineItem, Type
from ranking.ads.dayparts import HOURS
from ranking.ads.pacing import FRONT_LOADED, UNLIMITED
from ranking.ads.predicates import And, DayPart, Not, Or, Predicate

BILLED_BY = ("impression", "viewable", "click", "complete", "conversion")
"""The events that money is owed for."""
COUNTED = ("impressions", "viewable", "clicks", "complete", "conversions")
"""What goals are counted in, in the order of `BILLED_BY` and the words of the spend ledger's counts."""
_BILLED = {BidType.cpc: 2, BidType.cpcv: 3, BidType.cpa: 4}
_COUNTED = {GoalKind.viewable: 1, GoalKind.clicks: 2, GoalKind.completed: 3, GoalKind.conversions: 4}
ALL_HOURS = (1 << HOURS) - 1
LAST_TIER = 1_000
Hours: TypeAlias = DayPart | And | Or | Not
"""A predicate of day-parts alone."""


def tier(line: LineItem) -> int:
    """Whom it is served after: lower is first. Priority, then type in order of service; the house after everybody."""
    return (LAST_TIER if line.type is Type.house else 0) + 8 * line.priority + line.type


def billed_by(line: LineItem) -> int:
    """Which of `BILLED_BY` its bid is owed for; of a bid per thousand, the viewable ones where those were booked."""
    viewable = line.bid_type is BidType.cpm and line.goal.kind is GoalKind.viewable
    return 1 if viewable else _BILLED.get(line.bid_type, 0)


def counted(line: LineItem) -> int:
    """Which of `COUNTED` its goal is in; impressions where it is in none."""
    return _COUNTED.get(line.goal.kind, 0)


def limits(line: LineItem) -> tuple[int, int, int, int]:
    """What may bind it, as `pacing.Limit` orders them: micros of its currency in all and a day, and so a number.

    A goal in money is a budget; of two the smaller one holds.
    """
    goal = line.goal
    money = goal.quantity if goal.kind is GoalKind.money else UNLIMITED
    number = UNLIMITED if goal.kind in (GoalKind.none, GoalKind.money, GoalKind.share) else goal.quantity
    return (
        least(line.budget_micros, UNLIMITED if goal.daily else money),
        least(line.daily_budget_micros, money if goal.daily else UNLIMITED),
        UNLIMITED if goal.daily else number,
        number if goal.daily else UNLIMITED,
    )


def least(*limits: int | None) -> int:
    """The smallest of some limits, None and `UNLIMITED` being none.

    >>> least(None, 5, UNLIMITED, 3), least(None)
    (3, -1)
    """
    return min((limit for limit in limits if limit is not None and limit >= 0), default=UNLIMITED)


def curve(line: LineItem) -> tuple[float, ...]:
    """Shares of equal parts of a flight, which sum to 1."""
    if line.delivery is Delivery.custom and line.curve:
        return line.curve
    return FRONT_LOADED if line.delivery is Delivery.front_loaded else (1.0,)


def share(line: LineItem) -> int:
    """Percent of its opportunities that were booked, 0 where no share was."""
    return line.goal.quantity if line.goal.kind is GoalKind.share else 0


def hours_asked(predicate: Predicate) -> Hours | None:
    """What of a predicate day-parts alone decide, for all who match it; None where that is nothing."""
    match predicate:
        case DayPart():
            return predicate
        case And(parts):
            some = tuple(asked for part in parts if (asked := hours_asked(part)) is not None)
            return And(some) if some else None
        case Or(parts):
            each = tuple(hours_asked(part) for part in parts)
            return Or(tuple(asked for asked in each if asked is not None)) if each and None not in each else None
        case Not(DayPart()):
            return predicate
        case _:
            return None


def open_hours(hours: Hours, offset_min: Callable[[str], int]) -> int:
    """Hours of the week by UTC in which day-parts hold: bit h is hour h, Monday's first is 0.

    A part of people's own clocks counts as one of the zone that stands for them; a half hour belongs to the hour in
    which it begins.

    Args:
        hours: day-parts.
        offset_min: minutes of a zone's clock ahead of UTC, now.
    """
    match hours:
        case DayPart(bits, zone):
            shift = offset_min(zone or "UTC") // 60 % HOURS
            return (bits >> shift | bits << (HOURS - shift)) & ALL_HOURS
        case And(parts):
            return reduce(int.__and__, (open_hours(part, offset_min) for part in parts), ALL_HOURS)  # type: ignore[arg-type]
        case Or(parts):
            return reduce(int.__or__, (open_hours(part, offset_min) for part in parts), 0)  # type: ignore[arg-type]
        case Not(part):
            return ALL_HOURS & ~open_hours(part, offset_min)  # type: ignore[arg-type]
