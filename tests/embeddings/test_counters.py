from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embeddings.counters import ItemCounters
from embeddings.events import Action
from embeddings.idtable import IdTable
from embeddings.items import POPULARITY_HALF_LIVES

ITEMS = 6
LOG = st.lists(st.tuples(st.integers(0, ITEMS - 1), st.sampled_from(list(Action))), max_size=60)


def some_counters() -> ItemCounters:
    ids = IdTable()
    ids.ensure(np.arange(1, ITEMS + 1, dtype=np.uint64))
    return ItemCounters(ids)


def count(counters: ItemCounters, log: list[tuple[int, Action]], begin: int = 0) -> None:
    row_R = np.array([row for row, _ in log], np.int32)
    action_R = np.array([action for _, action in log], np.uint8)
    counters.count(row_R, action_R, 1_000 + begin + np.arange(len(log)))


def everything(counters: ItemCounters) -> dict[str, NDArray[Any]]:
    now = counters.of(np.arange(ITEMS, dtype=np.int32))
    return {name: getattr(now, name) for name in now.__slots__}


@given(LOG)
@settings(deadline=None, max_examples=40)
def test_counts_are_those_of_fading_every_item_at_every_event(log: list[tuple[int, Action]]) -> None:
    counters = some_counters()
    count(counters, log)
    popularity_N3 = np.zeros((ITEMS, 3))
    likes_N = np.zeros(ITEMS)
    for row, action in log:
        popularity_N3 *= np.exp2(-1 / np.array(POPULARITY_HALF_LIVES))
        likes_N *= 2 ** (-1 / 100_000)
        taken = action.name in {"view", "play", "progress", "complete", "like", "add", "share", "purchase"}
        popularity_N3[row] += taken
        likes_N[row] += action.name in {"like", "add", "purchase", "share"}
    now = everything(counters)
    np.testing.assert_allclose(now["popularity_N3"], popularity_N3, rtol=1e-5)
    np.testing.assert_allclose(now["likes_N"], likes_N, rtol=1e-5)


@given(LOG, st.integers(0, 60))
@settings(deadline=None, max_examples=40)
def test_counts_do_not_depend_on_how_the_log_was_cut(log: list[tuple[int, Action]], cut: int) -> None:
    whole, parts = some_counters(), some_counters()
    count(whole, log)
    count(parts, log[:cut])
    count(parts, log[cut:], begin=len(log[:cut]))
    for name, column in everything(whole).items():
        np.testing.assert_array_equal(column, everything(parts)[name], err_msg=name)


def test_times_are_the_first_sight_and_the_last_take() -> None:
    counters = some_counters()
    count(counters, [(0, Action.skip), (0, Action.play), (0, Action.skip), (1, Action.impression)])
    now = everything(counters)
    assert now["first_seen_s_N"][:3].tolist() == [1_000, 1_003, 0]
    assert now["last_taken_s_N"][:3].tolist() == [1_001, 0, 0]
    assert now["dislikes_N"][0] == pytest.approx(2, rel=1e-4)
    assert now["shown_N"][1] == 1


def test_only_what_changed_is_told() -> None:
    counters = some_counters()
    count(counters, [(3, Action.play), (1, Action.play), (3, Action.play)])
    assert counters.changed().item_N.tolist() == [2, 4]
    assert len(counters.changed().item_N) == 0


def test_counts_stay_finite_however_long_they_run() -> None:
    counters = some_counters()
    for begin in range(0, 400_000, 5_000):
        count(counters, [(n % 2, Action.play) for n in range(5_000)], begin)
    popularity = everything(counters)["popularity_N3"]
    assert counters.origin_4[0] > 0
    steady_3 = [0.5 / (1 - 2 ** (-1 / h)) * (1 - 2 ** (-400_000 / h)) for h in POPULARITY_HALF_LIVES]
    np.testing.assert_allclose(popularity[0], steady_3, rtol=1e-3)


def test_a_checkpoint_goes_on_to_the_bit_and_tells_every_item_again() -> None:
    log = [(n % ITEMS, Action.like) for n in range(30)]
    counters, restored = some_counters(), some_counters()
    count(counters, log)
    restored.restore(counters.state())
    assert restored.changed().item_N.tolist() == [1, 2, 3, 4, 5, 6]
    for each in (counters, restored):
        count(each, log, begin=30)
    for name, column in everything(counters).items():
        np.testing.assert_array_equal(column, everything(restored)[name], err_msg=name)


def test_new_items_find_room() -> None:
    counters = some_counters()
    counters.ids.ensure(np.arange(1, 5_000, dtype=np.uint64))
    count(counters, [(4_998, Action.play)])
    assert counters.changed().item_N.tolist() == [4_999]
