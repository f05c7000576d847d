"""Booked beyond what comes: which line items share the same opportunities, and how much of each will be delivered.

What is compared is what is certain: numbers booked, flights, a number of opportunities a day. Line items of one
targeting compete for the same ones; those of another may overlap with them or not, which nobody can say without a log,
so that more may be oversold than this finds.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ranking.ads.campaigns import GoalKind, LineItem, Status
from ranking.ads.pacing import DAY_MS, ENDLESS_MS

_SLOTS = (GoalKind.impressions, GoalKind.viewable, GoalKind.completed)


class Shortage(NamedTuple):
    """Days on which more is booked than there are opportunities.

    Attributes:
        line_items: who shares them.
        from_ms, until_ms: from when to when.
        booked: impressions in that time; `opportunities` that come.
        delivered: which part of it will be delivered, of each in proportion.
        said: all of it in words.
    """

    line_items: tuple[str, ...]
    from_ms: int
    until_ms: int
    booked: int
    opportunities: int
    delivered: float
    said: str


def oversold(lines: Sequence[LineItem], per_day: int, now_ms: int) -> Iterator[Shortage]:
    """Where line items of the same targeting and priority have booked more than comes, the longest stretches of it.

    A booked number counts evenly over all flights; views and completed views count as one impression each, which is the
    least that they take. Clicks, conversions and shares say nothing of how many they take.

    Args:
        lines: of all campaigns.
        per_day: slots a day that line items of one targeting may have.
        now_ms: what is over is over.
    """
    alike: dict[tuple[object, int], list[LineItem]] = defaultdict(list)
    for line in lines:
        if line.status is Status.active and line.goal.kind in _SLOTS and line.ends_ms > now_ms:
            alike[line.targeting, line.priority].append(line)
    for some in alike.values():
        yield from _shortages(some, per_day, now_ms)


def _shortages(lines: Sequence[LineItem], per_day: int, now_ms: int) -> Iterator[Shortage]:
    edges = sorted({max(edge, now_ms) for line in lines for flight in line.flights for edge in flight})
    short: tuple[int, int, tuple[LineItem, ...]] | None = None
    for begin, end in itertools.pairwise(edges):
        there = tuple(line for line in lines if any(a <= begin < b for a, b in line.flights))
        if sum(map(_per_day, there)) > per_day:
            if short is not None and short[1] == begin and short[2] == there:
                short = short[0], end, there
                continue
            if short is not None:
                yield _said(*short, per_day)
            short = begin, end, there
    if short is not None:
        yield _said(*short, per_day)


def _per_day(line: LineItem) -> float:
    if line.goal.daily:
        return line.goal.quantity
    length_ms = sum(min(end - begin, ENDLESS_MS) for begin, end in line.flights)
    return line.goal.quantity * DAY_MS / max(length_ms, 1)


def _said(begin: int, end: int, there: tuple[LineItem, ...], per_day: int) -> Shortage:
    days = (end - begin) / DAY_MS
    booked, comes = round(sum(map(_per_day, there)) * days), round(per_day * days)
    share = min(comes / max(booked, 1), 1.0)
    names = tuple(line.key for line in there)
    said = (
        f"{', '.join(names)}: {booked:,} booked of {comes:,} opportunities in {days:,.1f} days; "
        f"each will deliver about {share:.0%} of that"
    )
    return Shortage(names, begin, end, booked, comes, share, said)
