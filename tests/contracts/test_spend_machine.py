"""Anything in any order, against a model that only remembers what it was told; the twin and Valkey answer alike."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from embeddings.spend import (
    KINDS,
    ONE,
    Answer,
    Billing,
    Budget,
    Confirmed,
    Room,
    SpendLedger,
    Totals,
    Verdict,
    Want,
    Window,
)
from tests.contracts.test_spend_ledger import Backend, in_memory, on_server
from tests.embeddings.spending import CAMPAIGN, EVENTS, LINE, NOTHING, a_reservation, billables, ids, tally
from tests.fuzzing import EXAMPLES

LINES = {"c/1": (Window("c/1"), CAMPAIGN), "c/2": (Window("c/2"), Window("c/2", "2027-01-15"), CAMPAIGN)}
COUNTED = {"c/1": (), "c/2": (Window("c", "2027-01-15"),)}
BOOKED = {"c/1": (Window("c/1", counts=True),), "c/2": tuple(window._replace(counts=True) for window in LINES["c/2"])}
BOOKED_BY = {"c/1": "impression", "c/2": "conversion"}
WINDOWS = sorted({window for windows in (*LINES.values(), *COUNTED.values(), *BOOKED.values()) for window in windows})
BILLED_BY = {"c/1": "impression", "c/2": "click"}
WORKERS, CHUNK, EXPIRES, BILLED, KEPT = 3, 4, 40, 80, 120
SOME = ("impression", "click", "conversion")


def unit(window: Window) -> int:
    return ONE if window.counts else 1


class Market(RuleBasedStateMachine):
    """Three workers sell two line items of one campaign, by impression and by click. Times are small numbers."""

    backends: Sequence[Backend] = ()

    def __init__(self) -> None:
        super().__init__()
        for backend in self.backends:
            backend.wipe()
        self.workers = [[backend.open() for _ in range(WORKERS)] for backend in self.backends]
        self.now, self.version, self.offset = 1_000, 1, -1
        self.budgets = {window: 10 * unit(window) for window in WINDOWS}
        self.made: dict[int, Any] = {}  # reservations that were accepted
        self.answers: dict[int, Answer] = {}
        self.spent: set[int] = set()
        self.released: set[int] = set()
        self.leases: dict[tuple[str, str], tuple[int, int]] = {}
        self.ceiling = dict(self.budgets)
        self.settled: set[int] = set()  # too late when they were in totals: nothing more comes of them
        self.forgotten: set[int] = set()  # past their end when everything was lost
        self.gone_and_spent = 0
        self.base = dict.fromkeys(WINDOWS, 0)  # what these spent
        self.events: list[tuple[int, int, str, int]] = []  # offset, number, kind and time of every event
        self.seen: dict[tuple[int, str], int] = {}  # where the first of a kind was
        self.counted: Counter[str] = Counter()
        self.reached: set[int] = set()  # counted one of the numbers that were booked
        self.freed: set[int] = set()  # hold nothing of these
        self.out: set[int] = set()
        self.folded: set[int] = set()
        self.names = [f"{n}.0" for n in range(WORKERS)]
        self.published, self.published_ms, self.published_counts = NOTHING, self.now, self.counted.copy()
        self.all(lambda ledger: ledger.rebuild(NOTHING))
        self.all(lambda ledger: ledger.reopen())
        self.all(lambda ledger: ledger.set_budgets([Budget(window, self.budgets[window], 1) for window in WINDOWS]))

    def all(self, call: Callable[[SpendLedger], Any], worker: int = 0) -> Any:
        """The answer of every implementation, which is one."""
        answers = [call(ledgers[worker]) for ledgers in self.workers]
        assert all(answer == answers[0] for answer in answers), answers
        return answers[0]

    def sums(self, window: Window) -> tuple[int, int, int]:
        """Spent, reserved and leased of a window, as the model remembers it."""
        if window.counts:
            of = {n for n, made in self.made.items() if window in made.booked}
            still = sum(self.made[n].holds for n in of - self.reached - self.freed)
            return self.base[window] + len(of & self.reached) * ONE, still, 0
        of = {n for n, made in self.made.items() if window in made.windows}
        spent, still = of & self.spent, of - self.spent - self.released
        of_counted = {n for n, made in self.made.items() if window in made.counted} & self.spent
        leased = sum(held for (_, key), (held, _) in self.leases.items() if window in LINES[key])
        return (
            self.base[window] + sum(self.made[n].price for n in spent | of_counted),
            sum(self.made[n].micros for n in still),
            leased,
        )

    def end(self) -> None:
        self.leases = {whose: held for whose, held in self.leases.items() if held[1] > self.now}

    @rule(worker=st.integers(0, WORKERS - 1), key=st.sampled_from(sorted(LINES)), micros=st.integers(0, CHUNK))
    def lease(self, worker: int, key: str, micros: int) -> None:
        wants, until = [Want(key, LINES[key], micros)], self.now + 30
        call = {"now_ms": self.now, "until_ms": until}
        (got,) = self.all(lambda ledger: ledger.lease(self.names[worker], wants, **call), worker)
        self.end()
        assert got.micros <= micros
        self.leases[self.names[worker], key] = got.micros, until if micros else 0

    @rule(
        worker=st.integers(0, WORKERS - 1),
        rows=st.lists(
            st.tuples(
                st.integers(0, 60),
                st.sampled_from(sorted(LINES)),
                st.integers(0, 4),
                st.sampled_from([None, 0, 5]),
                st.sampled_from([0, ONE // 4, ONE]),
            ),
            min_size=1,
            max_size=4,
        ),
    )
    def reserve(self, worker: int, rows: list[tuple[int, str, int, int | None, int]]) -> None:
        """New keys, and old ones with another winner."""
        asked = {row: self.asked(*row) for row in rows if row[0] not in self.forgotten}

        def call(ledger: SpendLedger) -> list[Answer]:
            (known,) = ledger.in_flight(["p"])
            made = [replace(one, version=known.version) for one in asked.values()]
            return ledger.reserve(self.names[worker], made, now_ms=self.now)

        for ((n, key, micros, _, _), made), answer in zip(asked.items(), self.all(call, worker), strict=True):
            if n in self.answers:
                first = self.answers[n]
                again = Answer(Verdict.again, first.decision) if first.verdict is Verdict.reserved else first
                assert answer == again
                continue
            self.answers[n] = answer
            held, until = self.leases.get((self.names[worker], key), (0, 0))
            free = all(self.budgets[window] - sum(self.sums(window)) >= made.holds for window in made.booked)
            assert (answer.verdict is Verdict.reserved) == (until > self.now and held >= micros and free)
            if answer.verdict is Verdict.reserved:
                self.made[n] = made
                self.out.add(n)
                self.leases[self.names[worker], key] = held - micros, until

    def asked(self, n: int, key: str, micros: int, spends: int | None, holds: int) -> Any:
        return a_reservation(
            n,
            micros,
            *LINES[key],
            key=key,
            decision=f"{n} {key} {micros} {self.now}".encode(),
            expires_ms=self.now + EXPIRES,
            billed_until_ms=self.now + BILLED,
            kept_ms=self.now + KEPT,
            billed_by=BILLED_BY[key],
            spends=spends,
            person="p",
            rooms=(Room("c", 99),),
            counted=COUNTED[key],
            booked=BOOKED[key],
            booked_by=BOOKED_BY[key],
            holds=holds,
        )

    @precondition(lambda self: self.made)
    @rule(
        worker=st.integers(0, WORKERS - 1),
        picks=st.lists(st.tuples(st.integers(0, 99), st.sampled_from(SOME)), min_size=1, max_size=4),
    )
    def happens(self, worker: int, picks: list[tuple[int, str]]) -> None:
        """A batch of events: first ones, duplicates, late ones and too late ones."""
        known, above = sorted(self.made), self.offset
        self.offset += len(picks)
        some = [(above + at, known[pick % len(known)], kind, self.now) for at, (pick, kind) in enumerate(picks, 1)]
        self.events += some
        told = self.confirmed(some, worker, self.now)
        for (offset, n, kind, _), (billing, decision, exposes) in zip(some, told, strict=True):
            made, first = self.made[n], (n, kind) not in self.seen
            assert billing is (self.expected(n, kind) if first else Billing.again)
            assert (decision, exposes) == (made.decision, first and kind == "impression")
            if first:
                self.seen[n, kind] = offset
                self.counted[kind] += 1
                self.out |= {n} - self.folded if kind == "impression" else set()
            if first and kind == made.booked_by and self.now <= made.last_ms:
                for window in made.booked:
                    self.ceiling[window] += ONE if n in self.freed else ONE - made.holds
                self.reached.add(n)
            if billing in (Billing.billed, Billing.late):
                over = made.price if billing is Billing.late else max(0, made.price - made.micros)
                for window in made.windows:
                    self.ceiling[window] += over
                for window in made.counted:
                    self.ceiling[window] += made.price
                self.spent.add(n)

    def expected(self, n: int, kind: str) -> Billing:
        if kind != self.made[n].billed_by:
            return Billing.other
        if self.now > self.made[n].last_ms:
            return Billing.too_late
        return Billing.late if n in self.released else Billing.billed

    def confirmed(self, some: Sequence[tuple[int, int, str, int]], worker: int, now: int) -> list[Confirmed]:
        rows = [row for offset, n, kind, _ in some for row in billables(n, first=offset, kind=kind)]
        counts = [tally(some[0][0] - 1, some[-1][0], served=len(some))]
        return cast(list[Confirmed], self.all(lambda ledger: ledger.confirm(rows, counts, now_ms=now), worker))

    @precondition(lambda self: self.events)
    @rule(worker=st.integers(0, WORKERS - 1), back=st.integers(1, 9))
    def redelivered(self, worker: int, back: int) -> None:
        """Events that were confirmed come again, with their tally."""
        some = self.events[-back:]
        for (offset, n, kind, _), confirmed in zip(some, self.confirmed(some, worker, self.now), strict=True):
            if n in self.forgotten:
                assert confirmed == Confirmed(Billing.unknown, b"")
            else:
                first = kind == "impression" and self.seen[n, kind] == offset
                assert confirmed == Confirmed(Billing.again, self.made[n].decision, first)

    @precondition(lambda self: self.made)
    @rule(worker=st.integers(0, WORKERS - 1), picks=st.lists(st.integers(0, 99), min_size=1, max_size=4))
    def fold(self, worker: int, picks: list[int]) -> None:
        """States with these impressions were saved; of ads that nobody saw nothing can be."""
        known = sorted(self.made)
        numbers = {known[pick % len(known)] for pick in picks}
        self.all(lambda ledger: ledger.folded(ids(numbers)), worker)
        seen = {n for n in numbers & self.out if (n, "impression") in self.seen}
        self.out -= seen
        self.folded |= seen

    @rule(by=st.integers(1, 60))
    def time_passes(self, by: int) -> None:
        self.now += by

    @rule(worker=st.integers(0, WORKERS - 1))
    def sweep(self, worker: int) -> None:
        self.all(lambda ledger: ledger.sweep(now_ms=self.now), worker)
        self.end()
        gone = {n for n, made in self.made.items() if made.expires_ms <= self.now}
        self.released |= gone - self.spent
        self.freed |= gone - self.reached
        self.out -= {n for n in gone if (n, "impression") not in self.seen}

    @rule(worker=st.integers(0, WORKERS - 1))
    def killed(self, worker: int) -> None:
        """Another process takes the name; what the dead one held ends by itself."""
        for backend, ledgers in zip(self.backends, self.workers, strict=True):
            ledgers[worker].close()
            ledgers[worker] = backend.open()
        self.names[worker] += "'"

    @rule(window=st.sampled_from(WINDOWS), amount=st.integers(0, 30))
    def budget(self, window: Window, amount: int) -> None:
        micros = amount * unit(window)
        self.version += 1
        change = [Budget(window, micros, self.version), Budget(window, 99, self.version - 1)]
        self.all(lambda ledger: ledger.set_budgets(change))
        self.budgets[window] = micros
        spent, reserved, leased = self.sums(window)
        assert leased <= len(LINES) * WORKERS * CHUNK
        self.ceiling[window] = max(micros, spent + reserved + leased)

    @rule()
    def publish(self) -> None:
        self.published, self.published_ms, self.published_counts = self.totals(), self.now, self.counted.copy()

    @rule()
    def lose_everything(self) -> None:
        """Totals, the decisions that could be billed when they were published, and events bring it back."""
        for backend in self.backends:
            backend.wipe()
        self.version += 1
        budgets = [Budget(window, micros, self.version) for window, micros in self.budgets.items()]
        alive = [made for made in self.made.values() if made.kept_ms >= self.published_ms]
        covered = self.published.offsets.get(EVENTS, -1)
        self.all(lambda ledger: ledger.rebuild(self.published))
        self.all(lambda ledger: ledger.set_budgets(budgets))
        self.all(lambda ledger: ledger.reserve("leader", alive, now_ms=self.now, decided=True))
        for event in self.events:
            self.confirmed([event], 0, event[3])
        assert self.all(lambda ledger: ledger.reopen()) == {}
        self.remember({made.decision_id for made in alive}, covered)

    def remember(self, alive: set[str], covered: int) -> None:
        """What the model knows after a loss: leases and refusals are gone, what was released is out again."""
        gone = {n for n, made in self.made.items() if made.decision_id not in alive}
        for window in WINDOWS:
            spent = [self.made[n] for n in gone & self.spent]
            self.base[window] += sum(made.price for made in spent if window in (*made.windows, *made.counted))
            self.base[window] += sum(ONE for n in gone & self.reached if window in self.made[n].booked)
        self.forgotten |= gone
        self.gone_and_spent += len(gone & self.spent)
        self.spent -= gone
        self.made = {n: made for n, made in self.made.items() if n not in gone}
        self.answers = {n: answer for n, answer in self.answers.items() if n in self.made}
        old = [(self.made[n], n, kind) for offset, n, kind, _ in self.events if offset <= covered and n in self.made]
        self.settled = {n for made, n, kind in old if kind == made.billed_by} - self.spent
        self.reached -= gone
        self.freed = {n for made, n, kind in old if kind == made.booked_by} - self.reached
        self.released = set(self.settled)
        self.seen = {(n, kind): offset for (n, kind), offset in self.seen.items() if n in self.made}
        newer = [kind for (_, kind), offset in self.seen.items() if offset > covered]
        self.counted = self.published_counts + Counter(newer)
        self.folded = {n for (n, kind), offset in self.seen.items() if kind == "impression" and offset <= covered}
        self.out = set(self.made) - self.folded
        self.leases.clear()
        for window in WINDOWS:
            self.ceiling[window] = max(self.ceiling[window], sum(self.sums(window)))

    def totals(self) -> Totals:
        return cast(Totals, self.all(lambda ledger: replace(ledger.totals(), epoch="", number=0)))

    @invariant()
    def the_books_are_right_and_no_bound_is_exceeded(self) -> None:
        totals = self.totals()
        for window in WINDOWS:
            budget, _, *found = totals.windows[window]
            assert (budget, tuple(found)) == (self.budgets[window], self.sums(window))
            assert sum(found) <= self.ceiling[window]
        assert self.all(lambda ledger: dict(ledger.in_flight(["p"])[0].out)) == (
            {"c": len(self.out)} if self.out else {}
        )
        for kind in SOME:
            assert sum(counts.get(KINDS[kind], 0) for counts in totals.counts.values()) == self.counted[kind]
        billed = sum(counts.get("billed", 0) + counts.get("billed_late", 0) for counts in totals.counts.values())
        assert billed == len(self.spent) + self.gone_and_spent
        assert totals.counts.get(LINE, {}).get("served", 0) == len(self.events)


def run(backends: list[Backend], examples: int) -> None:
    machine = type("Run", (Market,), {"backends": backends})
    how = settings(
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(machine, settings=how)


def test_anything_in_any_order_spends_nothing_twice() -> None:
    run([in_memory()], EXAMPLES)


@pytest.mark.embedded
def test_valkey_and_the_twin_answer_alike_whatever_is_asked(request: pytest.FixtureRequest, topic_prefix: str) -> None:
    made: list[Any] = []
    server = on_server(request.getfixturevalue("valkey").url, topic_prefix, made)
    run([in_memory(), server], max(EXAMPLES // 4, 20))
    for one in made:
        one.close()
