"""Whatever campaigns there are and whoever asks: what may never be shown is not, and what has to hold does."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from streams.contract.ad_records import AdDecision
from streams.contract.messages import Part
from streams.lab.ad_house import AdHouse
from tests.streams.builders import NOW_MS
from tests.streams.serving.test_ads import DENIED, a_house, an_impression

HOUR_MS = 3_600_000
FEW = {"kind": "impressions", "quantity": 5}
NOW = [{"from": NOW_MS - HOUR_MS, "until": NOW_MS + HOUR_MS}]
OVER = [{"from": NOW_MS - 2 * HOUR_MS, "until": NOW_MS - HOUR_MS}]
LATER = [{"from": NOW_MS + HOUR_MS}]
ADVERTISERS, CATEGORIES, ATTRIBUTES = "abcd", ("1:IAB1", "1:IAB2-1", "3:5"), (1, 2, 3)
DRAWN = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink a house takes minutes
)
QUICK, MANY = settings(DRAWN, max_examples=4), settings(DRAWN, max_examples=60)

CREATIVE = st.fixed_dictionaries(
    {
        "approved": st.sampled_from([*[True] * 7, False]),
        "format": st.sampled_from([*["banner"] * 5, "video"]),
        "attr": st.lists(st.sampled_from(ATTRIBUTES), max_size=1),
        "cat": st.sampled_from([*[["IAB1"], []] * 3, ["IAB2-1"], ["IAB8-5"]]),
        "categories": st.sampled_from([*[["cars"], ["films"], []] * 3, ["gambling"]]),
        "adomain": st.sampled_from([["a.example"], ["b.example"], ["c.example"], ["d.example"]]),
        "dur": st.just(15),
        "mimes": st.just(["video/mp4"]),
    }
)
CAP = st.fixed_dictionaries(
    {
        "count": st.integers(1, 2),
        "time_unit": st.sampled_from(["day", "lifetime", "session"]),
        "level": st.sampled_from(["ad", "line_item", "campaign", "advertiser"]),
    }
)
LINE = st.fixed_dictionaries(
    {
        "bid_micros": st.integers(1_000_000, 20_000_000),
        "bid_type": st.sampled_from(["cpm", "cpm", "cpc"]),
        "status": st.sampled_from([*["active"] * 8, "paused", "stopped"]),
        "type": st.sampled_from(["price_priority", "price_priority", "standard", "house"]),
        "flights": st.sampled_from([*[[], NOW] * 4, OVER, LATER]),
        "caps": st.lists(CAP, max_size=1),
        "creatives": st.lists(CREATIVE, min_size=1, max_size=3),
        "targeting": st.sampled_from(
            [None, None, {"segment": ["rich"]}, {"saw": {"category": "cars", "within": "7d"}}]
        ),
        "delivery": st.just("asap"),
    }
)
CAMPAIGN = st.fixed_dictionaries(
    {
        "advertiser": st.sampled_from(ADVERTISERS),
        "status": st.sampled_from([*["active"] * 8, "paused"]),
        "currency": st.sampled_from([*["USD"] * 8, "XAF"]),
        "line_items": st.lists(LINE, min_size=1, max_size=3),
        "budget_micros": st.sampled_from([*[None] * 5, 0, 10_000, 1_000_000]),
    }
)
REQUEST = st.fixed_dictionaries(
    {
        "imp": st.lists(
            st.fixed_dictionaries(
                {
                    "bidfloor": st.sampled_from([0.0, 0.5, 4.0]),
                    "battr": st.lists(st.sampled_from(ATTRIBUTES), max_size=1),
                    "bcat": st.sampled_from([*[[]] * 3, ["IAB1"], ["IAB2"], ["IAB2-1"]]),
                    "badv": st.lists(st.sampled_from(["a.example", "b.example"]), max_size=1),
                    "at_video": st.sampled_from([*[False] * 5, True]),
                }
            ),
            min_size=1,
            max_size=4,
        ),
        "badv": st.lists(st.sampled_from(["c.example"]), max_size=1),
        "denied": st.booleans(),
        "user_id": st.sampled_from(["ann", "bob"]),
    }
)


@dataclass
class World:
    """Campaigns as they were drawn, and the house that sells them."""

    campaigns: list[dict[str, Any]]

    def __post_init__(self) -> None:
        for n, campaign in enumerate(self.campaigns):
            campaign["campaign_id"] = f"c{n}"
            for m, line in enumerate(campaign["line_items"]):
                line["id"] = f"l{m}"
                line["bid_micros"] = 0 if line["type"] == "house" else line["bid_micros"]
                if line["type"] == "standard":
                    line["goal"], line["flights"] = FEW, OVER if line["flights"] == OVER else NOW
                for k, creative in enumerate(line["creatives"]):
                    creative["crid"] = f"cr{k}"
        self.house: AdHouse = a_house(*self.campaigns)

    def ask(self, *requests: dict[str, Any]) -> tuple[Part, list[list[AdDecision]]]:
        """The decisions of requests that come in one batch."""
        part = self.house._part(self.house.workers[0].requests_source, [asked(request) for request in requests])
        return part, self.answer(part)

    def answer(self, part: Part) -> list[list[AdDecision]]:
        slates, dead = self.house.workers[0].answerer.respond([part])
        assert not dead
        return [[each.record for each in slate.ads] for slate in slates]

    def of(self, decision: AdDecision) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """The campaign, line item and creative that were decided for."""
        campaign = self.campaigns[int(str(decision.campaign_id)[1:])]
        line = campaign["line_items"][int(str(decision.line_item_id)[1:])]
        return campaign, line, line["creatives"][int(str(decision.crid)[2:])]


def asked(request: dict[str, Any]) -> dict[str, Any]:
    """A request as it goes on the topic."""
    imps = []
    for n, drawn in enumerate(request["imp"]):
        imp = {key: value for key, value in drawn.items() if key != "at_video"}
        slot = {"video": {"mimes": ["video/mp4"], "maxduration": 30}} if drawn["at_video"] else {"banner": {}}
        imps.append({"id": str(n + 1)} | imp | slot)
    said = {"request_id": "r", "user_id": request["user_id"], "n": 0, "imp": imps, "badv": request["badv"]}
    said |= {"event_time": NOW_MS, "cattax": 1, "user": {"data": [{"segment": [{"id": "rich"}]}]}}
    return said | ({"consent": DENIED} if request["denied"] else {})


def within(block: str, category: str) -> bool:
    return category == block or category.startswith(f"{block}-")


def may_be_shown(world: World, decision: AdDecision, request: dict[str, Any]) -> None:
    campaign, line, creative = world.of(decision)
    imp = request["imp"][int(decision.imp_id) - 1]
    assert creative["approved"]
    assert (campaign["status"], line["status"]) == ("active", "active")
    assert line["flights"] in ([], NOW)
    assert campaign["currency"] == "USD"
    assert campaign["budget_micros"] != 0 or decision.price_micros == 0
    assert "gambling" not in creative["categories"]
    assert "IAB8-5" not in creative["cat"]
    assert not set(creative["attr"]) & set(imp["battr"])
    assert not set(creative["adomain"]) & {*imp["badv"], *request["badv"]}
    assert not [cat for cat in creative["cat"] if any(within(block, cat) for block in imp["bcat"])]
    assert creative["format"] == ("video" if imp["at_video"] else "banner")
    if request["denied"]:
        assert not line["caps"]
        assert line["targeting"] is None
        assert not decision.personal
    if line["type"] != "house":
        assert decision.floor_micros <= decision.price_micros <= decision.bid_micros
        assert decision.price_micros >= round(imp["bidfloor"] * 1_000)


def a_page_holds(world: World, decisions: list[AdDecision], request: dict[str, Any]) -> None:
    """One decision a slot, none of what may not be, and no two of one advertiser."""
    assert sorted(decision.imp_id for decision in decisions) == [str(n + 1) for n in range(len(request["imp"]))]
    filled = [decision for decision in decisions if decision.filled]
    advertisers = [decision.advertiser for decision in filled]
    assert len(set(advertisers)) == len(advertisers)
    domains = [domain for decision in filled for domain in decision.adomain]
    assert len(set(domains)) == len(domains)
    for decision in filled:
        may_be_shown(world, decision, request)
    for decision in decisions:
        assert decision.filled or decision.reasons


def what_has_to_hold(campaigns: list[dict[str, Any]], requests: list[dict[str, Any]], stopped: int) -> None:
    world = World(campaigns)
    seen: dict[tuple[str, str, str], int] = {}
    for n, request in enumerate([*requests, *requests]):
        if n == len(requests):
            world.house.publish(stop=[f"c{stopped}"])
        part, (decisions,) = world.ask(request)
        a_page_holds(world, decisions, request)
        told = []
        for decision in decisions:
            if not decision.filled:
                continue
            assert n < len(requests) or decision.campaign_id != f"c{stopped}"
            campaign, line, creative = world.of(decision)
            user, key = request["user_id"], f"{decision.campaign_id}/{line['id']}"
            names = {
                "ad": f"{key}/{creative['crid']}",
                "line_item": key,
                "campaign": str(decision.campaign_id),
                "advertiser": campaign["advertiser"],
            }
            for cap in line["caps"]:
                assert seen.get((user, cap["level"], names[cap["level"]]), 0) < cap["count"]
            if not request["denied"]:
                for level, name in names.items():
                    seen[user, level, name] = seen.get((user, level, name), 0) + 1
            told.append(an_impression(decision, user, **({"consent": DENIED} if request["denied"] else {})))
        again = {one.decision_id: one for one in world.answer(part)[0]}
        assert all(again[one.decision_id] == one for one in decisions if one.filled)
        if told:
            world.house.tell(*told)


def decided_for(
    campaigns: list[dict[str, Any]], before: list[dict[str, Any]], request: dict[str, Any], user: str
) -> list[dict[str, Any]]:
    """What somebody is told without consent where others have seen and asked before, without ids and moments."""
    world = World(campaigns)
    for told in before:
        _, (decisions,) = world.ask(told | {"denied": False, "user_id": "ann"})
        seen = [an_impression(one, kind=kind) for one in decisions if one.filled for kind in ("impression", "click")]
        watched = [{"user_id": "ann", "type": "play", "item_id": f"i{n}", "event_time": NOW_MS} for n in range(3)]
        world.house.tell(*seen, *watched)
    _, (decisions,) = world.ask(request | {"denied": True, "user_id": user})
    names = ("decision_id", "user_id", "request_id", "slate_id", "decided_ms", "person")
    return [{f: getattr(one, f) for f in one.__struct_fields__ if f not in names} for one in decisions]


def the_same_for_everybody(campaigns: Any, before: Any, request: Any) -> None:
    ann, bob, cid = (decided_for(campaigns, before, request, user) for user in ("ann", "bob", "cid"))
    assert ann == bob == cid
    assert not [one for one in ann if one["personal"]]


MANY_CAMPAIGNS = st.lists(CAMPAIGN, min_size=3, max_size=7)
REQUESTS = st.lists(REQUEST, min_size=1, max_size=4)


@QUICK
@given(MANY_CAMPAIGNS, REQUESTS, st.integers(0, 5))
def test_nothing_is_shown_that_may_not_be_and_a_page_holds(campaigns: Any, requests: Any, stopped: int) -> None:
    what_has_to_hold(campaigns, requests, stopped)


@pytest.mark.slow
@MANY
@given(MANY_CAMPAIGNS, REQUESTS, st.integers(0, 5))
def test_nothing_is_shown_that_may_not_be_whatever_is_drawn(campaigns: Any, requests: Any, stopped: int) -> None:
    what_has_to_hold(campaigns, requests, stopped)


@QUICK
@given(MANY_CAMPAIGNS, REQUESTS, REQUEST)
def test_without_consent_two_people_are_told_the_same_whatever_one_of_them_saw(c: Any, before: Any, r: Any) -> None:
    the_same_for_everybody(c, before, r)


@pytest.mark.slow
@MANY
@given(MANY_CAMPAIGNS, REQUESTS, REQUEST)
def test_without_consent_two_people_are_told_the_same_whatever_is_drawn(c: Any, before: Any, r: Any) -> None:
    the_same_for_everybody(c, before, r)


@QUICK
@given(MANY_CAMPAIGNS, REQUESTS, REQUEST)
def test_who_is_erased_is_told_what_a_stranger_is(campaigns: Any, before: Any, request: Any) -> None:
    """Their history is looked at for targeting no more; impressions that are out are the ledger's until they end."""
    told = {}
    for user in ("ann", "cid"):
        world = World(
            [
                campaign | {"line_items": [line | {"caps": []} for line in campaign["line_items"]]}
                for campaign in campaigns
            ]
        )
        for asked_before in before:
            _, (decisions,) = world.ask(asked_before | {"denied": False, "user_id": "ann"})
            world.house.tell(*(an_impression(one) for one in decisions if one.filled))
        assert world.house.users is not None
        world.house.users().forget("ann")
        _, (decisions,) = world.ask(request | {"denied": False, "user_id": user})
        told[user] = [(one.imp_id, one.campaign_id, one.creative, one.price_micros, one.reasons) for one in decisions]
    assert told["ann"] == told["cid"]
