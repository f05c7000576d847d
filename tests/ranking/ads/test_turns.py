"""Line items of a crowded tier take turns in proportion to what each still needs; nobody else notices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.ads.turns import crowded, in_turn, yielded

CANDIDATE = st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.2, 0.4, 0.9, 3.0]), st.integers(0, 9))
PLACES = st.lists(st.tuples(st.lists(CANDIDATE, max_size=5), st.integers(1, 3)), min_size=1, max_size=4)
Places = list[tuple[list[tuple[int, float, int]], int]]


def columns(places: Places) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    flat = [candidate for some, _ in places for candidate in some]
    start_P1 = np.cumsum([0, *(len(some) for some, _ in places)])
    tier_M, bid_M = (np.array([one[n] for one in flat], np.int64) for n in (0, 2))
    slots_P = np.array([slots for _, slots in places], np.int64)
    return start_P1, slots_P, tier_M, np.array([one[1] for one in flat], np.float64), bid_M


@settings(deadline=None)  # the first example compiles
@given(PLACES)
def test_a_tier_is_crowded_where_it_needs_more_than_a_place_has(places: Places) -> None:
    start_P1, slots_P, tier_M, need_M, bid_M = columns(places)
    kept_M = crowded(start_P1, slots_P, tier_M, need_M)
    least_M = yielded(start_P1, slots_P, tier_M, kept_M, bid_M)
    expected, paid = [], []
    for some, slots in places:
        for n, (tier, need, bid) in enumerate(some):
            others = [one for m, one in enumerate(some) if m != n and one[0] == tier and one[1] > 0]
            crowd = need > 0 and bool(others) and need + sum(one[1] for one in others) > slots + 1e-12
            expected.append(need if crowd else 0.0)
            paid.append(min(bid, max(one[2] for one in others)) if crowd and len(others) >= slots else 0)
    assert kept_M.tolist() == expected
    assert least_M.tolist() == paid


def test_turns_are_taken_in_proportion_to_need() -> None:
    need_M, draw = np.array([0.6, 0.3, 0.9, 0.0]), np.random.default_rng(0)
    firsts = np.zeros(4)
    for _ in range(6_000):
        firsts[in_turn(np.zeros(4, np.int64), need_M, draw.integers(0, 2**64, 4, dtype=np.uint64)).argmin()] += 1
    assert firsts / 6_000 == pytest.approx(need_M / 1.8, abs=0.02)


@settings(deadline=None)  # the first example compiles
@given(PLACES, st.integers(0, 2**32))
def test_who_is_served_before_whom_stays_between_tiers_and_where_nobody_is_crowded(places: Places, seed: int) -> None:
    _, _, tier_M, need_M, _ = columns(places)
    draw_M = np.random.default_rng(seed).integers(0, 2**64, len(tier_M), dtype=np.uint64)
    turn_M = in_turn(tier_M, need_M, draw_M)
    for c in range(len(tier_M)):
        for d in range(len(tier_M)):
            if tier_M[c] < tier_M[d]:
                assert turn_M[c] < turn_M[d]
            elif tier_M[c] == tier_M[d] and need_M[c] == need_M[d] == 0:
                assert turn_M[c] == turn_M[d]
