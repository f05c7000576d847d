"""What every `SpendLedger` promises, held against the one in memory, Valkey and Redis 7."""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any

import pytest
import redis

from embeddings.errors import AlreadyCounted, LedgerClosed
from embeddings.spend import (
    MOST_AMOUNT,
    MOST_ROWS,
    UNLIMITED,
    Billing,
    Budget,
    Room,
    SpendLedger,
    Verdict,
    Want,
    Window,
)
from embeddings.spend_book import Book
from embeddings.spend_memory import MemorySpendLedger
from embeddings.spend_redis import RedisSpendLedger
from tests.contracts.backends import SERVERS
from tests.embeddings.spending import (
    CAMPAIGN,
    DAY,
    EVENTS,
    HOUR,
    LIFE,
    LINE,
    NOTHING,
    NOW,
    REQUESTS,
    a_reservation,
    billables,
    confirm,
    ids,
    lease,
    money,
    opened,
    out,
    reserve,
    sums,
    tally,
)

RESERVED, AGAIN = Verdict.reserved, Verdict.again


@dataclass
class Backend:
    """Where ledgers keep things: `open` gives one more worker's, `wipe` loses all, `save` returns how to go back."""

    open: Callable[[], SpendLedger]
    wipe: Callable[[], None]
    save: Callable[[], Callable[[], None]]


def in_memory() -> Backend:
    book = Book()

    def save() -> Callable[[], None]:
        kept = {name: copy.deepcopy(part) for name, part in vars(book).items() if name != "lock"}
        return lambda: vars(book).update(kept, lock=RLock())

    return Backend(open=lambda: MemorySpendLedger(book), wipe=lambda: vars(book).update(vars(Book())), save=save)


def on_server(url: str, prefix: str, made: list[Any]) -> Backend:
    """`made` is what to close."""
    client = redis.Redis.from_url(url)
    made.append(client)

    def another() -> SpendLedger:
        ledger = RedisSpendLedger(url, prefix=prefix)
        made.append(ledger)
        return ledger

    def wipe() -> None:
        if keys := client.keys(f"{prefix}:*"):
            client.delete(*keys)

    def save() -> Callable[[], None]:
        kept: dict[bytes, Any] = {key: client.dump(key) for key in client.keys(f"{prefix}:*")}

        def back() -> None:
            wipe()
            for key, value in kept.items():
                client.restore(key, 0, value)

        return back

    return Backend(open=another, wipe=wipe, save=save)


@pytest.fixture(params=SERVERS)
def backend(request: pytest.FixtureRequest, topic_prefix: str) -> Iterator[Backend]:
    if request.param == "memory":
        yield in_memory()
        return
    made: list[Any] = []
    yield on_server(request.getfixturevalue(request.param).url, topic_prefix, made)
    for one in made:
        one.close()


@pytest.fixture
def ledger(backend: Backend) -> SpendLedger:
    """Open, with a budget of 100 for the life of the line item."""
    return opened(backend.open(), (LIFE, 100))


def test_a_ledger_that_nobody_filled_sells_nothing(backend: Backend) -> None:
    ledger = backend.open()
    assert ledger.closed() == "lost"
    assert reserve(ledger, a_reservation(1)) == [Verdict.closed]
    for call in (lambda: lease(ledger, 10), lambda: out(ledger), ledger.totals, lambda: ledger.folded(ids([1]))):
        with pytest.raises(LedgerClosed):
            call()


def test_a_lease_is_what_every_window_has_left(backend: Backend) -> None:
    ledger = opened(backend.open(), (LIFE, 100), (DAY, 30), (CAMPAIGN, 50))
    assert lease(ledger, 40, LIFE, CAMPAIGN, key="c/other") == 40
    assert lease(ledger, 25, LIFE, DAY, CAMPAIGN) == 10
    assert [sums(ledger, window)[:2] for window in (LIFE, DAY, CAMPAIGN)] == [(50, 50), (20, 10), (0, 50)]


def test_leases_of_one_call_share_what_is_left(ledger: SpendLedger) -> None:
    wants = [Want(f"c/{n}", (LIFE,), 40) for n in range(4)]
    got = ledger.lease("w", wants, now_ms=NOW, until_ms=NOW + 1)
    assert [one.micros for one in got] == [40, 40, 20, 0]


def test_a_lease_is_brought_up_and_down_to_what_is_wanted(ledger: SpendLedger) -> None:
    assert [lease(ledger, micros) for micros in (30, 50, 50, 20, 0)] == [30, 50, 50, 20, 0]
    assert sums(ledger) == (100, 0, 0, 0)


