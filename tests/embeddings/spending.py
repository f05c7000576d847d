"""Reservations, wants and ledgers that are open, so that a test shows only what matters."""

from collections.abc import Iterable, Sequence
from typing import Any

from embeddings.events import Source
from embeddings.spend import (
    Billable,
    Billing,
    Budget,
    Reservation,
    SpendLedger,
    Spent,
    Tally,
    Totals,
    Verdict,
    Want,
    Window,
    decision_id,
)

NOW = 1_800_000_000_000
HOUR = 3_600_000
EVENTS, REQUESTS = Source("marquee.events.v1", 0), Source("marquee.requests.v1", 0)
LINE = "c/l"
LIFE, DAY, CAMPAIGN = Window(LINE), Window(LINE, "2027-01-15"), Window("c")
NOTHING = Totals(windows={}, counts={}, offsets={})


def opened(ledger: SpendLedger, *budgets: tuple[Window, int]) -> SpendLedger:
    """A new ledger, open, with budgets."""
    ledger.rebuild(NOTHING)
    assert ledger.reopen() == {}
    ledger.set_budgets([Budget(window, micros, 1) for window, micros in budgets])
    return ledger


def lease(
    ledger: SpendLedger,
    micros: int,
    *windows: Window,
    worker: str = "w",
    key: str = LINE,
    now: int = NOW,
    until: int = NOW + HOUR,
) -> int:
    """What a worker then holds."""
    (got,) = ledger.lease(worker, [Want(key, windows or (LIFE,), micros)], now_ms=now, until_ms=until)
    assert (got.key, got.until_ms) == (key, until)
    return got.micros


def a_reservation(n: int | str, micros: int = 10, *windows: Window, **fields: Any) -> Reservation:
    """Reservation number n, of the line item's life unless said; its id is that of a request."""
    usual: dict[str, Any] = {
        "decision_id": decision_id("requests", 0, 0, str(n)),
        "key": LINE,
        "windows": windows or (LIFE,),
        "micros": micros,
        "decision": f"decision {n}".encode(),
        "expires_ms": NOW + HOUR,
        "kept_ms": NOW + 24 * HOUR,
    }
    return Reservation(**usual | fields)


def reserve(
    ledger: SpendLedger, *reservations: Reservation, worker: str = "w", now: int = NOW, **more: Any
) -> list[Verdict]:
    return [answer.verdict for answer in ledger.reserve(worker, reservations, now_ms=now, **more)]


def billables(*numbers: int | str, source: Source = EVENTS, first: int = 0, kind: str = "impression") -> list[Billable]:
    """Events of reservations, at one offset after the other."""
    return [Billable(name, source, first + place, kind) for place, name in enumerate(ids(numbers))]


def confirm(
    ledger: SpendLedger, rows: Sequence[Billable], tallies: Sequence[Tally] = (), *, now_ms: int = NOW
) -> list[Billing]:
    return [confirmed.billing for confirmed in ledger.confirm(rows, tallies, now_ms=now_ms)]


def tally(above: int, upto: int, source: Source = EVENTS, **counts: int) -> Tally:
    """What was counted of the line item in a stretch of a partition."""
    named = {(LINE, name): many for name, many in counts.items()}
    return Tally(source=source, above=above, upto=upto, counts=named)


def money(ledger: SpendLedger, window: Window = LIFE) -> Spent:
    return ledger.totals().windows[window]


def sums(ledger: SpendLedger, window: Window = LIFE) -> tuple[int, int, int, int]:
    """Left, leased, reserved and spent of a window."""
    one = money(ledger, window)
    return one.left, one.leased, one.reserved, one.spent


def out(ledger: SpendLedger, person: str = "p") -> dict[str, int]:
    return dict(ledger.in_flight([person])[0].out)


def ids(numbers: Iterable[int | str]) -> Sequence[str]:
    return [decision_id("requests", 0, 0, str(n)) for n in numbers]
