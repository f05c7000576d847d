"""The whole of an ad decision: who wins, what they pay, whose budget, what comes again, and what is never shown."""

from collections.abc import Sequence
from typing import Any

import pytest

from embeddings.errors import StoreUnavailable
from embeddings.spend import SpendLedger
from embeddings.spend_book import Book
from embeddings.spend_memory import MemorySpendLedger
from ranking.ads.campaigns import Level
from streams.contract.ad_records import AdDecision
from streams.contract.messages import Part
from streams.contract.records import decode_ad, decode_slate
from streams.lab.ad_house import AdHouse
from tests.streams.builders import NOW_MS, small

DENIED = {"gdpr": 1}


def a_campaign(
    name: str = "spring", *, bid: int = 5_000_000, creative: dict[str, Any] | None = None, **line: Any
) -> Any:
    """A campaign with one line item that bids CPM, and one approved creative."""
    whole = {"crid": "cr", "approved": True, "format": "banner", "adomain": [f"{name}.example"]} | (creative or {})
    top = {key: line.pop(key) for key in ("advertiser", "currency", "caps", "budget_micros") if key in line}
    item = {"id": "l", "bid_micros": bid, "creatives": [whole], "delivery": "asap"} | line
    return {"campaign_id": name, "advertiser": name, "line_items": [item]} | top


def a_request(user: str = "ann", *, slots: int = 1, n: int = 0, imp: dict[str, Any] | None = None, **more: Any) -> Any:
    """Somebody asks for ads."""
    imps = [{"id": str(slot), "banner": {}} | (imp or {}) for slot in range(1, slots + 1)]
    return {"request_id": f"r-{user}", "user_id": user, "n": n, "imp": imps, "event_time": NOW_MS} | more


def an_impression(decision: AdDecision, user: str = "ann", kind: str = "impression", **more: Any) -> Any:
    return {"user_id": user, "type": kind, "decision_id": decision.decision_id, "event_time": NOW_MS} | more


def a_house(*campaigns: Any, ticks: int = 12, **more: Any) -> AdHouse:
    """A house that has sold for a while, so that pacing lets through what is to be delivered as soon as possible."""
    house = AdHouse(**{"settings": small(), "now_ms": NOW_MS - 1_000 * ticks} | more)
    assert not house.publish(*campaigns)
    for _ in range(ticks):
        house.now_ms += 1_000
        house.tick()
    assert house.now_ms == NOW_MS
    return house


def one(decided: list[list[AdDecision]]) -> AdDecision:
    ((decision,),) = decided
    return decision


def test_the_best_bid_wins_and_pays_what_it_takes() -> None:
    house = a_house(a_campaign("low", bid=2_000_000), a_campaign("high", bid=6_000_000))
    decision = one(house.decisions(a_request()))
    assert (decision.filled, decision.campaign_id, decision.line_item_id) == (True, "high", "l")
    assert decision.price_micros in (2_000, 2_001)
    assert decision.min_to_win_micros == decision.price_micros
    assert decision.losses == {"outbid": 1}
    assert decision.lost_to == {"high/l": 1}


def test_a_request_that_comes_again_is_told_the_same_and_spends_once() -> None:
    house = a_house(a_campaign(budget_micros=1_000_000), a_campaign("other", bid=4_000_000))
    worker = house.workers[0]
    part = house._part(worker.requests_source, [a_request(slots=2)])
    (first,), _ = worker.answerer.respond([part])
    house.publish(stop=["other"])
    house.now_ms += 5_000
    (again,), _ = worker.answerer.respond([part])
    assert [each.value for each in first.ads] == [each.value for each in again.ads]
    assert {each.record.campaign_id for each in first.ads} == {"spring", "other"}


