"""What a worker holds is spent in order, once, by the line item that holds it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.ads.holdings import Holdings, own_units
from ranking.ads.losses import Loss

KEYS = np.array([7, 8, 9], np.uint64)


def held(left: int = 100, units: int = 10) -> Holdings:
    holdings = Holdings.of(KEYS)
    holdings.pass_L[:], holdings.code_L[:], holdings.left_L[:] = 1.0, 0, left
    holdings.until_ms_L[:], holdings.units_L[:] = 1_000, units
    return holdings


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60)), max_size=30),
    st.integers(0, 200),
    st.integers(0, 12),
)
def test_wins_are_covered_in_order_by_what_is_left(wins: list[tuple[int, int]], left: int, units: int) -> None:
    holdings = held(left, units)
    row_W, micros_W = (np.array(column, np.int64) for column in zip(*wins, strict=True)) if wins else (KEYS[:0],) * 2
    covered_W = holdings.take(KEYS, row_W, micros_W, 0)
    money, number = [left] * 3, [units] * 3
    for (row, micros), covered in zip(wins, covered_W.tolist(), strict=True):
        assert covered == (micros <= money[row] and number[row] > 0)
        money[row] -= micros * covered
        number[row] -= covered
    assert holdings.left_L.tolist() == money
    assert holdings.untold_L.tolist() == [left - rest for rest in money]
    holdings.told(KEYS, row_W[covered_W], micros_W[covered_W])
    assert not holdings.untold_L.any()
    assert not holdings.untold_units_L.any()


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.lists(st.integers(0, 3), min_size=1, max_size=16))
def test_rooms_of_all_workers_are_the_room(room: int, first: int, owners: list[int]) -> None:
    owner_N = np.array(owners)
    parts = [own_units(np.array([room]), np.array([first]), owner_N == worker)[0] for worker in range(4)]
    assert sum(parts) == room


def test_a_lease_that_has_ended_covers_nothing() -> None:
    holdings, row_1 = held(), np.zeros(1, np.int64)
    assert not holdings.take(KEYS, row_1, np.ones(1, np.int64), 1_000)[0]
    assert holdings.judge(KEYS, row_1, np.zeros(1, np.uint64), 1_000).tolist() == [Loss.paced]


def test_a_house_ad_costs_nothing_and_needs_a_lease_all_the_same() -> None:
    holdings, row_1, nothing_1 = held(left=1), np.zeros(1, np.int64), np.zeros(1, np.int64)
    assert holdings.take(KEYS, row_1, nothing_1, 0)[0]
    assert not Holdings.of(KEYS).take(KEYS, row_1, nothing_1, 0)[0]


def test_rows_of_others_and_of_later_markets_are_paced_and_not_counted() -> None:
    holdings, others = held(), np.array([7, 80, 9, 10], np.uint64)
    code_M = holdings.judge(others, np.arange(4), np.zeros(4, np.uint64), 0)
    assert code_M.tolist() == [0, Loss.paced, 0, Loss.paced]
    assert holdings.chances_L.tolist() == [1, 0, 1]


def test_the_pass_rate_is_the_share_of_draws_that_may_bid() -> None:
    holdings = held()
    holdings.pass_L[:] = 0.25
    draw_M = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64)
    code_M = holdings.judge(KEYS, np.zeros(20_000, np.int64), draw_M, 0)
    assert abs((code_M == 0).mean() - 0.25) < 0.015
    assert holdings.passed_L[0] == (code_M == 0).sum()


def test_rows_keep_what_they_hold_while_they_are_the_same_line_items() -> None:
    aligned = held().aligned(np.array([7, 80, 9, 10], np.uint64))
    assert aligned.left_L.tolist() == [100, 0, 100, 0]
    assert aligned.key_L.tolist() == [7, 80, 9, 10]


def test_what_passed_in_vain_for_want_of_money_is_left_out() -> None:
    holdings = held(left=10)
    row_4 = np.zeros(4, np.int64)
    holdings.judge(KEYS, row_4, np.zeros(4, np.uint64), 0)
    holdings.take(KEYS, row_4, np.full(4, 10), 0)
    chances_L, passed_L = holdings.begin()
    assert (chances_L[0], passed_L[0]) == (4, 1)
    assert not holdings.missed_L.any()
