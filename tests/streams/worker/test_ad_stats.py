"""One worker publishes what changed, every second; what fails is told the next time, and a lost ledger is rebuilt."""

import math
from collections.abc import Sequence

import pytest
from aiokafka.errors import KafkaConnectionError
from prometheus_client import CollectorRegistry

from embeddings.errors import StoreUnavailable
from embeddings.spend import Budget, Verdict
from embeddings.spend_memory import Book, MemorySpendLedger
from streams.contract.ad_records import AdStats
from streams.contract.records import decode_ad_stats, encode
from streams.process.ad_metrics import AdMetrics
from streams.serving.ad_delivery import Promise
from streams.serving.ad_events import AdEvents, reservation_of
from streams.transport.publishing import PublishFailed
from streams.worker.ad_stats import AdStatsLeader
from tests.streams.adverts import (
    DAY_MS,
    LIFE,
    LINE,
    RULES,
    Topics,
    a_decision,
    a_line,
    an_ad_event,
    called,
    opened,
    read,
    sell,
)
from tests.streams.builders import NOW_MS
from tests.streams.lanes import AWAY
from tests.streams.lanes import Topics as Broker

TOPIC = "marquee.ad-stats.v1"


class House:
    """A leader around a ledger, a broker and topics in memory; `at` is its clock in seconds."""

    def __init__(self) -> None:
        self.book, self.broker, self.topics = Book(), Broker(), Topics()
        self.ledger = MemorySpendLedger(self.book)
        opened(self.ledger)
        self.leading, self.at = True, 100.0
        self.metrics = AdMetrics(CollectorRegistry(), clock=lambda: self.at)
        self.leader = AdStatsLeader(
            ledger=self.ledger,
            publisher=self.broker,  # type: ignore[arg-type]
            topic=TOPIC,
            log=self.topics,
            rules=RULES,
            metrics=self.metrics,
            lines=lambda: {LINE: a_line()},
            promises=lambda now_ms: {LINE: (Promise("money", "lifetime", 1_000, 100.0),)},
            leads=lambda: self.leading,
            now_ms=lambda: NOW_MS + int(1_000 * (self.at - 100)),
        )
        self.send = self.broker.send_all

        async def sent(records, *, still_waiting=None):  # type: ignore[no-untyped-def]
            await self.send(records, still_waiting=still_waiting)

        self.broker.send_all = sent  # type: ignore[method-assign]

    async def step(self, *, by: float = 1.0) -> list[AdStats]:
        """What is published a second later."""
        self.at += by
        before = len(self.broker.published)
        await self.leader.step(self.at)
        return [decode_ad_stats(one.value) for one in self.broker.published[before:] if one.value is not None]

    def sell(self, *numbers: int) -> None:
        decisions = [a_decision(n) for n in numbers]
        sell(self.ledger, *decisions)
        self.topics.ads += decisions

    def happen(self, *log) -> None:  # type: ignore[no-untyped-def]
        AdEvents(ledger=self.ledger, person=called, now_ms=lambda: NOW_MS).seen(read(*log))

    def metric(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"marquee_ad_{name}", labels)
        return math.nan if value is None else value


@pytest.fixture
def house() -> House:
    return House()


def keys(records: Sequence[AdStats]) -> list[str]:
    return [record.key for record in records]


async def settled(house: House) -> list[AdStats]:
    await house.step()
    return await house.step(by=3)


async def test_what_changed_is_published_the_position_last(house: House) -> None:
    house.sell(1)
    house.happen(an_ad_event(0, 1))
    records = await settled(house)
    assert keys(records) == [LINE, ""]
    assert (records[0].impressions, records[0].spent_micros, records[0].indicator) == (1, 10, 0.1)
    assert records[-1].offsets == {"events/0": 0}
    assert (house.metric("ledger_units", state="spent"), house.metric("delivery_ratio")) == (10 / 1e6, 0.1)
    assert (house.metric("plan_units", state="due"), house.metric("overspend_ratio")) == (100 / 1e6, 0)
    assert keys(await house.step()) == [""]
    house.happen(an_ad_event(1, 1, "click"))
    assert [(one.key, one.clicks) for one in await house.step()] == [(LINE, 1), ("", 0)]


