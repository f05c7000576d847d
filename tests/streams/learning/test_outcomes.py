"""How much an impression counts for the heads: by the probability with which it stood there."""

import numpy as np
import pytest

from embeddings.events import Action, Source
from ranking.features import COLUMNS
from ranking.trainer import Trainer
from ranking.weights import Shape
from streams.contract.observations import Observation, blank
from streams.learning.outcomes import MOST_WEIGHT, Outcomes
from tests.streams.builders import small

SOURCE, SLATE = Source("events", 0), 700
ITEMS = np.arange(1, 6, dtype=np.uint64)


def an_observation(offset: int, propensity_N: list[float]) -> Observation:
    """Five people are shown the five items of a slate; then the window closes."""
    rows, time_s = 6, 10_000 * (offset + 1)
    columns = blank(R=rows, C=5, L=1, N=5, F=COLUMNS) | {
        "offset_R": np.arange(offset, offset + rows),
        "user_R": np.array([*range(1, 6), 99], np.uint64),
        "item_R": np.append(ITEMS, 1).astype(np.uint64),
        "action_R": np.array([Action.impression] * 5 + [Action.view], np.uint8),
        "slate_R": np.full(rows, SLATE, np.uint64),
        "time_s_R": np.array([time_s] * 5 + [time_s + 5_000]),
        "shown_L": np.array([SLATE], np.uint64),
        "shown_item_LN": ITEMS[None],
        "shown_x_LNF": np.random.default_rng(offset).normal(size=(1, 5, COLUMNS)).astype(np.float16),
        "shown_propensity_LN": np.array([propensity_N], np.float16),
    }
    return Observation(source=SOURCE, first=offset, last=offset + rows - 1, **columns)


class Noted(Trainer):
    """Takes down what each impression counted for, and learns nothing of it."""

    def __init__(self) -> None:
        super().__init__(Shape(buckets=8))
        self.weights: list[float] = []

    def learn_pointwise(self, x_RX, item_R, label_R, head, weight_R=None, place_R=None):  # type: ignore[no-untyped-def]
        if head == "click":
            self.weights += weight_R.tolist()
        return np.full(len(x_RX), 0.5, np.float32)


def weighed(outcomes: Outcomes, *slates: list[float], first: int = 0) -> list[float]:
    trainer = Noted()
    for n, propensity_N in enumerate(slates):
        observation = an_observation(6 * (first + n), propensity_N)
        outcomes.show(observation)
        outcomes.learn(observation, np.ones(6, np.bool_), trainer)
    return trainer.weights


def test_where_nothing_is_drawn_by_chance_each_counts_exactly_one() -> None:
    assert weighed(Outcomes.of(small()), *[[1.0] * 5] * 50) == [1.0] * 250


def test_what_is_seldom_there_counts_for_more_but_not_without_end() -> None:
    weights = weighed(Outcomes.of(small()), [1.0, 0.8, 0.625, 0.001, 0.0])
    assert np.array(weights) / weights[0] == pytest.approx([1, 1.25, 1.6, MOST_WEIGHT, MOST_WEIGHT], rel=1e-3)
    assert np.mean(weights) == pytest.approx(1)


def test_over_many_they_count_one_on_average() -> None:
    draw = np.random.default_rng(0)
    slates = [np.where(draw.random(5) < 0.05, 0.0003, 0.95).tolist() for _ in range(400)]
    assert np.mean(weighed(Outcomes.of(small()), *slates)) == pytest.approx(1, abs=0.05)


def test_a_propensity_that_is_no_number_spoils_nothing() -> None:
    assert weighed(Outcomes.of(small()), [np.nan, 1.0, np.inf, 1.0, 1.0]) == [1.0] * 5


def test_it_goes_on_as_it_was_after_a_restart() -> None:
    slates = [[0.95, 0.95, 0.0003, 0.95, 0.95], [1.0] * 5, [0.5] * 5]
    through, before, after = (Outcomes.of(small()) for _ in range(3))
    weighed(through, *slates)
    weighed(before, *slates)
    after.restore(*before.state(), COLUMNS)
    assert weighed(after, *slates, first=3) == weighed(through, *slates, first=3)


def test_what_an_earlier_release_left_open_counts_as_shown_for_certain() -> None:
    outcomes, restored = Outcomes.of(small()), Outcomes.of(small())
    observation = an_observation(0, [0.1] * 5)
    outcomes.show(observation)
    outcomes.learn(observation, np.arange(6) < 5, Trainer())
    arrays, clocks = outcomes.state()
    for name in ("weights", "propensity"):
        del arrays[name]
    restored.restore(arrays, clocks, COLUMNS)
    assert weighed(restored, [1.0] * 5, first=1) == [1.0] * 10
