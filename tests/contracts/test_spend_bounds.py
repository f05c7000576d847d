"""What clicks may cost beyond a budget of ten impressions, each of which holds its chance of a click by its price."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings.spend import SpendLedger, Verdict
from embeddings.spend_book import Book
from embeddings.spend_memory import MemorySpendLedger
from tests.embeddings.spending import LIFE, a_reservation, billables, confirm, lease, money, opened, reserve

IMPRESSION, BUDGET, WORKERS = 10, 100, 3
CHANCES = (1, 2, 5, 20, 100)
"""One click in so many impressions, which costs so many times what an impression holds."""


def workers() -> list[SpendLedger]:
    book = Book()
    first = opened(MemorySpendLedger(book), (LIFE, BUDGET))
    return [first, *(MemorySpendLedger(book) for _ in range(WORKERS - 1))]


def bound(out: int, one_in: int) -> int:
    """The budget, and what can be clicked of what was reserved and leased when a lease last grew."""
    return BUDGET + out * (one_in - 1)


def sell(ledger: SpendLedger, worker: int, n: int, one_in: int) -> Verdict:
    made = a_reservation(n, IMPRESSION, billed_by="click", spends=IMPRESSION * one_in)
    return reserve(ledger, made, worker=str(worker))[0]


@settings(deadline=None)
@given(
    st.sampled_from(CHANCES),
    st.lists(st.tuples(st.sampled_from(["lease", "sell", "sell", "click"]), st.integers(0, 2), st.integers(0, 40))),
)
def test_clicks_cost_no_more_than_the_bound(one_in: int, steps: Sequence[tuple[str, int, int]]) -> None:
    ledgers, out, sold = workers(), 0, list[int]()
    for n, (what, worker, number) in enumerate(steps):
        ledger, before = ledgers[worker], money(ledgers[0])
        if what == "lease":
            lease(ledger, number, worker=str(worker))
            now = money(ledger)
            if now.leased > before.leased:
                assert now.left >= 0
                out = now.reserved + now.leased
        elif what == "sell":
            sold += [n] if sell(ledger, worker, n, one_in) is Verdict.reserved else []
        elif sold:
            confirm(ledger, billables(sold[number % len(sold)], first=n, kind="click"))
        assert money(ledger).spent <= bound(out, one_in)


@pytest.mark.parametrize("one_in", CHANCES)
def test_the_bound_is_reached_where_everything_that_is_out_is_clicked(one_in: int) -> None:
    ledgers = workers()
    for n in range(12):
        lease(ledgers[n % WORKERS], IMPRESSION, worker=str(n % WORKERS))
        assert (sell(ledgers[n % WORKERS], n % WORKERS, n, one_in) is Verdict.reserved) == (n < 10)
    confirm(ledgers[0], billables(*range(12), kind="click"))
    assert money(ledgers[0]).spent == bound(BUDGET, one_in) == BUDGET * one_in
    assert lease(ledgers[1], IMPRESSION, worker="1") == 0


def test_a_whole_price_that_is_reserved_is_never_exceeded() -> None:
    ledgers = workers()
    for n in range(12):
        lease(ledgers[0], 50, worker="0")
        reserve(ledgers[0], a_reservation(n, 50, billed_by="click", spends=50), worker="0")
    confirm(ledgers[0], billables(*range(12), kind="click"))
    assert money(ledgers[0]).spent == BUDGET
