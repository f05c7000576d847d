"""What users of other ad servers complained of for years, each by name, through the code of a worker."""

import random
from collections import Counter
from typing import Any

import pytest

from ranking.ads.pacing import overspend_bound
from streams.contract.ad_records import AdDecision
from streams.contract.messages import Part
from streams.lab.ad_house import AdHouse
from tests.streams.builders import NOW_MS
from tests.streams.serving.ad_days import HOUR_MS, Days, an_hour, booked
from tests.streams.serving.test_ads import a_campaign, a_house, a_request, an_impression, one

pytestmark = pytest.mark.slow

TEN = [{"count": 10, "time_unit": "day"}]
DIFFERS = ("decision_id", "user_id", "request_id", "slate_id", "person", "decided_ms")


def told(decision: AdDecision, *without: str) -> dict[str, Any]:
    """A decision without what names it."""
    return {f: getattr(decision, f) for f in decision.__struct_fields__ if f not in (*DIFFERS, *without)}


def again(house: AdHouse, part: Part) -> list[AdDecision]:
    """What a part of requests is told that a worker has read before."""
    slates, _ = house.workers[part.source.partition].answerer.respond([part])
    return [each.record for slate in slates for each in slate.ads]


@pytest.mark.parametrize("bids", [(5, 5, 5), (6, 5, 4)])
def test_oversold_inventory_delivers_in_proportion(bids: tuple[int, ...]) -> None:
    """600 are booked of 360; the highest bid would have 300 of them, and nobody would tell the others."""
    goals = {"a": 300, "b": 200, "c": 100}
    campaigns = [a_campaign(n, bid=bid * 1_000_000, **booked(goals[n])) for n, bid in zip(goals, bids, strict=True)]
    days = Days([*campaigns, a_campaign("rest", bid=9_000_000)]).run(1, per_step=3)
    got = {name: days.count(f"{name}/l", "impressions") for name in goals}
    assert sum(got.values()) > 340
    for name, goal in goals.items():
        assert got[name] / sum(got.values()) == pytest.approx(goal / 600, abs=0.06)


def test_two_booked_line_items_that_there_is_room_for_both_deliver_whatever_they_bid() -> None:
    days = Days([a_campaign("a", bid=6_000_000, **booked(100)), a_campaign("b", bid=1_000_000, **booked(100))])
    days.run(1, per_step=3)
    assert [97 <= days.count(f"{name}/l", "impressions") <= 100 for name in "ab"] == [True, True]


def test_a_same_day_flight_delivers() -> None:
    """Booked at once for the next three hours, by number and by money."""
    money = {"flights": an_hour(3), "delivery": "even", "budget_micros": 400_000}
    days = Days(
        [a_campaign("number", **booked(120, hours=3)), a_campaign("money", bid=4_000_000, **money)],
        imp={"bidfloor": 4.0},
    )
    days.run(3)
    assert 117 <= days.count("number/l", "impressions") <= 120
    assert 390_000 <= days.spent("money/l") <= 400_000


