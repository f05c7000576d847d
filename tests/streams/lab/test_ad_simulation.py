"""A day of ads, sold by the service's own code: spent as booked, no cap exceeded, nothing twice, whoever is killed.

`CAMPAIGNS` is how large a house; `make prove` sells for two hundred, and holds us to one per cent.
"""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streams.contract.ad_records import AdDecision
from streams.lab.ad_audience import Audience, Happening
from streams.lab.ad_audit import Audit
from streams.lab.ad_bookings import CLICK_RATE, GENRES, START_MS, Booked, Cap
from streams.lab.ad_days import KEYS, YARDSTICKS, run_days
from streams.lab.ad_oracle import deliverable
from streams.lab.ad_world import AdWorld, settings_of_house

CAMPAIGNS = int(os.environ.get("CAMPAIGNS", "20"))
LARGE = CAMPAIGNS >= 200
REQUESTS, TICK_S, MOST_ERROR = (20_000, 60, 0.01) if LARGE else (2_000, 120, 0.06)
RATES = settings_of_house(60).ads.rates()


@pytest.fixture(scope="module")
def world() -> AdWorld:
    return AdWorld.of(campaigns=20, requests=1_000, seed=3)


@pytest.mark.slow
def test_a_day_is_spent_as_booked_and_within_the_bound() -> None:
    systems = ["marquee", *(YARDSTICKS if LARGE else ())]
    found = run_days(campaigns=CAMPAIGNS, requests=REQUESTS, tick_s=TICK_S, systems=systems)
    print(found)
    assert set(KEYS) <= found.keys()
    assert found["deliverable"] > CAMPAIGNS // 2
    assert found["spend_error"] < MOST_ERROR
    for figures in found["systems"].values():
        _nothing_beyond(figures)


@pytest.mark.slow
@pytest.mark.embedded
def test_two_workers_that_are_killed_and_a_redis_that_loses_its_tail_sell_nothing_twice() -> None:
    kills = 10 if LARGE else 4
    found = run_days(campaigns=CAMPAIGNS, requests=REQUESTS, tick_s=TICK_S, workers=2, kills=kills, redis=True)
    print(found)
    assert (found["kills"], found["rebuilt"]) == (kills, 1)
    assert len(found["killed_after"]) == 4
    assert found["fill"] > 0.5
    _nothing_beyond(found)


def _nothing_beyond(figures: dict[str, Any]) -> None:
    assert figures["caps_exceeded"] == figures["double_spend"] == figures["underpaid"] == 0
    assert figures["overspent_beyond_bound"] == 0
    assert figures["overspend"] <= figures["overspend_bound"]


def a_decision(world: AdWorld, line: Booked, n: int, r: int, **fields: Any) -> AdDecision:
    """A slot of request `r` that a line item has."""
    decided_ms = int(world.time_ms_R[r])
    campaign, _, name = line.key.partition("/")
    whole = {"decision_id": f"{n:032x}", "filled": True, "campaign_id": campaign, "line_item_id": name}
    whole |= {"user_id": "u1", "request_id": f"r{r}", "price_micros": 7, "billed_by": "impression"}
    times = {"decided_ms": decided_ms, "expires_ms": decided_ms + 300_000, "billed_until_ms": decided_ms + 10**8}
    return AdDecision(**{**whole, **times, **fields})


def shown(audit: Audit, decision: AdDecision, after_ms: int = 1_000) -> None:
    audit.decided(decision)
    seen_ms = decision.decided_ms + after_ms
    record = {"type": "impression", "decision_id": decision.decision_id, "event_time": seen_ms}
    audit.happened(Happening(seen_ms, record), seen_ms)


def capped(world: AdWorld, count: int) -> tuple[AdWorld, Booked]:
    """A line item with a cap, and one person who makes all requests but request 900."""
    line, user_R = replace(world.lines[1], cap=Cap("campaign", count, 86_400)), np.ones_like(world.user_R)
    user_R[900] = 2
    return replace(world, lines=(line,), user_R=user_R), line


