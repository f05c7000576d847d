"""The demo's house of campaigns, sold in process: what it is made of, what it comes to, how it is told."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from embeddings.items import ItemFacts
from ranking.ads.campaigns import BidType, Type
from streams.commands.demo_ads import print_ads, told
from streams.contract.ad_records import AdDecision, AdStats
from streams.contract.campaign_records import campaign_of
from streams.contract.campaigns import decode_campaign
from streams.contract.records import decode_event, decode_request, encode
from streams.lab.ad_campaigns import BANNER, CAP, CAPPED, PACED, RATES, campaigns, genres_of
from streams.lab.ad_figures import bars, capped_words, explained, plan_words
from streams.lab.ad_house import AdHouse
from streams.lab.ad_showing import AdRun, PlanPoint, Showing
from streams.lab.ad_visitors import Audience
from streams.lab.datasets import Log
from streams.lab.report_ads import ads_page
from tests.streams.builders import NOW_MS, a_table, small

GENRES = ("Drama", "Comedy", "Action", "War")
EVENTS, PER_S = 12_000, 100


@cache
def a_log() -> Log:
    log = a_table(EVENTS, users=12, items=40)
    items = {
        name: ItemFacts(name=name, title=name, categories=(GENRES[n % len(GENRES)],))
        for n, name in enumerate(sorted(log.items))
    }
    return replace(log, items=items)


def replayed() -> Iterator[tuple[Showing, list[AdDecision]]]:
    """A demo's ads without topics: the log goes by in two minutes, and every page is answered at once."""
    log, settings = a_log(), small(ads={"currencies": RATES, "secret": "of nobody"})
    house, showing = AdHouse(settings=settings, now_ms=NOW_MS), Showing(log, settings)
    for r in range(len(log)):
        house.now_ms = NOW_MS + 1_000 * r // PER_S
        if r % PER_S == 0:
            house.tick()
        also = showing.passed(r, house.now_ms)
        if also and also[0][0] == "campaigns":
            assert not house.publish(*(decode_campaign(value) for _, _, value in also))
        elif also:
            events = []
            for slate in house.ask(*(decode_request(value) for _, _, value in also)):
                ads = [decision.record for decision in slate.ads]
                events += [event for ad in ads for event in showing.decided(ad)]
                yield showing, ads
            house.tell(*(decode_event(value) for _, value in events))


@pytest.fixture(scope="module")
def sold() -> tuple[AdRun, list[AdDecision]]:
    seen = list(replayed())
    return seen[0][0].run, [ad for _, ads in seen for ad in ads]


def test_every_campaign_of_the_house_can_be_served() -> None:
    made = [
        campaign_of(decode_campaign(encode(one)), one.campaign_id)
        for one in campaigns(GENRES, begin_ms=NOW_MS, end_ms=NOW_MS + 60_000, pages=1_000)
    ]
    lines = [line for campaign in made for line in campaign.line_items]
    assert len({campaign.id for campaign in made}) == len(lines) == 36
    assert {PACED, CAPPED} <= {line.key for line in lines}
    assert {line.type for line in lines} == {Type.sponsorship, Type.standard, Type.price_priority, Type.house}
    assert {line.bid_type for line in lines} == {BidType.cpm, BidType.cpc, BidType.cpcv}
    assert {campaign.currency for campaign in made} == {"USD", "EUR"}
    assert all(domain.endswith(".example") for line in lines for c in line.creatives for domain in c.adomain)
    assert any(line.deal for line in lines)
    assert any(line.caps for line in lines)


def test_a_catalogue_without_genres_has_a_house_too() -> None:
    bare = replace(a_log(), items={})
    assert len(campaigns(genres_of(bare), begin_ms=0, end_ms=1, pages=0)) == 36


def test_most_slots_are_filled_and_their_events_are_paid_for(sold: tuple[AdRun, list[AdDecision]]) -> None:
    run, decisions = sold
    assert run.slots == len(decisions) == 2 * run.requests
    assert run.filled == sum(ad.filled for ad in decisions) == sum(run.filled_by.values())
    assert run.fill > 0.5
    assert len(run.filled_by) > 1
    assert 0.7 < run.done["impression"] / run.filled < 0.9
    assert 0 < run.done["click"] < run.done["viewable"] < run.done["impression"]


