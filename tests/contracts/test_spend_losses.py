"""What every `SpendLedger` does when it lost its data or its tail, held against memory, Valkey and Redis 7."""

import pytest

from embeddings.errors import LedgerClosed
from embeddings.spend import Billing, Room, SpendLedger, Totals, Verdict
from tests.contracts import test_spend_ledger as ledgers
from tests.contracts.test_spend_ledger import Backend
from tests.embeddings.spending import (
    EVENTS,
    HOUR,
    LINE,
    NOTHING,
    NOW,
    a_reservation,
    billables,
    confirm,
    ids,
    lease,
    out,
    reserve,
    sums,
    tally,
)

backend, ledger = ledgers.backend, ledgers.ledger


def a_life(ledger: SpendLedger) -> Totals:
    """Six reservations: 0 and 1 billed in the totals, 2 billed after them, the others out; what was published."""
    lease(ledger, 90)
    reserve(ledger, *everything())
    confirm(ledger, billables(0, 1), [tally(-1, 1, served=2)], now_ms=NOW)
    ledger.folded(ids([0, 1]))
    published = ledger.totals()
    confirm(ledger, billables(2, first=2), [tally(1, 2, served=1)], now_ms=NOW)
    return published


def everything() -> list[ledgers.Any]:
    return [a_reservation(n, 10, person="p", rooms=(Room(LINE, 9),)) for n in range(6)]


def rebuilt(ledger: SpendLedger, published: Totals) -> None:
    """What the leader does: totals, what may yet be billed, then the events of that time, also those counted."""
    ledger.rebuild(published)
    reserve(ledger, *everything(), decided=True)
    told = confirm(ledger, billables(0, 1), [tally(-1, 1, served=2)], now_ms=NOW)
    assert told == [Billing.known, Billing.known]
    assert confirm(ledger, billables(2, first=2), [tally(1, 2, served=1)], now_ms=NOW) == [Billing.billed]


def test_after_a_loss_nothing_is_sold_until_it_is_rebuilt(backend: Backend, ledger: SpendLedger) -> None:
    published = a_life(ledger)
    backend.wipe()
    assert reserve(ledger, a_reservation("new")) == [Verdict.closed]
    with pytest.raises(LedgerClosed):
        lease(ledger, 10)
    with pytest.raises(LedgerClosed):
        out(ledger)
    rebuilt(ledger, published)
    assert (ledger.closed(), reserve(ledger, a_reservation("new"))) == ("rebuilding", [Verdict.closed])
    assert reserve(ledger, a_reservation(0)) == [Verdict.again]
    assert (ledger.reopen(), ledger.closed()) == ({}, None)
    assert sums(ledger) == (40, 0, 30, 30)
    assert out(ledger) == {LINE: 4}
    assert (lease(ledger, 90), reserve(ledger, a_reservation("new"))) == (40, [Verdict.reserved])
    assert ledger.totals().counts[LINE] == {"reserved": 7, "billed": 3, "served": 3, "impressions": 3}


def test_an_event_of_the_old_life_that_comes_twice_counts_once(backend: Backend, ledger: SpendLedger) -> None:
    published = a_life(ledger)
    backend.wipe()
    rebuilt(ledger, published)
    ledger.reopen()
    again = [*billables(0, 1, 2), *billables(0, 3, first=3)]
    told = confirm(ledger, again, [tally(2, 4)], now_ms=NOW)
    assert told == [*[Billing.again] * 4, Billing.billed]
    assert sums(ledger)[3] == 40


def test_events_that_came_while_it_was_away_have_to_be_confirmed_before_it_opens(
    backend: Backend, ledger: SpendLedger
) -> None:
    published = a_life(ledger)
    backend.wipe()
    with pytest.raises(LedgerClosed):
        confirm(ledger, billables(3, first=3), [tally(2, 3)], now_ms=NOW)
    rebuilt(ledger, published)
    with pytest.raises(LedgerClosed):
        confirm(ledger, billables(4, first=4), [tally(3, 4)], now_ms=NOW)
    assert ledger.reopen() == {EVENTS: 4}
    assert ledger.closed() == "rebuilding"
    assert confirm(ledger, billables(3, 4, first=3), [tally(2, 4)], now_ms=NOW) == [Billing.billed] * 2
    assert (ledger.reopen(), sums(ledger)[3]) == ({}, 50)


def test_an_open_ledger_is_not_rebuilt(ledger: SpendLedger) -> None:
    lease(ledger, 10)
    with pytest.raises(ValueError, match="open"):
        ledger.rebuild(NOTHING)
    assert sums(ledger) == (90, 10, 0, 0)


def test_a_ledger_that_forgot_its_tail_is_closed_by_whoever_remembers(backend: Backend, ledger: SpendLedger) -> None:
    published = a_life(ledger)
    back = backend.save()
    reserve(ledger, a_reservation("forgotten"))
    back()
    assert reserve(ledger, a_reservation("another")) == [Verdict.closed]
    assert ledger.closed() == "rewound"
    rebuilt(ledger, published)
    assert ledger.reopen() == {}
    assert reserve(backend.open(), a_reservation("another")) == [Verdict.no_lease]


def test_totals_that_go_back_are_not_published(backend: Backend, ledger: SpendLedger) -> None:
    back, reader = backend.save(), backend.open()
    lease(ledger, 10)
    published = reader.totals()
    back()
    with pytest.raises(LedgerClosed, match="rewound"):
        reader.totals(published)


def test_totals_of_a_later_life_replace_those_of_an_earlier_one(backend: Backend, ledger: SpendLedger) -> None:
    published = a_life(ledger)
    backend.wipe()
    rebuilt(ledger, published)
    ledger.reopen()
    assert published.with_newer(ledger.totals(published)) == ledger.totals()


def test_a_ledger_behind_the_events_is_closed(backend: Backend, ledger: SpendLedger) -> None:
    a_life(ledger)
    fresh = backend.open()
    with pytest.raises(LedgerClosed, match="rewound"):
        confirm(fresh, billables(4, first=7), [tally(5, 7)], now_ms=NOW)
    assert ledger.closed() == "rewound"
    assert confirm(ledger, billables(3, first=3), [tally(2, 7)], now_ms=NOW) == [Billing.billed]
    assert (ledger.reopen(), ledger.closed()) == ({}, None)


def test_leases_of_an_earlier_life_are_worth_nothing(backend: Backend, ledger: SpendLedger) -> None:
    published = a_life(ledger)
    backend.wipe()
    rebuilt(ledger, published)
    ledger.reopen()
    assert reserve(ledger, a_reservation("old lease")) == [Verdict.no_lease]
    assert ledger.sweep(now_ms=NOW + HOUR) == 3
    assert sums(ledger) == (70, 0, 0, 30)