async def test_money_of_a_campaign_that_was_taken_away_is_told_no_more(house: House) -> None:
    house.sell(1)
    house.happen(an_ad_event(0, 1))
    house.ledger.set_budgets([Budget(LIFE, 5, 2)])
    await settled(house)
    assert (house.metric("overspend_ratio"), house.metric("ledger_units", state="budget")) == (1, 5 / 1e6)
    house.leader.lines = dict
    await house.step()
    assert (house.metric("overspend_ratio"), house.metric("ledger_units", state="budget")) == (0, 0)


async def test_another_worker_says_nothing_and_begins_when_it_has_led_for_a_while(house: House) -> None:
    house.leading = False
    assert await settled(house) == []
    assert house.topics.asked == []
    house.leading = True
    assert [len(await house.step(by=by)) for by in (1, 1, 2)] == [0, 0, 2]


async def test_a_publication_that_failed_is_told_the_next_time(house: House) -> None:
    await settled(house)
    house.sell(1)
    house.broker.errors = [AWAY]
    with pytest.raises(PublishFailed):
        await house.step()
    assert keys(await house.step()) == [LINE, ""]


async def test_the_next_leader_goes_on_from_what_lies_there(house: House) -> None:
    house.sell(1)
    for record in await settled(house):
        house.topics.published.take(house.leader._figures)  # type: ignore[arg-type]
        assert record
    house.leading = False
    await house.step()
    house.leading = True
    house.topics.asked.clear()
    assert keys(await settled(house)) == [""], "the ledger told only what changed since"
    assert house.topics.asked == ["figures"]


async def test_it_reads_the_topics_once(house: House) -> None:
    await settled(house)
    for _ in range(5):
        await house.step()
    assert house.topics.asked == ["figures"]


async def test_what_nobody_billed_is_released(house: House) -> None:
    house.sell(1)
    await settled(house)
    records = await house.step(by=DAY_MS / 1_000)
    assert (records[0].funnel["released"], records[0].reserved_micros) == (1, 0)
    assert house.metric("swept_total") == 1


async def test_a_lost_ledger_is_rebuilt_once_what_was_decided_has_arrived(house: House) -> None:
    house.sell(1, 2)
    house.happen(an_ad_event(0, 1))
    await settled(house)
    house.topics.published.take(house.leader._figures)  # type: ignore[arg-type]
    house.topics.events = {next(iter(house.book.offsets)): [an_ad_event(0, 1)]}
    vars(house.book).update(vars(Book()))
    assert await house.step() == []
    assert (house.ledger.closed(), house.metric("ledger_closed")) == ("lost", 1)
    new = a_decision("new")
    made = [reservation_of(new, encode(new))]
    assert house.ledger.reserve("w", made, now_ms=NOW_MS)[0].verdict is Verdict.closed
    assert await house.step(by=3) == []
    assert house.ledger.closed() is None
    records = await house.step()
    assert (records[0].key, records[0].spent_micros, records[0].reserved_micros) == (LINE, 10, 10)
    assert (house.metric("rebuilds_total", result="reopened"), house.metric("ledger_closed")) == (1, 0)


async def test_a_rebuild_that_fails_is_begun_again(house: House) -> None:
    await settled(house)
    vars(house.book).update(vars(Book()))
    house.topics.breaks = [KafkaConnectionError("away")]
    await house.step()
    with pytest.raises(KafkaConnectionError):
        await house.step(by=3)
    assert house.metric("rebuilds_total", result="failed") == 1
    await house.step()
    assert house.ledger.closed() is None


async def test_ages_and_standings_are_those_of_the_leader(house: House) -> None:
    house.sell(1)
    house.happen(an_ad_event(0, 1))
    await settled(house)
    house.at += 5
    assert (house.metric("stats_age_seconds"), house.metric("ledger_age_seconds")) == (5, 5)
    assert [house.metric("line_items", standing=one) for one in ("behind", "on_plan", "ahead")] == [1, 0, 0]
    house.leading = False
    await house.step()
    assert math.isnan(house.metric("stats_age_seconds"))
    assert math.isnan(house.metric("line_items", standing="behind"))


async def test_whatever_is_away_is_tried_again(house: House) -> None:
    def away(*args, **named):  # type: ignore[no-untyped-def]
        raise StoreUnavailable("away")

    await settled(house)
    sweep, house.ledger.sweep = house.ledger.sweep, away  # type: ignore[method-assign]
    for _ in range(3):
        house.at += 1
        await house.leader._try(house.at)
    house.ledger.sweep = sweep  # type: ignore[method-assign]
    assert keys(await house.step()) == [""]