def test_an_ended_line_item_weighs_nothing() -> None:
    """Far from its goal, and yet what others are told is what they would be told without it."""
    over = [{"from": NOW_MS - 9 * HOUR_MS, "until": NOW_MS - HOUR_MS}]
    old = a_campaign("old", bid=90_000_000, **booked(10**6) | {"flights": over})
    rivals = [a_campaign("a", **booked(30)), a_campaign("b", bid=4_000_000)]
    with_it, without_it = Days([old, *rivals]).run(0.5), Days(rivals).run(0.5)
    assert [told(one) for one in with_it.decided] == [told(one) for one in without_it.decided]
    assert with_it.shown["old"] == 0
    assert with_it.shown["a"] > 10
    assert with_it.count("old/l", "targeted") == 0


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_a_cap_of_ten_never_shows_eleven(workers: int, seed: int) -> None:
    """Whoever is asked, is killed, reads a batch again, or has not heard of an impression yet."""
    draw = random.Random(seed)
    house = a_house(a_campaign(caps=TEN), a_campaign("other", bid=1_000_000), count=workers)
    shown: dict[str, AdDecision] = {}
    waiting: list[Any] = []
    read: list[Part] = []
    for _ in range(30):
        worker = draw.randrange(workers)
        part = house._part(house.workers[worker].requests_source, [a_request()] * draw.randint(1, 2))
        for decision in again(house, part):
            if decision.campaign_id == "spring":
                shown[decision.decision_id] = decision
                waiting.append(an_impression(decision))
        read.append(part)
        house.now_ms += 1_000
        match draw.randrange(4):
            case 0:
                for decision in again(house, draw.choice(read)):
                    assert decision.campaign_id != "spring" or decision.decision_id in shown
            case 1:
                house.kill(draw.randrange(workers))
                house.now_ms += 1_000
            case 2 if waiting:
                events = house._part(house.workers[0].events_source, waiting)
                house.workers[0].recommender.respond([events])  # it dies before anything is stored
                house.kill(0)
                before = house.workers[0]
                answer = before.recommender.respond([events])
                before.recommender.store(before.recommender.keep(answer))
                before.events.stored(answer.marks)
                waiting = []
        house.tick()
    assert len(shown) == 10
    assert house.workers[0].server.ledger.totals().counts["spring/l"]["impressions"] == 10 - len(waiting)


def test_caps_hold_on_video() -> None:
    """However much of it is watched is one view; a creative of the campaign in another format counts as well."""
    film = {"format": "video", "dur": 15, "mimes": ["video/mp4"]}
    banner = {"crid": "still", "approved": True, "format": "banner", "adomain": ["spring.example"]}
    campaign = a_campaign(creative=film, caps=[{"count": 3, "time_unit": "day"}])
    campaign["line_items"][0]["creatives"].append(banner)
    house = a_house(campaign)
    clip = {"banner": None, "video": {"mimes": ["video/mp4"], "minduration": 5, "maxduration": 30}}
    for n in range(3):
        decision = one(house.decisions(a_request(imp=clip if n < 2 else None)))
        assert decision.filled, n
        kinds = ("impression", "first_quartile", "midpoint", "third_quartile", "complete", "click")
        house.tell(*(an_impression(decision, kind=kind) for kind in kinds))
    for imp in (clip, None):
        assert one(house.decisions(a_request(imp=imp))).reasons == ("capped",)


@pytest.mark.parametrize("workers", [1, 3])
def test_clicks_never_exceed_a_booked_number_by_more_than_the_bound(workers: int) -> None:
    """Everybody clicks, and nobody knew that they would."""
    days = Days([a_campaign(bid=4_000_000, **booked(20, "clicks"))], clicks=True, workers=workers)
    days.run(1, per_step=6)
    outstanding = 6  # asked for between two looks at the ledger
    assert (
        18
        <= days.count("spring/l", "clicks")
        <= 20 + overspend_bound(workers=workers, chunk=1, outstanding=outstanding)
    )


def test_a_campaign_that_is_edited_while_it_runs_keeps_its_spend() -> None:
    def at_half_time(now_ms: int) -> None:
        if now_ms == NOW_MS + HOUR_MS // 2:
            assert not days.house.publish(a_campaign(bid=4_500_000, name="another name", **budget))

    budget = {"flights": an_hour(), "delivery": "even", "budget_micros": 400_000}
    days = Days([a_campaign(bid=4_000_000, **budget)], imp={"bidfloor": 4.0})
    days.run(1, edit=at_half_time)
    assert 385_000 <= days.spent("spring/l") <= 400_000
    assert days.count("spring/l", "impressions") == days.shown["spring"] == days.spent("spring/l") // 4_000