def test_the_slate_says_what_the_page_shows_and_not_how_it_is_accounted_for() -> None:
    house = a_house(a_campaign())
    (slate,) = house.ask(a_request(n=2))
    (shown,) = decode_slate(slate.value).ads
    (kept,) = slate.ads
    assert shown.decision_id == kept.record.decision_id
    assert (shown.person, shown.windows, shown.levels) == ("", (), ())
    assert decode_ad(kept.value) == kept.record
    assert len(kept.record.levels) == len(Level)


def test_a_budget_of_three_impressions_shows_three() -> None:
    house = a_house(a_campaign(bid=4_000_000, budget_micros=12_000), a_campaign("house", bid=0, type="house"))
    # alone in its tier it pays the floor of the house
    decided = house.decisions(*(a_request(f"u{n}", imp={"bidfloor": 4.0}) for n in range(8)))
    by = [decision.campaign_id for (decision,) in decided]
    assert by.count("spring") == 3
    assert by.count("house") == 5


def test_what_is_out_counts_against_a_cap_and_what_was_seen_does() -> None:
    house = a_house(a_campaign(caps=[{"count": 2, "time_unit": "day"}]))
    decided = [one(house.decisions(a_request())) for _ in range(3)]
    assert [each.filled for each in decided] == [True, True, False]
    assert decided[2].reasons == ("capped",)
    house.tell(*(an_impression(each) for each in decided[:2]))
    assert not one(house.decisions(a_request())).filled
    assert one(house.decisions(a_request("bob"))).filled
    house.now_ms += 86_401_000
    house.tick()
    house.tick()
    assert one(house.decisions(a_request(event_time=house.now_ms))).filled


def test_nobody_whose_impressions_may_not_be_counted_is_shown_what_has_a_cap() -> None:
    house = a_house(a_campaign(caps=[{"count": 9, "time_unit": "day"}]), a_campaign("free", bid=1_000_000))
    assert one(house.decisions(a_request(consent=DENIED))).campaign_id == "free"
    assert one(house.decisions(a_request())).campaign_id == "spring"


def test_a_stopped_campaign_shows_nothing_more() -> None:
    house = a_house(a_campaign())
    assert one(house.decisions(a_request())).filled
    house.publish(stop=["spring"])
    decision = one(house.decisions(a_request()))
    assert (decision.filled, decision.reasons) == (False, ("no_candidates",))


def test_without_consent_two_people_are_shown_the_same() -> None:
    campaigns = [a_campaign(f"c{n}", bid=1_000_000 + n, creative={"categories": [f"g{n}"]}) for n in range(6)]
    decided = [one(a_house(*campaigns).decisions(a_request(user, consent=DENIED))) for user in ("ann", "bob")]
    ids = ("decision_id", "user_id", "request_id", "slate_id")
    ann, bob = ({f: getattr(d, f) for f in d.__struct_fields__ if f not in ids} for d in decided)
    assert ann == bob
    assert not decided[0].personal


def test_two_slots_of_a_page_have_two_advertisers() -> None:
    campaigns = [a_campaign(name, advertiser="same", creative={"adomain": ["same.example"]}) for name in ("a", "b")]
    house = a_house(*campaigns, a_campaign("c", bid=1_000_000))
    ((first, second),) = house.decisions(a_request(slots=2))
    assert {first.advertiser, second.advertiser} == {"same", "c"}


class Away(MemorySpendLedger):
    """A ledger that cannot be reached."""

    reached = True

    def reserve(self, *args: Any, **more: Any) -> Any:
        if not Away.reached:
            raise StoreUnavailable("away")
        return super().reserve(*args, **more)


def test_where_nothing_can_be_reserved_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book()

    def ledger() -> SpendLedger:
        return Away(book)

    house = a_house(a_campaign(), ledger=ledger)
    monkeypatch.setattr(Away, "reached", False)
    decision = one(house.decisions(a_request()))
    assert (decision.filled, decision.reasons, decision.nbr) == (False, ("closed",), 1)


