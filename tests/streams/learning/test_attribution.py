from typing import NamedTuple

import numpy as np
import pytest

from embeddings.events import Action
from streams.learning.attribution import Attribution, Labelled

SLATE, OTHER = 700, 701
ITEMS = (11, 12, 13)


class Did(NamedTuple):
    """One event of one person."""

    time_s: int
    action: Action
    item: int = 12
    user: int = 1
    slate: int = SLATE


@pytest.fixture
def attribution() -> Attribution:
    """Labels after 100 seconds; one slate of three items is known, features 0, 1, 2."""
    attribution = Attribution(window_s=100)
    show(attribution, SLATE)
    return attribution


def show(attribution: Attribution, slate: int) -> None:
    x_LNF = np.arange(3, dtype=np.float16).reshape(1, 3, 1)
    attribution.show(np.array([slate], np.uint64), np.array([ITEMS], np.uint64), x_LNF)


def happen(attribution: Attribution, *events: Did) -> Labelled:
    columns = [np.array(column) for column in zip(*events, strict=True)]
    time_s, action, item, user, slate = columns
    return attribution.happen(
        user.astype(np.uint64), item.astype(np.uint64), action.astype(np.uint8), slate.astype(np.uint64), time_s
    )


def labels(labelled: Labelled) -> list[tuple[int, float, bool, bool]]:
    """Item, feature, engaged, completed."""
    items, engaged, completed = (column.tolist() for column in labelled[1:])
    return list(zip(items, labelled.x_RF.ravel().tolist(), engaged, completed, strict=True))


def later(attribution: Attribution) -> list[tuple[int, float, bool, bool]]:
    """What is labelled once everything is over."""
    return labels(happen(attribution, Did(10_000, Action.impression, item=99, user=9, slate=9)))


def test_an_impression_nobody_followed_up_is_a_negative_example(attribution: Attribution) -> None:
    assert len(happen(attribution, Did(0, Action.impression)).item_R) == 0
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
    assert len(happen(attribution, Did(100, Action.view)).item_R) == 0
    assert happen(attribution, Did(101, Action.view)).item_R.tolist() == [12]
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


def test_the_oldest_slates_are_forgotten() -> None:
    attribution = Attribution(window_s=100, capacity=2)
    for slate in (SLATE, OTHER, 702):
        show(attribution, slate)
    happen(attribution, Did(0, Action.impression), Did(0, Action.impression, user=2, slate=OTHER))
    assert len(later(attribution)) == 1


def test_open_impressions_are_bounded() -> None:
    attribution = Attribution(window_s=100, capacity=3)
    show(attribution, SLATE)
    closed = happen(attribution, *(Did(0, Action.impression, user=user) for user in range(10)))
    assert len(closed.item_R) == 7
