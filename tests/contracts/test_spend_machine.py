"""Anything in any order, against a model that only remembers what it was told; the twin and Valkey answer alike."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from embeddings.spend import Answer, Billing, Budget, SpendLedger, Totals, Verdict, Want, Window
from tests.contracts.test_spend_ledger import Backend, in_memory, on_server
from tests.embeddings.spending import CAMPAIGN, EVENTS, LINE, NOTHING, a_reservation, billables, confirm, tally
from tests.fuzzing import EXAMPLES

LINES = {"c/1": (Window("c/1"), CAMPAIGN), "c/2": (Window("c/2"), Window("c/2", "2027-01-15"), CAMPAIGN)}
WINDOWS = sorted({window for windows in LINES.values() for window in windows})
WORKERS, CHUNK, EXPIRES, KEPT = 3, 4, 40, 120


class Market(RuleBasedStateMachine):
    """Three workers sell two line items of one campaign. Times are small numbers."""

    backends: Sequence[Backend] = ()

    def __init__(self) -> None:
        super().__init__()
        for backend in self.backends:
            backend.wipe()
        self.workers = [[backend.open() for _ in range(WORKERS)] for backend in self.backends]
        self.now, self.version, self.offset = 1_000, 1, -1
        self.budgets = dict.fromkeys(WINDOWS, 10)
        self.made: dict[int, Any] = {}  # reservations that were accepted
        self.answers: dict[int, Answer] = {}
        self.spent: set[int] = set()
        self.released: set[int] = set()
        self.leases: dict[tuple[str, str], tuple[int, int]] = {}
        self.ceiling = dict(self.budgets)
        self.settled: set[int] = set()  # came again too late, or were in totals: nothing more comes of them
        self.forgotten: set[int] = set()  # past their end when everything was lost
        self.gone_and_spent = 0
        self.base = dict.fromkeys(WINDOWS, 0)  # what these spent
        self.events: list[tuple[int, int, int]] = []  # offset, number and time of every billable event
        self.names = [f"{n}.0" for n in range(WORKERS)]
        self.published, self.published_ms = NOTHING, self.now
        self.all(lambda ledger: ledger.rebuild(NOTHING))
        self.all(lambda ledger: ledger.reopen())
        self.all(lambda ledger: ledger.set_budgets([Budget(window, 10, 1) for window in WINDOWS]))

    def all(self, call: Callable[[SpendLedger], Any], worker: int = 0) -> Any:
        """The answer of every implementation, which is one."""
        answers = [call(ledgers[worker]) for ledgers in self.workers]
        assert all(answer == answers[0] for answer in answers), answers
        return answers[0]

    def sums(self, window: Window) -> tuple[int, int, int]:
        """Spent, reserved and leased of a window, as the model remembers it."""
        of = {n for n, made in self.made.items() if window in made.windows}
        spent, still = of & self.spent, of - self.spent - self.released
        leased = sum(held for (_, key), (held, _) in self.leases.items() if window in LINES[key])
        return (
            self.base[window] + sum(self.made[n].micros for n in spent),
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
            st.tuples(st.integers(0, 60), st.sampled_from(sorted(LINES)), st.integers(0, 4)), min_size=1, max_size=4
        ),
    )
    def reserve(self, worker: int, rows: list[tuple[int, str, int]]) -> None:
        """New keys, and old ones with another winner."""
        rows = [row for row in rows if row[0] not in self.forgotten]
        times = {"expires_ms": self.now + EXPIRES, "kept_ms": self.now + KEPT}
        asked = [
            a_reservation(n, micros, *LINES[key], key=key, decision=f"{n} {key} {micros} {self.now}".encode(), **times)
            for n, key, micros in rows
        ]
        told = self.all(lambda ledger: ledger.reserve(self.names[worker], asked, now_ms=self.now), worker)
        for (n, key, micros), made, answer in zip(rows, asked, told, strict=True):
            if n in self.answers:
                first = self.answers[n]
                again = Answer(Verdict.again, first.decision) if first.verdict is Verdict.reserved else first
                assert answer == again
                continue
            self.answers[n] = answer
            held, until = self.leases.get((self.names[worker], key), (0, 0))
            assert (answer.verdict is Verdict.reserved) == (until > self.now and held >= micros)
            if answer.verdict is Verdict.reserved:
                self.made[n] = made
                self.leases[self.names[worker], key] = held - micros, until

    @precondition(lambda self: self.made)
    @rule(worker=st.integers(0, WORKERS - 1), picks=st.lists(st.integers(0, 99), min_size=1, max_size=4))
    def billable(self, worker: int, picks: list[int]) -> None:
        """A batch of billable events: first ones, duplicates, late ones and too late ones."""
        known = sorted(self.made)
        numbers = [known[pick % len(known)] for pick in picks]
        first, self.offset = self.offset + 1, self.offset + len(numbers)
        self.events += [(first + place, n, self.now) for place, n in enumerate(numbers)]
        rows, counts = billables(*numbers, first=first), [tally(first - 1, self.offset, served=len(numbers))]
        told = self.all(lambda ledger: confirm(ledger, rows, counts, now_ms=self.now), worker)
        for n, billing in zip(numbers, told, strict=True):
            late, made = n in self.released, self.made[n]
            over = self.now > made.kept_ms
            expected = (
                Billing.again if n in self.spent | self.settled else Billing.too_late if over else Billing(2 * late)
            )
            assert billing is expected
            if billing is Billing.late:
                for window in made.windows:
                    self.ceiling[window] += made.micros
            self.spent |= {n} if billing in (Billing.billed, Billing.late) else set()

    @precondition(lambda self: self.events)
    @rule(worker=st.integers(0, WORKERS - 1), back=st.integers(1, 9))
    def redelivered(self, worker: int, back: int) -> None:
        """Events that were confirmed come again, with their tally."""
        some = self.events[-back:]
        rows = [row for offset, n, _ in some for row in billables(n, first=offset)]
        counts = [tally(some[0][0] - 1, some[-1][0], served=len(some))]
        told = self.all(lambda ledger: confirm(ledger, rows, counts, now_ms=self.now), worker)
        for (_, n, _), billing in zip(some, told, strict=True):
            done = n in self.spent | self.settled
            assert billing is (Billing.unknown if n in self.forgotten else Billing.again if done else Billing.known)
            if billing is Billing.known:
                self.settled.add(n)
                self.released.add(n)

    @rule(by=st.integers(1, 30))
    def time_passes(self, by: int) -> None:
        self.now += by

    @rule(worker=st.integers(0, WORKERS - 1))
    def sweep(self, worker: int) -> None:
        self.all(lambda ledger: ledger.sweep(now_ms=self.now), worker)
        self.end()
        gone = {n for n, made in self.made.items() if made.expires_ms <= self.now}
        self.released |= gone - self.spent

    @rule(worker=st.integers(0, WORKERS - 1))
    def killed(self, worker: int) -> None:
        """Another process takes the name; what the dead one held ends by itself."""
        for backend, ledgers in zip(self.backends, self.workers, strict=True):
            ledgers[worker].close()
            ledgers[worker] = backend.open()
        self.names[worker] += "'"

    @rule(window=st.sampled_from(WINDOWS), micros=st.integers(0, 30))
    def budget(self, window: Window, micros: int) -> None:
        self.version += 1
        change = [Budget(window, micros, self.version), Budget(window, 99, self.version - 1)]
        self.all(lambda ledger: ledger.set_budgets(change))
        self.budgets[window] = micros
        spent, reserved, leased = self.sums(window)
        assert leased <= len(LINES) * WORKERS * CHUNK
        self.ceiling[window] = max(micros, spent + reserved + leased)

    @rule()
    def publish(self) -> None:
        self.published, self.published_ms = self.totals(), self.now

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
        for offset, n, time in self.events:
            counts = [tally(offset - 1, offset, served=1)]
            rows = billables(n, first=offset)
            self.all(lambda ledger, rows=rows, counts=counts, time=time: confirm(ledger, rows, counts, now_ms=time))
        assert self.all(lambda ledger: ledger.reopen()) == {}
        self.remember({made.decision_id for made in alive}, covered)

    def remember(self, alive: set[str], covered: int) -> None:
        """What the model knows after a loss: leases and refusals are gone, what was released is out again."""
        gone = {n for n, made in self.made.items() if made.decision_id not in alive}
        for window in WINDOWS:
            self.base[window] += sum(self.made[n].micros for n in gone & self.spent if window in self.made[n].windows)
        self.forgotten |= gone
        self.gone_and_spent += len(gone & self.spent)
        self.spent -= gone
        self.made = {n: made for n, made in self.made.items() if n not in gone}
        self.answers = {n: answer for n, answer in self.answers.items() if n in self.made}
        self.settled = {n for offset, n, _ in self.events if offset <= covered and n in self.made} - self.spent
        self.released = set(self.settled)
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
