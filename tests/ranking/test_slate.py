import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.ranker import Scores
from ranking.slate import best, objective
from tests.fuzzing import thorough


def a_choice(score_PK, *, item_PK=None, mask_PK=None, size=3):
    score_PK = np.asarray(score_PK, np.float32)
    items = np.tile(np.arange(score_PK.shape[1]), (len(score_PK), 1)) if item_PK is None else item_PK
    return best(score_PK, items, np.ones(score_PK.shape, bool) if mask_PK is None else mask_PK, size)


@thorough(60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 15))
def test_the_slate_is_the_head_of_the_sorted_candidates(seed, size):
    rng = np.random.default_rng(seed)
    score_PK = rng.integers(0, 4, (3, 10)).astype(np.float32)  # many ties
    item_PK = np.stack([rng.permutation(1000)[:10] for _ in range(3)])
    mask_PK = rng.random((3, 10)) < 0.7
    index_PN, score_PN = a_choice(score_PK, item_PK=item_PK, mask_PK=mask_PK, size=size)
    for p in range(3):
        ordered = sorted(np.flatnonzero(mask_PK[p]), key=lambda k: (-score_PK[p, k], item_PK[p, k]))[:size]
        assert index_PN[p].tolist() == [*ordered, *[-1] * (size - len(ordered))]
        assert score_PN[p, : len(ordered)].tolist() == score_PK[p, ordered].tolist()


def test_a_score_that_is_not_a_number_stands_last():
    assert a_choice([[1.0, np.nan, 2.0]])[0].tolist() == [[2, 0, 1]]


def test_places_past_the_end_are_empty():
    index_PN, score_PN = a_choice([[1.0, 2.0]], mask_PK=np.array([[True, False]]))
    assert index_PN.tolist() == [[0, -1, -1]]
    assert score_PN.tolist() == [[1, 0, 0]]


def test_the_objective_is_the_weighted_sum_of_the_heads():
    scores = Scores(*(np.full((1, 2), value, np.float32) for value in (0.5, 0.2, 0.1)))
    assert objective(scores, {"next": 1.0, "click": 2.0, "complete": 3.0})[0] == pytest.approx(1.2)


def test_an_unknown_head_is_refused():
    scores = Scores(*(np.zeros((1, 1), np.float32) for _ in range(3)))
    with pytest.raises(KeyError):
        objective(scores, {"nxt": 1.0})
