"""Budgets are kept while there are campaigns; without them nothing is asked, and nothing runs."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from embeddings.errors import StoreUnavailable
from embeddings.spend import Totals
from embeddings.spend_memory import MemorySpendLedger
from ranking.ads.campaigns import Delivery
from ranking.ads.market import Exchange
from streams.ad_settings import Ads
from streams.lab.ad_house import AdHouse
from streams.serving.budgets import Budgets
from streams.worker.spending import Spending, pause_s
from tests.ranking.ads.houses import a_campaign, a_line, an_exchange
from tests.streams.serving.selling import an_open_ledger
from tests.streams.serving.test_ads import a_campaign as an_ad
from tests.streams.serving.test_ads import a_house, a_request


def filled(house: AdHouse, from_s: int, until_s: int, tick: Callable[[int], float]) -> list[float]:
    """What share of twenty requests a second is sold; `tick` ticks at a second, and says after how long again."""
    due_s, shares = 0.0, list[float]()
    for second in range(from_s, until_s):
        if second >= due_s:
            due_s = second + tick(second)
        asked = [a_request(f"u{second}-{n}", imp={"bidfloor": 4.0}) for n in range(20)]
        shares.append(sum(one.filled for (one,) in house.decisions(*asked)) / len(asked))
        house.now_ms += 1_000
    return shares


@pytest.mark.parametrize("took_s", [0.05, 0.7, 1.2, 2.0, 4.0])
def test_a_slow_tick_does_not_put_off_the_next_until_leases_are_spent(took_s: float) -> None:
    house = a_house(an_ad(bid=4_000_000))
    bears_s = house.workers[0].budgets.bears_s

    def tick(second: int) -> float:
        house.tick()
        return 1 if second < 12 else pause_s(took_s, 1.0, bears_s)

    filled(house, 0, 12, tick)
    assert min(filled(house, 12, 40, tick)) == 1


def test_selling_goes_on_over_a_tick_that_the_ledger_did_not_answer_and_stops_where_it_never_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = a_house(an_ad(bid=4_000_000))
    ledger, away = house.workers[0].budgets._ledger, set[int]()
    totals, now = ledger.totals, [0]

    def late(since: Totals | None = None) -> Totals:
        if now[0] in away:
            raise StoreUnavailable("no answer")
        return totals(since)

    monkeypatch.setattr(ledger, "totals", late)

    def tick(second: int) -> float:
        now[0] = second
        house.tick()
        return pause_s(2.0 if second in away else 0.05, 1.0, house.workers[0].budgets.bears_s)

    filled(house, 0, 12, tick)
    away |= {20}
    assert min(filled(house, 12, 40, tick)) == 1
    away |= set(range(40, 99))
    assert max(filled(house, 40, 60, tick)[11:]) == 0, "sums are too old"


def a_spending(exchange: Exchange, ledger: MemorySpendLedger) -> Spending:
    budgets = Budgets(ledger, exchange, Ads(), worker="w", partitions=8)
    return Spending(budgets=budgets, exchange=exchange, every_s=0.02, owned=lambda: {3})


async def ended(running: "asyncio.Task[None]") -> None:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.slow
async def test_without_campaigns_there_is_no_call_and_no_thread() -> None:
    ledger = MemorySpendLedger()
    spending = a_spending(an_exchange(), ledger)
    running = asyncio.create_task(spending.run())
    await asyncio.sleep(0.1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spending")]
    await ended(running)
    assert not ledger._book.calls


@pytest.mark.slow
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


@pytest.mark.slow
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