def test_an_impression_spends_and_a_second_one_does_not() -> None:
    house = a_house(a_campaign(budget_micros=1_000_000), a_campaign("other", bid=3_000_000))
    decision = one(house.decisions(a_request()))
    house.tell(an_impression(decision), an_impression(decision), an_impression(decision, kind="click"))
    totals = house.workers[0].server.ledger.totals()
    spent = {window.key: held.spent for window, held in totals.windows.items() if not window.day}
    assert spent["spring/l"] == decision.price_micros
    assert totals.counts["spring/l"]["impressions"] == 1
    assert totals.counts["spring/l"]["clicks"] == 1


def test_requests_without_places_for_ads_are_answered_as_ever() -> None:
    house = a_house(a_campaign())
    worker = house.workers[0]
    part: Part = house._part(worker.requests_source, [{"request_id": "r", "user_id": "ann", "n": 3}])
    (slate,), dead = worker.answerer.respond([part])
    assert not dead
    assert not slate.ads


def test_a_booked_number_is_not_exceeded() -> None:
    goal = {"kind": "impressions", "quantity": 3}
    flight = [{"from": NOW_MS - 3_600_000, "until": NOW_MS + 3_600_000}]
    house = a_house(a_campaign(type="standard", goal=goal, flights=flight), a_campaign("rest", bid=1_000_000))
    by = [one(house.decisions(a_request(f"u{n}"))).campaign_id for n in range(8)]
    assert by.count("spring") == 3
    assert by.count("rest") == 5


def test_an_impression_that_somebody_else_reports_lifts_no_cap() -> None:
    house = a_house(a_campaign(caps=[{"count": 1, "time_unit": "day"}]))
    house.tell(an_impression(one(house.decisions(a_request())), "ann-on-her-phone"))
    assert not one(house.decisions(a_request())).filled
    assert not one(house.decisions(a_request("ann-on-her-phone"))).filled


def test_an_impression_under_a_clock_that_is_slow_counts_from_its_decision_on() -> None:
    house = a_house(a_campaign(caps=[{"count": 1, "time_unit": "hour"}]))
    house.tell(an_impression(one(house.decisions(a_request())), event_time=NOW_MS - 7_200_000))
    assert not one(house.decisions(a_request())).filled


def test_who_may_not_be_kept_has_no_id_in_what_is_kept() -> None:
    house = a_house(a_campaign())
    decision = one(house.decisions(a_request(consent=DENIED)))
    (kept,) = house.workers[0].server.ledger.decisions([decision.decision_id])
    assert decision.filled
    assert b"user_id" not in kept
    assert one(house.decisions(a_request())).user_id == "ann"


def test_the_ledger_keeps_no_user_id_and_who_asks_again_is_told_theirs() -> None:
    house = a_house(a_campaign(), settings=small(observe={"enabled": True}))
    part = house.requests([a_request('an"n \u00e9')], 0)
    ((first,),) = [slate.ads for slate in house.answer(part)]
    worker = house.workers[0]
    (kept,) = worker.server.ledger.decisions([first.record.decision_id])
    assert first.record.user_id == 'an"n \u00e9'
    assert kept
    assert b"user_id" not in kept
    house.kill(0)
    ((again,),) = [slate.ads for slate in house.answer(part)]
    assert (again.outcome, again.value) == ("again", first.value)


def test_an_id_with_the_sign_that_parts_ids_is_refused() -> None:
    dead = a_house().publish(a_campaign("a/b"))
    assert "campaign_id" in dead[0].detail


@pytest.mark.parametrize(
    "where",
    [
        {"context": {"country": "de"}},
        {"device": {"geo": {"country": "DE"}}},
        {"context": {"country": "x"}, "device": {"geo": {"country": "de"}}},
    ],
)
def test_a_floor_holds_however_the_country_is_written(where: dict[str, Any]) -> None:
    floors = {"ads": {"floors": ("*;DE=6000000",)}}
    house = a_house(a_campaign(bid=5_000_000), settings=small(**floors))
    assert one(house.decisions(a_request(**where))).reasons == ("below_floor",)
    assert one(house.decisions(a_request(context={"country": "AT"}))).filled


