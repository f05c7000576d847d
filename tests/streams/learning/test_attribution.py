from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.events import Action, Source
from streams.learning.attribution import Attribution, Labelled
from tests.fuzzing import thorough

SLATE, OTHER = 700, 701
HERE, THERE = Source("events", 0), Source("events", 1)
ITEMS = (11, 12, 13)


class Did(NamedTuple):
    """One event of one person."""

    time_s: int
    action: Action
    item: int = 12
    user: int = 1
    slate: int = SLATE
    slot: int = -1
    surface: int = 0


@pytest.fixture
def attribution() -> Attribution:
    """Labels after 100 seconds; one slate of three items is known, features 0, 1, 2."""
    attribution = Attribution(window_s=100)
    show(attribution, SLATE)
    return attribution


def show(attribution: Attribution, slate: int) -> None:
    x_LNF = np.arange(3, dtype=np.float16).reshape(1, 3, 1)
    propensity_LN = np.array([[1, 0.5, 0.25]], np.float16)
    attribution.shown.show(np.array([slate], np.uint64), np.array([ITEMS], np.uint64), x_LNF, propensity_LN)


def happen(attribution: Attribution, *events: Did, source: Source = HERE) -> Labelled:
    columns = [np.array(column) for column in zip(*events, strict=True)]
    time_s, action, item, user, slate, slot, surface = columns
    user_R, item_R, slate_R = (column.astype(np.uint64) for column in (user, item, slate))
    return attribution.happen(source, user_R, item_R, action.astype(np.uint8), slate_R, slot, time_s, surface)


def labels(labelled: Labelled) -> list[tuple[int, float, bool, bool]]:
    """Item, feature, engaged, completed, of those that teach."""
    columns = labelled.item_C, labelled.engaged_C, labelled.completed_C
    items, engaged, completed = (column[labelled.taught_T].tolist() for column in columns)
    return list(zip(items, labelled.x_TF.ravel().tolist(), engaged, completed, strict=True))


def counted(labelled: Labelled) -> list[tuple[int, int, bool]]:
    """Item, when it was shown, answered."""
    return list(zip(labelled.item_C.tolist(), labelled.shown_s_C.tolist(), labelled.engaged_C.tolist(), strict=True))


def later(attribution: Attribution) -> list[tuple[int, float, bool, bool]]:
    """What is labelled once everything is over."""
    return labels(happen(attribution, Did(10_000, Action.view)))


def test_an_impression_nobody_followed_up_is_a_negative_example(attribution: Attribution) -> None:
    assert len(happen(attribution, Did(0, Action.impression)).item_C) == 0
    assert later(attribution) == [(12, 1.0, False, False)]


@pytest.mark.parametrize("action", [Action.click, Action.play, Action.like, Action.add, Action.purchase])
def test_what_follows_within_the_window_is_engagement(attribution: Attribution, action: Action) -> None:
    happen(attribution, Did(0, Action.impression), Did(100, action))
    assert later(attribution) == [(12, 1.0, True, False)]


def test_watching_to_the_end_is_both(attribution: Attribution) -> None:
    happen(attribution, Did(0, Action.impression), Did(5, Action.play), Did(99, Action.complete))
    assert later(attribution) == [(12, 1.0, True, True)]


@pytest.mark.parametrize(
    "event",
    [
        Did(101, Action.click),
        Did(50, Action.click, item=11),
        Did(50, Action.click, user=2),
        Did(50, Action.skip),
        Did(50, Action.view),
    ],
)
def test_what_is_late_or_of_somebody_or_something_else_is_none(attribution: Attribution, event: Did) -> None:
    now = happen(attribution, Did(0, Action.impression), event)
    assert labels(now) + later(attribution) == [(12, 1.0, False, False)]


def test_labels_come_when_the_window_has_closed_in_event_time(attribution: Attribution) -> None:
    happen(attribution, Did(0, Action.impression), Did(50, Action.click))
    assert len(happen(attribution, Did(100, Action.view)).item_C) == 0
    assert happen(attribution, Did(101, Action.view)).item_C.tolist() == [12]
    assert later(attribution) == []


