"""What every `SpendLedger` does with what happens to an ad, whatever is paid for; memory, Valkey and Redis 7 alike."""

from collections.abc import Callable
from typing import Any

import pytest

from embeddings.spend import (
    KINDS,
    MOST_AMOUNT,
    ONE,
    UNLIMITED,
    Billing,
    Budget,
    Confirmed,
    Reservation,
    Room,
    SpendLedger,
    Tally,
    Verdict,
    Window,
)
from tests.contracts import test_spend_ledger as ledgers
from tests.contracts.test_spend_ledger import Backend
from tests.embeddings.spending import (
    EVENTS,
    HOUR,
    LIFE,
    LINE,
    NOW,
    a_reservation,
    billables,
    confirm,
    ids,
    lease,
    opened,
    out,
    reserve,
    sums,
    tally,
)

backend, ledger = ledgers.backend, ledgers.ledger
FEW = (Room(LINE, 9),)


def sold(ledger: SpendLedger, *numbers: int | str, kind: str = "click", **fields: Any) -> list[Reservation]:
    """Ads that are paid for by an event of a kind, each of which reserves 1 and spends 20."""
    usual = {"billed_by": kind, "spends": 20, "person": "p", "rooms": FEW} | fields
    made = [a_reservation(n, 1, **usual) for n in numbers]
    lease(ledger, 60)
    assert reserve(ledger, *made) == [Verdict.reserved] * len(made)
    return made


def happens(ledger: SpendLedger, kind: str, *numbers: int | str, first: int = 0, now: int = NOW) -> list[Billing]:
    return confirm(ledger, billables(*numbers, kind=kind, first=first), now_ms=now)


@pytest.mark.parametrize("kind", KINDS)
def test_the_event_that_is_paid_for_spends_its_price_and_all_others_count(ledger: SpendLedger, kind: str) -> None:
    sold(ledger, 1, kind=kind)
    for place, other in enumerate(KINDS):
        told = happens(ledger, other, 1, first=place)
        assert told == [Billing.billed if other == kind else Billing.other]
    assert sums(ledger) == (21, 59, 0, 20)
    assert ledger.totals().counts[LINE] == dict.fromkeys(KINDS.values(), 1) | {"reserved": 1, "billed": 1}


def test_only_the_first_event_of_a_kind_counts(ledger: SpendLedger) -> None:
    sold(ledger, 1)
    for kind, first in (("impression", Billing.other), ("click", Billing.billed), ("conversion", Billing.other)):
        assert happens(ledger, kind, 1, 1, first=3) == [first, Billing.again]
        assert happens(ledger, kind, 1, first=7) == [Billing.again]
    counts = ledger.totals().counts[LINE]
    assert [counts[name] for name in ("impressions", "clicks", "conversions", "billed")] == [1, 1, 1, 1]
    assert sums(ledger)[3] == 20


def test_every_event_is_told_what_was_decided(ledger: SpendLedger) -> None:
    sold(ledger, 1, decision=b"\x00who won\xff")
    for kind, billing in (("viewable", Billing.other), ("click", Billing.billed), ("click", Billing.again)):
        assert ledger.confirm(billables(1, kind=kind), now_ms=NOW) == [Confirmed(billing, b"\x00who won\xff")]
    assert ledger.confirm(billables("never"), now_ms=NOW) == [Confirmed(Billing.unknown, b"")]


def test_the_first_impression_is_the_one_that_caps_count_also_when_it_is_redelivered(ledger: SpendLedger) -> None:
    sold(ledger, 1)
    first, second, view = *billables(1, 1, first=4), billables(1, kind="viewable", first=4)[0]
    for _ in range(2):
        assert [one.exposes for one in ledger.confirm([first, second, view], now_ms=NOW)] == [True, False, False]
    elsewhere = first._replace(source=EVENTS._replace(partition=1))
    assert not ledger.confirm([elsewhere], now_ms=NOW)[0].exposes


