from embeddings.events import Source
from embeddings.spend import SpendLedger
from streams.serving.ad_funnel import POSTED, PostedFunnel
from tests.streams.builders import NOW_MS, REQUESTS
from tests.streams.serving.selling import an_open_ledger

LINE = "spring/l"


def tell(funnel: PostedFunnel, ledger: SpendLedger, won: int) -> None:
    """Somebody who posted a request was sold something, so many times."""
    funnel._counts[LINE, "won"] = won
    funnel.read(REQUESTS, 7, 7)
    funnel.tell(lambda tallies: ledger.reserve("w", (), tallies, now_ms=NOW_MS))


def test_what_became_of_posted_requests_is_counted_once_by_workers_that_share_a_name() -> None:
    ledger, workers = an_open_ledger(), [PostedFunnel(), PostedFunnel()]
    for worker in workers:
        worker._mine = Source(POSTED, 3)
    for n in range(1, 7):
        tell(workers[n % 2], ledger, n)
    totals = ledger.totals()
    assert totals.counts[LINE]["won"] == 1 + 2 + 3 + 4 + 5 + 6
    assert list(totals.offsets) == [Source(POSTED, 3)], "the ledger keeps one name, however many offsets requests have"
