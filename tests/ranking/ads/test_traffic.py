import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.ads.traffic import HOUR_MS, WEEK_H, Traffic

DAY_H = 24


def events(chances_H: list[int], hours: int, first_h: int = 0) -> np.ndarray:
    """So many chances in each hour of the day, evenly inside it."""
    return np.concatenate(
        [
            (first_h + h) * HOUR_MS + np.arange(n) * (HOUR_MS // max(n, 1))
            for h in range(hours)
            for n in [chances_H[(first_h + h) % len(chances_H)]]
        ]
    )


def test_nothing_learned_is_linear_time() -> None:
    share = Traffic().share(0, 4 * HOUR_MS, np.arange(5) * HOUR_MS)
    assert share == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_the_curve_of_a_day_is_found_again() -> None:
    shape = [10] * 12 + [30] * 12
    curve = Traffic().learn(events(shape, 28 * DAY_H), 28 * DAY_H * HOUR_MS)
    share = curve.share(0, DAY_H * HOUR_MS, np.array([6, 12, 18]) * HOUR_MS)
    assert share == pytest.approx([0.125, 0.25, 0.625], abs=0.03), "a step is blurred by an hour"
    whole_day = curve.until(np.array(DAY_H * HOUR_MS)) - curve.until(np.array(0))
    assert whole_day == pytest.approx(sum(shape), rel=0.02)


def test_weekends_are_learned_apart() -> None:
    """1970-01-05 was a Monday: the week from hour 96 on has its weekend at its end."""
    week = [10] * 120 + [40] * 48
    curve = Traffic().learn(events(week[-96:] + week[:-96], 6 * WEEK_H), 6 * WEEK_H * HOUR_MS)
    hourly = curve.hourly()
    assert hourly[:24] == pytest.approx(10, rel=0.1)
    assert hourly[24:] == pytest.approx(40, rel=0.1)


def test_hours_without_anybody_count_as_seen() -> None:
    curve = Traffic().learn(events([0] * 8 + [20] * 16, 28 * DAY_H), 28 * DAY_H * HOUR_MS)
    assert curve.share(0, DAY_H * HOUR_MS, 6 * HOUR_MS) < 0.02
    silent = curve.learn(np.zeros(0, np.int64), 60 * DAY_H * HOUR_MS)
    assert silent.hourly().sum() < 0.6 * curve.hourly().sum()


def test_an_hour_that_is_still_open_is_not_taken_for_a_whole_one() -> None:
    day = events([60] * 24, 3 * DAY_H + 1)
    half = day[day < (3 * DAY_H + 0.5) * HOUR_MS]
    curve = Traffic().learn(half, int((3 * DAY_H + 0.5) * HOUR_MS))
    assert curve.hourly() == pytest.approx(60)
    assert curve.waiting == 30


@given(st.lists(st.integers(0, 12 * HOUR_MS), max_size=30), st.lists(st.integers(0, 30), max_size=4))
def test_it_does_not_matter_how_rows_were_batched(times: list[int], cuts: list[int]) -> None:
    time_R = np.array(sorted(times), np.int64)
    end = 12 * HOUR_MS
    once = Traffic().learn(np.append(time_R, 0), end)
    bit_by_bit = Traffic().learn(np.zeros(1, np.int64), 0)
    for part in np.split(time_R, sorted(cut for cut in cuts if cut <= len(time_R))):
        bit_by_bit = bit_by_bit.learn(part, int(part.max(initial=0)))
    bit_by_bit = bit_by_bit.learn(np.zeros(0, np.int64), end)
    assert bit_by_bit.hourly() == pytest.approx(once.hourly())


def test_late_rows_count_and_rows_from_the_future_do_not() -> None:
    now = 10 * HOUR_MS
    base = Traffic().learn(np.arange(10) * HOUR_MS, now)
    late = base.learn(np.array([3 * HOUR_MS]), now)
    assert late.chances_H.sum() == pytest.approx(base.chances_H.sum() + 1, abs=0.02)
    assert late.hours_H.sum() == pytest.approx(base.hours_H.sum())
    wrong = base.learn(np.array([10**15]), now)
    assert wrong.hourly() == pytest.approx(base.hourly())


def test_a_habit_that_changed_is_unlearned() -> None:
    before = Traffic(half_life_h=72).learn(events([50] * 12 + [0] * 12, 30 * DAY_H), 30 * DAY_H * HOUR_MS)
    after = before.learn(events([0] * 12 + [50] * 12, 30 * DAY_H, 30 * DAY_H), 60 * DAY_H * HOUR_MS)
    assert after.share(0, DAY_H * HOUR_MS, 12 * HOUR_MS) < 0.1


def test_hours_are_those_of_the_houses_clock() -> None:
    evening = events([0] * 18 + [60] + [0] * 5, 28 * DAY_H)
    curve = Traffic(offset_ms=2 * HOUR_MS).learn(evening, 28 * DAY_H * HOUR_MS)
    assert int(curve.hourly()[:24].argmax()) == 20
    assert curve.share(0, DAY_H * HOUR_MS, 20 * HOUR_MS) > 0.9


@given(st.integers(0, 10**9), st.lists(st.integers(0, 400 * DAY_H * HOUR_MS), min_size=2, max_size=6))
def test_time_that_passes_never_takes_traffic_back(seed: int, moments: list[int]) -> None:
    chances = np.random.default_rng(seed).integers(0, 9, 24).tolist()
    curve = Traffic().learn(events(chances, 5 * DAY_H), 5 * DAY_H * HOUR_MS)
    assert (np.diff(curve.until(np.array(sorted(moments)))) >= -1e-6).all()


def test_a_log_of_years_ago_that_is_replayed_leaves_the_curve_flat() -> None:
    now_ms = 28 * 365 * DAY_H * HOUR_MS
    curve = Traffic().learn(np.arange(500) * HOUR_MS, now_ms)
    assert curve.share(now_ms, now_ms + 60_000, now_ms + np.array([15_000, 30_000])) == pytest.approx([0.25, 0.5])
