"""Of calls of every `SpendLedger`: look-ups of any size, and tallies of places that several tell."""

from dataclasses import replace

from embeddings.errors import AlreadyCounted
from embeddings.spend import MOST_ROWS, Room, Verdict
from tests.contracts import test_spend_ledger as ledgers
from tests.contracts.test_spend_ledger import Backend
from tests.embeddings.spending import LIFE, LINE, NOW, REQUESTS, a_reservation, ids, lease, opened, reserve, tally

backend = ledgers.backend


def test_a_tally_that_follows_counts_where_the_ledger_stands_and_nowhere_else(backend: Backend) -> None:
    ledger = opened(backend.open())

    def told(above: int, upto: int) -> int | None:
        try:
            ledger.reserve("w", (), [replace(tally(above, upto, REQUESTS, won=1), follows=True)], now_ms=NOW)
        except AlreadyCounted as known:
            return known.covered
        return None

    assert [told(0, 50), told(0, 50), told(50, 70)] == [None, None, None]
    assert [told(0, 60), told(0, 90), told(10, 20), told(80, 90)] == [70] * 4
    assert ledger.totals().counts[LINE]["won"] == 2
    assert ledger.covered([REQUESTS]) == {REQUESTS: 70}


def test_any_number_is_looked_up_at_a_time(backend: Backend) -> None:
    ledger = opened(backend.open(), (LIFE, 100))
    lease(ledger, 50)
    rooms = (Room(LINE, 9),)
    made = [a_reservation(n, person=f"p{n}", rooms=rooms) for n in (1, 2)]
    assert reserve(ledger, *made) == [Verdict.reserved] * 2
    people = ["p1", *(f"nobody {n}" for n in range(MOST_ROWS)), "p2"]
    found = ledger.known(people, ids([2, *range(10, 10 + 2 * MOST_ROWS), 1]))
    assert found.out is not None
    assert [len(found.out), dict(found.out[0].out), dict(found.out[-1].out)] == [len(people), {LINE: 1}, {LINE: 1}]
    assert (found.decisions[0], found.decisions[-1]) == (b"decision 2", b"decision 1")
    assert len(found.decisions) == 2 * MOST_ROWS + 2
    assert not any(found.decisions[1:-1])
    assert not any(each.out for each in found.out[1:-1])