def test_nobody_sees_an_ad_more_often_than_its_cap(sold: tuple[AdRun, list[AdDecision]]) -> None:
    run, decisions = sold
    assert run.people
    assert max(person.shown for person in run.people.values()) == CAP
    assert not any(person.above for person in run.people.values())
    most = run.most_capped()
    assert most is not None
    mine = [ad for ad in decisions if ad.user_id == most.user]
    assert 0 < most.held_back <= sum("capped" in ad.losses for ad in mine if ad.tagid == BANNER)
    assert f"{CAP} of at most {CAP} times" in capped_words(run)


def test_flights_last_longer_where_the_log_takes_longer() -> None:
    showing, ends, now_ms = Showing(a_log(), small(ads={"currencies": RATES})), [], NOW_MS
    for r in range(EVENTS):
        now_ms += 10 if r < EVENTS // 10 else 30
        also = showing.passed(r, now_ms)
        if also and also[0][0] == "campaigns":
            flight = decode_campaign(also[0][2]).line_items[0].flights[0]
            ends.append(flight.end)
            assert flight.begin == NOW_MS + 10 * (int(0.06 * EVENTS) + 1) + 8_000
    assert len(ends) > 1
    assert ends == sorted(ends)
    assert ends[-1] > now_ms


def test_a_win_is_explained_by_what_was_decided(sold: tuple[AdRun, list[AdDecision]]) -> None:
    run, _ = sold
    ad, won = run.explained, explained(run)
    assert ad is not None
    assert won is not None
    assert won.title == f"{ad.campaign_id}/{ad.line_item_id}"
    assert dict(won.facts)["pays"] == f"{ad.price_micros / 1e3:,.2f} USD per thousand"
    assert sum(many for many, _ in won.losses) == sum(ad.losses.values())


def test_people_click_what_they_take() -> None:
    audience, log = Audience(a_log()), a_log()
    for r in range(3_000):
        audience.took(r)
    user = log.user_R[0]
    taken = [log.facts(log.item_R[r]).categories[0] for r in range(3_000) if log.user_R[r] == user]
    by_taste = sorted(GENRES, key=taken.count)
    chances = [audience.chance(user, (genre,)) for genre in by_taste]
    assert chances == sorted(chances)
    assert chances[0] < chances[-1]


def some_figures() -> AdRun:
    run = AdRun(small(ads={"currencies": RATES}).ads.rates())
    run.stand(AdStats(key="a", line_item_id="", spent_micros=999, currency="USD"), 1.0)
    run.stand(AdStats(key="a/l", line_item_id="l", spent_micros=920, currency="EUR", funnel={"capped": 3}), 1.0)
    for second in range(5):
        spent, due = 100_000 * second, 110_000.0 * second
        line = {"line_item_id": "all-day", "currency": "USD", "budget_micros": 900_000, "impressions": second}
        run.stand(AdStats(key=PACED, spent_micros=spent, expected=due, **line), float(second))  # type: ignore[arg-type]
    return run


def test_money_of_two_currencies_is_told_in_one() -> None:
    run = some_figures()
    assert run.spend_micros == 400_000 + 1_000
    assert told(run) == {"slots": 0, "filled": 0, "spend_micros": 401_000, "capped": 3}
    assert told(None) == {"slots": 0, "filled": 0, "spend_micros": 0, "capped": 0}


def test_a_budget_is_shown_beside_its_plan() -> None:
    run = some_figures()
    assert run.plan[-1] == PlanPoint(4.0, 400_000, 440_000.0)
    assert plan_words(run) == f"{PACED}: 0.40 spent of 0.44 due by then, budget 0.90 USD"
    assert bars(run.plan, 5) == ("▁▃▄▆▇", "▁▃▅▆█")


def test_terminal_and_page_tell_the_same(
    sold: tuple[AdRun, list[AdDecision]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, _ = sold
    run.plan = [PlanPoint(float(t), 1_000 * t, 1_000.0 * t) for t in range(4)]
    print_ads(run)
    text, page = capsys.readouterr().out, ads_page(run)
    assert "why" in text
    assert page.won is not None
    assert page.won.title in text
    assert page.capped in text.replace("\n", " ")
    assert page.fills.startswith("<svg")
    assert page.plan.endswith("</svg>\n")


def test_without_ads_nothing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    run = AdRun(small().ads.rates())
    print_ads(run)
    assert capsys.readouterr().out == ""
    assert (explained(run), capped_words(run), plan_words(run), bars(run.plan)) == (None, "", "", ("", ""))
    assert np.isclose(run.fill, 0)
