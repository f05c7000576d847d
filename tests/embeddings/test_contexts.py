import numpy as np
import pytest

from embeddings.contexts import KEYS, ContextCounts, Popularity, hour_keys, keys_of, shrunk
from embeddings.fading import DAY_S

NOW = 1_750_000_000
TV, PHONE = keys_of(None, None, None, "tv")[3], keys_of(None, None, None, "phone")[3]


def counted(takes: list[tuple[int, int, int]], most: int = 1_000) -> ContextCounts:
    """Takes of an item by row, in a context of one key, at a time."""
    counts = ContextCounts(7 * DAY_S, most)
    for row, key, time_s in takes:
        key_RC = np.zeros((1, KEYS), np.uint16)
        key_RC[0, 0] = key
        counts.count(np.array([row], np.int32), key_RC, np.array([time_s]))
    return counts


def test_takes_are_counted_by_context_and_fade() -> None:
    week = int(7 * DAY_S)
    there = counted([(4, TV, NOW), (9, TV, NOW + week), (9, PHONE, NOW + week), (4, TV, NOW)]).popularity(2)
    at = there.place(TV)
    assert there.row_CK[at].tolist() == [4, 9]
    assert there.takes_CK[at].tolist() == pytest.approx([1, 1])
    assert there.total_C[at] == pytest.approx(2)
    assert there.row_CK[there.place(PHONE)].tolist() == [9, -1]
    assert there.place(keys_of(None, None, None, "radio")[3]) == -1


def test_a_context_with_few_takes_is_as_everybody_and_one_with_many_as_itself() -> None:
    row_T, share_T = np.array([1, 2, 3], np.int32), np.array([0.5, 0.3, 0.2], np.float32)
    for takes, first in ((1, 1), (1_000, 3)):
        there = counted([(3, TV, NOW)] * takes).popularity(5)
        rows, shares = shrunk(np.array([0, 0, 0, TV, 0], np.uint16), there, row_T, share_T, prior=200.0)
        assert rows[0] == first
        expected = (takes + 200 * 0.2) / (takes + 200)
        assert shares[rows.tolist().index(3)] == pytest.approx(expected)
        assert shares.sum() == pytest.approx(1)


def test_a_context_nobody_took_anything_in_is_as_everybody() -> None:
    row_T, share_T = np.array([7, 2], np.int32), np.array([0.5, 0.3], np.float32)
    rows, shares = shrunk(np.array([0, 0, 0, TV, 5], np.uint16), Popularity.none(), row_T, share_T, 200.0)
    assert (rows.tolist(), shares.tolist()) == (row_T.tolist(), share_T.tolist())


def test_counts_go_on_from_their_state() -> None:
    counts, restored = counted([(4, TV, NOW), (9, PHONE, NOW + 5_000)]), ContextCounts(7 * DAY_S)
    restored.restore(counts.state())
    restored.restore({})
    for mine, theirs in zip(counts.popularity(3), restored.popularity(3), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_of_too_many_pairs_the_least_taken_go() -> None:
    there = counted([(row, TV, NOW) for row in (5, 5, 6, 6, 1, 2, 3)], most=4)
    assert len(there) <= 4
    assert there.popularity(2).row_CK[0].tolist() == [5, 6]


def test_hours_are_those_of_the_day() -> None:
    keys = hour_keys(np.array([NOW, NOW + 3_600, NOW + 86_400]))
    assert keys[0] == keys[2] != keys[1]


def test_nothing_is_left_of_items_that_are_forgotten_and_some_are_not_looked_at() -> None:
    counts = counted([(4, TV, NOW), (4, TV, NOW), (9, TV, NOW), (2, PHONE, NOW)])
    some = counts.popularity(2, np.arange(10) != 4)
    assert some.row_CK[some.place(TV)].tolist() == [9, -1]
    assert some.total_C[some.place(TV)] == pytest.approx(1)
    assert len(counts.popularity(2, np.zeros(10, np.bool_)).key_C) == 0
    counts.forget(np.arange(10) == 4)
    counts.count(np.array([4], np.int32), np.full((1, KEYS), TV, np.uint16), np.array([NOW]))
    there = counts.popularity(2)
    assert there.row_CK[there.place(TV)].tolist() == [4, 9]
    assert there.takes_CK[there.place(TV)].tolist() == pytest.approx([KEYS, 1])
    counts.forget(np.ones(10, np.bool_))
    assert len(counts) == len(counts.popularity(2).key_C) == 0


def test_with_another_half_life_counts_go_on_from_what_they_came_to() -> None:
    before, again = ContextCounts(3_600), ContextCounts(10.0 * 86_400)
    for hour in range(5):
        before.count(np.array([hour], np.int32), np.array([[7]], np.uint16), np.array([1_750_000_000 + 3_600 * hour]))
    again.restore(before.state())
    assert again.popularity(5).takes_CK.tolist() == [[1, 0.5, 0.25, 0.125, 0.0625]]
    again.count(np.array([0], np.int32), np.array([[7]], np.uint16), np.array([1_750_000_000 + 5 * 3_600]))
    kept = 2 ** (-3_600 / (10 * 86_400))
    assert again.popularity(2).takes_CK[0] == pytest.approx([1 + 0.0625 * kept, kept])
