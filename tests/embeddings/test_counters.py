from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embeddings.counters import ItemCounters
from embeddings.events import Action
from embeddings.fading import HalfLives
from embeddings.idtable import IdTable
from embeddings.lessons import lesson_of
from tests.fuzzing import thorough

ITEMS, NOW = 6, 1_750_000_000
EVENT = st.tuples(st.integers(0, ITEMS - 1), st.sampled_from(list(Action)), st.integers(NOW - 10**7, NOW))
LOG = st.lists(EVENT, max_size=60)
FAST = HalfLives(short_s=60, mid_s=3_600, long_s=86_400, trending_s=60, reactions_s=7_200)
Row = tuple[int, Action, int]


def some_counters(half_lives: HalfLives = FAST) -> ItemCounters:
    ids = IdTable()
    ids.ensure(np.arange(1, ITEMS + 1, dtype=np.uint64))
    return ItemCounters(ids, half_lives)


def count(counters: ItemCounters, log: list[Row]) -> None:
    row_R = np.array([row for row, _, _ in log], np.int32)
    action_R = np.array([action for _, action, _ in log], np.uint8)
    lesson_R = np.array([action < 16 and lesson_of(action, Action.unknown) for _, action, _ in log], np.uint8)
    counters.count(row_R, action_R, np.array([time_s for _, _, time_s in log], np.int64), lesson_R)


def everything(counters: ItemCounters) -> dict[str, NDArray[Any]]:
    counters._make_room()
    now = counters.of(np.arange(ITEMS, dtype=np.int32))
    return {name: getattr(now, name) for name in now.__slots__}


@given(LOG)
@thorough(40)
def test_a_count_is_the_sum_of_what_each_event_has_kept_by_now(log: list[Row]) -> None:
    counters = some_counters()
    count(counters, log)
    popularity_N4, likes_N = np.zeros((ITEMS, 4)), np.zeros(ITEMS)
    clock_s = max((time_s for _, _, time_s in log), default=0)
    for row, action, time_s in log:
        kept_5 = FAST.kept(float(clock_s - time_s))
        taken = action.name in {"view", "play", "progress", "complete", "like", "add", "share", "purchase"}
        popularity_N4[row] += taken * kept_5[:4]
        likes_N[row] += (action.name in {"like", "add", "purchase", "share"}) * kept_5[4]
    now = everything(counters)
    assert now["clock_s"] == clock_s
    np.testing.assert_allclose(now["popularity_N4"], popularity_N4, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(now["likes_N"], likes_N, rtol=1e-5, atol=1e-30)


@given(LOG, st.lists(st.integers(0, 60), max_size=5))
@thorough(60)
def test_counts_do_not_depend_on_how_the_log_was_cut(log: list[Row], cuts: list[int]) -> None:
    whole, parts = some_counters(), some_counters()
    count(whole, log)
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(log)], strict=True):
        count(parts, log[begin:end])
    for name, column in everything(whole).items():
        np.testing.assert_array_equal(column, everything(parts)[name], err_msg=name)


@given(LOG, st.randoms(use_true_random=False))
@thorough(40)
def test_counts_do_not_depend_on_the_order_of_events(log: list[Row], chance: Any) -> None:
    """Partitions come in any order: an event that comes late weighs what it would have weighed."""
    straight, mixed = some_counters(), some_counters()
    count(straight, log)
    log = log.copy()
    chance.shuffle(log)
    for row in log:
        count(mixed, [row])
    for name, column in everything(straight).items():
        np.testing.assert_allclose(column, everything(mixed)[name], rtol=1e-6, atol=1e-30, err_msg=name)


def test_half_lives_are_those_of_the_clock_however_busy_it_was() -> None:
    """An event a second or a thousand: what was taken an hour ago weighs half in a count of an hour."""
    for busy in (1, 1_000):
        counters = some_counters()
        count(counters, [(0, Action.play, NOW)])
        count(counters, [(1, Action.skip, NOW + 3_600)] * busy)
        assert everything(counters)["popularity_N4"][0, 1] == pytest.approx(0.5)


def test_times_are_the_first_sight_and_the_last_take() -> None:
    counters = some_counters(HalfLives())
    kinds = (0, Action.skip), (0, Action.play), (0, Action.skip), (1, Action.impression), (1, Action.click)
    count(counters, [(row, action, NOW + n) for n, (row, action) in enumerate(kinds)])
    count(counters, [(0, Action.skip, NOW - 5)])
    now = everything(counters)
    assert now["first_seen_s_N"][:3].tolist() == [NOW - 5, NOW + 3, 0]
    assert now["last_taken_s_N"][:3].tolist() == [NOW + 1, 0, 0]
    assert now["dislikes_N"][0] == pytest.approx(3, rel=1e-4)
    assert now["shown_N"][1] == now["clicked_N"][1] == 0, "an impression counts when it can be answered no more"


def test_impressions_are_counted_with_their_answers_at_their_own_times() -> None:
    counters = some_counters(HalfLives(reactions_s=3_600))
    count(counters, [(0, Action.impression, NOW - 3_600), (0, Action.impression, NOW)])
    counters.changed()
    times_s = np.array([NOW - 3_600, NOW, NOW])
    counters.count_shown(np.array([0, 0, 2], np.int32), np.array([True, False, True]), times_s)
    now = everything(counters)
    assert (now["shown_N"][0], now["clicked_N"][0]) == (1.5, 0.5)
    assert counters.changed().item_N.tolist() == [1, 3]