def test_an_impression_that_is_not_paid_for_is_folded_and_its_money_stays_reserved(ledger: SpendLedger) -> None:
    sold(ledger, 1, 2)
    ledger.folded(ids([1]))
    assert out(ledger) == {LINE: 2}
    happens(ledger, "impression", 1)
    assert out(ledger) == {LINE: 2}
    version = ledger.in_flight(["p"])[0].version
    for _ in range(2):
        ledger.folded(ids([1, 2]))
    assert (out(ledger), sums(ledger)[2]) == ({LINE: 1}, 2)
    assert ledger.in_flight(["p"])[0].version != version
    assert happens(ledger, "click", 1) == [Billing.billed]
    assert (out(ledger), sums(ledger)) == ({LINE: 1}, (21, 58, 1, 20))


def test_what_was_seen_stays_out_past_its_end_until_it_is_folded(ledger: SpendLedger) -> None:
    sold(ledger, "seen", "unseen", expires_ms=NOW + 1)
    happens(ledger, "impression", "seen")
    assert ledger.sweep(now_ms=NOW + 1) == 2
    assert (out(ledger), sums(ledger)[2]) == ({LINE: 1}, 0)
    ledger.folded(ids(["seen", "unseen"]))
    assert out(ledger) == {}


def test_a_click_without_an_impression_is_out_until_its_end(ledger: SpendLedger) -> None:
    sold(ledger, 1, 2, expires_ms=NOW + 1)
    assert happens(ledger, "click", 1, 2) == [Billing.billed] * 2
    happens(ledger, "impression", 2)
    ledger.folded(ids([1]))
    assert out(ledger) == {LINE: 2}
    assert [ledger.sweep(now_ms=NOW + 1), ledger.sweep(now_ms=NOW + 1)] == [1, 0]
    assert (out(ledger), sums(ledger)[3], ledger.totals().counts[LINE].get("released")) == ({LINE: 1}, 40, None)
    happens(ledger, "impression", 1, first=5)
    assert out(ledger) == {LINE: 2}
    ledger.folded(ids([1, 2]))
    assert out(ledger) == {}


def test_an_impression_after_the_end_is_out_until_it_is_folded(ledger: SpendLedger) -> None:
    sold(ledger, 1, expires_ms=NOW + 1)
    ledger.sweep(now_ms=NOW + 1)
    assert out(ledger) == {}
    assert happens(ledger, "click", 1) == [Billing.late]
    assert (out(ledger), sums(ledger)) == ({}, (21, 59, 0, 20))
    happens(ledger, "impression", 1)
    assert out(ledger) == {LINE: 1}
    ledger.folded(ids([1]))
    assert out(ledger) == {}


def test_a_conversion_within_its_window_counts_long_after_nothing_is_billed_any_more(ledger: SpendLedger) -> None:
    days_90 = NOW + 90 * 24 * HOUR
    sold(ledger, 1, 2, billed_until_ms=NOW + HOUR, kept_ms=days_90)
    assert happens(ledger, "click", 1) == [Billing.billed]
    assert happens(ledger, "click", 2, now=NOW + HOUR + 1) == [Billing.too_late]
    assert happens(ledger, "click", 2, now=NOW + HOUR + 2) == [Billing.again]
    ledger.sweep(now_ms=days_90)
    assert happens(ledger, "conversion", 1, 2, now=days_90) == [Billing.other] * 2
    counts = ledger.totals().counts[LINE]
    assert [counts[name] for name in ("clicks", "conversions", "billed", "billed_too_late")] == [2, 2, 1, 1]
    assert sums(ledger) == (80, 0, 0, 20)


def test_a_conversion_that_is_paid_for_spends_when_it_comes(ledger: SpendLedger) -> None:
    sold(ledger, 1, kind="conversion", kept_ms=NOW + 90 * 24 * HOUR)
    assert happens(ledger, "impression", 1) + happens(ledger, "click", 1) == [Billing.other] * 2
    ledger.sweep(now_ms=NOW + HOUR)
    assert sums(ledger) == (100, 0, 0, 0)
    assert happens(ledger, "conversion", 1, now=NOW + 89 * 24 * HOUR) == [Billing.late]
    assert sums(ledger) == (80, 0, 0, 20)


