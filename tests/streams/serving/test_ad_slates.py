"""Slates that bring ads unasked: what a page looks like, what is reserved, what comes again, what is never shown."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings.errors import StoreUnavailable
from embeddings.items import ItemFacts
from embeddings.spend import Window, slate_decision_id
from streams.ad_surfaces import SurfaceAds
from streams.contract.messages import Part
from streams.contract.observations import Observation
from streams.contract.records import Slate, decode_ad, decode_slate
from streams.lab.ad_house import AdHouse
from streams.serving.pipeline import Answer
from tests.streams.builders import NOW_MS, small
from tests.streams.serving.test_ad_properties import DRAWN
from tests.streams.serving.test_ads import DENIED, a_campaign, a_house, an_impression, one, spent

FLOOR = 2_000_000
OPEN = {
    "show_rate": 0.5,
    "ad_load_max": 0.4,
    "first_slot": 2,
    "min_gap": 1,
    "revenue_weight": 1e5,
    "floor_micros": FLOOR,
}


def a_page_house(*campaigns: Any, rating: str = "", slates: dict[str, Any] | None = None, **more: Any) -> AdHouse:
    """A house whose home page brings ads among ten films."""
    surfaces = {"home": OPEN | more.pop("home", {})}
    settings = small(
        ads={"surfaces": surfaces} | more.pop("ads", {}),
        slates={"size": 5, "candidates": 20, "per_event": "all"} | (slates or {}),
    )
    house = a_house(*campaigns, settings=settings, **more)
    films = [
        ItemFacts(name=f"f{n}", added_s=NOW_MS // 1000, age=int(rating or 0), rated=bool(rating)) for n in range(10)
    ]
    house.serving.catalogue(films, [])
    return house


def a_view(user: str = "ann", item: str = "f0", **more: Any) -> dict[str, Any]:
    return {"user_id": user, "type": "view", "item_id": item, "event_time": NOW_MS} | more


def answer(house: AdHouse, part: Part) -> Answer:
    return house.workers[part.source.partition].recommender.respond([part])


def pages(house: AdHouse, *events: object) -> list[Slate]:
    """The slates that events lead to, stored."""
    part = house.events(events, 0)
    recommender = house.workers[0].recommender
    told = answer(house, part)
    recommender.store(recommender.keep(told))
    house.workers[0].events.stored(told.marks)
    return [decode_slate(slate.value) for slate in told.slates]


def page(house: AdHouse, *events: object) -> Slate:
    (slate,) = pages(house, *(events or (a_view(),)))
    return slate


def places(slate: Slate) -> list[str]:
    """What stands in each place, from the top."""
    at = {item.position: item.item_id for item in slate.items} | {ad.position: "ad" for ad in slate.ads}
    return [at[n] for n in sorted(at)]  # type: ignore[type-var]


CAMPAIGNS = [a_campaign(f"c{n}", bid=4_000_000 + n) for n in range(4)]


def test_a_page_has_ads_among_its_items_and_each_says_where_it_stands() -> None:
    slate = page(a_page_house(*CAMPAIGNS))
    assert [place == "ad" for place in places(slate)] == [False, True, False, True, False]
    assert [ad.position for ad in slate.ads] == [1, 3]
    assert [item.position for item in slate.items] == [0, 2, 4]
    assert all(ad.decision_id == slate_decision_id(slate.slate_id, ad.position) for ad in slate.ads if ad.position)
    assert {(ad.show_rate, ad.tradeoff, ad.tagid) for ad in slate.ads} == {(0.5, 1e5, "home")}


def test_a_surface_that_did_not_opt_in_has_no_ads() -> None:
    house = a_page_house(*CAMPAIGNS, slates={"surface": "elsewhere"})
    assert house.workers[0].recommender.ads is None
    assert not page(house).ads
    (asked,) = house.ask({"request_id": "r", "user_id": "ann", "n": 5, "surface": "elsewhere"})
    assert not asked.ads


def test_what_is_decided_goes_out_beside_the_slate_and_to_the_learner() -> None:
    house = a_page_house(*CAMPAIGNS)
    told = answer(house, house.events([a_view()], 0))
    (slate,) = told.slates
    kept = [decode_ad(decision.value) for decision in slate.ads]
    assert [ad.filled for ad in kept] == [True, True]
    assert kept[0].user_id == "ann" and kept[0].person and kept[0].windows  # noqa: PT018
    house.workers[0].recommender.tell(told)
    assert len(told.told) == 2  # of the event, and of its ads


def test_a_request_for_that_surface_brings_them_too() -> None:
    house = a_page_house(*CAMPAIGNS)
    (slate,) = house.ask({"request_id": "r", "user_id": "ann", "n": 5, "event_time": NOW_MS})
    asked = decode_slate(slate.value)
    assert [place == "ad" for place in places(asked)] == [False, True, False, True, False]
    assert {(ad.show_rate, ad.request_id) for ad in asked.ads} == {(1.0, "r")}
    assert slate.item_N[[1, 3]].tolist() == [0, 0]


def test_a_price_is_reserved_as_often_as_it_is_expected_to_be_owed_and_spent_whole() -> None:
    house = a_page_house(a_campaign(budget_micros=1_000_000))
    (ad,) = page(house).ads
    (kept,) = house.workers[0].server.ledger.decisions([ad.decision_id])
    record = decode_ad(kept)
    assert (record.price_micros, record.reserved_micros, record.spends_micros) == (2_000, 1_000, 2_000)
    assert record.expires_ms - record.decided_ms == 300_000
    house.tell({"user_id": "ann", "type": "impression", "ad": True, "slate_id": ad.slate_id, "slot": 1} | at())
    assert spent(house) == {"spring": 2_000, "spring/l": 2_000}


def at(ms: int = NOW_MS) -> dict[str, int]:
    return {"event_time": ms}


def test_an_event_that_names_slate_and_slot_is_the_ads_only_where_it_says_so() -> None:
    house = a_page_house(a_campaign(budget_micros=1_000_000))
    (ad,) = page(house).ads
    by_place = {"user_id": "ann", "slate_id": ad.slate_id, "slot": ad.position, "event_time": NOW_MS}
    house.tell(by_place | {"type": "impression"}, by_place | {"type": "click", "slot": 2, "ad": True})
    assert not spent(house)["spring"]
    house.tell(*[by_place | {"type": "impression", "ad": True}] * 2, an_impression(ad))
    totals = house.workers[0].server.ledger.totals()
    assert spent(house)["spring"] == 2_000
    assert totals.counts["spring/l"]["impressions"] == 1
    assert totals.counts[""]["invalid"] == 1  # no ad stands in place 2


def test_a_batch_that_comes_again_has_the_same_ads_in_the_same_places_and_reserves_once() -> None:
    house = a_page_house(*CAMPAIGNS)
    part = house.events([a_view(), a_view("bob", "f1")], 0)
    first = answer(house, part)
    house.publish(a_campaign("late", bid=50_000_000))
    house.now_ms += 5_000
    house.kill(0)
    again = answer(house, part)
    assert [d.value for s in first.slates for d in s.ads] == [d.value for s in again.slates for d in s.ads]
    assert [ads_of(s.value) for s in first.slates] == [ads_of(s.value) for s in again.slates]
    totals = house.workers[0].server.ledger.totals()
    assert sum(counts.get("reserved", 0) for counts in totals.counts.values()) == 4


def ads_of(value: bytes) -> Sequence[tuple[int | None, str]]:
    return [(ad.position, ad.decision_id) for ad in decode_slate(value).ads]


def test_where_it_cannot_be_looked_up_what_was_decided_nothing_new_is(monkeypatch: pytest.MonkeyPatch) -> None:
    house = a_page_house(*CAMPAIGNS)

    def away(*_: object) -> list[bytes]:
        raise StoreUnavailable("away")

    for server in (house.workers[0].server, house.workers[0].recommender.ads.server):  # type: ignore[union-attr]
        monkeypatch.setattr(server.ledger, "known", away)
    slate = page(house)
    assert (len(slate.items), slate.ads) == (5, ())
    (asked,) = house.ask({"request_id": "r", "user_id": "ann", "n": 5, "event_time": NOW_MS})
    assert len(decode_slate(asked.value).items) == 5
    assert [(a.record.reasons, a.record.nbr, a.outcome) for a in asked.ads] == [(("internal",), 1, "failed")]


def test_without_a_ledger_a_slate_is_organic(monkeypatch: pytest.MonkeyPatch) -> None:
    house = a_page_house(*CAMPAIGNS)

    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    for name in ("known", "reserve"):
        monkeypatch.setattr(house.workers[0].recommender.ads.server.ledger, name, away)  # type: ignore[union-attr]
    slate = page(house)
    assert (len(slate.items), slate.ads) == (5, ())


def test_ads_of_a_killed_life_are_told_to_the_learner_by_the_one_that_answers_again() -> None:
    house = a_page_house(*CAMPAIGNS)
    part = house.events([a_view(), a_view("bob", "f1")], 0)
    (first,) = told_of(house, part)
    house.kill(0)
    (again,) = told_of(house, part)
    assert len(first.ad_A) == 4
    assert sorted(again.ad_A.tolist()) == sorted(first.ad_A.tolist())
    assert (again.source, again.first, again.last) == (first.source, first.first, first.last)


def told_of(house: AdHouse, part: Part) -> list[Observation]:
    """What a batch teaches of ads; nothing of it is told or stored."""
    answer(house, part)
    ads = house.workers[0].recommender.ads
    assert ads is not None
    return ads.take_told()


def test_a_stopped_campaign_is_on_no_page_not_even_on_one_that_comes_again() -> None:
    house = a_page_house(CAMPAIGNS[0])
    part = house.events([a_view()], 0)
    (first,) = answer(house, part).slates
    assert decode_slate(first.value).ads
    house.publish(stop=["c0"])
    (again,) = answer(house, part).slates
    assert (len(decode_slate(again.value).items), decode_slate(again.value).ads) == (5, ())
    assert not page(house).ads


def test_a_cap_holds_over_pages_and_requests_and_what_is_not_shown_is_given_back() -> None:
    house = a_page_house(a_campaign(caps=[{"count": 2, "time_unit": "day"}]), home={"ad_load_max": 0.2})
    assert [len(page(house, a_view(item=f"f{n}")).ads) for n in range(3)] == [1, 1, 0]
    house.now_ms += 301_000
    house.tick()
    later = [a_view(item=f"f{n}", event_time=house.now_ms) for n in (3, 4)]
    (ad,) = page(house, later[0]).ads
    house.tell(
        {"user_id": "ann", "type": "impression", "ad": True, "slate_id": ad.slate_id, "slot": ad.position} | at()
    )
    assert len(page(house, later[1]).ads) == 1
    assert not page(house, later[1] | {"item_id": "f5"}).ads


def test_two_pages_of_one_person_in_one_batch_do_not_take_the_last_place_twice() -> None:
    house = a_page_house(a_campaign(caps=[{"count": 1, "time_unit": "day"}]), home={"ad_load_max": 0.2})
    assert sorted(len(slate.ads) for slate in pages(house, a_view(), a_view(item="f1"))) == [0, 1]


def test_without_consent_to_ads_pages_are_of_context_alone() -> None:
    seen = a_campaign("seen", bid=9_000_000, targeting={"saw": {"item": "f0", "within": "7d"}})
    house = a_page_house(seen, a_campaign("any"), home={"ad_load_max": 0.2})
    assert page(house).ads[0].campaign_id == "seen"
    (ad,) = page(house, a_view("bob", consent={"us_privacy": "1YYN"})).ads
    assert (ad.campaign_id, ad.personal) == ("any", False)
    assert not pages(house, a_view("eve", consent=DENIED))  # nothing of them is kept, and no slate made


@pytest.mark.parametrize(("rating", "shown"), [("", True), ("13", True), ("16", True), ("18", False), ("6", False)])
def test_an_ad_stands_beside_nothing_riskier_or_tamer_than_advertisers_and_house_put_up_with(
    rating: str, shown: bool
) -> None:
    house = a_page_house(a_campaign(), rating=rating)  # a creative that nobody rated is of medium risk
    part = house.events([a_view()], 0)
    (slate,) = answer(house, part).slates
    assert bool(decode_slate(slate.value).ads) is shown
    if not shown:
        assert slate.ads[0].record.losses == {"adjacency_block": 1}


def test_who_may_stand_nowhere_makes_room_for_the_next() -> None:
    adult, tame = a_campaign("adult", bid=9_000_000, creative={"rating": "18"}), a_campaign("tame", bid=3_000_000)
    house = a_page_house(adult, tame, rating="16", home={"ad_load_max": 0.2})
    assert [ad.campaign_id for ad in page(house).ads] == ["tame"]


def test_a_page_that_comes_again_leaves_out_what_may_not_stand_there_any_more() -> None:
    house = a_page_house(*CAMPAIGNS)
    part = house.events([a_view()], 0)
    (first,) = answer(house, part).slates
    house.serving.catalogue([ItemFacts(name=f"f{n}", added_s=1, age=18, rated=True) for n in range(10)], [])
    (again,) = answer(house, part).slates
    assert [len(decode_slate(slate.value).ads) for slate in (first, again)] == [2, 0]
    assert len(decode_slate(again.value).items) == 5


def test_where_organic_items_are_worth_more_than_ads_bring_there_are_none() -> None:
    house = a_page_house(*CAMPAIGNS, home={"revenue_weight": 0})
    part = house.events([a_view()], 0)
    (slate,) = answer(house, part).slates
    assert not decode_slate(slate.value).ads
    assert slate.ads[0].record.losses["outbid"] >= 2


def test_an_empty_place_collapses_where_the_surface_says_so() -> None:
    house = a_page_house(a_campaign(), home={"unfilled": "collapse"})
    slate = page(house)
    assert (len(slate.ads), len(slate.items)) == (1, 3)
    house.publish(stop=["spring"])
    assert len(page(house).items) == 3


def test_what_is_stored_of_a_page_has_no_ads_and_leaves_their_places() -> None:
    house = a_page_house(*CAMPAIGNS)
    page(house)
    stored = decode_slate(house.workers[0].recommender.users.latest_slate("ann") or b"")
    assert ([item.position for item in stored.items], stored.ads) == ([0, 2, 4], ())


def test_a_trace_of_a_page_names_the_items_that_stand_there() -> None:
    slates = {"exploration": 0.5, "trace_rate": 1.0}
    house = a_page_house(*CAMPAIGNS, slates=slates)
    told = answer(house, house.events([a_view()], 0))
    (slate,), (trace,) = [decode_slate(each.value) for each in told.slates], told.traces
    assert trace.places == tuple(item.item_id for item in slate.items)
    assert len(trace.propensities) == len(trace.places) == 3


def test_a_booked_number_goes_on_where_most_pages_are_not_looked_at() -> None:
    goal = {"kind": "impressions", "quantity": 10}
    flight = [{"from": NOW_MS - 3_600_000, "until": NOW_MS + 3_600_000}]
    booked = a_campaign(type="standard", goal=goal, flights=flight)
    house = a_page_house(booked, home={"ad_load_max": 0.2, "show_rate": 0.1})
    out = sum(len(page(house, a_view(f"u{n}")).ads) for n in range(40))
    assert 10 < out <= 40
    assert one(house.decisions({"request_id": "r", "user_id": "z", "n": 0, "imp": [{"id": "1"}], "event_time": NOW_MS}))


HOUR_MS, MINUTE_MS = 3_600_000, 60_000
MINUTES = {"chunk_s": 60, "lease_s": 300}
"""For ticks of a minute."""


def an_hour(show_rate: float, shown: float, *, budget: int, seed: int = 0) -> tuple[int, int, int]:
    """An hour of pages, a share of them looked at: what was spent, how much beyond what is reserved was out, ads."""
    flight = [{"from": NOW_MS - 12_000, "until": NOW_MS + HOUR_MS}]
    campaign = a_campaign(budget_micros=budget, flights=flight, delivery="even")
    house = a_page_house(campaign, home={"ad_load_max": 0.2, "show_rate": show_rate, "show_within_s": 120}, ads=MINUTES)
    draw, ledger, beyond, brought = np.random.default_rng(seed), house.workers[0].server.ledger, 0, 0
    for minute in range(60):
        house.now_ms += MINUTE_MS
        house.tick()
        ledger.sweep(now_ms=house.now_ms)
        views = [a_view(f"u{minute}-{n}", event_time=house.now_ms) for n in range(15)]
        ads = [ad for slate in pages(house, *views) for ad in slate.ads]
        window = ledger.totals().windows[Window("spring/l")]
        owed = sum((decode_ad(kept).spends_micros or 0) for kept in ledger.decisions([ad.decision_id for ad in ads]))
        beyond, brought = max(beyond, owed - window.reserved), brought + len(ads)
        seen = [ad for ad in ads if draw.random() < shown]
        house.tell(*(an_impression(ad, ad.user_id, event_time=house.now_ms) for ad in seen))
    return spent(house)["spring"], beyond, brought


@pytest.mark.slow
@pytest.mark.parametrize("impressions", [100, 10])
def test_a_budget_is_spent_though_few_pages_are_looked_at_and_no_further_than_what_is_out(
    impressions: int,
) -> None:
    budget = impressions * FLOOR // 1_000
    money, beyond, brought = an_hour(0.25, 0.25, budget=budget)
    assert brought > 3 * impressions
    assert 0.9 * budget <= money <= budget + beyond


@pytest.mark.slow
@settings(DRAWN, max_examples=25)
@given(
    load=st.sampled_from([0.2, 0.34, 0.5]),
    first=st.integers(1, 4),
    gap=st.integers(0, 3),
    size=st.integers(4, 8),
    same=st.booleans(),
    ages=st.lists(st.sampled_from([None, 6, 16, 18]), min_size=10, max_size=10),
)
def test_whatever_the_rules_are_every_page_obeys_them_and_comes_again_the_same(
    load: float, first: int, gap: int, size: int, same: bool, ages: list[int | None]
) -> None:
    home = {"ad_load_max": load, "first_slot": first, "min_gap": gap}
    advertisers = [{"advertiser": "same"} if same else {} for _ in CAMPAIGNS]
    campaigns = [campaign | more for campaign, more in zip(CAMPAIGNS, advertisers, strict=True)]
    if not SurfaceAds(show_rate=1, **home).room(size):  # type: ignore[arg-type]
        return
    house = a_page_house(*campaigns, home=home, slates={"size": size})
    films = [ItemFacts(name=f"f{n}", added_s=1, age=age or 0, rated=age is not None) for n, age in enumerate(ages)]
    house.serving.catalogue(films, [])
    part = house.events([a_view(), a_view("bob", "f1")], 0)
    told, again = answer(house, part), answer(house, part)
    assert [ads_of(slate.value) for slate in told.slates] == [ads_of(slate.value) for slate in again.slates]
    for slate in (decode_slate(each.value) for each in told.slates):
        page_, risk = places(slate), {f"f{n}": ages[n] for n in range(10)}
        at_ = [n for n, place in enumerate(page_) if place == "ad"]
        assert len(page_) <= size and len(at_) <= load * len(page_) + 1e-9  # noqa: PT018
        assert all(n >= first - 1 for n in at_)
        assert all(b - a > gap for a, b in pairwise(at_))
        assert len({ad.advertiser for ad in slate.ads}) == len(slate.ads)
        beside = [page_[n + step] for n in at_ for step in (-1, 1) if 0 <= n + step < len(page_)]
        assert all(risk[place] in (None, 16) for place in beside if place != "ad")