def test_a_slate_that_was_published_and_not_seen_teaches_nothing(attribution: Attribution) -> None:
    happen(attribution, Did(0, Action.play), Did(1, Action.complete))
    assert later(attribution) == []


@pytest.mark.parametrize("strange", [Did(0, Action.impression, slate=OTHER), Did(0, Action.impression, item=14)])
def test_an_impression_of_an_unknown_slate_or_item_teaches_nothing(attribution: Attribution, strange: Did) -> None:
    happen(attribution, strange)
    assert later(attribution) == []


def test_an_impression_told_twice_counts_once(attribution: Attribution) -> None:
    happen(attribution, Did(0, Action.impression), Did(10, Action.impression), Did(20, Action.click))
    assert later(attribution) == [(12, 1.0, True, False)]


def test_the_oldest_slates_are_forgotten_and_that_is_told() -> None:
    attribution = Attribution(window_s=100, slates=2)
    for slate in (SLATE, OTHER, 702):
        show(attribution, slate)
    happen(attribution, Did(0, Action.impression), Did(0, Action.impression, user=2, slate=OTHER))
    assert len(later(attribution)) == 1
    assert attribution.take_dropped() == {"slates": 1, "impressions": 0}
    assert attribution.take_dropped() == {"slates": 0, "impressions": 0}


def test_a_slate_that_is_told_again_pushes_no_other_out() -> None:
    attribution = Attribution(window_s=100, slates=2)
    for slate in (SLATE, OTHER, OTHER, SLATE):
        show(attribution, slate)
    assert attribution.shown.dropped == 0


def test_an_impression_too_many_is_not_taken_up_and_none_is_closed_early() -> None:
    """Closed early it would be a label that is wrong: who was shown it may yet come."""
    attribution = Attribution(window_s=100, impressions=3)
    show(attribution, SLATE)
    assert len(happen(attribution, *(Did(0, Action.impression, user=user) for user in range(10))).item_C) == 0
    happen(attribution, Did(99, Action.click, user=0))
    assert later(attribution) == [(12, 1.0, user == 0, False) for user in range(3)]
    assert attribution.dropped == 7
    happen(attribution, Did(10_001, Action.impression))
    assert attribution.dropped == 7, "there is room again"


@pytest.mark.slow
def test_fifty_thousand_open_impressions_close_when_it_is_time() -> None:
    attribution = Attribution(window_s=100)
    show(attribution, SLATE)
    assert len(happen(attribution, *(Did(0, Action.impression, user=user) for user in range(60_000))).item_C) == 0
    assert len(happen(attribution, Did(101, Action.view)).taught_T) == 60_000
    assert attribution.dropped == 0


def test_a_partition_that_is_ahead_closes_nothing_of_another(attribution: Attribution) -> None:
    """They are read one after the other after a standstill: one is at its end while the other is hours behind."""
    happen(attribution, Did(0, Action.impression))
    assert len(happen(attribution, Did(50_000, Action.view, user=2), source=THERE).item_C) == 0
    happen(attribution, Did(60, Action.play))
    assert later(attribution) == [(12, 1.0, True, False)]


@pytest.mark.parametrize("named", [{"item": 0, "slot": 1}, {"item": 12, "slot": 2}, {"item": 12, "slot": -1}])
def test_an_impression_by_slate_and_slot_is_of_the_item_shown_there(
    attribution: Attribution, named: dict[str, int]
) -> None:
    happen(attribution, Did(0, Action.impression, **named))
    assert later(attribution) == [(12, 1.0, False, False)], "an item that is named is believed before a slot"


@pytest.mark.parametrize("named", [{"slot": 3}, {"slot": -1}, {"slot": 1, "slate": OTHER}])
def test_a_slot_that_nothing_is_known_of_says_nothing(attribution: Attribution, named: dict[str, int]) -> None:
    happen(attribution, Did(0, Action.impression, **{"item": 0, **named}))
    assert counted(happen(attribution, Did(10_000, Action.view))) == []


