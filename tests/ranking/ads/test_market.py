"""The market after any changes is the one made of what is left; money of other currencies; who is served first."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.ads.campaigns import (
    BidType,
    Campaign,
    Creative,
    Deal,
    Delivery,
    Goal,
    GoalKind,
    LineItem,
    Status,
    Type,
)
from ranking.ads.currencies import Currencies
from ranking.ads.losses import Loss
from ranking.ads.market import Exchange, Market
from ranking.ads.pacing import DAY_MS, UNLIMITED
from ranking.ads.predicates import And, DayPart, In, Not, Opportunity, Or, holds
from ranking.ads.promises import open_CH, promises
from ranking.ads.targeting import dense
from ranking.ads.terms import billed_by, limits
from ranking.ads.traffic import HOUR_MS
from ranking.errors import CampaignRefused, TargetingRefused, UnknownCurrency
from tests.fuzzing import thorough
from tests.ranking.ads.houses import RATES, a_campaign, a_line, an_exchange

COUNTRIES = ("us", "de", "fr")
ASKED = [Opportunity(now_ms=0, words={"country": [country]}) for country in COUNTRIES]

lines = st.builds(
    lambda name, country, labels, bid, curve, status: {
        "name": name, "targeting": In.of("country", country), "labels": frozenset(labels), "bid_micros": bid,
        "currency": "USD" if bid % 2 else "EUR", "curve": curve, "status": status,
        "delivery": Delivery.custom if curve else Delivery.even,
    },
    st.sampled_from("abc"), st.sampled_from(COUNTRIES), st.sets(st.sampled_from(("x", "y"))), st.integers(0, 9_999_999),
    st.sampled_from([(), (0.25, 0.75), (0.5, 0.25, 0.25)]), st.sampled_from(Status),
)  # fmt: skip
campaigns = st.builds(
    lambda name, some: a_campaign(name, *(a_line(campaign=name, **one) for one in some)),
    st.sampled_from("cdef"),
    st.lists(lines, min_size=1, max_size=3, unique_by=lambda one: str(one["name"])),
)


def told(market: Market) -> dict[str, tuple[object, ...]]:
    """What a market says of each line item, whatever its row."""
    matched_PL = dense(market.targeting.match(ASKED), market.targeting.rows)
    plans = market.plans
    return {
        line.key: (
            *(column[row] for column in (market.tier_L, market.bid_micros_L, market.barred_L, market.version_L)),
            market.hours[plans.hours_L[row]],
            plans.curve_LK[row, : plans.parts_L[row]].tolist(),
            plans.limit_LG[row].tolist(),
            matched_PL[:, row].tolist(),
            bool(market.house.line_L["live"][row]),
            line,
        )
        for row, line in enumerate(market.lines)
        if line is not None
    }


@thorough(40)
@given(st.lists(st.one_of(campaigns, st.sampled_from("cdef")), max_size=12))
def test_changes_come_to_what_is_left(changes: list[Campaign | str]) -> None:
    exchange, left = an_exchange(), dict[str, tuple[Campaign, int]]()
    for version, change in enumerate(changes):
        if isinstance(change, str):
            exchange.stop(change)
            left.pop(change, None)
        else:
            exchange.put(change, version)
            left[change.id] = change, version
    anew = Exchange(RATES, "EUR")
    anew.change(list(left.values()))
    assert told(exchange.market) == told(anew.market)
    held_PL = dense(exchange.market.targeting.match(ASKED), exchange.market.targeting.rows)
    for row, line in enumerate(exchange.market.lines):
        assert held_PL[:, row].tolist() == [line is not None and holds(line.targeting, asked) for asked in ASKED]


def test_generations_of_campaigns_leave_no_words_behind() -> None:
    exchange = an_exchange(a_campaign("stays", a_line(campaign="stays", targeting=DayPart(1, "UTC"))))
    first = exchange.market
    most = 0
    for generation in range(50):
        names = [f"g{generation}-{n}" for n in range(8)]
        exchange.change(
            [(_own_words(name), generation) for name in names], [f"g{generation - 1}-{n}" for n in range(8)]
        )
        most = max(most, len(exchange.market.house.tokens), len(exchange.market.hours))
    anew = an_exchange(
        a_campaign("stays", a_line(campaign="stays", targeting=DayPart(1, "UTC"))), *map(_own_words, names)
    )
    held = len(anew.market.house.tokens)
    assert most <= max(2 * held, 256) + 8 * 8
    assert len(exchange.market.hours) <= 64 + 8
    assert first.hours == (None, DayPart(1, "UTC"))
    assert _said(exchange.market) == _said(anew.market)


def _own_words(name: str) -> Campaign:
    """A campaign whose words no other has."""
    creative = Creative(
        key=f"{name}/l/cr", crid="cr", approved=True, adomain=(f"{name}.example",), cat=(name,), cattax=2,
        bundle=f"app.{name}", mimes=(f"x/{name}",), format="banner",
    )  # fmt: skip
    bit = int(name[1:-2]) * 8 + int(name[-1])
    line = a_line(
        campaign=name, advertiser=name, creatives=(creative,), targeting=DayPart(1 + bit, "UTC"),
        deal=Deal(id=name, floor_micros=1, at=2, guaranteed=False),
    )  # fmt: skip
    return a_campaign(name, line)


def _said(market: Market) -> dict[str, tuple[object, ...]]:
    """The words behind the numbers of each line item, and the hours it asks for."""
    house = market.house
    word_of = dict(enumerate(house.tokens.words))
    said = {}
    for row, line in enumerate(house.lines):
        if line is not None:
            first, last = house.creative_start_L1[row : row + 2]
            tokens = house.carried_M[house.carried_start_N1[first] : house.carried_start_N1[last]].tolist()
            own = house.line_L[row]
            words = sorted(word_of[token] for token in [*tokens, int(own["advertiser"])])
            said[line.key] = words, word_of.get(int(own["deal"])), market.hours[market.plans.hours_L[row]]
    return said


def test_a_snapshot_stays_as_it_was() -> None:
    exchange = an_exchange(a_campaign())
    before = exchange.market
    exchange.change([(a_campaign("d"), 2)], ["c"])
    assert [line.key for line in before.lines if line] == ["c/l"]
    assert [line.key for line in exchange.market.lines if line] == ["d/l"]
    assert before.bid_micros_L.tolist() == [2_000_000]


def test_a_line_item_that_cannot_be_indexed_changes_nothing() -> None:
    exchange = an_exchange(a_campaign())
    before = exchange.market
    pair = (Or((In.of("country", c), In.of("os", o))) for c, o in zip("abcdefghi", "jklmnopqr", strict=True))
    with pytest.raises(TargetingRefused):
        exchange.change(
            [(a_campaign("d"), 2), (a_campaign("e", a_line(campaign="e", targeting=And(tuple(pair)))), 3)], ["c"]
        )
    assert exchange.market is before


def test_bids_of_another_currency_are_rounded_down_and_charged_at_most_as_said() -> None:
    exchange = an_exchange(a_campaign("c", a_line(currency="USD", bid_micros=1_999_999)), currency="EUR")
    market = exchange.market
    assert market.bid_micros_L.tolist() == [1_999_999 * 10 // 11]
    paid_1 = market.bid_micros_L // 1000
    assert market.charged(np.array([0]), paid_1)[0] <= 1_999
    assert market.charged(np.array([0, 0]), np.array([10, 11])).tolist() == [11, 12]


def test_a_line_item_in_an_unknown_currency_does_not_bid_and_says_why() -> None:
    market = an_exchange(a_campaign("c", a_line(currency="XXX"), a_line("m"))).market
    assert market.barred_L.tolist() == [Loss.invalid, 0]
    assert market.why_not == {"c/l": "it does not bid: currency 'XXX' is none of EUR, JPY, USD (1)"}
    with pytest.raises(UnknownCurrency):
        Exchange(Currencies(version="1", micros={"EUR": 1_000_000}), "USD")


def test_a_deals_floor_is_per_impression_and_rounded_up() -> None:
    deal = Deal(id="d", floor_micros=1_500_001, at=3, guaranteed=True)
    market = an_exchange(a_campaign("c", a_line(deal=deal))).market
    assert (market.deal_micros_L.tolist(), market.deal_at_L.tolist()) == ([1_501], [3])


def test_priority_comes_before_type_and_the_house_after_everybody() -> None:
    said = [(Type.house, 1), (Type.price_priority, 16), (Type.standard, 8), (Type.sponsorship, 8), (Type.bulk, 4)]
    some = [a_line(f"l{n}", type=type_, priority=priority) for n, (type_, priority) in enumerate(said)]
    market = an_exchange(a_campaign("c", *some)).market
    assert np.argsort(market.tier_L).tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"budget_micros": 9, "daily_budget_micros": 5}, (9, 5, -1, -1)),
        ({"budget_micros": 9, "goal": Goal(kind=GoalKind.money, quantity=7)}, (7, -1, -1, -1)),
        ({"goal": Goal(kind=GoalKind.money, quantity=7, daily=True)}, (-1, 7, -1, -1)),
        ({"goal": Goal(kind=GoalKind.clicks, quantity=7, daily=True)}, (-1, -1, -1, 7)),
        ({"goal": Goal(kind=GoalKind.share, quantity=7)}, (-1, -1, -1, -1)),
    ],
)
def test_goals_and_budgets_are_limits(fields: dict[str, object], expected: tuple[int, ...]) -> None:
    assert limits(a_line(**fields)) == expected


@pytest.mark.parametrize(
    ("bid_type", "kind", "expected"),
    [
        (BidType.cpm, GoalKind.impressions, 0),
        (BidType.cpm, GoalKind.viewable, 1),
        (BidType.cpc, GoalKind.viewable, 2),
        (BidType.cpcv, GoalKind.none, 3),
        (BidType.cpa, GoalKind.none, 4),
    ],
)
def test_a_bid_is_owed_for_its_event(bid_type: BidType, kind: GoalKind, expected: int) -> None:
    assert billed_by(a_line(bid_type=bid_type, goal=Goal(kind=kind, quantity=1))) == expected


def bound(line: LineItem, *, spent: int = 0, campaign: int = 0, now_ms: int = 0, **budgets: int) -> tuple[object, ...]:
    market = an_exchange(a_campaign("c", line, **budgets)).market
    spent_LG = np.array([[spent, 0, 0, 0]])
    found = promises(market, spent_LG, np.array([[campaign, 0]]), now_ms)
    return int(found.plans.limit_LG[0, 0]), int(found.spent_LG[0, 0]), bool(found.shared_L2[0, 0])


def test_the_campaigns_budget_binds_where_less_is_left_of_it() -> None:
    assert bound(a_line(budget_micros=100), spent=10, campaign=30, budget_micros=200) == (100, 10, False)
    assert bound(a_line(budget_micros=100), spent=10, campaign=150, budget_micros=200) == (200, 150, True)
    assert bound(a_line(), spent=10, campaign=30, budget_micros=200) == (200, 30, True)
    assert bound(a_line(), spent=10) == (UNLIMITED, 10, False)


def test_each_flight_has_the_part_of_the_budget_that_it_is_of_all_flights() -> None:
    """Three hours on Monday and one on Friday: nothing is due between them, the last has what is left."""
    line = a_line(flights=((0, 3 * HOUR_MS), (96 * HOUR_MS, 97 * HOUR_MS)), budget_micros=101)
    assert bound(line, spent=20, now_ms=HOUR_MS) == (76, 20, False)
    assert bound(line, spent=80, now_ms=96 * HOUR_MS) == (26, 5, False)
    market = an_exchange(a_campaign("c", line)).market
    between = promises(market, np.zeros((1, 4), np.int64), np.zeros((1, 2), np.int64), 50 * HOUR_MS).plans
    assert between.end_ms_L.tolist() == [3 * HOUR_MS]


def test_days_are_those_of_the_campaigns_clock_also_after_it_was_changed() -> None:
    market = an_exchange(a_campaign("c", a_line(time_zone="Europe/Berlin"))).market
    nothing = np.zeros((1, 4), np.int64), np.zeros((1, 2), np.int64)
    change_ms = 1_774_746_000_000
    hours = [int(promises(market, *nothing, at).plans.offset_ms_L[0]) // HOUR_MS for at in (change_ms - 1, change_ms)]
    assert hours == [1, 2]


def test_day_parts_open_the_hours_that_they_are_of_on_their_clock() -> None:
    evening = DayPart(sum(1 << 24 * day + 20 for day in range(7)), "Europe/Berlin")
    some = [
        a_line("evening", targeting=And((In.of("country", "de"), evening))),
        a_line("other", targeting=Not(evening)),
        a_line("either", targeting=Or((evening, In.of("country", "de")))),
        a_line("half", targeting=And((evening, DayPart(evening.hours & (1 << 84) - 1, "UTC")))),
    ]
    market = an_exchange(a_campaign("c", *some)).market
    summer_ms = 1_774_746_000_000
    for now_ms, hour in ((summer_ms - 1, 19), (summer_ms, 18)):
        open_LH = open_CH(market, now_ms)[market.plans.hours_L]
        assert np.flatnonzero(open_LH[0]).tolist() == [24 * day + hour for day in range(7)]
        assert (open_LH[1] == 1 - open_LH[0]).all()
        assert open_LH[2].all()
        assert not open_LH[3].any()


def test_line_items_of_a_stopped_campaign_are_nobodys() -> None:
    exchange = an_exchange(a_campaign("c"), a_campaign("d"))
    exchange.stop("c")
    market = exchange.market
    assert market.lines[0] is None
    assert (market.plans.end_ms_L[0], market.key_L[0]) == (0, 0)
    assert not dense(market.targeting.match(ASKED), market.targeting.rows)[:, 0].any()
    plans = replace(market.plans)
    assert plans.end_ms_L[1] > DAY_MS


def test_a_campaign_that_changes_its_currency_stays_as_it_was_also_when_it_was_stopped_before() -> None:
    campaign = a_campaign("c", a_line())
    other = replace(campaign, currency="USD")
    exchange = an_exchange(campaign, a_campaign("d", a_line(campaign="d")))
    before = told(exchange.market)
    with pytest.raises(CampaignRefused, match="currency is 'USD'; allowed: EUR"):
        exchange.change([(a_campaign("d", a_line("other", campaign="d")), 1), (other, 2)], ["d"])
    assert told(exchange.market) == before
    exchange.stop("c")
    with pytest.raises(CampaignRefused, match="allowed: EUR"):
        exchange.put(other)
    exchange.put(campaign, 1)
    assert told(exchange.market) == before
