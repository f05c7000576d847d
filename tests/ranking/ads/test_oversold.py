"""Who books more than comes is told before launch: by how much, when, and with whom it is shared."""

from typing import Any

import pytest

from ranking.ads.campaigns import Goal, GoalKind, LineItem, Status, Type
from ranking.ads.oversold import oversold
from ranking.ads.pacing import DAY_MS
from ranking.ads.predicates import DayPart
from tests.ranking.ads.houses import a_line

DAY = 10


def booked(name: str, quantity: int, first: int, last: int, **fields: Any) -> LineItem:
    goal = Goal(kind=fields.pop("kind", GoalKind.impressions), quantity=quantity, daily=fields.pop("daily", False))
    flights = ((first * DAY_MS, last * DAY_MS),)
    return a_line(name, type=Type.standard, priority=8, goal=goal, flights=flights, **fields)


def test_what_is_booked_within_what_comes_is_no_shortage() -> None:
    assert not list(oversold([booked("a", 500, DAY, DAY + 1), booked("b", 500, DAY, DAY + 1)], 1_000, DAY * DAY_MS))


def test_a_shortage_says_when_and_who_and_how_much_will_be_delivered() -> None:
    lines = [booked("a", 8_000, DAY, DAY + 8), booked("b", 1_000, DAY + 2, DAY + 4), booked("c", 100, DAY, DAY + 8)]
    (short,) = oversold(lines, 1_200, DAY * DAY_MS)
    assert short.line_items == ("c/a", "c/b", "c/c")
    assert (short.from_ms, short.until_ms) == ((DAY + 2) * DAY_MS, (DAY + 4) * DAY_MS)
    assert (short.booked, short.opportunities) == (3_025, 2_400)
    assert short.delivered == pytest.approx(2_400 / 3_025)
    assert (
        short.said
        == "c/a, c/b, c/c: 3,025 booked of 2,400 opportunities in 2.0 days; each will deliver about 79% of that"
    )


def test_one_alone_can_be_too_much_and_a_number_a_day_is_one() -> None:
    (short,) = oversold([booked("a", 1_500, DAY, DAY + 3, daily=True)], 1_000, (DAY + 1) * DAY_MS)
    assert (short.booked, short.opportunities) == (3_000, 2_000)


@pytest.mark.parametrize(
    "fields", [{"kind": GoalKind.clicks}, {"status": Status.paused}, {"targeting": DayPart(1, "UTC", fixed=True)}]
)
def test_what_does_not_compete_for_the_same_or_books_no_impressions_is_not_counted(fields: dict[str, Any]) -> None:
    lines = [booked("a", 800, DAY, DAY + 1), booked("b", 800, DAY, DAY + 1, **fields)]
    assert not list(oversold(lines, 1_000, DAY * DAY_MS))


def test_what_is_over_is_over() -> None:
    assert not list(oversold([booked("a", 5_000, DAY, DAY + 1)], 1_000, (DAY + 1) * DAY_MS))
