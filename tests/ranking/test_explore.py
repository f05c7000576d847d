"""What chance puts into a slate, and whether it does so as often as it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.slate import best, explore
from tests.fuzzing import thorough

TURNS = 4_000


def a_pack(candidates, size, turns=TURNS, seed=0):
    """One position again and again, with other coins and keys every time: choice, mask, coins, keys."""
    rng = np.random.default_rng(seed)
    mask_PK = np.tile(np.arange(7) < candidates, (turns, 1))
    score_PK = np.tile(rng.permutation(7).astype(np.float32), (turns, 1))
    index_PN, _ = best(score_PK, np.tile(np.arange(7), (turns, 1)), mask_PK, size)
    key_PS = rng.integers(0, 2**64, (turns, 7 + size), np.uint64)
    return index_PN, mask_PK, rng.random((turns, size), np.float32), key_PS


def explored(candidates, size, places, share, **pack):
    index_PN, mask_PK, *chance = a_pack(candidates, size, **pack)
    places_P = np.full(len(index_PN), places, np.int32)
    ranked_N = index_PN[0].copy()
    return ranked_N, index_PN, *explore(index_PN, mask_PK, places_P, *chance, share)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 7), st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.1, 0.3, 0.5]), st.integers(0, 99))
def test_each_candidate_stands_in_each_place_as_often_as_is_said_and_these_sum_to_one(
    candidates, size, places, share, seed
):
    ranked_N, index_PN, propensity_PN, explored_PN = explored(candidates, size, places, share, seed=seed)
    for n in range(size):
        if ranked_N[n] < 0:
            assert (index_PN[:, n] == -1).all()
            assert not propensity_PN[:, n].any()
            continue
        said = {}
        for k in np.unique(index_PN[:, n]).tolist():
            there = index_PN[:, n] == k
            (said[k],) = np.unique(propensity_PN[there, n])
            assert there.mean() == pytest.approx(said[k], abs=5 * np.sqrt(said[k] * (1 - said[k]) / TURNS) + 1e-9)
            assert (explored_PN[there, n] == (k != ranked_N[n])).all()
        assert sum(said.values()) == pytest.approx(1, abs=1e-12)
        reach = candidates - places if n < places else 0
        assert set(said) - {ranked_N[n]} == set(range(candidates)) - set(ranked_N[:places].tolist()) or reach <= 0


@thorough(40)
@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_nothing_is_there_twice_or_that_may_not_be(candidates, size, places, seed):
    ranked_N, index_PN, _, explored_PN = explored(candidates, size, places, 0.5, turns=50, seed=seed)
    assert index_PN.max() < candidates
    assert (index_PN[:, places:] == ranked_N[places:]).all(), "others asked for more places"
    for shown_N in index_PN[:, :places]:
        held = shown_N[shown_N >= 0].tolist()
        assert len(set(held)) == len(held)
    below = set(range(candidates)) - set(ranked_N[:places].tolist())
    assert set(index_PN[explored_PN].tolist()) <= below


def test_the_share_of_places_is_the_share_that_was_asked_for():
    *_, explored_PN = explored(7, 3, 3, 0.2)
    assert explored_PN.mean(0) == pytest.approx([0.2] * 3, abs=0.03)
    few = explored(4, 3, 3, 0.3)
    assert few[-1].mean(0) == pytest.approx([0.1] * 3, abs=0.03), "one candidate is left for three places"


def test_where_nothing_is_left_nothing_is_drawn():
    ranked_N, index_PN, propensity_PN, explored_PN = explored(3, 3, 3, 0.5)
    assert (index_PN == ranked_N).all()
    assert (propensity_PN == 1).all()
    assert not explored_PN.any()


@pytest.mark.slow
def test_what_is_dealt_does_not_depend_on_the_order_of_the_candidates():
    index_PN, mask_PK, chance_PN, key_PS = a_pack(7, 2, turns=200)
    order = np.array([3, 1, 6, 0, 2, 5, 4])
    moved_PN, places_P = np.argsort(order)[index_PN].astype(np.int32), np.full(200, 2, np.int32)
    explore(index_PN, mask_PK, places_P, chance_PN, key_PS, 0.5)
    explore(moved_PN, mask_PK[:, order], places_P, chance_PN, key_PS[:, [*order, 7, 8]], 0.5)
    assert (order[moved_PN] == index_PN).all()
