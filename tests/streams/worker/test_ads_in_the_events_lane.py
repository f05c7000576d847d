"""Events of ads through the lane: confirmed, folded, stored, and only then not out any more; each once."""

import pytest

from embeddings.errors import LedgerClosed, StoreUnavailable
from embeddings.spend_memory import MemorySpendLedger
from streams.serving.ad_events import AdEvents
from tests.streams.adverts import LINE, a_decision, an_ad_event, called, opened, out, sell, spent
from tests.streams.builders import EVENTS, NOW_MS, an_event
from tests.streams.lanes import Worker, a_worker, shaky_store
from tests.streams.serving.test_ad_slates import CAMPAIGNS, a_page_house, a_view, answer


@pytest.fixture
def ledger() -> MemorySpendLedger:
    ledger = MemorySpendLedger()
    opened(ledger)
    sell(ledger, a_decision(1), a_decision(2))
    return ledger


@pytest.fixture
def worker(ledger: MemorySpendLedger) -> Worker:
    worker = a_worker()
    ads = AdEvents(ledger=ledger, person=called, heard=worker.metrics.ads.heard, now_ms=lambda: NOW_MS)
    worker.service.recommender.ad_seen = ads.seen
    worker.events.ads = worker.events.unstored.ads = ads
    return worker


def seen(worker: Worker, user: str = "ann") -> int:
    """How many impressions the person's state counts."""
    exposures = worker.service.users.load([user], [EVENTS]).exposures
    return int(exposures.seen_U[0])


async def test_an_impression_is_in_the_state_and_not_out_any_more(worker: Worker, ledger: MemorySpendLedger) -> None:
    await worker.take([an_event(0, item="i001"), an_ad_event(1, 1)])
    assert (seen(worker), spent(ledger), out(ledger)) == (1, 10, [1, 1, 1, 1])
    assert worker.metric("ad_billings_total", billing="billed") == 1
    assert worker.metric("ad_spend_total") == pytest.approx(10 / 1e6)


async def test_a_batch_that_comes_again_counts_once(worker: Worker, ledger: MemorySpendLedger) -> None:
    log = [an_ad_event(0, 1), an_event(1, item="i001"), an_ad_event(2, 2)]
    for _ in range(2):
        await worker.take(log)
    assert (seen(worker), spent(ledger), out(ledger)) == (2, 20, [])
    assert ledger.totals().counts[LINE]["impressions"] == 2


async def test_a_store_that_is_away_is_waited_for_with_the_ad_out(worker: Worker, ledger: MemorySpendLedger) -> None:
    said: list[int] = []
    shaky = shaky_store(worker, flush=[StoreUnavailable("away")])
    real = shaky.real.flush

    def flush(number: int) -> None:
        said.append(len(out(ledger)))
        real(number)

    shaky.real.flush = flush
    await worker.take([an_ad_event(0, 1), an_ad_event(1, 2)])
    assert (said, out(ledger), spent(ledger)) == ([4], [], 20)


async def test_a_ledger_that_is_away_holds_the_batch(worker: Worker, ledger: MemorySpendLedger) -> None:
    confirm, errors = ledger.confirm, [StoreUnavailable("away")]

    def shaky(*args, **named):  # type: ignore[no-untyped-def]
        if errors:
            raise errors.pop()
        return confirm(*args, **named)

    ledger.confirm = shaky  # type: ignore[method-assign]
    await worker.take([an_ad_event(0, 1)])
    assert worker.waited == ["StoreUnavailable"]
    assert (seen(worker), spent(ledger)) == (1, 10)


async def test_while_the_ledger_is_closed_everything_else_goes_on(worker: Worker, ledger: MemorySpendLedger) -> None:
    ledger._book.why, ledger._book.epoch = "lost", ""
    await worker.take([an_event(0, item="i001"), an_ad_event(1, 1)])
    assert (worker.mark.offset, seen(worker)) == (1, 0)
    with pytest.raises(LedgerClosed):
        ledger.totals()


async def test_what_became_of_ads_on_slates_is_told_also_where_no_more_events_come(worker: Worker) -> None:
    house = a_page_house(*CAMPAIGNS)
    seller = house.workers[0]
    worker.events.slate_ads = seller.recommender.ads
    for user in ("ann", "bob"):
        answer(house, house.events([a_view(user)], 0))
    house.now_ms += 2_000
    await worker.events.tell_funnel()
    counts = seller.server.ledger.totals().counts.values()
    assert sum(of.get("served", 0) for of in counts) == sum(of.get("reserved", 0) for of in counts) == 4
