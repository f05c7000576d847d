from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embeddings.candidates import Proposed, Retrieved, gather, keep, taste
from tests.fuzzing import thorough

Rows = NDArray[np.int32]
ITEMS, HELD = 60, 8
NONE = np.empty(0, np.int32)


def rows(*values: int) -> Rows:
    return np.array(values, np.int32)


def lists(seed: int = 0, items: int = ITEMS, width: int = 7) -> tuple[Rows, NDArray[np.float32]]:
    """Neighbour lists of some items, strongest first, some of them short."""
    random = np.random.default_rng(seed)
    row_NK = np.argsort(random.random((items, items)), axis=1)[:, :width].astype(np.int32)
    weight_NK = -np.sort(-random.random((items, width))).astype(np.float32)
    short_NK = np.arange(width) >= random.integers(0, width + 1, items)[:, None]
    row_NK[short_NK], weight_NK[short_NK] = -1, 0
    return row_NK, weight_NK


def gathered(history_PH: Rows, **changes: Any) -> Retrieved:
    weight_PH = changes.pop("weight_PH", np.ones(history_PH.shape, np.float32))
    empty = np.full((len(history_PH), 0), -1, np.int32), np.zeros((len(history_PH), 0), np.float32)
    found, neighbours = changes.pop("found", empty), changes.pop("neighbours", lists())
    size_P = np.full(len(history_PH), changes.pop("size", 20), np.int32)
    shared = {"trending_T": NONE, "size_P": size_P}
    shared["fresh_PF"] = np.tile(changes.pop("fresh_F", NONE), (len(history_PH), 1))
    return gather(history_PH, weight_PH, found, neighbours, **(shared | changes))


def summed_plainly(
    history_H: Rows, weight_H: NDArray[np.float32], neighbours: tuple[Rows, NDArray[np.float32]], latest: int
) -> dict[int, float]:
    score: dict[int, float] = {}
    wanted = [(h, w) for h, w in zip(history_H.tolist(), weight_H.tolist(), strict=True) if h >= 0 and w > 0]
    for k, (held, weight) in enumerate(wanted[:latest]):
        for row, value in zip(neighbours[0][held].tolist(), neighbours[1][held].tolist(), strict=True):
            if row >= 0:
                score[row] = score.get(row, 0) + 0.9**k * weight * value
    return score


@thorough(40)
@given(st.integers(0, 10_000), st.integers(0, HELD), st.integers(1, 60))
def test_neighbours_are_summed_as_by_hand(seed: int, latest: int, size: int) -> None:
    random = np.random.default_rng(seed)
    history_PH = random.integers(-1, ITEMS, (4, HELD)).astype(np.int32)
    weight_PH = random.choice([-1, 0, 0.5, 1], (4, HELD)).astype(np.float32)
    neighbours = lists(seed)
    got = gathered(history_PH, weight_PH=weight_PH, neighbours=neighbours, latest=latest, size=size)
    for p in range(4):
        score = summed_plainly(history_PH[p], weight_PH[p], neighbours, latest)
        held = got.row_PM[p] >= 0
        assert held.sum() == min(size, len(score))
        expected = sorted(score.values(), reverse=True)[:size]
        np.testing.assert_allclose(got.score_PM[p, held], expected, rtol=1e-5)
        np.testing.assert_allclose([score[r] for r in got.row_PM[p, held].tolist()], expected, rtol=1e-5)
        assert (got.source_PM[p, held] == Proposed.neighbours).all()


def test_every_row_comes_once_with_the_bits_of_all_its_sources() -> None:
    neighbours = np.full((10, 2), -1, np.int32), np.zeros((10, 2), np.float32)
    neighbours[0][1], neighbours[1][1] = (4, 5), (0.5, 0.25)
    got = gathered(
        rows(1)[None],
        neighbours=neighbours,
        found=(rows(5, 6, 4)[None], np.array([[3, 2.5, 1]], np.float32)),
        trending_T=rows(6, 7),
        fresh_F=rows(7, 8),
        size=10,
        vector_share=0.5,
    )
    assert got.row_PM[0].tolist() == [5, 6, 4, 7, 8, *[-1] * 9]
    everything = Proposed.vector | Proposed.neighbours
    assert got.source_PM[0, :5].tolist() == [
        everything,
        Proposed.vector | Proposed.trending,
        everything,
        Proposed.trending | Proposed.fresh,
        Proposed.fresh,
    ]
    np.testing.assert_allclose(got.score_PM[0, :3], [0.25 + 0.5 * 2, 0.5 * 1.5, 0.5], rtol=1e-6)


def test_someone_without_a_history_gets_what_is_trending_then_what_is_new() -> None:
    got = gathered(rows(-1, -1)[None], trending_T=rows(9, 3, 6), fresh_F=rows(2, 3), size=2)
    assert got.row_PM[0].tolist() == [3, 9, 6, 2, -1, -1, -1]
    only_trending = gathered(rows(-1)[None], trending_T=rows(9, 3, 6))
    assert only_trending.row_PM[0, :3].tolist() == [9, 3, 6]


def test_shared_rows_come_on_top_of_the_size_asked_for() -> None:
    got = gathered(np.arange(8, dtype=np.int32)[None], trending_T=rows(59, 58), fresh_F=rows(57), size=5)
    assert (got.row_PM[0] >= 0).sum() == 8
    assert {57, 58, 59} <= set(got.row_PM[0].tolist())


