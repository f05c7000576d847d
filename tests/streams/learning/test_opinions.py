"""Likes as they are counted, whatever their people do afterwards."""

from collections.abc import Sequence

import numpy as np
import pytest

from embeddings.ids import item_id
from tests.streams.builders import NOW_MS, Service, a_learner, an_event, told

DAY_MS = 86_400_000


def likes(said: Sequence[tuple[str, str, float]], batch: int) -> float:
    """The likes of an item, as of the last day, after people did something with it on some days."""
    log = [
        an_event(n, who, "a", kind, event_time=int(NOW_MS + (day - 90) * DAY_MS))
        for n, (who, kind, day) in enumerate(said)
    ]
    learner, service = a_learner(), Service()
    for at in range(0, len(log), batch):
        for observation in told(service.deliver(log[at : at + batch])):
            learner.learn(observation)
    return float(learner.counters.of(learner.ids.rows(np.array([item_id("a")], np.uint64))).likes_N[0])


@pytest.mark.parametrize("batch", [1, 50])
@pytest.mark.parametrize(
    "hers",
    [
        [("like", 0), ("unlike", 60)],
        [("like", 0), ("play", 59), ("unlike", 60)],
        [("like", 0), ("progress", 1), ("progress", 59), ("unlike", 60)],
        [("like", 0), ("like", 59), ("unlike", 60)],
        [("like", 0), ("share", 0.01), ("purchase", 59), ("unlike", 60)],
        [("add", 0), ("complete", 30), ("remove", 60)],
        [("like", 0), ("unlike", 30), ("like", 59), ("unlike", 60)],
        [("unlike", 60)],
    ],
)
def test_an_unlike_takes_back_what_its_like_counts_and_nothing_of_others(
    hers: list[tuple[str, float]], batch: int
) -> None:
    assert likes([*(("ann", *each) for each in hers), ("bob", "like", 60)], batch) == pytest.approx(1, rel=5e-3)


@pytest.mark.parametrize("batch", [1, 50])
def test_an_unlike_that_comes_late_does_not_take_back_the_like_after_it(batch: int) -> None:
    said = [("bob", "like", 60), ("eve", "like", 60), ("ann", "like", 60), ("ann", "unlike", 59.99)]
    assert likes(said, batch) == pytest.approx(3, rel=1e-3)
    assert likes([*said, ("ann", "unlike", 60.01)], batch) == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("again", ["like", "play"])
def test_a_like_is_as_old_as_the_last_time_its_person_came_back(again: str) -> None:
    once, held = [("ann", "like", 0.0)], [("ann", "like", 0.0), ("ann", again, 30.0), ("bob", "view", 30.0)]
    assert likes([*once, ("bob", "view", 30.0)], 1) == pytest.approx(0.5, rel=1e-2)
    assert likes(held, 1) == pytest.approx(1, rel=1e-2)