def test_nothing_is_leased_of_a_window_without_a_budget(ledger: SpendLedger) -> None:
    assert lease(ledger, 30, LIFE, DAY) == 0
    assert reserve(ledger, a_reservation(1, 10, LIFE, DAY)) == [Verdict.budget_exhausted]


@pytest.mark.parametrize("by", ["sweep", "lease"])
def test_what_a_dead_worker_held_goes_back_once(ledger: SpendLedger, by: str) -> None:
    lease(ledger, 60, worker="dead")
    assert reserve(ledger, a_reservation(1, 25), worker="dead") == [RESERVED]
    if by == "sweep":
        assert [ledger.sweep(now_ms=NOW + HOUR - 1), ledger.sweep(now_ms=NOW + HOUR)] == [0, 2]
        assert [ledger.sweep(now_ms=NOW + HOUR), sums(ledger)] == [0, (100, 0, 0, 0)]
    assert lease(ledger, 100, now=NOW + HOUR, until=NOW + 2 * HOUR) == (100 if by == "sweep" else 75)
    ledger.sweep(now_ms=NOW + HOUR)
    ledger.sweep(now_ms=NOW + HOUR)
    assert sum(sums(ledger)) == 100


def test_the_same_key_has_the_same_decision_and_spends_once(backend: Backend, ledger: SpendLedger) -> None:
    lease(ledger, 50)
    assert ledger.reserve("w", [a_reservation(1)], now_ms=NOW) == [(RESERVED, b"decision 1")]
    other = replace(a_reservation(1, 40), key="c/m", decision=b"\x00another winner\xff", windows=(CAMPAIGN,))
    for worker in (ledger, backend.open()):
        assert worker.reserve("w2", [other], now_ms=NOW + 5) == [(AGAIN, b"decision 1")]
    assert sums(ledger) == (50, 40, 10, 0)


def test_a_decision_is_returned_byte_for_byte(ledger: SpendLedger) -> None:
    lease(ledger, 50)
    blob = bytes(range(256)) * 9
    made = replace(a_reservation(1), decision=blob)
    assert [ledger.reserve("w", [made], now_ms=NOW)[0].decision for _ in range(2)] == [blob, blob]


def test_a_key_twice_in_one_batch_is_reserved_once(ledger: SpendLedger) -> None:
    lease(ledger, 50)
    assert reserve(ledger, a_reservation(1), a_reservation(1), a_reservation(2)) == [RESERVED, AGAIN, RESERVED]
    assert sums(ledger) == (50, 30, 20, 0)


def test_a_refusal_has_a_code_and_stands(ledger: SpendLedger) -> None:
    assert reserve(ledger, a_reservation("early")) == [Verdict.no_lease]
    lease(ledger, 50)
    assert reserve(ledger, a_reservation("early")) == [Verdict.no_lease]
    asked = [a_reservation(1, 45), a_reservation(2, 6), a_reservation(3, 60), a_reservation(4, 5, LIFE, DAY)]
    expected = [RESERVED, Verdict.lease_spent, Verdict.budget_exhausted, Verdict.no_lease]
    assert reserve(ledger, *asked) == expected
    assert reserve(ledger, a_reservation(5, 1), worker="another") == [Verdict.no_lease]
    assert reserve(ledger, a_reservation(6, 1), now=NOW + HOUR) == [Verdict.no_lease]
    assert reserve(ledger, *asked) == [AGAIN, *expected[1:]]
    assert ledger.reserve("w", [asked[1]], now_ms=NOW) == [(Verdict.lease_spent, b"")]
    assert ledger.totals().counts[LINE] == {"reserved": 1, "refused": 6}


def test_a_billable_event_counts_once_whatever_is_redelivered(ledger: SpendLedger) -> None:
    lease(ledger, 50)
    reserve(ledger, a_reservation(1), a_reservation(2))
    twice = [*billables(1), *billables(1, first=1)]
    assert confirm(ledger, twice, [tally(-1, 1)], now_ms=NOW) == [Billing.billed, Billing.again]
    assert confirm(ledger, twice, [tally(-1, 1)], now_ms=NOW) == [Billing.again, Billing.again]
    assert confirm(ledger, billables(1, first=9), now_ms=NOW) == [Billing.again]
    assert sums(ledger) == (50, 30, 10, 10)
    assert ledger.totals().counts[LINE]["billed"] == 1