def test_what_nobody_decided_is_counted_as_invalid_once(ledger: SpendLedger) -> None:
    reserve(ledger, a_reservation("refused"))
    rows = [*billables("refused", "never"), *billables("never", kind="click", first=2)]
    for _ in range(2):
        assert confirm(ledger, rows, [tally(-1, 2)]) == [Billing.unknown] * 3
    counts = ledger.totals().counts
    assert (counts[LINE], counts[""]) == ({"refused": 1, "invalid": 1}, {"invalid": 2})


def test_clicks_beyond_what_was_expected_exceed_a_budget_by_no_more_than_the_bound(backend: Backend) -> None:
    """Eighty impressions hold 1 each of a budget of 100 when five clicks have spent it; all that are out click."""
    ledger, price = opened(backend.open(), (LIFE, 100)), 20
    for n in range(80):
        lease(ledger, 1)
        assert reserve(ledger, a_reservation(n, 1, billed_by="click", spends=price)) == [Verdict.reserved]
    for n in range(80):
        happens(ledger, "click", n, first=n)
        if n == 5:
            assert (lease(ledger, 10), reserve(ledger, a_reservation("more", 1))) == (0, [Verdict.budget_exhausted])
    reserved_at_the_last_lease = 80
    bound = reserved_at_the_last_lease * (price - 1)
    assert 0 < -sums(ledger)[0] == 80 * price - 100 <= bound


def test_a_budget_that_holds_whole_prices_is_never_exceeded_by_clicks(backend: Backend) -> None:
    ledger = opened(backend.open(), (LIFE, 100))
    lease(ledger, 100)
    told = reserve(ledger, *(a_reservation(n, 20, billed_by="click") for n in range(9)))
    assert told.count(Verdict.reserved) == 5
    happens(ledger, "click", *range(9))
    assert sums(ledger) == (0, 0, 0, 100)


def test_an_event_that_costs_less_than_was_reserved_gives_back_the_rest(ledger: SpendLedger) -> None:
    lease(ledger, 60)
    reserve(ledger, a_reservation(1, 30, spends=10), a_reservation(2, 30, spends=0))
    assert happens(ledger, "impression", 1, 2) == [Billing.billed] * 2
    assert sums(ledger) == (90, 0, 0, 10)


NUMBER, TODAY = Window(LINE, counts=True), Window(LINE, "2027-01-15", counts=True)


def test_ten_booked_impressions_are_ten_however_many_workers_sell_them(backend: Backend) -> None:
    workers = [opened(backend.open(), (LIFE, UNLIMITED), (NUMBER, 10 * ONE)), backend.open(), backend.open()]
    verdicts = []
    for n in range(30):
        lease(workers[n % 3], 50, worker=str(n % 3))
        made = [a_reservation(f"{n}-{k}", 5, booked=(NUMBER,)) for k in range(2)]
        verdicts += reserve(workers[n % 3], *made, worker=str(n % 3))
    assert verdicts == [Verdict.reserved] * 10 + [Verdict.budget_exhausted] * 50
    happens(workers[0], "impression", *(f"{n}-{k}" for n in range(30) for k in range(2)))
    assert sums(workers[1], NUMBER) == (0, 0, 0, 10 * ONE)


def test_a_booked_number_is_counted_by_its_own_event_whatever_is_paid_for(backend: Backend) -> None:
    ledger = opened(backend.open(), (LIFE, 100), (NUMBER, 3 * ONE), (TODAY, 2 * ONE))
    sold(ledger, 1, 2, kind="impression", booked=(NUMBER, TODAY), booked_by="complete", expires_ms=NOW + 1)
    assert reserve(ledger, a_reservation(3, 1, booked=(NUMBER, TODAY))) == [Verdict.budget_exhausted]
    happens(ledger, "impression", 1, 2)
    assert [sums(ledger, window)[2:] for window in (LIFE, NUMBER, TODAY)] == [(0, 40), (2 * ONE, 0), (2 * ONE, 0)]
    happens(ledger, "complete", 1)
    assert ledger.sweep(now_ms=NOW + 1) == 1
    assert [sums(ledger, window) for window in (NUMBER, TODAY)] == [(2 * ONE, 0, 0, ONE), (ONE, 0, 0, ONE)]
    happens(ledger, "complete", 1, 2, first=8)
    assert sums(ledger, NUMBER) == (ONE, 0, 0, 2 * ONE)


