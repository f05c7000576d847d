"""A worker in its own process bills events of ads, says how campaigns stand, and rebuilds a ledger that is gone."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import pytest
import redis

from embeddings.spend import Budget, SpendLedger, Want, Window
from streams.contract.messages import Outgoing
from streams.contract.records import encode
from streams.lab.local_stack import Stack
from streams.serving.stages import epoch_ms
from streams.transport.publishing import Publisher
from streams.worker.ad_figures import Figures
from streams.worker.ad_log import KafkaAdLog
from streams.worker.stores import spend_ledger
from tests.streams.adverts import DAY_MS, LIFE, LINE, a_decision, decided, sell

pytestmark = [pytest.mark.embedded, pytest.mark.slow]

CAMPAIGN = {
    "campaign_id": "c",
    "advertiser": "acme",
    "line_items": [{"id": "l", "bid_micros": 1_000, "budget_micros": 5_000, "creatives": []}],
}
OURS = Window("ours")
"""The worker leases all that the line item's windows have; this one is nobody else's."""


@pytest.fixture
def stack() -> Iterator[Stack]:
    with Stack({"MARQUEE_TOPICS__PARTITIONS": "2", "MARQUEE_CONSENT__DEFAULT": "grant"}) as stack:
        stack.wait_until_ready()
        yield stack


class House:
    """What others do around a worker: book, sell, and see ads."""

    def __init__(self, stack: Stack, ledger: SpendLedger) -> None:
        self.stack, self.ledger, self.log = stack, ledger, KafkaAdLog(stack.settings)
        self.name = stack.settings.topics.name
        self.publisher = Publisher(stack.settings.kafka.client_options(), idempotent=False)

    async def opened(self) -> None:
        """The ledger is open: a worker did that."""
        give_up = time.monotonic() + 60
        while (why := self.ledger.closed()) is not None:
            assert time.monotonic() < give_up, (why, self.stack.children["worker"].tail(30))
            await asyncio.sleep(0.1)

    async def sell(self, *numbers: int) -> None:
        now_ms, windows = epoch_ms(), ((OURS.key, OURS.day),)
        times = {"decided_ms": now_ms, "expires_ms": now_ms + DAY_MS, "kept_ms": now_ms + DAY_MS}
        decisions = [a_decision(n, windows=windows, **times) for n in numbers]
        sell(self.ledger, *decisions, now_ms=now_ms)
        await self.send(*(Outgoing(self.name("ads"), b"ann", encode(one)) for one in decisions))

    async def see(self, n: int) -> None:
        event = {"type": "impression", "user_id": "ann", "decision_id": decided(n), "event_time": epoch_ms()}
        await self.send(Outgoing(self.name("events"), b"ann", encode(event)))

    async def send(self, *records: Outgoing) -> None:
        await self.publisher.send_all(records)

    async def published(self, impressions: int) -> Figures:
        """The figures, once they say so many impressions."""
        give_up = time.monotonic() + 60
        while True:
            figures = await self.log.figures()
            if LINE in figures.records and figures.records[LINE].impressions == impressions:
                return figures
            assert time.monotonic() < give_up, self.stack.children["worker"].tail(30)
            await asyncio.sleep(0.05)


@pytest.fixture
async def house(stack: Stack) -> AsyncIterator[House]:
    with closing(spend_ledger(stack.settings)) as ledger:
        house = House(stack, ledger)
        yield house
        await house.publisher.stop()


async def test_events_are_billed_and_told_also_after_the_ledger_was_lost(house: House) -> None:
    ledger, settings = house.ledger, house.stack.settings
    await house.send(Outgoing(house.name("campaigns"), b"c", encode(CAMPAIGN)))
    await house.opened()
    ledger.set_budgets([Budget(OURS, 1_000, 1)])
    ledger.lease("w", [Want(LINE, (OURS,), 500)], now_ms=epoch_ms(), until_ms=epoch_ms() + DAY_MS)
    await house.sell(1, 2, 3)
    await house.see(1)
    record = (await house.published(1)).records[LINE]
    assert (record.advertiser, record.budget_micros, record.funnel["billed"]) == ("acme", 5_000, 1)
    with redis.Redis.from_url(settings.redis.url) as client:
        client.delete(*client.keys("*{spend}*"))
    await house.see(2)
    await house.opened()
    await house.see(1)
    await house.see(3)
    assert (await house.published(3)).records[LINE].funnel["billed"] == 3
    windows = ledger.totals().windows
    assert (windows[OURS].spent, windows[OURS].reserved, windows[LIFE].budget) == (30, 0, 5_000)