def test_what_was_never_billed_goes_back_and_a_late_event_still_spends(ledger: SpendLedger) -> None:
    lease(ledger, 50)
    reserve(ledger, a_reservation(1), a_reservation(2, expires_ms=NOW + 5))
    assert ledger.sweep(now_ms=NOW + 5) == 1
    assert sums(ledger) == (60, 30, 10, 0)
    assert confirm(ledger, billables(2), now_ms=NOW + 24 * HOUR) == [Billing.late]
    assert confirm(ledger, billables(2, first=1), now_ms=NOW + 24 * HOUR) == [Billing.again]
    assert sums(ledger) == (50, 30, 10, 10)
    assert reserve(ledger, a_reservation(2)) == [AGAIN]


def test_after_the_billing_window_an_event_is_counted_and_spends_nothing(ledger: SpendLedger) -> None:
    lease(ledger, 50)
    reserve(ledger, a_reservation(1))
    ledger.sweep(now_ms=NOW + HOUR)
    assert confirm(ledger, billables(1), now_ms=NOW + 24 * HOUR + 1) == [Billing.too_late]
    assert (sums(ledger), ledger.totals().counts[LINE]["billed_too_late"]) == ((100, 0, 0, 0), 1)


def test_nobody_pays_for_what_was_not_decided(ledger: SpendLedger) -> None:
    reserve(ledger, a_reservation("refused"))
    assert confirm(ledger, billables("refused", "never"), now_ms=NOW) == [Billing.unknown] * 2
    assert sums(ledger) == (100, 0, 0, 0)


def test_a_sweep_takes_so_many_and_comes_again(ledger: SpendLedger) -> None:
    lease(ledger, 100)
    reserve(ledger, *(a_reservation(n, 1, expires_ms=NOW + 1) for n in range(30)))
    assert sum(ledger.sweep(now_ms=NOW + 1, most=10) for _ in range(4)) == 30
    assert (sums(ledger)[2], ledger.totals().counts[LINE]["released"]) == (0, 30)


def capped(n: int | str, most_out: int, ledger: SpendLedger, **fields: Any) -> Any:
    version = ledger.in_flight(["p"])[0].version
    rooms = (Room(LINE, most_out), Room("c", 99))
    return a_reservation(n, 1, person="p", rooms=rooms, **{"version": version} | fields)


def test_what_is_out_for_a_person_counts_until_their_state_has_it(ledger: SpendLedger) -> None:
    lease(ledger, 50)
    reserve(ledger, *(capped(n, 9, ledger) for n in range(3)), capped("short", 9, ledger, expires_ms=NOW + 1))
    assert out(ledger) == {LINE: 4, "c": 4}
    ledger.sweep(now_ms=NOW + 1)
    confirm(ledger, billables(0, "short"), now_ms=NOW)
    assert out(ledger) == {LINE: 4, "c": 4}
    for _ in range(2):
        ledger.folded(ids([0, "short"]))
    assert (out(ledger), out(ledger, "q")) == ({LINE: 2, "c": 2}, {})


def test_nobody_has_more_out_than_there_is_room_for(ledger: SpendLedger) -> None:
    lease(ledger, 50)
    asked = [capped(n, 2, ledger) for n in range(4)]
    assert reserve(ledger, *asked) == [RESERVED, RESERVED, Verdict.capped, Verdict.capped]


def test_a_cap_that_was_read_before_an_impression_was_folded_is_no_cap(ledger: SpendLedger) -> None:
    lease(ledger, 50)
    reserve(ledger, capped(0, 2, ledger))
    stale = capped(1, 2, ledger)
    confirm(ledger, billables(0), now_ms=NOW)
    ledger.folded(ids([0]))
    assert reserve(ledger, stale, capped(2, 2, ledger)) == [Verdict.capped, RESERVED]


@pytest.mark.parametrize("seed", range(8))
def test_a_cap_of_ten_never_shows_eleven(backend: Backend, ledger: SpendLedger, seed: int) -> None:
    """Three workers, every step of each at any time; whoever was killed saves or folds late, or does it again."""
    draw = random.Random(seed)
    workers = [ledger, backend.open(), backend.open()]
    looked, read, shown, billed, saved = list[str](), list[Any](), list[int](), list[int](), set[int]()
    for n in range(3):
        lease(ledger, 30, worker=str(n))
    for n in range(400):
        at, step = draw.randrange(3), draw.randrange(6)
        if step == 0:
            looked.append(workers[at].in_flight(["p"])[0].version)
        elif step == 1 and looked:
            version, room = looked.pop(draw.randrange(len(looked))), Room("c", 10 - len(saved))
            read.append((n, a_reservation(n, 1, person="p", version=version, rooms=(room,))))
        elif step == 2 and read:
            number, asked = read.pop(draw.randrange(len(read)))
            shown += [number] if reserve(workers[at], asked, worker=str(at)) == [RESERVED] else []
        elif step == 3 and shown:
            billed.append(draw.choice(shown))
            confirm(workers[at], billables(billed[-1]), now_ms=NOW)
        elif step == 4 and billed:
            saved.add(draw.choice(billed))
        elif step == 5 and saved:
            workers[at].folded(ids([draw.choice(sorted(saved))]))
    assert len(shown) == 10


