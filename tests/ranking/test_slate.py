import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.features import COLUMNS, Feature, Features
from ranking.ranker import Scores
from ranking.slate import Reason, compose, objective


def a_choice(score_PK, *, item_PK=None, mask_PK=None, x_PKX=None, because_PK=None, given=Reason.none, size=3):
    score_PK = np.asarray(score_PK, np.float32)
    shape = score_PK.shape
    features = Features(
        np.zeros((*shape, COLUMNS), np.float32) if x_PKX is None else x_PKX,
        np.full(shape, -1, np.int16) if because_PK is None else because_PK,
    )
    items = np.tile(np.arange(shape[1]), (shape[0], 1)) if item_PK is None else item_PK
    mask = np.ones(shape, bool) if mask_PK is None else mask_PK
    return compose(score_PK, features, np.full(shape, given, np.uint8), items, mask, size)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 15))
def test_the_slate_is_the_head_of_the_sorted_candidates(seed, size):
    rng = np.random.default_rng(seed)
    score_PK = rng.integers(0, 4, (3, 10)).astype(np.float32)  # many ties
    item_PK = np.stack([rng.permutation(1000)[:10] for _ in range(3)])
    mask_PK = rng.random((3, 10)) < 0.7
    slate = a_choice(score_PK, item_PK=item_PK, mask_PK=mask_PK, size=size)
    for p in range(3):
        ordered = sorted(np.flatnonzero(mask_PK[p]), key=lambda k: (-score_PK[p, k], item_PK[p, k]))[:size]
        assert slate.index_PN[p].tolist() == [*ordered, *[-1] * (size - len(ordered))]
        assert slate.score_PN[p, : len(ordered)].tolist() == score_PK[p, ordered].tolist()


def test_a_score_that_is_not_a_number_stands_last():
    assert a_choice([[1.0, np.nan, 2.0]]).index_PN.tolist() == [[2, 0, 1]]


def test_places_past_the_end_are_empty():
    slate = a_choice([[1.0, 2.0]], mask_PK=np.array([[True, False]]))
    assert slate.index_PN.tolist() == [[0, -1, -1]]
    assert slate.reason_PN[0, 1:].tolist() == [Reason.none, Reason.none]


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (Feature.cooc_decayed, Reason.similar_to_recent),
        (Feature.dot, Reason.taste),
        (Feature.popularity_mid, Reason.popular),
        (Feature.category_affinity, Reason.category),
    ],
)
def test_the_reason_is_what_sets_the_item_apart(column, reason):
    x_PKX = np.zeros((1, 5, COLUMNS), np.float32)
    x_PKX[0, 2, column] = 3
    slate = a_choice([[0, 0, 9, 0, 0]], x_PKX=x_PKX, because_PK=np.full((1, 5), 4, np.int16), size=1)
    assert slate.reason_PN[0, 0] == reason
    assert slate.because_PN[0, 0] == (4 if reason is Reason.similar_to_recent else -1)


@pytest.mark.parametrize("reason", [Reason.trending, Reason.fresh])
def test_a_reason_that_no_feature_tells_is_taken_as_it_is_given(reason):
    assert (a_choice([[1.0, 2.0, 3.0]], given=reason).reason_PN == reason).all()


def test_the_objective_is_the_weighted_sum_of_the_heads():
    scores = Scores(*(np.full((1, 2), value, np.float32) for value in (0.5, 0.2, 0.1)))
    assert objective(scores, {"next": 1.0, "click": 2.0, "complete": 3.0})[0] == pytest.approx(1.2)


def test_an_unknown_head_is_refused():
    scores = Scores(*(np.zeros((1, 1), np.float32) for _ in range(3)))
    with pytest.raises(KeyError):
        objective(scores, {"nxt": 1.0})