@pytest.mark.parametrize(("edited", "ends"), [(800_000, 800_000), (40_000, None), (0, None)])
def test_a_budget_raised_or_cut_below_what_was_spent(edited: int, ends: int | None) -> None:
    """Raised it is spent, cut it stops at once, and what was spent is never asked back."""
    spent = dict[int, int]()

    def at_half_time(now_ms: int) -> None:
        spent[now_ms] = days.spent("spring/l")
        if now_ms == NOW_MS + HOUR_MS // 2:
            assert not days.house.publish(a_campaign(bid=4_000_000, **budget | {"budget_micros": edited}))

    budget = {"flights": an_hour(), "delivery": "even", "budget_micros": 400_000}
    days = Days([a_campaign(bid=4_000_000, **budget)], imp={"bidfloor": 4.0})
    days.run(1, edit=at_half_time)
    half = spent[NOW_MS + HOUR_MS // 2]
    assert 150_000 < half < 250_000
    assert days.spent("spring/l") == half if ends is None else 0.97 * ends <= days.spent("spring/l") <= ends


def test_two_currencies_meet_in_one_auction_and_each_budget_is_in_its_own() -> None:
    """A euro is worth more than a dollar, a yen is worth little: 4.50 euros beat 4.90 dollars and 700 yen."""
    rates = {"currency": "USD", "currencies": ("EUR=1000000", "USD=1100000", "JPY=160000000")}
    prices = {"euro": ("EUR", 4_500_000), "dollar": ("USD", 4_900_000), "yen": ("JPY", 700_000_000)}
    budgets = {"euro": 20_000, "dollar": 20_000, "yen": 5_000_000}
    campaigns = [
        a_campaign(name, bid=bid, currency=currency, budget_micros=budgets[name])
        for name, (currency, bid) in prices.items()
    ]
    days = Days(campaigns, settings=rates, imp={"bidfloor": 4.4}).run(0.25)
    first = next(one for one in days.decided if one.filled)
    assert (first.campaign_id, first.currency, first.min_to_win_micros) == ("euro", "USD", first.price_micros)
    assert first.price_micros in (4_900, 4_901)
    for name in budgets:
        assert budgets[name] * 0.75 <= days.spent(name) <= budgets[name]
    assert days.shown["dollar"] == 20_000 // 4_812 or days.shown["dollar"] == 4


def test_a_currency_that_nobody_knows_does_not_bid() -> None:
    assert one(a_house(a_campaign(currency="XAF")).decisions(a_request())).reasons == ("invalid",)


def test_two_advertisers_with_equal_bids_win_alike_often_and_a_redelivered_request_has_the_same_winner() -> None:
    house = a_house(a_campaign("a"), a_campaign("b"))
    parts, first = [], []
    for n in range(100):
        asked = [a_request(f"u{4 * n + m}", event_time=house.now_ms) for m in range(4)]
        parts.append(house._part(house.workers[0].requests_source, asked))
        first.append(again(house, parts[-1]))
        house.now_ms += 1_000
        house.tick()
    house.kill(0)
    house.tick()
    assert [again(house, part) for part in parts] == first
    won = Counter(decision.campaign_id for decisions in first for decision in decisions)
    assert won["a"] + won["b"] == 400
    assert abs(won["a"] - 200) < 4 * 10  # four standard deviations
    beside = [one.price_micros for decisions in first for one in decisions if "outbid" in one.losses]
    assert set(beside) == {5_000}
    assert len(beside) > 200


SPRING_MS, AUTUMN_MS = 1_774_742_400_000 - 2 * HOUR_MS, 1_792_886_400_000 - 2 * HOUR_MS
"""22:00 UTC before the 29th of March and the 25th of October 2026: Berlin's midnight, or an hour short of it."""


@pytest.mark.parametrize(
    ("from_ms", "hours"),
    [(SPRING_MS, []), (AUTUMN_MS, [2, 3])],
)
def test_a_day_part_of_the_hour_that_a_clock_change_leaves_out_or_repeats(from_ms: int, hours: list[int]) -> None:
    """From two to three in the morning in Berlin: never on the one day, twice as long on the other."""
    part = [{"days": ["sun"], "from": 2, "until": 3, "zone": "Europe/Berlin"}]
    days = Days([a_campaign(dayparts=part)], start_ms=from_ms, step_ms=300_000, settings={"chunk_s": 300}).run(6)
    filled = [(one.decided_ms - from_ms) // HOUR_MS for one in days.decided if one.filled]
    assert sorted(set(filled)) == hours
    assert len(filled) == 48 * len(hours) or not hours
