import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.errors import UnreadableState
from embeddings.seen import BLOOM_BYTES, EXACT, SeenSets
from embeddings.state_columns import Evictions
from tests.fuzzing import thorough

NOBODY = np.zeros((1, 50), np.uint64)
FIRST = np.zeros(1, np.int32)


def ids(*items: int) -> np.ndarray:
    return np.array(items, np.uint64)


def grown(value: bytes | None, items: np.ndarray) -> bytes | None:
    """One user's value after evictions."""
    update = SeenSets.decode([value]).add(np.zeros(len(items), np.int32), items)
    return update.values[0] if update.values else value


def seen(value: bytes | None, items: np.ndarray, history: np.ndarray = NOBODY) -> list[bool]:
    return SeenSets.decode([value]).hits(FIRST, history, items[None, :])[0].tolist()


def test_what_was_evicted_is_seen_and_nothing_else() -> None:
    assert seen(grown(None, ids(3, 2**40 - 1)), ids(3, 4, 2**40 - 1)) == [True, False, True]


def test_what_is_in_the_history_is_seen() -> None:
    history = NOBODY.copy()
    history[0, :2] = [7, 8]
    assert seen(None, ids(7, 8, 9), history) == [True, True, False]


def test_an_empty_history_entry_hides_no_item() -> None:
    assert seen(None, ids(0, 1)) == [False, False]


def test_an_item_evicted_again_changes_nothing() -> None:
    value = grown(None, ids(3, 4))
    assert SeenSets.decode([value]).add(np.zeros(2, np.int32), ids(4, 3)).values == []


def test_only_the_users_whose_sets_grew_are_listed() -> None:
    sets = SeenSets.decode([grown(None, ids(1)), None, grown(None, ids(2))])
    update = sets.add(np.array([0, 1, 1, 2], np.int32), ids(1, 5, 6, 9))
    assert update.user_N.tolist() == [1, 2]
    assert [len(value) for value in update.values] == [12, 12]


def test_five_bytes_an_id_up_to_the_limit_and_a_filter_beyond() -> None:
    full = grown(None, np.arange(1, EXACT + 1, dtype=np.uint64))
    beyond = grown(full, ids(EXACT + 1))
    assert (len(full), len(beyond)) == (2 + 5 * EXACT, 2 + BLOOM_BYTES)
    assert all(seen(beyond, np.arange(1, EXACT + 2, dtype=np.uint64)))


@pytest.mark.parametrize(("items", "at_most"), [(2_000, 0.0006), (5_000, 0.006), (20_000, 0.012), (70_000, 0.018)])
def test_the_filter_forgets_nothing_and_errs_as_rarely_as_stated(items: int, at_most: float) -> None:
    draw = np.random.default_rng(items)
    known, strange = np.split(draw.choice(2**39, items + 20_000, replace=False).astype(np.uint64), [items])
    value = grown(None, known)
    assert all(seen(value, known))
    assert np.mean(seen(value, strange)) <= at_most


def test_a_filter_grows_by_what_it_did_not_hold() -> None:
    value = grown(None, np.arange(1, EXACT + 2, dtype=np.uint64))
    assert SeenSets.decode([value]).add(np.zeros(1, np.int32), ids(5)).values == []
    assert seen(grown(value, ids(10**9)), ids(10**9)) == [True]


@pytest.mark.parametrize("cut", [1_000, 4_699, 4_096, 17_000])
def test_filters_follow_one_another_at_the_same_item_however_the_log_was_cut(cut: int) -> None:
    items = np.random.default_rng(1).permutation(40_000).astype(np.uint64) + 1
    whole = grown(None, items)
    assert grown(grown(None, items[:cut]), items[cut:]) == whole
    assert grown(whole, items) == whole
    assert len(whole) == 2 + 15 * BLOOM_BYTES


def test_a_filter_of_an_earlier_release_goes_on() -> None:
    """It was the only one, however many ids it held."""
    value = grown(None, np.arange(1, EXACT + 2, dtype=np.uint64))
    full = value[:2] + b"\xff" * BLOOM_BYTES
    assert seen(full, ids(10**9)) == [True]
    half = value[:2] + b"\x0f" * BLOOM_BYTES
    strange = np.arange(10**6, 10**6 + 500, dtype=np.uint64)
    after = grown(half, strange)
    assert len(after) == 2 + 3 * BLOOM_BYTES
    assert all(seen(after, strange))


def test_a_position_sees_the_evictions_before_it_and_not_those_after() -> None:
    evicted = Evictions(np.array([0, 0, 1], np.int32), ids(5, 6, 7), np.array([2, 3, 9], np.int32))
    user_P, position_P = np.array([0, 0, 0, 1, 1], np.int32), np.array([1, 2, 3, 8, 9], np.int32)
    asked = np.tile(ids(5, 6, 7), (5, 1))
    hit = SeenSets.decode([None, None]).hits(user_P, np.zeros((5, 50), np.uint64), asked, evicted, position_P)
    assert hit.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]]


@thorough(60)
@given(st.lists(st.lists(st.integers(1, 60), max_size=30), max_size=8))
def test_any_batching_of_evictions_gives_the_same_bytes_and_the_set_of_them(batches: list[list[int]]) -> None:
    value = None
    for batch in batches:
        value = grown(value, np.array(batch, np.uint64))
    everything = [item for batch in batches for item in batch]
    assert value == grown(None, np.array(everything, np.uint64))
    assert seen(value, np.arange(1, 61, dtype=np.uint64)) == [item in everything for item in range(1, 61)]


@pytest.mark.parametrize("value", [b"\x02\x00" + bytes(5), b"\x01\x02" + bytes(5), b"\x01\x00" + bytes(4), b"\x01"])
def test_a_value_of_unknown_layout_is_refused(value: bytes) -> None:
    with pytest.raises(UnreadableState, match="seen set"):
        SeenSets.decode([None, value])
