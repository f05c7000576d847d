"""What line items are to have delivered by now."""

from dataclasses import dataclass, replace

import numpy as np

from ranking.ads.campaigns import LineItem
from ranking.ads.pacing import Plans
from ranking.ads.traffic import Traffic
from streams.serving.ad_delivery import Promise, promises_of
from tests.streams.adverts import DAY_MS, a_line
from tests.streams.builders import NOW_MS


@dataclass
class Market:
    lines: list[LineItem | None]
    plans: Plans


def plans(*limits: tuple[int, int, int, int]) -> Plans:
    lines, ones = len(limits), np.ones(len(limits), np.int64)
    start = NOW_MS // DAY_MS * DAY_MS
    return Plans(
        start_ms_L=ones * start,
        end_ms_L=ones * (start + 4 * DAY_MS),
        limit_LG=np.array(limits),
        curve_LK=np.ones((lines, 1)),
        parts_L=ones,
        asap_L=np.zeros(lines, np.bool_),
        over_percent_L=0 * ones,
        offset_ms_L=0 * ones,
        hours_L=0 * ones,
    )


def test_each_limit_is_a_promise_with_what_is_due_of_it() -> None:
    booked = a_line(type="standard", goal={"kind": "clicks", "quantity": 400}, flight_until=NOW_MS + 9 * DAY_MS)
    market = Market([None, booked, a_line()], plans((8, 8, 8, 8), (-1, 100, 400, -1), (-1, -1, -1, -1)))
    noon = NOW_MS // DAY_MS * DAY_MS + DAY_MS * 3 // 2
    assert promises_of(market, Traffic(), noon) == {
        "c/l": (Promise("money", "day", 100, 50.0), Promise("clicks", "lifetime", 400, 150.0)),
    }


def test_a_curve_that_does_not_know_the_hours_of_new_line_items_promises_nothing() -> None:
    market = Market([a_line()], replace(plans((-1, 100, -1, -1)), hours_L=np.ones(1, np.int64)))
    assert promises_of(market, Traffic(), NOW_MS) == {}
