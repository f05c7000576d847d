"""Currencies, floors and what a bid is worth: whole micros, rounded to nobody's harm."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ranking.ads.auction import At
from ranking.ads.bids import per_event, worth
from ranking.ads.campaigns import BidType
from ranking.ads.currencies import Currencies
from ranking.ads.floors import Floors, per_impression, reserves
from ranking.errors import UnknownCurrency

RATES = st.integers(1, 10**12)


@given(st.integers(0, 10**12), RATES, RATES)
def test_conversion_is_exact_before_its_one_rounding(amount: int, one: int, other: int) -> None:
    table = Currencies(version="t", micros={"EUR": 1_000_000, "ONE": one, "TWO": other})
    exact = Fraction(amount) * other / one
    amount_N = np.array([amount])
    if exact >= 2**63 - 1:
        with pytest.raises(OverflowError):
            table.convert(amount_N, "ONE", "TWO", up=True)
        return
    assert table.convert(amount_N, "ONE", "TWO").tolist() == [floor(exact)]
    assert table.convert(amount_N, "ONE", "TWO", up=True).tolist() == [ceil(exact)]
    assert table.convert(amount_N, "ONE", "ONE").tolist() == [amount]


def test_a_currency_without_a_rate_is_named_beside_those_that_have_one() -> None:
    table = Currencies(version="of today", micros={"EUR": 1_000_000})
    with pytest.raises(UnknownCurrency, match=r"'XXX' is none of EUR \(of today\)"):
        table.convert(np.array([1]), "XXX", "EUR")


@pytest.mark.parametrize("micros", [{}, {"EUR": 0}, {"EUR": 1_000_000, "USD": -3}, {"USD": 1_100_000}])
def test_a_table_without_a_base_or_with_impossible_rates_is_refused(micros: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="currencies"):
        Currencies(version="t", micros=micros)


WORDS = st.sampled_from(["a", "b", "c", "*"])
RULES = st.dictionaries(st.tuples(WORDS, WORDS, WORDS), st.integers(0, 9), max_size=12)


@given(RULES, st.lists(st.tuples(*[st.sampled_from("abcd")] * 3), max_size=8))
def test_the_rule_that_names_the_earlier_field_holds(
    rules: dict[tuple[str, ...], int], requests: list[tuple[str, ...]]
) -> None:
    floors = Floors.of(("placement", "country", "device"), rules)

    def plain(request: tuple[str, ...]) -> int:
        fits = [rule for rule in rules if all(r in ("*", w) for r, w in zip(rule, request, strict=True))]
        best = min(fits, key=lambda rule: [word == "*" for word in rule], default=None)
        return 0 if best is None else rules[best]

    assert floors.of_requests(floors.codes(requests)).tolist() == [plain(request) for request in requests]


@pytest.mark.parametrize(("rules", "said"), [({("a",): 1}, "1 values for 2"), ({("a", "*"): -1}, r"a\|\* = -1")])
def test_a_floor_that_cannot_be_is_named(rules: dict[tuple[str, ...], int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Floors.of(("placement", "country"), rules)


def test_longer_creatives_need_higher_bids_and_deals_have_floors_of_their_own() -> None:
    deal = np.array([At.market, At.market, At.second_price, At.fixed], np.int8)
    held = reserves(np.full(4, 100), np.full(4, 20), np.array([0, 15, 15, 15]), deal, np.array([0, 0, 40, 900]))
    assert held.tolist() == [100, 300, 40, 900]


def test_a_floor_per_thousand_is_rounded_up() -> None:
    assert per_impression(np.array([0, 1, 1_000, 1_500_001])).tolist() == [0, 1, 1, 1_501]


@example(BidType.cpm, 1_000, 5e-324, 1.0)
@given(st.sampled_from(list(BidType)), st.integers(0, 10**10), st.floats(0, 1), st.floats(0, 1))
def test_an_event_never_costs_more_than_was_bid_for_it(
    bid_type: BidType, bid: int, chance: float, share: float
) -> None:
    columns = np.array([bid_type]), np.array([bid]), np.array([chance])
    value = worth(*columns)
    assert 0 <= value[0] <= (bid // 1000 if bid_type == BidType.cpm else bid)
    paid = np.floor(value * share).astype(np.int64)
    assert 0 <= per_event(columns[0], paid, *columns[1:])[0] <= bid


@pytest.mark.parametrize("chance", [float("nan"), -0.1, 1.5, float("inf")])
def test_what_is_no_probability_bids_nothing(chance: float) -> None:
    assert worth(np.array([BidType.cpc]), np.array([10**6]), np.array([chance])).tolist() == [0]
