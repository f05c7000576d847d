"""The auction beside a plain reading of its rules, and the cases that auctions get wrong."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.ads.auction import MOST_MICROS, NEVER, NOBODY, At, Auction, sell, tie_break
from ranking.ads.currencies import Currencies
from ranking.ads.losses import Loss

MONEY = st.integers(0, 40)
SLOTS = st.integers(0, 4)
unhurried = settings(deadline=None)  # whichever is first compiles the loop


@st.composite
def auctions(draw: Any, *, slots: st.SearchStrategy[int] = SLOTS) -> Auction:
    """Small numbers, so that bids, scores and reserves meet."""
    sizes = draw(st.lists(st.integers(0, 7), min_size=1, max_size=5))
    R, C = len(sizes), sum(sizes)

    def column(values: st.SearchStrategy[int], dtype: Any, size: int = C) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=size, max_size=size)), dtype)

    return Auction(
        start_Q=np.cumsum([0, *sizes]),
        request_R=column(st.integers(0, 2**64 - 1), np.uint64, R),
        slots_R=column(slots, np.int64, R),
        at_R=column(st.sampled_from([At.first_price, At.second_price]), np.int8, R),
        line_C=np.array([c for size in sizes for c in range(size)], np.uint64),
        tier_C=column(st.integers(0, 2), np.int64),
        bid_C=column(MONEY | st.sampled_from([-1, MOST_MICROS, MOST_MICROS + 1]), np.int64),
        reserve_C=column(MONEY, np.int64),
        quality_C=column(st.sampled_from([1000, 1000, 500, 700, 0]), np.int64),
        deal_C=column(st.sampled_from([*At, At.market, At.market]), np.int8),
        barred_C=column(st.sampled_from([0, 0, 0, 0, Loss.outbid, Loss.capped]), np.int16),
    )


def standing(a: Auction, r: int) -> list[int]:
    """Who of a request's candidates may win, best first."""

    def order(c: int) -> tuple[int, int, int, int]:
        score = int(a.bid_C[c]) * int(a.quality_C[c])
        return int(a.tier_C[c]), -score, -int(tie_break(a.request_R[r], a.line_C[c])), c

    return sorted(
        (
            c
            for c in range(a.start_Q[r], a.start_Q[r + 1])
            if not a.barred_C[c] and max(a.reserve_C[c], 0) <= a.bid_C[c] <= MOST_MICROS and a.quality_C[c]
        ),
        key=order,
    )


def with_bid(a: Auction, c: int, bid: int) -> Auction:
    return replace(a, bid_C=np.where(np.arange(len(a.bid_C)) == c, bid, a.bid_C))


@unhurried
@given(auctions())
def test_slots_go_in_order_of_tier_then_score_then_hash(a: Auction) -> None:
    sold = sell(a)
    for r in range(len(a.slots_R)):
        ranked, slots = standing(a, r), int(a.slots_R[r])
        assert [c for c in sold.winner_RS[r] if c != NOBODY] == ranked[:slots]
        following = [ranked[s + 1] if s + 1 < len(ranked) else NOBODY for s in range(min(slots, len(ranked)))]
        assert sold.runner_up_RS[r, : len(following)].tolist() == following


@unhurried
@given(auctions())
def test_nobody_pays_more_than_it_bids_or_less_than_its_reserve(a: Auction) -> None:
    sold = sell(a)
    for r, c, price in zip(np.nonzero(sold.winner_RS >= 0)[0], *_won(sold), strict=True):
        rule = a.deal_C[c] or a.at_R[r]
        assert max(a.reserve_C[c], 0) <= price <= a.bid_C[c]
        if rule == At.first_price:
            assert price == a.bid_C[c]
        elif rule == At.fixed:
            assert price == a.reserve_C[c]
        else:
            assert price == sold.min_to_win_C[c]
    assert (sold.price_RS[sold.winner_RS == NOBODY] == 0).all()


def _won(sold: Any) -> tuple[np.ndarray, np.ndarray]:
    won_RS = sold.winner_RS != NOBODY
    return sold.winner_RS[won_RS], sold.price_RS[won_RS]