def test_only_what_changed_is_told_most_taken_first() -> None:
    counters = some_counters()
    count(counters, [(1, Action.play, NOW), (3, Action.play, NOW), (3, Action.play, NOW)])
    assert counters.changed().item_N.tolist() == [4, 2]
    assert len(counters.changed().item_N) == 0


def test_counts_stay_right_for_thirty_years() -> None:
    """A take a day; the scale moves on many times, and each half-life's count stays where it must."""
    counters = some_counters(HalfLives())
    for year in range(30):
        days = NOW + 86_400 * np.arange(365 * year, 365 * (year + 1))
        count(counters, [(0, Action.play, int(day)) for day in days])
    assert counters.origin_5[3] - NOW / HalfLives().trending_s > 1_000
    steady_4 = 1 / (1 - 2 ** (-86_400 / HalfLives().popularity_4))
    np.testing.assert_allclose(everything(counters)["popularity_N4"][0], steady_4, rtol=1e-4)
    assert np.isfinite(counters.popularity_N4).all()


def test_a_checkpoint_goes_on_to_the_bit_and_tells_every_item_again() -> None:
    log = [(n % ITEMS, Action.like, NOW + 777 * n) for n in range(30)]
    counters, restored = some_counters(), some_counters()
    counters.epoch = 7
    count(counters, log)
    restored.restore(counters.state())
    assert sorted(restored.changed().item_N.tolist()) == [1, 2, 3, 4, 5, 6]
    for each in (counters, restored):
        count(each, [(row, action, time_s + 10**6) for row, action, time_s in log])
    for name, column in everything(counters).items():
        np.testing.assert_array_equal(column, everything(restored)[name], err_msg=name)


def test_other_half_lives_begin_with_what_the_counts_come_to() -> None:
    counters, restored = some_counters(), some_counters(HalfLives())
    count(counters, [(n % ITEMS, Action.like, NOW + 777 * n) for n in range(30)])
    restored.restore(counters.state())
    for name, column in everything(counters).items():
        np.testing.assert_allclose(column, everything(restored)[name], rtol=1e-6, err_msg=name)
    count(restored, [(0, Action.skip, counters.clock_s + 3 * 3_600)])
    left_4 = everything(restored)["popularity_N4"][5] / everything(counters)["popularity_N4"][5]
    np.testing.assert_allclose(left_4, 2 ** (-3 * 3_600 / HalfLives().popularity_4), rtol=1e-5)


def test_a_checkpoint_that_faded_by_events_is_read_as_it_stood() -> None:
    """As a release without a clock wrote it: three popularities, an origin each and one of reactions."""
    old = {
        "counters.events": np.array([20_000.0]),
        "counters.origin": np.array([15.0, 0.0, 0.0, 0.0]),
        "counters.popularity": np.array([[2.0**5 * 3, 2.0**2 * 5, 2.0**0.2 * 7]] + [[0.0] * 3] * 5),
        "counters.reactions": np.array([[2.0**0.2 * 4, 0.0, 0.0, 0.0]] + [[0.0] * 4] * 5),
        "counters.last_taken_s": np.array([NOW, 0, 0, 0, 0, 0]),
        "counters.first_seen_s": np.array([NOW - 50, NOW - 9, 0, 0, 0, 0]),
    }
    counters = some_counters(HalfLives())
    counters.restore(old)
    now = everything(counters)
    assert now["popularity_N4"][0].tolist() == pytest.approx([3, 5, 7, 3])
    assert (now["likes_N"][0], now["clock_s"], now["epoch"]) == (pytest.approx(4), NOW, 0)
    count(counters, [(1, Action.play, NOW + 86_400)])
    assert everything(counters)["popularity_N4"][:2, 0].tolist() == pytest.approx([1.5, 1])


def test_new_items_find_room() -> None:
    counters = some_counters()
    counters.ids.ensure(np.arange(1, 5_000, dtype=np.uint64))
    count(counters, [(4_998, Action.play, NOW)])
    assert counters.changed().item_N.tolist() == [4_999]


def test_nothing_is_left_of_items_that_are_forgotten() -> None:
    counters = some_counters()
    count(counters, [(0, Action.like, NOW), (1, Action.play, NOW - 5), (2, Action.impression, NOW - 9)])
    assert counters.last_seen_s(4).tolist() == [NOW, NOW - 5, NOW - 9, 0]
    counters.forget(np.array([0], np.int32))
    counters.ids.free(np.array([0], np.int32))
    assert counters.changed().item_N.tolist() == [2, 3]
    counters.ids.ensure(np.array([99], np.uint64))
    counters.tell_again(np.array([1, 99], np.uint64))
    counts = counters.changed()
    assert counts.item_N.tolist() == [99]
    assert not any(getattr(counts, name).any() for name in ("popularity_N4", "likes_N", "last_taken_s_N"))
    assert counts.first_seen_s_N.tolist() == [0]


def test_what_may_not_be_told_is_not() -> None:
    counters = some_counters()
    count(counters, [(row, Action.play, NOW) for row in range(4)])
    assert counters.changed(lambda item_N: item_N % 2 == 0).item_N.tolist() == [2, 4]