def test_what_comes_too_late_takes_no_money_and_no_number_also_when_it_is_rebuilt(
    backend: Backend, ledger: SpendLedger
) -> None:
    ledger.set_budgets([Budget(NUMBER, 5 * ONE, 1)])
    made = sold(ledger, 1, booked=(NUMBER,), booked_by="complete", billed_until_ms=NOW + HOUR)
    too_late = [*billables(1, kind="click"), *billables(1, kind="complete", first=1)]
    told = confirm(ledger, too_late, [tally(-1, 1)], now_ms=NOW + HOUR + 1)
    assert told == [Billing.too_late, Billing.other]
    published = ledger.totals()
    backend.wipe()
    ledger.rebuild(published)
    reserve(ledger, *made, decided=True)
    told = confirm(ledger, too_late, [tally(-1, 1)], now_ms=NOW + HOUR + 1)
    assert (told, ledger.reopen()) == ([Billing.known, Billing.other], {})
    assert [sums(ledger, window) for window in (LIFE, NUMBER)] == [(100, 0, 0, 0), (5 * ONE, 0, 0, 0)]
    assert ledger.totals().counts == published.counts


def test_booked_clicks_are_exceeded_by_no_more_than_the_bound(backend: Backend) -> None:
    """Two clicks are booked, a chance of .1 holds a tenth of one: twenty are out, and every one of them is clicked."""
    ledger = opened(backend.open(), (LIFE, UNLIMITED), (NUMBER, 2 * ONE))
    lease(ledger, 99)
    fields = {"billed_by": "click", "booked": (NUMBER,), "booked_by": "click", "holds": ONE // 10}
    told = reserve(ledger, *(a_reservation(n, 1, **fields) for n in range(25)))
    assert told == [Verdict.reserved] * 20 + [Verdict.budget_exhausted] * 5
    happens(ledger, "click", *range(25))
    over, out_at_the_end = -sums(ledger, NUMBER)[0], 20
    assert over == 18 * ONE <= out_at_the_end * (ONE - ONE // 10)


def test_a_number_without_a_budget_is_not_sold_but_what_was_decided_is_told(ledger: SpendLedger) -> None:
    lease(ledger, 50)
    assert reserve(ledger, a_reservation(1, booked=(NUMBER,))) == [Verdict.budget_exhausted]
    assert reserve(ledger, a_reservation(2, booked=(NUMBER,)), decided=True) == [Verdict.reserved]
    assert (sums(ledger, NUMBER), sums(ledger)) == ((-ONE, 0, ONE, 0), (50, 40, 10, 0))


def test_booked_numbers_are_rebuilt(backend: Backend, ledger: SpendLedger) -> None:
    ledger.set_budgets([Budget(NUMBER, 5 * ONE, 1)])
    made = sold(ledger, 1, 2, 3, kind="impression", booked=(NUMBER,))
    confirm(ledger, billables(1), [tally(-1, 0)])
    published = ledger.totals()
    backend.wipe()
    ledger.rebuild(published)
    reserve(ledger, *made, decided=True)
    assert confirm(ledger, billables(1), [tally(-1, 0)]) == [Billing.known]
    assert confirm(ledger, billables(2, first=1), [tally(0, 1)]) == [Billing.billed]
    assert ledger.reopen() == {}
    assert sums(ledger, NUMBER) == (2 * ONE, 0, ONE, 2 * ONE)


def test_a_decision_can_be_read_and_reading_changes_nothing(ledger: SpendLedger) -> None:
    sold(ledger, 1)
    reserve(ledger, a_reservation("refused", 90))
    before = ledger.totals()
    assert ledger.decisions(ids([1, "refused", "never"])) == [b"decision 1", b"", b""]
    assert ledger.totals() == before


def test_kinds_are_rebuilt_and_counted_once(backend: Backend, ledger: SpendLedger) -> None:
    """Impressions and a click are in the totals; a second click came after them, a third while it was away."""
    made = sold(ledger, 1, 2, 3)
    before, after = billables(1, 2, 3), billables(2, kind="click", first=4)
    before += billables(1, kind="click", first=3)
    confirm(ledger, before, [tally(-1, 3)])
    published = ledger.totals()
    confirm(ledger, after, [tally(3, 4)])
    backend.wipe()
    ledger.rebuild(published)
    assert reserve(ledger, *made, decided=True) == [Verdict.reserved] * 3
    assert confirm(ledger, before, [tally(-1, 3)]) == [*[Billing.other] * 3, Billing.known]
    assert confirm(ledger, after, [tally(3, 4)]) == [Billing.billed]
    assert ledger.reopen() == {}
    late = billables(3, kind="click", first=5)
    assert confirm(ledger, [*before, *after, *late], [tally(4, 5)]) == [*[Billing.again] * 5, Billing.billed]
    assert [one.exposes for one in ledger.confirm(before, now_ms=NOW)] == [True, True, True, False]
    assert (sums(ledger), out(ledger)) == ((40, 0, 0, 60), {})
    counts = ledger.totals().counts[LINE]
    assert [counts[name] for name in ("impressions", "clicks", "billed")] == [3, 3, 3]


def test_what_happens_is_counted_for_the_line_item_of_the_decision_alone(backend: Backend) -> None:
    ledger = opened(backend.open(), (LIFE, 100))
    for key in ("c/l", "c/m", "d/l"):
        lease(ledger, 10, key=key)
        reserve(ledger, a_reservation(key, 1, key=key))
    happens(ledger, "impression", "c/l", "c/m", "d/l")
    happens(ledger, "click", "c/m", "never")
    shown = {"reserved": 1, "billed": 1, "impressions": 1}
    known = {"c/l": shown, "c/m": shown | {"clicks": 1}, "d/l": shown}
    assert ledger.totals().counts == known | {"": {"invalid": 1}}


@pytest.mark.parametrize("wrong", ["kind", "billed_by", "spends", "holds", "own count"])
def test_kinds_and_prices_that_cannot_be_are_refused(ledger: SpendLedger, wrong: str) -> None:
    own = Tally(source=EVENTS, above=0, upto=1, counts={(LINE, "clicks"): 1})
    calls: dict[str, Callable[[], object]] = {
        "kind": lambda: happens(ledger, "applause", 1),
        "billed_by": lambda: reserve(ledger, a_reservation(1, 1, billed_by="applause")),
        "spends": lambda: reserve(ledger, a_reservation(1, 1, spends=MOST_AMOUNT + 1)),
        "holds": lambda: reserve(ledger, a_reservation(1, 1, holds=ONE + 1)),
        "own count": lambda: ledger.confirm([], [own], now_ms=NOW),
    }
    with pytest.raises(ValueError):
        calls[wrong]()
    assert sums(ledger) == (100, 0, 0, 0)


def test_what_nobody_says_was_folded_is_out_until_its_decision_is_forgotten(ledger: SpendLedger) -> None:
    sold(ledger, "lost", "late", expires_ms=NOW + 1, kept_ms=NOW + 9)
    sold(ledger, "other", expires_ms=NOW + 1, kept_ms=NOW + 24 * HOUR)
    happens(ledger, "impression", "lost", "other")
    ledger.sweep(now_ms=NOW + 1)
    happens(ledger, "impression", "late", first=5)
    assert (ledger.sweep(now_ms=NOW + 8), out(ledger)) == (0, {LINE: 3})
    assert (ledger.sweep(now_ms=NOW + 9), out(ledger)) == (2, {LINE: 1})
    ledger.folded(ids(["lost", "late", "other"]))
    assert (ledger.sweep(now_ms=NOW + 10), out(ledger)) == (0, {})
