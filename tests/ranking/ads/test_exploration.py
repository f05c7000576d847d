"""What chance adds to ads that were seldom shown."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ranking.ads.exploration import ROUNDS, drawn, shares, spreads


def draws(count: int, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)


def test_who_was_shown_often_is_drawn_close_to_what_is_known() -> None:
    p_CO = np.full((20_000, 1), 0.02)
    for shown, most in ((0.0, 0.6), (1e6, 0.008)):
        bid_CO = drawn(p_CO, spreads(p_CO, np.full(20_000, shown), 0.5), draws(20_000))
        logit_C = np.log(bid_CO / (1 - bid_CO))[:, 0]
        assert logit_C.mean() == pytest.approx(np.log(0.02 / 0.98), abs=0.02)
        assert logit_C.std() < most


def test_nothing_is_drawn_where_nothing_may_be() -> None:
    p_CO = np.random.default_rng(0).random((50, 3))
    assert drawn(p_CO, spreads(p_CO, np.zeros(50), 0.0), draws(50)) == pytest.approx(p_CO)


def test_chances_stay_chances() -> None:
    p_CO = np.array([[0.0], [1.0], [1e-12], [1 - 1e-12]] * 50)
    bid_CO = drawn(p_CO, np.full((200, 1), 2.0), draws(200))
    assert ((bid_CO >= 0) & (bid_CO <= 1)).all()


def an_auction(p: list[float], spread: list[float], slots: int = 1, tier: list[int] | None = None, draw: int = 0):  # type: ignore[no-untyped-def]
    count = len(p)
    tiers, bids = np.array(tier or [0] * count), np.full(count, 1e6)
    spread_C = np.array(spread, float)
    return shares(np.array([0, count]), np.array([slots]), tiers, bids, np.array(p), spread_C, draws(count, draw), 400)


def test_without_chance_the_best_always_wins() -> None:
    found = an_auction([0.01, 0.03, 0.02], [0, 0, 0], slots=2)
    assert found.propensity_C.tolist() == [0, 1, 1]
    assert found.greedy_C.tolist() == [False, True, True]


def test_an_equal_pair_wins_half_of_the_time_each() -> None:
    propensity_C = an_auction([0.02, 0.02], [0.5, 0.5]).propensity_C
    assert propensity_C.sum() == pytest.approx(1)
    assert propensity_C[0] == pytest.approx(0.5, abs=0.1)


def test_a_later_tier_has_what_an_earlier_one_leaves() -> None:
    found = an_auction([0.01, 0.9, 0.8], [0.5, 0.5, 0.5], slots=2, tier=[0, 1, 1])
    assert found.propensity_C[0] == 1
    assert found.propensity_C[1:].sum() == pytest.approx(1)


def test_who_won_by_the_draw_that_counted_has_a_chance() -> None:
    start_P1, tier_C = np.arange(301) * 3, np.zeros(900, np.int64)
    p_C, spread_C, draw_C = np.tile([0.02, 0.002, 0.002], 300), np.full(900, 1.0), draws(900)
    bid_C = np.full(900, 1e6)
    found = shares(start_P1, np.ones(300, np.int64), tier_C, bid_C, p_C, spread_C, draw_C)
    won_P = drawn(p_C[:, None], spread_C[:, None], draw_C).reshape(300, 3).argmax(1) + 3 * np.arange(300)
    assert (won_P % 3 > 0).any(), "somebody won by chance"
    assert (found.propensity_C[won_P] >= 1 / (ROUNDS + 1)).all()


def test_auctions_with_fewer_candidates_than_slots_give_all_a_place() -> None:
    found = shares(
        np.array([0, 2, 2]), np.array([4, 1]), np.zeros(2), np.ones(2), np.full(2, 0.1), np.full(2, 0.5), draws(2)
    )
    assert found.propensity_C.tolist() == [1, 1]