@unhurried
@given(auctions())
def test_the_least_bid_is_what_trying_every_bid_finds(a: Auction) -> None:
    """A winner keeps its slot at `min_to_win` and not below it; a loser would have had one at it and not below it."""
    sold = sell(a)
    for r in range(len(a.slots_R)):
        place = {int(c): s for s, c in enumerate(sold.winner_RS[r]) if c != NOBODY}
        for c in range(a.start_Q[r], a.start_Q[r + 1]):
            may = not a.barred_C[c] and a.quality_C[c] and 0 <= a.bid_C[c] <= MOST_MICROS
            least, aim = int(sold.min_to_win_C[c]), place.get(c, int(a.slots_R[r]) - 1)

            def wins(bid: int, c: int = c, r: int = r, aim: int = aim) -> bool:
                return c in sell(with_bid(a, c, bid)).winner_RS[r, : aim + 1]

            if not may or least == NEVER:
                assert least == NEVER
                assert not may or not wins(MOST_MICROS)
                continue
            assert wins(least)
            assert least == 0 or not wins(least - 1)


@unhurried
@given(auctions())
def test_every_loser_is_told_why_and_to_whom(a: Auction) -> None:
    sold = sell(a)
    for r in range(len(a.slots_R)):
        ranked, slots = standing(a, r), int(a.slots_R[r])
        last = ranked[slots - 1] if 0 < slots <= len(ranked) else NOBODY
        for c in range(a.start_Q[r], a.start_Q[r + 1]):
            code, to = Loss(sold.code_C[c]), sold.lost_to_C[c]
            if a.barred_C[c]:
                assert (code, to) == (Loss(a.barred_C[c]), NOBODY)
            elif c in ranked[:slots]:
                assert (code, to) == (Loss.won, NOBODY)
            elif c in ranked and not slots:
                assert (code, to) == (Loss.expired, NOBODY)
            elif c in ranked:
                assert code == (Loss.lost_to_deal if a.deal_C[last] and not a.deal_C[c] else Loss.outbid)
                assert to == last
            elif not 0 <= a.bid_C[c] <= MOST_MICROS or not a.quality_C[c]:
                assert (code, to) == (Loss.invalid, NOBODY)
            else:
                assert (code, to) == (Loss.below_deal_floor if a.deal_C[c] else Loss.below_floor, NOBODY)


@unhurried
@given(auctions(slots=st.just(1)), st.integers(0, 1000))
def test_the_second_price_does_not_depend_on_the_winners_own_bid(a: Auction, more: int) -> None:
    a = replace(a, at_R=np.full(len(a.at_R), At.second_price, np.int8), deal_C=np.zeros(len(a.deal_C), np.int8))
    sold = sell(a)
    for r, c in enumerate(sold.winner_RS[:, 0]):
        if c != NOBODY:
            bid = min(int(a.bid_C[c]) + more, MOST_MICROS)
            assert sell(with_bid(a, c, bid)).price_RS[r, 0] == sold.price_RS[r, 0]


@unhurried
@given(auctions(slots=st.just(1)), st.integers(0, 60), st.integers(0, 40))
def test_telling_the_truth_pays_best_with_one_slot(a: Auction, lie: int, value: int) -> None:
    a = replace(a, at_R=np.full(len(a.at_R), At.second_price, np.int8), deal_C=np.zeros(len(a.deal_C), np.int8))

    def gain(bid: int, c: int) -> int:
        sold = sell(with_bid(a, c, bid))
        won = np.argwhere(sold.winner_RS == c)
        return sum(value - int(sold.price_RS[r, s]) for r, s in won)

    for c in range(len(a.bid_C)):
        assert gain(value, c) >= gain(lie, c)


@unhurried
@given(auctions(), st.permutations(range(5)))
def test_a_request_has_the_same_outcome_in_every_batch(a: Auction, order: list[int]) -> None:
    whole = sell(a)
    for r in [r for r in order if r < len(a.slots_R)]:
        C = slice(int(a.start_Q[r]), int(a.start_Q[r + 1]))
        columns = {name: getattr(a, name)[C] for name in a.__slots__ if name.endswith("_C")}
        rows = {name: getattr(a, name)[r : r + 1] for name in a.__slots__ if name.endswith("_R")}
        alone = sell(Auction(start_Q=np.array([0, C.stop - C.start]), **columns, **rows))
        S = alone.winner_RS.shape[1]
        won_S = alone.winner_RS[0]
        assert np.where(won_S >= 0, won_S + C.start, NOBODY).tolist() == whole.winner_RS[r, :S].tolist()
        assert alone.price_RS[0].tolist() == whole.price_RS[r, :S].tolist()
        assert alone.code_C.tolist() == whole.code_C[C].tolist()
        assert alone.min_to_win_C.tolist() == whole.min_to_win_C[C].tolist()


