from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.ads.auction import Auction, sell
from ranking.ads.vcg import vcg_prices

BIDS = st.lists(st.integers(0, 50), min_size=1, max_size=5)
WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=3).map(lambda w: sorted(w, reverse=True))


def value(bid_N: list[int], weight_S: list[int], reserve: int) -> int:
    """The most that slots can be worth to bidders, the seller keeping what would bring less than the reserve."""
    everybody = [*bid_N, *[reserve] * len(weight_S)]
    return max(
        sum(b * w for b, w in zip(pick, weight_S, strict=True)) for pick in permutations(everybody, len(weight_S))
    )


@given(BIDS, WEIGHTS, st.integers(0, 30))
def test_each_pays_what_its_presence_costs_the_others(bid_N: list[int], weight_S: list[int], reserve: int) -> None:
    for s, (n, price) in enumerate(vcg_prices(bid_N, weight_S, reserve)):
        others = value(bid_N, weight_S, reserve) - bid_N[n] * weight_S[s]
        harm = value(bid_N[:n] + bid_N[n + 1 :], weight_S, reserve) - others
        assert (price - 1) * weight_S[s] < harm <= price * weight_S[s]
        assert reserve <= price <= bid_N[n]


@given(BIDS, WEIGHTS, st.integers(0, 30), st.integers(0, 60))
def test_truth_pays_best_within_the_rounding(bid_N: list[int], weight_S: list[int], reserve: int, lie: int) -> None:
    def gain(bid: int) -> int:
        sold = vcg_prices([bid, *bid_N[1:]], weight_S, reserve)
        return sum((bid_N[0] - price) * weight_S[s] for s, (n, price) in enumerate(sold) if n == 0)

    assert gain(bid_N[0]) >= gain(lie) - weight_S[0]


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6, unique=True), WEIGHTS, st.integers(0, 30))
def test_gsp_asks_no_less_for_any_slot(bid_N: list[int], weight_S: list[int], reserve: int) -> None:
    """Edelman, Ostrovsky and Schwarz 2007: at the same bids GSP's prices are at least those of VCG."""
    gsp = sell(Auction.of([[(0, bid) for bid in bid_N]], slots=len(weight_S), reserve=reserve))
    for s, (n, price) in enumerate(vcg_prices(bid_N, weight_S, reserve)):
        assert gsp.winner_RS[0, s] == n
        assert gsp.price_RS[0, s] >= price


@pytest.mark.parametrize("weight_S", [[1, 2], [0], [-1]])
def test_weights_that_grow_or_are_nothing_are_refused(weight_S: list[int]) -> None:
    with pytest.raises(ValueError, match="weight_S"):
        vcg_prices([1], weight_S)