def test_a_budget_that_is_raised_or_cut_below_what_was_spent_keeps_the_spending(ledger: SpendLedger) -> None:
    lease(ledger, 90)
    reserve(ledger, a_reservation(1, 40), a_reservation(2, 20))
    confirm(ledger, billables(1), now_ms=NOW)
    ledger.set_budgets([Budget(LIFE, 30, 2), Budget(LIFE, 500, 1)])
    assert sums(ledger) == (-60, 30, 20, 40)
    assert (lease(ledger, 90), lease(ledger, 5, worker="v")) == (0, 0)
    assert sums(ledger) == (-30, 0, 20, 40)
    ledger.set_budgets([Budget(LIFE, 200, 3), Budget(LIFE, 200, 3)])
    assert (lease(ledger, 90), sums(ledger)) == (90, (50, 90, 20, 40))


def test_each_day_spends_its_own_budget(backend: Backend) -> None:
    ledger, tomorrow = opened(backend.open(), (LIFE, 100), (DAY, 30)), Window(LINE, "2027-01-16")
    lease(ledger, 30, LIFE, DAY)
    reserve(ledger, a_reservation(1, 25, LIFE, DAY))
    ledger.set_budgets([Budget(tomorrow, 30, 1)])
    assert lease(ledger, 30, LIFE, tomorrow) == 30
    assert [sums(ledger, window)[1] for window in (LIFE, DAY, tomorrow)] == [30, 0, 30]
    assert reserve(ledger, a_reservation(2, 20, LIFE, tomorrow), a_reservation(3, 1, LIFE, DAY)) == [
        RESERVED,
        Verdict.no_lease,
    ]
    confirm(ledger, billables(1, 2), now_ms=NOW)
    assert [sums(ledger, window)[3] for window in (LIFE, DAY, tomorrow)] == [45, 25, 20]
    assert sums(ledger)[0] == 45


def test_ten_impressions_are_ten_however_many_workers_want_them(backend: Backend) -> None:
    workers = [opened(backend.open(), (LIFE, 10)), backend.open(), backend.open()]
    verdicts = []
    for n in range(30):
        lease(workers[n % 3], 1, worker=str(n % 3))
        verdicts += reserve(workers[n % 3], a_reservation(n, 1), worker=str(n % 3))
    assert verdicts.count(RESERVED) == 10
    confirm(workers[0], billables(*range(30)), now_ms=NOW)
    assert sums(workers[1]) == (0, 0, 0, 10)


def test_sums_are_exact_beyond_what_a_double_holds(backend: Backend) -> None:
    ledger, big = opened(backend.open(), (LIFE, UNLIMITED), (CAMPAIGN, 2**53 + 1)), 2**52
    totals = replace(NOTHING, windows={LIFE: money(ledger)._replace(spent=big + 1), CAMPAIGN: money(ledger, CAMPAIGN)})
    backend.wipe()
    ledger.rebuild(totals)
    ledger.reopen()
    for n in range(5):
        assert lease(ledger, MOST_AMOUNT, LIFE, CAMPAIGN) == MOST_AMOUNT
        assert reserve(ledger, a_reservation(n, MOST_AMOUNT - 1, LIFE, CAMPAIGN)) == [RESERVED]
        confirm(ledger, billables(n), now_ms=NOW)
    assert money(ledger).spent == big + 1 + 5 * (MOST_AMOUNT - 1)
    assert sums(ledger, CAMPAIGN)[0] == 2**53 + 1 - 5 * (MOST_AMOUNT - 1) - 1