def test_with_more_slots_than_bidders_everybody_wins_and_the_last_pays_the_reserve() -> None:
    sold = sell(Auction.of([[(0, 900), (0, 500)]], slots=4, reserve=100))
    assert sold.winner_RS.tolist() == [[0, 1, NOBODY, NOBODY]]
    assert sold.price_RS.tolist() == [[501, 100, 0, 0]], "the hash prefers the other at 500"
    assert sold.runner_up_RS.tolist() == [[1, NOBODY, NOBODY, NOBODY]]


def test_a_sole_bidder_pays_the_reserve() -> None:
    assert sell(Auction.of([[(0, 900)]], reserve=120)).price_RS.tolist() == [[120]]


@pytest.mark.parametrize("requests", [[], [[]], [[(0, 5)]], [[(0, 5), (1, 9)], []]])
def test_where_nobody_is_eligible_nothing_is_sold(requests: list[list[tuple[int, int]]]) -> None:
    sold = sell(Auction.of(requests, reserve=10, slots=2))
    assert (sold.winner_RS == NOBODY).all()
    assert (sold.code_C == Loss.below_floor).all()
    assert (sold.min_to_win_C == 10).all(), "the slot was free for whoever bids the reserve"


def test_a_later_tier_has_what_is_left_and_cannot_raise_the_price() -> None:
    sold = sell(Auction.of([[(0, 300), (1, 900), (1, 800)]], slots=2, reserve=50))
    assert sold.winner_RS.tolist() == [[0, 1]]
    assert sold.price_RS[0, 0] == 50
    assert sold.price_RS[0, 1] in (800, 801)
    one = sell(Auction.of([[(0, 300), (1, 900)]], reserve=50))
    assert one.min_to_win_C[1] == NEVER


def test_two_advertisers_with_equal_bids_win_equally_often_and_pay_their_bid() -> None:
    """Whichever id is lower: 10,000 requests, three standard deviations."""
    sold = sell(Auction.of([[(0, 700), (0, 700)]] * 10_000))
    assert abs(int((sold.winner_RS == np.arange(0, 20_000, 2)[:, None]).sum()) - 5_000) < 150
    assert (sold.price_RS == 700).all()
    assert set(sold.code_C.tolist()) == {Loss.won, Loss.outbid}
    lost_C = sold.code_C == Loss.outbid
    assert (sold.min_to_win_C[lost_C] == 701).all()


def test_house_ads_win_at_nothing_when_nobody_else_is_there() -> None:
    assert sell(Auction.of([[(9, 0)]])).price_RS.tolist() == [[0]]
    assert sell(Auction.of([[(9, 0)]])).winner_RS.tolist() == [[0]]


def test_bids_in_two_currencies_meet_in_one() -> None:
    table = Currencies(version="v1", micros={"EUR": 1_000_000, "USD": 1_100_000})
    dollars = table.convert(np.array([1_000, 1_200]), "USD", "EUR")
    assert dollars.tolist() == [909, 1_090]
    sold = sell(Auction.of([[(0, 1_000), (0, int(dollars[0])), (0, int(dollars[1]))]]))
    assert sold.winner_RS.tolist() == [[2]]
    assert sold.price_RS[0, 0] in (1_000, 1_001)


def test_quality_makes_a_bid_worth_more_and_its_price_lower() -> None:
    a = Auction.of([[(0, 500), (0, 800)]])
    sold = sell(replace(a, quality_C=np.array([2000, 1000])))
    assert sold.winner_RS.tolist() == [[0]]
    assert sold.price_RS[0, 0] in (400, 401)


def test_columns_that_do_not_fit_are_refused() -> None:
    a = Auction.of([[(0, 500)]])
    with pytest.raises(ValueError, match="1 candidates"):
        replace(a, bid_C=np.array([1, 2]))
    with pytest.raises(ValueError, match="1 requests"):
        replace(a, slots_R=np.array([1, 2]))
    with pytest.raises(ValueError, match="start_Q"):
        replace(a, start_Q=np.array([0, 2]))