def test_where_nothing_was_ever_sold_nothing_is_asked_and_the_place_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    house, asked = a_house(), list[Sequence[str]]()
    monkeypatch.setattr(house.workers[0].server.ledger, "known", lambda people, ids: asked.append(ids))
    decision = one(house.decisions(a_request()))
    assert (decision.filled, decision.reasons, decision.nbr, decision.imp_id) == (False, ("no_candidates",), 0, "1")
    assert not asked


def test_a_daily_budget_is_spent_whenever_the_line_item_began() -> None:
    house = a_house(a_campaign(daily_budget_micros=1_000_000))
    assert one(house.decisions(a_request())).filled


def test_a_page_that_comes_again_is_not_filled_up_beside_what_was_sold() -> None:
    house = a_house(*(a_campaign(name, advertiser="same", creative={"adomain": ["same.example"]}) for name in "ab"))
    worker = house.workers[0]
    page = a_request(slots=2)
    page["imp"][1]["tagid"] = "elsewhere"
    part = house._part(worker.requests_source, [page])
    (first,), _ = worker.answerer.respond([part])
    (again,), _ = worker.answerer.respond([part])
    assert [each.record.filled for each in first.ads] == [each.record.filled for each in again.ads] == [True, False]
    assert again.ads[1].record.reasons == ("decided_before",)


def test_of_people_whose_consent_cannot_be_read_nothing_is_used_or_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    house = a_house(a_campaign("capped", caps=[{"count": 9, "time_unit": "day"}]), a_campaign("free", bid=1_000_000))

    def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(house.workers[0].answerer.users, "read", away)
    decision = one(house.decisions(a_request()))
    assert (decision.campaign_id, decision.personal, decision.person, decision.user_id) == ("free", False, "", "")


def spent(house: AdHouse) -> dict[str, int]:
    totals = house.workers[0].server.ledger.totals()
    return {window.key: held.spent for window, held in totals.windows.items() if not (window.day or window.counts)}


def test_money_is_reserved_and_spent_in_the_currency_of_the_campaign() -> None:
    settings = small(ads={"currencies": ("USD=1000000", "JPY=150000000")})
    yen = a_campaign(bid=750_000_000, currency="JPY", budget_micros=1_000_000_000)
    house = a_house(yen, settings=settings)
    decision = one(house.decisions(a_request(imp={"bidfloor": 4.0})))
    assert (decision.price_micros, decision.currency, decision.reserved_micros) == (4_000, "USD", 600_000)
    house.tell(an_impression(decision))
    assert spent(house) == {"spring": 600_000, "spring/l": 600_000}


def test_a_click_costs_what_a_click_was_priced_at_and_is_known_for_its_window() -> None:
    house = a_house(a_campaign(bid=500_000, bid_type="cpc", budget_micros=50_000_000))
    decision = one(house.decisions(a_request(imp={"bidfloor": 1.0})))
    assert decision.price_micros < decision.event_micros == decision.spends_micros <= 500_000
    assert decision.kept_ms - decision.decided_ms == 28 * 86_400_000
    house.tell(an_impression(decision))
    assert spent(house)["spring"] == 0
    house.tell(an_impression(decision, kind="click"))
    assert spent(house)["spring"] == decision.event_micros


def test_the_history_is_read_only_with_consent_to_personal_ads() -> None:
    house = a_house(a_campaign(targeting={"saw": {"item": "i", "within": "7d"}}))
    house.tell({"user_id": "ann", "type": "view", "item_id": "i", "event_time": NOW_MS})
    refusals: list[dict[str, Any]] = [{"device": {"lmt": 1}}, {"personalised": False}, {"regs": {"coppa": 1}}]
    assert not any(one(house.decisions(a_request(**more))).filled for more in refusals)
    assert one(house.decisions(a_request())).filled


