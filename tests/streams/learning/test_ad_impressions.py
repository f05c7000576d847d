"""Which event is whose: decisions told, impressions, clicks, conversions late and too late."""

from typing import Any

import numpy as np
import pytest

from embeddings.events import Action, Source
from ranking.features import COLUMNS
from streams.contract.observations import Observation, blank
from streams.learning.ad_impressions import LATE_S, AdImpressions, Happened

SOURCE, WINDOW_S, CLICK_S, VIEW_S = Source("events", 0), 1_800, 7 * 86_400, 86_400
CLICK, COMPLETE, CONVERSION = range(3)


def told(*names: int, **more: Any) -> Observation:
    count = len(names)
    columns = blank(A=count, S=1, F=COLUMNS, D=4, O=3) | {
        "ad_A": np.array(names, np.uint64),
        "ad_item_A": np.array(names, np.uint64) + np.uint64(100),
        "ad_click_s_A": np.full(count, CLICK_S, np.int32),
        "ad_view_s_A": np.full(count, VIEW_S, np.int32),
    }
    return Observation(source=Source("requests", 0), first=0, last=0, **columns | more)


def happen(impressions: AdImpressions, *events: tuple[int, Action, int], source: Source = SOURCE) -> Happened:
    """Events as (decision, action, second)."""
    return impressions.happen(
        source,
        np.array([action for _, action, _ in events], np.uint8),
        np.array([name for name, _, _ in events], np.uint64),
        np.array([time_s for _, _, time_s in events]),
    )


def known(*names: int, window_s: int = WINDOW_S, **more: Any) -> AdImpressions:
    impressions = AdImpressions(window_s, **more)
    impressions.show(told(*names))
    return impressions


def later(impressions: AdImpressions, time_s: int) -> Happened:
    return happen(impressions, (0, Action.view, time_s))


def names(impressions: AdImpressions, happened: Happened) -> list[int]:
    found: list[int] = impressions.columns["name"][happened.closed_C].tolist()
    return found


def late(impressions: AdImpressions, happened: Happened) -> list[tuple[int, int]]:
    name_L = impressions.columns["name"][happened.late_L].tolist()
    return list(zip(name_L, happened.outcome_L.tolist(), strict=True))


def test_an_impression_waits_for_its_click() -> None:
    impressions = known(1, 2)
    happened = happen(impressions, (1, Action.ad_impression, 100), (2, Action.ad_impression, 110))
    assert not names(impressions, happened)
    happen(impressions, (2, Action.ad_click, 150))
    happened = later(impressions, 110 + WINDOW_S + 1)
    assert names(impressions, happened) == [1, 2]
    assert impressions.labels(happened.closed_C).tolist() == [[False] * 3, [True, False, False]]
    assert not names(impressions, later(impressions, 10**6)), "once"


def test_what_was_decided_and_not_shown_teaches_nothing() -> None:
    impressions = known(1)
    happen(impressions, (1, Action.ad_complete, 100), (1, Action.ad_conversion, 110))
    assert not names(impressions, later(impressions, 10**6))


def test_a_second_impression_is_none() -> None:
    impressions = known(1)
    happen(impressions, (1, Action.ad_impression, 100), (1, Action.ad_impression, 1_000))
    assert names(impressions, later(impressions, 101 + WINDOW_S)) == [1]
    assert not names(impressions, later(impressions, 10**6))


def test_events_may_come_before_the_decision_is_told() -> None:
    impressions = AdImpressions(WINDOW_S)
    happen(impressions, (5, Action.ad_impression, 100), (5, Action.ad_click, 101))
    impressions.show(told(5))
    happened = later(impressions, 101 + WINDOW_S)
    assert names(impressions, happened) == [5]
    assert impressions.labels(happened.closed_C).tolist() == [[True, False, False]]


def test_a_decision_told_again_stays_as_it_was() -> None:
    impressions = known(1)
    happen(impressions, (1, Action.ad_impression, 100), (1, Action.ad_click, 101))
    impressions.show(told(1, ad_item_A=np.array([9], np.uint64)))
    happened = later(impressions, 101 + WINDOW_S)
    assert impressions.columns["ad_item_A"][happened.closed_C].tolist() == [101]


