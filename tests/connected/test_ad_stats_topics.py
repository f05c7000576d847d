"""A spend ledger in Valkey that lost everything is rebuilt from topics; what is published is there to read."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry

from deploy.embedded import Broker, Valkey
from embeddings.errors import LedgerClosed
from embeddings.events import Source
from embeddings.spend import Budget, Want
from embeddings.spend_redis import RedisSpendLedger
from streams.contract.ad_records import AdDecision
from streams.contract.messages import Outgoing
from streams.contract.records import encode
from streams.process.ad_metrics import AdMetrics
from streams.serving.ad_events import AdEvents
from streams.serving.stages import epoch_ms
from streams.settings import Settings
from streams.transport import topics
from streams.transport.publishing import Publisher
from streams.worker.ad_log import KafkaAdLog
from streams.worker.ad_stats import AdStatsLeader
from tests.streams.adverts import DAY_MS, LIFE, LINE, RULES, a_decision, an_ad_event, called, read, sell
from tests.streams.builders import Raw, small

pytestmark = pytest.mark.embedded


class House:
    """A leader, a lane and a seller around real servers."""

    def __init__(self, settings: Settings, valkey: Valkey, prefix: str) -> None:
        self.settings, self.prefix, self.valkey = settings, prefix, valkey
        self.ledger = RedisSpendLedger(valkey.url, prefix=prefix)
        self.publisher = Publisher(settings.kafka.client_options(), idempotent=False)
        self.events = Source(settings.topics.name("events"), 1)
        self.lane = AdEvents(ledger=self.ledger, person=called)
        self.offset = 0
        self.leader = AdStatsLeader(
            ledger=RedisSpendLedger(valkey.url, prefix=prefix),
            publisher=self.publisher,
            topic=settings.topics.name("ad_stats"),
            log=KafkaAdLog(settings),
            rules=RULES,
            metrics=AdMetrics(CollectorRegistry()),
            leads=lambda: True,
            settled_s=0.0,
        )

    async def sell(self, *numbers: int) -> None:
        decisions = [self._decision(n) for n in numbers]
        sell(self.ledger, *decisions, now_ms=epoch_ms())
        await self._send(*(Outgoing(self.settings.topics.name("ads"), b"ann", encode(one)) for one in decisions))

    def _decision(self, n: int) -> AdDecision:
        now_ms = epoch_ms()
        return a_decision(n, decided_ms=now_ms, expires_ms=now_ms + DAY_MS, kept_ms=now_ms + DAY_MS)

    async def happen(self, *events: tuple[int, str], confirmed: bool = True) -> None:
        """Published, and read by the lane."""
        log = [an_ad_event(self.offset + at, *event, event_time=epoch_ms()) for at, event in enumerate(events)]
        log = [Raw(one.offset, one.value, one.key, (), epoch_ms()) for one in log]
        self.offset += len(log)
        await self._send(*(Outgoing(self.events.topic, b"ann", one.value, (), 1) for one in log))
        if confirmed:
            self.lane.seen(read(*log, source=self.events))

    async def _send(self, *records: Outgoing) -> None:
        await self.publisher.send_all(records)

    async def lead(self, times: int = 1) -> None:
        for _ in range(times):
            await self.leader.step(asyncio.get_running_loop().time())

    def money(self) -> tuple[int, int]:
        one = self.ledger.totals().windows[LIFE]
        return one.spent, one.reserved

    def lose(self) -> None:
        with redis.Redis.from_url(self.valkey.url) as client:
            client.delete(*client.keys(f"{self.prefix}:*"))


@pytest.fixture
def settings(embedded_broker: Broker, topic_prefix: str) -> Settings:
    kafka: dict[str, Any] = {"bootstrap": embedded_broker.bootstrap, "idempotent": False}
    return small(kafka=kafka, topics={"prefix": topic_prefix, "partitions": 2})


@pytest.fixture
async def house(settings: Settings, valkey: Valkey, topic_prefix: str) -> AsyncIterator[House]:
    await topics.apply(settings)
    house = House(settings, valkey, topic_prefix)
    yield house
    await house.publisher.stop()
    house.ledger.close()
    house.leader.ledger.close()


async def test_a_ledger_that_lost_everything_has_its_money_again(house: House) -> None:
    with pytest.raises(LedgerClosed):
        house.ledger.totals()
    await house.lead(2)
    assert house.ledger.closed() is None, "a first start is a rebuild from nothing"
    house.ledger.set_budgets([Budget(LIFE, 1_000, 1)])
    until_ms = epoch_ms() + DAY_MS
    house.ledger.lease("w", [Want(LINE, (LIFE,), 500)], now_ms=epoch_ms(), until_ms=until_ms)
    await house.sell(1, 2, 3, 4)
    await house.happen((1, "impression"), (1, "click"))
    await house.lead()
    published = (await house.leader.log.figures()).records[LINE]
    assert (published.impressions, published.clicks, published.spent_micros) == (1, 1, 10)
    assert (published.budget_micros, published.reserved_micros) == (1_000, 30)
    await house.happen((2, "impression"))
    house.lose()
    assert house.ledger.closed() == "lost"
    await house.happen((3, "impression"), confirmed=True)
    await house.lead(2)
    assert house.ledger.closed() is None
    assert house.money() == (30, 10)
    await house.happen((1, "impression"), (3, "impression"))
    assert house.money() == (30, 10)
    await house.lead()
    figures = await house.leader.log.figures()
    assert figures.records[LINE].impressions == 3
    assert figures.totals.offsets == {house.events: 5}


async def test_another_leader_goes_on_from_what_is_published(house: House) -> None:
    await house.lead(2)
    house.ledger.set_budgets([Budget(LIFE, 1_000, 1)])
    await house.lead()
    house.leader._resign()
    house.ledger.set_budgets([Budget(LIFE, 2_000, 2)])
    await house.lead()
    assert (await house.leader.log.figures()).records[LINE].budget_micros == 2_000
