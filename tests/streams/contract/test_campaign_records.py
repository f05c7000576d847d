"""A campaign is taken whole or not at all, and what is wrong with it is told so that a trafficker can mend it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.events import Source
from ranking.ads.campaigns import FOREVER_MS, Campaign, Cap, Delivery, GoalKind, Level, Status, Type, Unit
from ranking.ads.predicates import Opportunity, holds
from streams.contract.campaign_records import CampaignFacts, key_of, read_campaigns
from streams.contract.consent import Judge
from streams.contract.deadletters import Code, DeadLetter
from streams.contract.parsing import Rules
from tests.streams.builders import NOW_MS, Raw

CAMPAIGNS = Source("campaigns", 0)
RULES = Rules(judge=Judge(0))
CREATIVE: dict[str, Any] = {"crid": "cr1", "adomain": ["www.Example.com"], "w": 300, "h": 250, "approved": True}
LINE: dict[str, Any] = {"id": "l1", "bid_micros": 2_000_000, "creatives": [CREATIVE]}
CAMPAIGN: dict[str, Any] = {"campaign_id": "c1", "advertiser": "acme", "currency": "EUR", "line_items": [LINE]}


def read(*values: tuple[bytes | None, Any]) -> tuple[list[CampaignFacts], list[str], list[DeadLetter]]:
    """A fetch of keys and records."""
    rows = [(key, None if value is None else json.dumps(value).encode()) for key, value in values]
    return read_campaigns(CAMPAIGNS, [Raw(offset, value, key) for offset, (key, value) in enumerate(rows)], RULES)


def one(line: dict[str, Any], **more: Any) -> Campaign:
    kept, _, dead = read((b"c1", CAMPAIGN | {"line_items": [LINE | line]} | more))
    assert not dead, dead[0].detail
    return kept[0].campaign


def refused(line: dict[str, Any], **more: Any) -> str:
    kept, stopped, dead = read((b"c1", CAMPAIGN | {"line_items": [LINE | line]} | more))
    assert not kept
    assert not stopped
    assert [letter.code for letter in dead] == [Code.invalid]
    return dead[0].detail


def test_a_campaign_in_the_words_of_a_trafficker() -> None:
    campaign = one(
        {
            "type": "standard",
            "goal": {"kind": "viewable", "quantity": 10_000},
            "flights": [{"from": NOW_MS + 10, "until": NOW_MS + 20}, {"from": NOW_MS, "until": NOW_MS + 10}],
            "delivery": "custom",
            "curve": [1, 3],
            "caps": [{"count": 3, "time_unit": "hour", "per": 6, "level": "ad", "min_gap_s": 60}],
            "labels": ["cars"],
            "click_days": 7,
            "targeting": {"country": ["DE"], "saw": {"category": "cars", "within": "1d"}},
            "dayparts": [{"days": ["mon"], "from": 18, "until": 24, "zone": "Europe/Berlin"}],
        },
        caps=[{"count": 10, "time_unit": "lifetime"}],
        labels=["summer"],
    )
    line = campaign.line_items[0]
    assert (line.key, line.type, line.priority, line.status) == ("c1/l1", Type.standard, 8, Status.active)
    assert (line.goal.kind, line.goal.quantity, line.goal.daily) == (GoalKind.viewable, 10_000, False)
    assert line.flights == ((NOW_MS, NOW_MS + 10), (NOW_MS + 10, NOW_MS + 20))
    assert (line.delivery, line.curve) == (Delivery.custom, (0.25, 0.75))
    assert line.caps == (
        Cap(level=Level.campaign, unit=Unit.lifetime, count=10, window_s=0),
        Cap(level=Level.line_item, unit=Unit.hour, count=3, window_s=21_600, min_gap_s=60),
    )
    assert line.labels == {"cars", "summer"}
    monday_evening = {
        "now_ms": 1_749_492_000_000,
        "words": {"country": ["de"]},
        "seen": {key_of("category", "cars"): 1_749_490_000},
    }
    assert holds(line.targeting, Opportunity(**monday_evening))
    assert not holds(line.targeting, Opportunity(**monday_evening | {"now_ms": NOW_MS}))
    assert line.click_window_ms == 7 * 86_400_000
    assert [(c.key, c.adomain, c.format, c.size) for c in line.creatives] == [
        ("c1/l1/cr1", ("example.com",), "banner", (300, 250))
    ]


def test_a_line_item_runs_within_its_flights_while_its_campaign_does() -> None:
    flights = [{"from": NOW_MS, "until": NOW_MS + 10}, {"from": NOW_MS + 20}]
    line = one({"flights": flights}).line_items[0]
    assert [line.runs(NOW_MS + ms) for ms in (-1, 0, 9, 10, 19, 20)] == [False, True, True, False, False, True]
    assert line.ends_ms == FOREVER_MS
    assert not one({}, status="paused").line_items[0].runs(NOW_MS)
    assert one({"status": "paused"}, status="stopped").line_items[0].status is Status.stopped


def test_the_first_records_words_for_flights_and_delivery_still_count() -> None:
    line = one({"flight_from": NOW_MS, "flight_until": NOW_MS + 5, "pacing": "asap"}).line_items[0]
    assert (line.flights, line.delivery) == (((NOW_MS, NOW_MS + 5),), Delivery.asap)


def test_a_campaign_keeps_its_currency() -> None:
    dearer = CAMPAIGN | {"advertiser": "acme inc"}
    kept, _, dead = read((b"c1", CAMPAIGN), (b"c1", CAMPAIGN | {"currency": "USD"}), (b"c1", dearer))
    assert [facts.campaign.advertiser for facts in kept] == ["acme inc"]
    assert [(letter.offset, letter.code) for letter in dead] == [(1, Code.invalid)]
    assert dead[0].detail == "currency is 'USD'; allowed: EUR, which it has spent in; another one needs another id"


def test_null_stops_a_campaign_and_the_last_good_record_counts() -> None:
    kept, stopped, dead = read(
        (b"c1", CAMPAIGN),
        (b"c2", CAMPAIGN | {"campaign_id": "c2"}),
        (b"c2", None),
        (b"c1", CAMPAIGN | {"name": "second"}),
        (b"c1", CAMPAIGN | {"currency": "euro"}),
        (b"c3", {"advertiser": "acme"}),
    )
    assert [(facts.campaign.id, facts.campaign.name, facts.record.offset) for facts in kept] == [
        ("c1", "second", 3),
        ("c3", "c3", 5),
    ]
    assert stopped == ["c2"]
    assert [(letter.offset, letter.code) for letter in dead] == [(4, Code.invalid)]
    assert dead[0].detail == "currency is 'euro'; allowed: three capital letters of ISO 4217"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"type": "sponsored"}, "type is 'sponsored'; allowed: sponsorship, standard, network, bulk"),
        ({"status": "dreaming"}, "status is 'dreaming'; allowed: active, paused, stopped"),
        ({"bid_type": "cpx"}, "bid_type is 'cpx'; allowed: cpm, cpc, cpa, cpcv"),
        ({"bid_type": "cpcv"}, "bid_type is 'cpcv'; allowed: cpm, cpc or cpa: it has creatives"),
        ({"bid_micros": 0}, "bid_micros is 0; allowed: more than 0: type is price_priority"),
        ({"type": "house"}, "bid_micros is 2000000; allowed: 0: type is house"),
        ({"type": "standard"}, "goal is 'none'; allowed: a quantity: type is standard"),
        ({"type": "sponsorship"}, "goal is None; allowed: a share: type is sponsorship"),
        ({"type": "standard", "goal": {"kind": "clicks", "quantity": 5}}, "flights is None; allowed: an end"),
        ({"goal": {"kind": "share", "quantity": 101}}, "goal.quantity is 101; allowed: 1 to 100 percent"),
        ({"goal": {"kind": "none", "quantity": 1}}, "goal.kind is 'none'; allowed: impressions, viewable"),
        ({"goal": {"kind": "clicks", "quantity": 1, "per": "hour"}}, "goal.per is 'hour'; allowed: lifetime"),
        ({"delivery": "fast"}, "delivery is 'fast'; allowed: even, front_loaded, asap, custom"),
        ({"delivery": "custom"}, "curve is []; allowed: shares above 0"),
        ({"curve": [1]}, "curve is [1.0]; allowed: shares above 0"),
        ({"daily_budget_micros": 2, "budget_micros": 1}, "daily_budget_micros is 2; allowed: at most"),
        ({"flights": [{"from": NOW_MS, "until": NOW_MS}]}, f"flights[0].until is {NOW_MS}; allowed: more than from"),
        ({"flights": [{}, {"from": NOW_MS}]}, f"flights is [{NOW_MS}, {FOREVER_MS}]; allowed: flights apart"),
        ({"flights": [{}], "flight_from": 5}, "flight_from is 5; allowed: nothing beside flights"),
        ({"caps": [{"count": 1, "time_unit": "month"}]}, "caps[0].time_unit is 'month'; allowed: hour, day"),
        ({"caps": [{"count": 1, "level": "page"}]}, "caps[0].level is 'page'; allowed: creative, line_item"),
        ({"caps": [{"count": 1, "time_unit": "session", "per": 2}]}, "caps[0].per is 2; allowed: 1: time"),
        ({"caps": [{"count": 1, "time_unit": "week", "per": 53}]}, "caps[0].per is 53; allowed: at most a"),
        ({"targeting": {"planet": ["mars"]}}, "targeting.planet is 'planet'; allowed: and, or, not"),
        ({"targeting": {"saw": {"item": "m1", "within": "7y"}}}, "targeting.saw is {'item': 'm1', 'within': '7y'}; al"),
        ({"dayparts": [{"from": 25}]}, "dayparts[0] is {'from': 25}; allowed: from 0 to 23"),
        ({"deal": {"id": "d", "at": 4}}, "deal.at is 4; allowed: 1 (first price)"),
        ({"deal": {"id": "d", "at": 3}}, "deal.bidfloor_micros is 0; allowed: the price"),
        ({"creatives": [CREATIVE, CREATIVE]}, "creatives[1].crid is 'cr1'; allowed: an id, and another one"),
        ({"creatives": [CREATIVE | {"format": "popup"}]}, "creatives[0].format is 'popup'; allowed: banner, video"),
        ({"creatives": [CREATIVE | {"h": None}]}, "creatives[0].h is None; allowed: both w and h"),
        ({"creatives": [CREATIVE | {"adomain": []}]}, "creatives[0].adomain is []; allowed: the advertiser's"),
    ],
)  # fmt: skip
def test_a_slip_is_told_with_field_value_and_what_is_allowed(line: dict[str, Any], said: str) -> None:
    assert refused(line).startswith(f"line_items[0].{said}")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"advertiser": ""}, "advertiser is ''; allowed: the id of an advertiser"),
        ({"time_zone": "Berlin"}, "time_zone is 'Berlin'; allowed: a name of the IANA time zone database"),
        ({"time_zone": "../etc/passwd"}, "time_zone is '../etc/passwd'; allowed: a name of the IANA"),
        ({"time_zone": ""}, "time_zone is ''; allowed: a name of the IANA"),
        ({"line_items": [LINE, LINE]}, "line_items[1].id is 'l1'; allowed: an id, and another one for each"),
        ({"caps": [{"count": 1, "time_unit": "era"}]}, "caps[0].time_unit is 'era'; allowed: hour, day"),
    ],
)
def test_so_is_one_of_the_campaign(more: dict[str, Any], said: str) -> None:
    kept, _, dead = read((b"c1", CAMPAIGN | more))
    assert not kept
    assert dead[0].detail.startswith(said)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ({"bid_micros": -1}, "bid_micros"),
        ({"bid_micros": 1.5}, "bid_micros"),
        ({"overdelivery": 101}, "overdelivery"),
        ({"priority": 17}, "priority"),
        ({"caps": [{"count": 0}]}, "caps[0].count"),
    ],
)
def test_numbers_have_their_ranges(line: dict[str, Any], field: str) -> None:
    _, _, dead = read((b"c1", CAMPAIGN | {"line_items": [LINE | line]}))
    assert [letter.code for letter in dead] == [Code.malformed]
    assert f"line_items[0].{field}" in dead[0].detail


def test_flights_in_seconds_are_no_flights_of_1970() -> None:
    _, _, dead = read((b"c1", CAMPAIGN | {"line_items": [LINE | {"flights": [{"from": NOW_MS // 1000}]}]}))
    assert [letter.code for letter in dead] == [Code.seconds]
    assert "line_items[0].flights[0].from" in dead[0].detail


@given(
    st.binary(max_size=200)
    | st.from_regex(rb'\{"advertiser":"a","line_items":\[\{"id":"l","bid_micros":[0-9]{0,20}\}\]\}')
)
def test_any_bytes_are_a_campaign_or_a_letter(value: bytes) -> None:
    kept, stopped, dead = read_campaigns(CAMPAIGNS, [Raw(0, value, b"c1")], RULES)
    assert len(kept) + len(stopped) + len(dead) == 1