def test_a_late_click_changes_what_was_learned() -> None:
    impressions = known(1, 2)
    happen(impressions, (1, Action.ad_impression, 100), (2, Action.ad_impression, 100))
    later(impressions, 10_000)
    assert late(impressions, happen(impressions, (1, Action.ad_click, 10_001))) == [(1, CLICK)]
    assert not late(impressions, happen(impressions, (1, Action.ad_click, 10_002))), "once"
    assert not late(impressions, happen(impressions, (2, Action.ad_click, 101 + LATE_S)))


@pytest.mark.parametrize(
    ("clicked_s", "converted_s", "counts"),
    [
        (None, 100 + VIEW_S, True),
        (None, 101 + VIEW_S, False),
        (500, 500 + CLICK_S, True),
        (500, 501 + CLICK_S, False),
    ],
)
def test_a_conversion_is_the_ads_within_its_windows(clicked_s: int | None, converted_s: int, counts: bool) -> None:
    impressions = known(1)
    happen(impressions, (1, Action.ad_impression, 100))
    if clicked_s:
        happen(impressions, (1, Action.ad_click, clicked_s))
    later(impressions, 10_000)
    happened = happen(impressions, (1, Action.ad_conversion, converted_s))
    assert late(impressions, happened) == ([(1, CONVERSION)] if counts else [])


def test_an_early_conversion_is_learned_as_a_late_one_is() -> None:
    impressions = known(1)
    happen(impressions, (1, Action.ad_impression, 100), (1, Action.ad_conversion, 200))
    happened = later(impressions, 101 + WINDOW_S)
    assert (names(impressions, happened), late(impressions, happened)) == ([1], [(1, CONVERSION)])


def test_partitions_have_clocks_of_their_own() -> None:
    impressions, other = known(1), Source("events", 1)
    happen(impressions, (1, Action.ad_impression, 100))
    assert not names(impressions, happen(impressions, (0, Action.view, 10**6), source=other))
    assert names(impressions, later(impressions, 10**6)) == [1]


def test_the_oldest_give_way_and_that_is_told() -> None:
    impressions = AdImpressions(WINDOW_S, most=4)
    impressions.show(told(*range(1, 5)))
    happen(impressions, (1, Action.ad_impression, 100), (4, Action.ad_impression, 100))
    impressions.show(told(5, 6))
    assert len(impressions) == 4
    assert impressions.dropped == 2
    assert names(impressions, later(impressions, 10**6)) == [4]


def test_there_is_room_for_more_than_at_first() -> None:
    many = list(range(1, 5_001))
    impressions = known(*many)
    happen(impressions, *[(name, Action.ad_impression, 100) for name in many])
    assert names(impressions, later(impressions, 10**6)) == many


def test_it_goes_on_as_it_was_after_a_restart() -> None:
    one, other = known(*range(1, 40), most=16), AdImpressions(WINDOW_S, most=16)
    happen(one, *[(name, Action.ad_impression, 100 + name) for name in range(28, 40)], (30, Action.ad_click, 150))
    arrays, clocks = one.state()
    other.restore({name: array.copy() for name, array in arrays.items()}, clocks)
    for impressions in (one, other):
        impressions.show(told(50, 51))
    mine, theirs = (
        happen(each, (51, Action.ad_impression, 9_999), (30, Action.ad_conversion, 99_999)) for each in (one, other)
    )
    assert names(one, mine) == names(other, theirs) != []
    assert late(one, mine) == late(other, theirs) == [(30, CONVERSION)]


def test_decisions_of_another_width_are_forgotten() -> None:
    impressions = known(1)
    impressions.show(told(2, ad_taste_AD=np.zeros((1, 8), np.float16)))
    happen(impressions, (1, Action.ad_impression, 100), (2, Action.ad_impression, 100))
    assert names(impressions, later(impressions, 10**6)) == [2]