def test_a_click_by_slate_and_slot_answers_too(attribution: Attribution) -> None:
    happen(attribution, Did(0, Action.impression), Did(9, Action.click, item=0, slot=1))
    assert later(attribution) == [(12, 1.0, True, False)]


def test_where_it_stood_and_was_shown_is_told(attribution: Attribution) -> None:
    happen(attribution, Did(0, Action.impression, item=13, surface=4))
    closed = happen(attribution, Did(10_000, Action.view))
    assert (closed.place_T.tolist(), closed.surface_T.tolist()) == ([2], [4])
    assert closed.propensity_T.tolist() == [0.25]


def test_every_impression_is_counted_as_the_label_says_whether_or_not_its_slate_is_known(
    attribution: Attribution,
) -> None:
    happen(attribution, Did(0, Action.impression), Did(1, Action.impression, item=99, slate=0))
    happen(attribution, Did(5, Action.play, item=99, slate=0), Did(6, Action.click, user=2))
    closed = happen(attribution, Did(10_000, Action.view))
    assert counted(closed) == [(12, 0, False), (99, 1, True)]
    assert closed.taught_T.tolist() == [0]


EVENTS = st.tuples(
    st.integers(0, 400),
    st.sampled_from([Action.impression, Action.click, Action.view]),
    st.sampled_from([0, 11, 12]),
    st.integers(1, 2),
    st.sampled_from([SLATE, OTHER, 0]),
    st.sampled_from([-1, 0, 1]),
)


@given(st.lists(EVENTS, max_size=30), st.lists(st.integers(0, 30), max_size=4))
@thorough(150)
def test_what_closes_does_not_depend_on_how_the_log_was_cut(
    log: list[tuple[int, Action, int, int, int, int]], cuts: list[int]
) -> None:
    def told(ends: list[int]) -> list[object]:
        attribution, out = Attribution(window_s=50), []
        show(attribution, SLATE)
        for begin, end in pairwise([0, *ends, len(log)]):
            if begin < end:
                closed = happen(attribution, *(Did(*row) for row in log[begin:end]))
                out += [*zip(counted(closed), closed.completed_C.tolist(), strict=True)]
            kept = attribution.state()
            attribution = Attribution(window_s=50)
            attribution.restore(*kept, 1)
        return out

    assert told(sorted(min(cut, len(log)) for cut in cuts)) == told([])


def test_what_is_open_is_gone_on_with_after_a_restart(attribution: Attribution) -> None:
    happen(attribution, Did(0, Action.impression), Did(1, Action.impression, item=13, user=2, surface=3))
    happen(attribution, Did(2, Action.complete), Did(3, Action.impression, slate=0, item=77), source=THERE)
    happen(attribution, Did(2, Action.complete))
    restored, other = Attribution(window_s=100), Attribution(window_s=100)
    restored.restore(*attribution.state(), 1)
    other.restore(*attribution.state(), 2)
    later_on = [happen(each, Did(10_000, Action.view)) for each in (attribution, restored)]
    for mine, theirs in zip(*later_on, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert counted(happen(restored, Did(10_000, Action.view), source=THERE)) == [(77, 3, False)]
    unknown = happen(other, Did(10_000, Action.view))
    assert counted(unknown) == counted(later_on[0]), "features of another release teach nothing"
    assert len(unknown.taught_T) == 0


def test_a_slate_shown_before_a_restart_is_joined_after_it(attribution: Attribution) -> None:
    restored = Attribution(window_s=100)
    restored.restore(*attribution.state(), 1)
    happen(restored, Did(0, Action.impression), Did(1, Action.impression, item=0, slot=2))
    happen(restored, Did(9, Action.click, item=0, slot=2))
    assert later(restored) == [(12, 1.0, False, False), (13, 2.0, True, False)]


def test_a_state_of_a_release_that_kept_no_slates_is_read(attribution: Attribution) -> None:
    happen(attribution, Did(0, Action.impression))
    arrays, clocks = attribution.state()
    restored = Attribution(window_s=100)
    restored.restore({name: array for name, array in arrays.items() if not name.startswith("slates")}, clocks, 1)
    assert len(restored.shown) == 0
    assert later(restored) == [(12, 1.0, False, False)]