def test_the_audit_finds_the_impression_that_is_one_too_many(world: AdWorld) -> None:
    world, line = capped(world, 2)
    audit = Audit(world)
    for n in range(2):
        shown(audit, a_decision(world, line, n, n))
    assert audit.caps_exceeded() == 0
    shown(audit, a_decision(world, line, 2, 900))
    assert audit.caps_exceeded() == 0
    shown(audit, a_decision(world, line, 3, 901))
    assert audit.caps_exceeded() == 1


def test_an_ad_that_nobody_waited_for_any_more_does_not_count_against_a_cap(world: AdWorld) -> None:
    world, line = capped(world, 1)
    audit = Audit(world)
    shown(audit, a_decision(world, line, 0, 0), after_ms=400_000)
    shown(audit, a_decision(world, line, 1, 500))
    assert audit.caps_exceeded() == 0
    assert audit.billed_late(line.key) == 7


def test_a_decision_is_owed_once_however_often_it_is_told_of(world: AdWorld) -> None:
    audit, line = Audit(world), world.lines[0]
    decision = a_decision(world, line, 0, 0)
    for _ in range(2):
        shown(audit, decision)
    assert (audit.owed(line.key), audit.impressions(line.key), audit.changed) == (7, 1, 0)
    audit.decided(a_decision(world, line, 0, 0, price_micros=8))
    assert audit.changed == 1


def test_what_clicks_may_cost_beyond_what_is_held_is_the_most_that_was_out_at_once(world: AdWorld) -> None:
    audit, line = Audit(world), world.lines[2]
    for n, at_ms in enumerate((0, 100_000, 800_000)):
        fields = {"decided_ms": START_MS + at_ms, "expires_ms": START_MS + at_ms + 300_000, "billed_by": "click"}
        audit.decided(a_decision(world, line, n, 0, spends_micros=100, **fields))
    assert audit.surplus(line.key) == 2 * (100 - 7)
    assert audit.held(line.key) == 14


def test_people_do_the_same_with_a_decision_in_whichever_house(world: AdWorld) -> None:
    decisions = [a_decision(world, world.lines[0], n, n) for n in range(400)]
    first, again = ([[*Audience(world).of(each, world.lines[0])] for each in decisions] for _ in range(2))
    assert first == again
    rate = np.mean([bool(events) for events in first])
    assert 0.85 < rate < 0.95


def test_people_click_what_they_like_and_about_as_often_as_is_said() -> None:
    world = AdWorld.of(campaigns=10, requests=20_000, seed=1)
    assert world.click_UC.mean() == pytest.approx(CLICK_RATE, rel=0.1)
    assert world.click_UC.shape[1] == len(GENRES)
    liked_U, others_U = world.click_UC.max(1), world.click_UC.min(1)
    assert np.median(liked_U / others_U) > 3


def test_who_is_booked_beyond_what_there_is_cannot_be_delivered(world: AdWorld) -> None:
    line = next(line for line in world.lines if line.unit == "impressions")
    few, many = (replace(world, lines=(replace(line, amount=amount),)) for amount in (1, 10**6))
    assert deliverable(few, RATES, "USD") == {line.key: True}
    assert deliverable(many, RATES, "USD") == {line.key: False}


def test_the_oracle_gives_a_request_away_once(world: AdWorld) -> None:
    first = next(line for line in world.lines if line.unit == "impressions")
    demand = int(world.matching(first).sum() * 0.9 / 1.5)
    lines = tuple(replace(first, key=f"c{n}/l", amount=demand, cap=None) for n in range(4))
    scarce = replace(world, lines=lines, slots_R=np.ones_like(world.slots_R), floor_R=np.zeros_like(world.floor_R))
    found = deliverable(scarce, RATES, "USD")
    assert found["c0/l"]
    assert not found["c3/l"]