def test_sensitive_kinds_are_not_shown_unless_they_are_allowed() -> None:
    beer = a_campaign(creative={"cat": ["IAB8-5"]})
    assert one(a_house(beer).decisions(a_request())).reasons == ("category_excluded",)
    allowed = small(ads={"allow_sensitive": ("alcohol",)})
    assert one(a_house(beer, settings=allowed).decisions(a_request())).filled


def test_a_cap_of_a_creative_leaves_the_others() -> None:
    campaign = a_campaign(caps=[{"count": 1, "time_unit": "day", "level": "creative"}])
    line = campaign["line_items"][0]
    line["creatives"] = [line["creatives"][0] | {"crid": crid} for crid in "xy"]
    house = a_house(campaign)
    shown = [one(house.decisions(a_request())) for _ in range(3)]
    assert {each.crid for each in shown[:2]} == {"x", "y"}
    assert not shown[2].filled


def test_what_a_request_asks_of_a_deal_holds() -> None:
    house = a_house(a_campaign(deal={"id": "d", "bidfloor_micros": 1_000_000, "at": 2}))
    asks = [{"pmp": {"deals": [{"id": "d", "bidfloor": floor}]}} for floor in (3.0, 6.0)]
    sold, refused = (one(house.decisions(a_request(imp=imp))) for imp in asks)
    assert (sold.price_micros, sold.dealid, refused.reasons) == (3_000, "d", ("below_deal_floor",))


def test_who_cannot_be_looked_up_is_shown_nothing_that_has_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    house = a_house(a_campaign(caps=[{"count": 9, "time_unit": "day"}]), a_campaign("free", bid=1_000_000))

    def away(*_: Any) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(house.workers[0].server.ledger, "known", away)
    decision = one(house.decisions(a_request()))
    assert (decision.campaign_id, decision.losses) == ("free", {"cap_unknown": 1})
    house.workers[0].answerer.ads.server.tell([])
    assert house.workers[0].server.funnel.take_names()["cap_unknown"] == 1


def test_a_currency_without_a_rate_does_not_bid() -> None:
    house = a_house(a_campaign(currency="CHF"), a_campaign("house", bid=0, type="house", currency="CHF"))
    assert one(house.decisions(a_request())).losses == {"invalid": 2}


def test_who_does_not_wait_any_more_is_sold_nothing() -> None:
    house = a_house(a_campaign())
    worker = house.workers[0]
    part = house._part(worker.requests_source, [a_request(tmax=100)])
    house.now_ms += 101
    (slate,), _ = worker.answerer.respond([part])
    assert [each.record.reasons for each in slate.ads] == [("expired",)]


def test_categories_of_another_taxonomy_than_the_block_lists_are_blocked() -> None:
    house = a_house(a_campaign(creative={"cat": ["IAB9-5"]}))
    assert one(house.decisions(a_request(bcat=["600"], cattax=3))).reasons == ("category_excluded",)
    assert one(house.decisions(a_request())).filled


def test_figures_say_how_far_line_items_came_and_to_whom_they_lost() -> None:
    house = a_house(a_campaign("low", bid=2_000_000), a_campaign("high", bid=6_000_000))
    for n in range(3):
        house.decisions(a_request(f"u{n}"))
    house.now_ms += 5_000
    house.tick()
    house.decisions(a_request("u9", event_time=house.now_ms))
    counts = house.workers[0].server.ledger.totals().counts
    assert counts["high/l"]["won"] == counts["high/l"]["served"] == 4
    assert counts["low/l"]["targeted"] == counts["low/l"]["outbid"] == counts["low/l"]["lost_to:high/l"] == 4


def test_what_was_counted_before_the_last_campaign_was_stopped_is_told() -> None:
    house = a_house(a_campaign())
    house.decisions(a_request())
    house.publish(stop=["spring"])
    house.now_ms += 5_000
    house.decisions(a_request("bob"))
    assert house.workers[0].server.ledger.totals().counts["spring/l"]["served"] == 1