def test_a_position_does_not_see_its_neighbours_in_the_batch() -> None:
    history_PH = np.random.default_rng(0).integers(-1, ITEMS, (30, HELD)).astype(np.int32)
    together = gathered(history_PH)
    for p in range(30):
        alone = gathered(history_PH[p : p + 1])
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], other[p])


def test_what_is_wanted_for_one_position_changes_nothing_for_another() -> None:
    random = np.random.default_rng(0)
    history_PH = random.integers(-1, ITEMS, (2, HELD)).astype(np.int32)
    found = rows(*range(30, 50))[None].repeat(2, 0), -np.sort(-random.random((2, 20))).astype(np.float32)
    shared = {"trending_T": rows(50, 51, 52, 53), "fresh_F": rows(54)}
    both = gathered(history_PH, found=found, size_P=rows(5, 18), trending_P=rows(1, 4), **shared)
    alone = gathered(history_PH[:1], found=(found[0][:1], found[1][:1]), size_P=rows(5), trending_P=rows(1), **shared)
    for one, other in zip(alone, both, strict=True):
        np.testing.assert_array_equal(one[0], other[0, : one.shape[1]])
    assert (both.row_PM[0, alone.row_PM.shape[1] :] == -1).all()
    assert Proposed.trending in [Proposed(bits) & Proposed.trending for bits in both.source_PM[1].tolist()]


def test_equal_scores_come_in_the_order_of_rows() -> None:
    neighbours = rows(8, 3, 5)[None].repeat(10, 0), np.ones((10, 3), np.float32)
    assert gathered(rows(1)[None], neighbours=neighbours).row_PM[0, :3].tolist() == [3, 5, 8]


def a_list(*pairs: tuple[int, Proposed]) -> Retrieved:
    row_PM = np.array([[row for row, _ in pairs]], np.int32)
    source_PM = np.array([[bits for _, bits in pairs]], np.uint8)
    return Retrieved(row_PM, source_PM, np.arange(len(pairs), 0, -1, dtype=np.float32)[None])


NONE_BLOCKED = np.zeros(10, np.bool_)


def test_seen_and_blocked_rows_are_dropped_and_the_next_take_their_place() -> None:
    found = a_list(*((row, Proposed.vector) for row in (7, 3, 9, 1)), (-1, Proposed(0)))
    kept = keep(found, np.array([[True, False, False, False, False]]), np.arange(10) == 9, 2)
    assert kept.row_PM.tolist() == [[3, 1]]
    assert kept.score_PM.tolist() == [[4, 2]]
    assert keep(found, np.zeros((1, 5), bool), NONE_BLOCKED, 6).row_PM.tolist() == [[7, 3, 9, 1, -1, -1]]


@pytest.mark.parametrize(
    ("reserve", "expected"),
    [(0, [1, 2, 3, 4]), (1, [1, 2, 3, 6]), (2, [1, 2, 6, 7]), (3, [1, 6, 7, 8]), (9, [6, 7, 8, 9])],
)
def test_places_are_reserved_for_new_rows(reserve: int, expected: list[int]) -> None:
    found = a_list(*((row, Proposed.vector) for row in range(1, 6)), *((row, Proposed.fresh) for row in range(6, 10)))
    assert keep(found, np.zeros((1, 9), bool), NONE_BLOCKED, 4, reserve=reserve).row_PM[0].tolist() == expected


def test_reserved_places_nobody_needs_are_filled_in_order() -> None:
    found = a_list(
        (1, Proposed.trending), (2, Proposed.vector), (3, Proposed.trending), (4, Proposed.vector), (5, Proposed.vector)
    )
    assert keep(found, np.zeros((1, 5), bool), NONE_BLOCKED, 4, reserve=2).row_PM[0].tolist() == [1, 2, 3, 4]


def test_taste_fades_over_wanted_items_only() -> None:
    source_ND = np.eye(4, dtype=np.float32)
    history_PH, weight_PH = rows(2, 0, -1, 3)[None], np.array([[1, 0, 1, 0.5]], np.float32)
    np.testing.assert_allclose(taste(history_PH, weight_PH, source_ND, 0.9), [[0, 0, 1, 0.45]])


def test_rows_that_came_after_the_snapshot_say_nothing() -> None:
    assert (gathered(rows(ITEMS, ITEMS + 5)[None]).row_PM == -1).all()
    assert not taste(rows(4)[None], np.ones((1, 1), np.float32), np.eye(4, dtype=np.float32), 0.9).any()


def test_what_was_begun_comes_latest_first_and_nothing_that_is_blocked() -> None:
    blocked_N = np.zeros(ITEMS, np.bool_)
    blocked_N[7] = True
    begun_PH = np.array([[5, -1, 7, 40, 2], [-1, -1, -1, -1, 3]], np.int32)
    got = gathered(begun_PH, begun_PH=begun_PH, latest=0, blocked_N=blocked_N)
    assert got.row_PM[:, :4].tolist() == [[5, 40, 2, -1], [3, -1, -1, -1]]
    assert set(got.source_PM[got.row_PM >= 0].tolist()) == {Proposed.begun}
