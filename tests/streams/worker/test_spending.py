"""Budgets are kept while there are campaigns; without them nothing is asked, and nothing runs."""

import asyncio
import threading

import pytest

from embeddings.spend_memory import MemorySpendLedger
from ranking.ads.campaigns import Delivery
from ranking.ads.market import Exchange
from streams.ad_settings import Ads
from streams.serving.budgets import Budgets
from streams.worker.spending import Spending
from tests.ranking.ads.houses import a_campaign, a_line, an_exchange
from tests.streams.serving.selling import an_open_ledger

pytestmark = pytest.mark.slow


def a_spending(exchange: Exchange, ledger: MemorySpendLedger) -> Spending:
    budgets = Budgets(ledger, exchange, Ads(), worker="w", partitions=8)
    return Spending(budgets=budgets, exchange=exchange, every_s=0.02, owned=lambda: {3})


async def ended(running: "asyncio.Task[None]") -> None:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_without_campaigns_there_is_no_call_and_no_thread() -> None:
    ledger = MemorySpendLedger()
    spending = a_spending(an_exchange(), ledger)
    running = asyncio.create_task(spending.run())
    await asyncio.sleep(0.1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spending")]
    await ended(running)
    assert not ledger._book.calls


async def test_leases_are_taken_where_campaigns_come_and_given_back_at_the_end() -> None:
    exchange, ledger = an_exchange(), an_open_ledger()
    spending = a_spending(exchange, ledger)
    running = asyncio.create_task(spending.run())
    await asyncio.sleep(0.05)
    exchange.put(a_campaign(), 1)
    for _ in range(100):
        await asyncio.sleep(0.02)
        if ledger._book.leases:
            break
    assert [key for _, key in ledger._book.leases] == ["c/l"]
    assert spending.budgets.owned == {3}
    await ended(running)
    assert not ledger._book.leases


async def test_a_ledger_that_is_closed_is_said_once_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    exchange, ledger = an_exchange(a_campaign()), MemorySpendLedger()
    running = asyncio.create_task(a_spending(exchange, ledger).run())
    for _ in range(100):
        await asyncio.sleep(0.02)
        if caplog.messages:
            break
    await asyncio.sleep(0.1)
    assert caplog.messages == ["no ads are sold: the spend ledger is closed: lost"]
    await ended(running)


async def test_a_worker_without_partitions_says_once_that_it_sells_nothing_limited(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.worker.spending._LONG", 2)
    limited = a_campaign("d", a_line(campaign="d", delivery=Delivery.asap), budget_micros=10_000_000)
    exchange, ledger = an_exchange(a_campaign(), limited), an_open_ledger()
    spending, mine = a_spending(exchange, ledger), set[int]()
    spending.owned = lambda: mine
    for _ in range(5):
        await spending._tick()
    assert {key for _, key in ledger._book.leases} == {"c/l"}
    said = "no partition of requests is assigned: no ad that has a budget or a booked number is sold here"
    assert caplog.messages == [said]
    mine.add(3)
    await spending._tick()
    assert {key for _, key in ledger._book.leases} == {"c/l", "d/l"}
    mine.clear()
    for _ in range(2):
        await spending._tick()
    assert caplog.messages == [said, said]
