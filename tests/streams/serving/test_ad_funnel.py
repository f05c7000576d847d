"""What became of line items is counted once, whatever becomes of the calls that tell it."""

from collections.abc import Sequence

import numpy as np
import pytest

from embeddings.errors import StoreUnavailable
from embeddings.events import Source
from embeddings.spend import SpendLedger, Tally
from ranking.ads.losses import Loss
from ranking.ads.market import Market
from streams.serving.ad_funnel import POSTED, Funnel, PostedFunnel
from tests.ranking.ads.houses import a_campaign, a_line, an_exchange
from tests.streams.builders import NOW_MS
from tests.streams.builders import REQUESTS as ASKED
from tests.streams.serving.selling import an_open_ledger

REQUESTS, OTHERS = Source("requests", 0), Source("requests", 1)


class Ledger:
    """A spend ledger whose answer may be lost once it has done what it was asked."""

    def __init__(self) -> None:
        self.kept = an_open_ledger()
        self.loses: list[bool] = []

    def __call__(self, tallies: Sequence[Tally]) -> None:
        self.kept.reserve("w", (), tallies, now_ms=1)
        if self.loses and self.loses.pop(0):
            raise StoreUnavailable("no answer")

    def bids(self) -> int:
        return self.kept.totals().counts.get("c/l", {}).get("bid", 0)


@pytest.fixture
def market() -> Market:
    return an_exchange(a_campaign("c", a_line())).market


def read(funnel: Funnel, market: Market, first: int, last: int, source: Source = REQUESTS) -> None:
    """A line item bids once for every record."""
    funnel.told(market, "bid", np.zeros(last - first + 1, np.int32))
    funnel.read(source, first, last)


@pytest.mark.parametrize("lost", [1, 3])
def test_a_lost_answer_counts_nothing_twice_though_more_was_counted_meanwhile(market: Market, lost: int) -> None:
    ledger, funnel = Ledger(), Funnel()
    ledger.loses = [True] * lost
    read(funnel, market, 0, 4)
    for n in range(lost):
        with pytest.raises(StoreUnavailable):
            funnel.tell(ledger)
        read(funnel, market, 5 + n, 5 + n)
        read(funnel, market, 10 + n, 10 + n, OTHERS)
    assert ledger.bids() == 5
    for _ in range(2):
        funnel.tell(ledger)
    assert ledger.bids() == 5 + 2 * lost


def test_a_call_that_never_came_through_is_counted_when_it_is_repeated(market: Market) -> None:
    ledger, funnel = Ledger(), Funnel()
    read(funnel, market, 0, 4)

    def away(tallies: Sequence[Tally]) -> None:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        funnel.tell(away)
    read(funnel, market, 5, 6)
    for _ in range(2):
        funnel.tell(ledger)
    assert ledger.bids() == 7


def test_names_are_taken_for_metrics_whether_or_not_the_ledger_answers(market: Market) -> None:
    funnel = Funnel()
    funnel.candidates(market, np.zeros(3, np.int32), np.array([Loss.won, Loss.outbid, Loss.capped], np.int16))
    funnel.tell(Ledger())
    names = {name: many for name, many in funnel.take_names().items() if many}
    assert names == {"targeted": 3, "won": 1, "outbid": 1, "capped": 1}
    assert not any(funnel.take_names().values())


LINE = "spring/l"


def tell(funnel: PostedFunnel, ledger: SpendLedger, won: int) -> None:
    """Somebody who posted a request was sold something, so many times."""
    funnel._counts[LINE, "won"] = won
    funnel.read(ASKED, 7, 7)
    funnel.tell(lambda tallies: ledger.reserve("w", (), tallies, now_ms=NOW_MS))


def test_what_became_of_posted_requests_is_counted_once_by_workers_that_share_a_name() -> None:
    ledger, workers = an_open_ledger(), [PostedFunnel(), PostedFunnel()]
    for worker in workers:
        worker._mine = Source(POSTED, 3)
    for n in range(1, 7):
        tell(workers[n % 2], ledger, n)
    totals = ledger.totals()
    assert totals.counts[LINE]["won"] == 1 + 2 + 3 + 4 + 5 + 6, "whatever clocks they have"
    assert list(totals.offsets) == [Source(POSTED, 3)], "the ledger keeps one name, however many offsets requests have"


@pytest.mark.parametrize("between", [False, True])
def test_a_lost_answer_counts_nothing_of_posted_requests_twice(between: bool) -> None:
    """Unless another worker of the same name told meanwhile what was counted is counted once."""
    ledger, mine, other = Ledger(), PostedFunnel(), PostedFunnel()
    mine._mine = other._mine = Source(POSTED, 3)
    for funnel in (mine, other):
        tell(funnel, ledger.kept, 1)
    ledger.loses = [True]
    mine._counts[LINE, "won"] = 10
    mine.read(ASKED, 7, 7)
    with pytest.raises(StoreUnavailable):
        mine.tell(ledger)  # finds that another one told, and follows
    if between:
        tell(other, ledger.kept, 1)
    mine.tell(ledger)
    assert ledger.kept.totals().counts[LINE]["won"] == 12 + between


def test_a_ledger_that_lost_its_tail_is_followed_from_where_it_stands() -> None:
    funnel = PostedFunnel()
    tell(funnel, an_open_ledger(), 1)
    behind = an_open_ledger()
    behind._book.offsets[funnel._mine] = 5
    tell(funnel, behind, 2)
    assert behind.totals().counts[LINE]["won"] == 2