def test_a_worker_without_a_ledger_spends_what_it_holds(backend: Backend, ledger: SpendLedger) -> None:
    """It is told afterwards: out of the lease while that lives, out of the budget, or beyond it, once it has ended."""
    lease(ledger, 60)
    assert reserve(ledger, a_reservation(1, 20), decided=True) == [RESERVED]
    assert sums(ledger) == (40, 40, 20, 0)
    later = NOW + HOUR
    assert lease(ledger, 80, worker="v", now=later, until=later + HOUR) == 80
    assert reserve(ledger, a_reservation(2, 40, expires_ms=later + HOUR), decided=True, now=later) == [RESERVED]
    assert sums(ledger) == (-40, 80, 60, 0)
    assert reserve(ledger, a_reservation(2, 40), decided=True, now=later) == [AGAIN]


def test_overspend_reaches_its_bound_and_no_further(backend: Backend) -> None:
    """Two workers spend their chunks unheard, and an ad is billed after its money was sold again."""
    ledger, later = opened(backend.open(), (LIFE, 10)), NOW + 2 * HOUR
    assert [lease(ledger, 3, worker=worker) for worker in ("a", "b", "c")] == [3, 3, 3]
    reserve(ledger, a_reservation("late", 3), worker="c")
    ledger.sweep(now_ms=later)
    assert lease(ledger, 99, worker="d", now=later, until=later + HOUR) == 10
    times = {"expires_ms": later + HOUR}
    reserve(ledger, *(a_reservation(n, 1, **times) for n in range(11)), worker="d", now=later)
    for worker in ("a", "b"):
        told = a_reservation(worker, 3, **times)
        assert reserve(ledger, told, worker=worker, now=later, decided=True) == [RESERVED]
    confirm(ledger, billables(*range(11), "a", "b", "late"), now_ms=later)
    workers, chunk, late = 2, 3, 3
    assert sums(ledger) == (-9, 0, 0, 10 + workers * chunk + late)


def test_funnel_counts_are_counted_once_with_how_far_they_go(ledger: SpendLedger) -> None:
    counted = tally(-1, 9, REQUESTS, bid=5, paced=2)
    for _ in range(2):
        ledger.reserve("w", [], [counted], now_ms=NOW)
        confirm(ledger, [], [tally(-1, 4, served=1)], now_ms=NOW)
    totals = ledger.totals()
    assert totals.counts[LINE] == {"bid": 5, "paced": 2, "served": 1}
    assert totals.offsets == {REQUESTS: 9, EVENTS: 4}
    assert ledger.covered([EVENTS, EVENTS._replace(partition=7)]) == {EVENTS: 4}


def test_a_tally_that_was_counted_in_part_changes_nothing(ledger: SpendLedger) -> None:
    lease(ledger, 50)
    reserve(ledger, a_reservation(1))
    confirm(ledger, [], [tally(-1, 9, won=1)], now_ms=NOW)
    before = ledger.totals()
    with pytest.raises(AlreadyCounted) as told:
        confirm(ledger, billables(1, first=12), [tally(4, 12, won=2)], now_ms=NOW)
    assert (told.value.source, told.value.covered) == ("marquee.events.v1/0", 9)
    assert replace(ledger.totals(), number=before.number) == before
    assert confirm(ledger, billables(1, first=12), [tally(9, 12, won=1)], now_ms=NOW) == [Billing.billed]
    assert ledger.totals().counts[LINE]["won"] == 2


def test_totals_since_a_number_are_what_changed_since(ledger: SpendLedger) -> None:
    ledger.set_budgets([Budget(CAMPAIGN, 5, 1)])
    first = ledger.totals()
    assert set(first.windows) == {LIFE, CAMPAIGN}
    lease(ledger, 10)
    newer = ledger.totals(first)
    assert set(newer.windows) == {LIFE}
    assert first.with_newer(newer) == ledger.totals()
    assert ledger.totals(newer).windows == {}


@pytest.mark.parametrize("wrong", ["rows", "amount", "negative", "count", "backwards", "budget"])
def test_what_cannot_be_is_refused_before_it_is_asked(ledger: SpendLedger, wrong: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "rows": lambda: ledger.folded(["x"] * (MOST_ROWS + 1)),
        "amount": lambda: reserve(ledger, a_reservation(1, MOST_AMOUNT + 1)),
        "negative": lambda: lease(ledger, -1),
        "count": lambda: confirm(ledger, [], [tally(0, 1, lottery=1)], now_ms=NOW),
        "backwards": lambda: confirm(ledger, [], [tally(1, 0)], now_ms=NOW),
        "budget": lambda: ledger.set_budgets([Budget(LIFE, UNLIMITED + 1, 3)]),
    }
    with pytest.raises(ValueError):
        calls[wrong]()
    assert sums(ledger) == (100, 0, 0, 0)
