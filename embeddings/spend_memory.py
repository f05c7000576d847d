"""A spend ledger in this process' memory, for tests, simulations and trying things out.

It keeps every promise of the contract, but nothing survives the process; `sweep` forgets decisions past their end.

>>> ledger = MemorySpendLedger()
>>> ledger.closed()
'lost'
"""

import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush

from embeddings.errors import AlreadyCounted, LedgerClosed
from embeddings.events import Source
from embeddings.spend import (
    KINDS,
    ONE,
    Answer,
    Billable,
    Billing,
    Budget,
    Confirmed,
    Known,
    Lease,
    Reservation,
    SpendLedger,
    Spent,
    Tally,
    Totals,
    Verdict,
    Want,
    Window,
)
from embeddings.spend_book import Account, Book, Decision, Held
from embeddings.spend_checks import check, check_budgets, check_kinds, check_reservations
from embeddings.spend_outcomes import CONVERSIONS_MS

SLACK_MS = 2 * 86_400_000
"""So much longer than promised are decisions kept."""


class MemorySpendLedger(SpendLedger):
    """`SpendLedger` on a `Book`."""

    def __init__(self, book: Book | None = None) -> None:
        """Args: book: shared with other ledgers, or None."""
        self._book = book or Book()
        self._life = secrets.token_hex(6)
        self._heard = "", 0

    def closed(self) -> str | None:
        """See `SpendLedger.closed`."""
        return self._book.why

    def set_budgets(self, budgets: Sequence[Budget]) -> None:
        """See `SpendLedger.set_budgets`."""
        check_budgets(budgets)
        with self._changing() as book:
            for window, micros, version in budgets:
                if window not in book.accounts or book.accounts[window].version < version:
                    account = book.account(window)
                    account.budget, account.version = micros, version

    def lease(self, worker: str, wants: Sequence[Want], *, now_ms: int, until_ms: int) -> list[Lease]:
        """See `SpendLedger.lease`."""
        check(wants, [want.micros for want in wants])
        with self._changing() as book:
            self._check_open()
            self._end_leases(now_ms, len(book.leases))
            return [self._leased((worker, want.key), want, until_ms) for want in wants]

    def _leased(self, whose: tuple[str, str], want: Want, until_ms: int) -> Lease:
        book = self._book
        if whose in book.leases and book.leases[whose].windows != want.windows:
            self._give_back(whose)
        held = book.leases.setdefault(whose, Held())
        known = all(book.accounts.get(window, Account()).version >= 0 for window in want.windows)
        lacking = (want.micros if known else 0) - held.micros
        more = max(-held.micros, min([lacking, *(book.left(window) for window in want.windows if known)]))
        for window in want.windows if more else ():
            book.account(window).leased += more
        held.micros, held.until_ms, held.windows = held.micros + more, until_ms, want.windows
        if not want.micros:
            del book.leases[whose]
        return Lease(want.key, held.micros, until_ms)

    def known(self, people: Sequence[str], decision_ids: Sequence[str]) -> Known:
        """See `SpendLedger.known`."""
        self._check_kept()
        book = self._book
        out = [book.in_flight(person) for person in people] if book.why is None else None
        found = [book.decisions.get(name) for name in decision_ids]
        decisions = [one.made.decision if one is not None and one.state != "refused" else b"" for one in found]
        return Known(out, decisions, book.why or "")

    def reserve(
        self,
        worker: str,
        reservations: Sequence[Reservation],
        tallies: Sequence[Tally] = (),
        *,
        now_ms: int,
        decided: bool = False,
    ) -> list[Answer]:
        """See `SpendLedger.reserve`."""
        check_reservations(reservations, tallies)
        if not self._book.epoch and not decided:
            return [Answer(Verdict.closed, b"")] * len(reservations)
        with self._changing() as book:
            if book.why is None:
                self._count(tallies, ordered=False)
            return [self._reserved(worker, one, now_ms, decided) for one in reservations]

    def _reserved(self, worker: str, made: Reservation, now_ms: int, decided: bool) -> Answer:
        book, found = self._book, self._book.decisions.get(made.decision_id)
        if found is not None:
            return (
                Answer(Verdict.again, found.made.decision) if found.state != "refused" else Answer(found.verdict, b"")
            )
        if book.why is not None and not decided:
            return Answer(Verdict.closed, b"")
        held = book.leases.get((worker, made.key), Held())
        covers = held.until_ms > now_ms and held.windows == made.windows and held.micros >= made.micros
        verdict = Verdict.reserved if decided else self._judged(made, held, now_ms)
        if verdict is Verdict.reserved:
            held.micros -= made.micros if covers else 0
            for window in made.windows if made.micros else ():
                account = book.account(window)
                account.reserved += made.micros
                account.leased -= made.micros if covers else 0
            for window in made.booked if made.holds else ():
                book.account(window).reserved += made.holds
            heappush(book.due, (made.expires_ms, made.decision_id))
            book.put_out(made, 1)
        state = "reserved" if verdict is Verdict.reserved else "refused"
        number = state if made.booked else "none"
        book.decisions[made.decision_id] = Decision(made, state, verdict, number)
        heappush(book.ends, (made.kept_ms, made.decision_id))
        if book.why is None:
            book.count(made.key, state)
        return Answer(verdict, made.decision if verdict is Verdict.reserved else b"")

    def _judged(self, made: Reservation, held: Held, now_ms: int) -> Verdict:
        out, version = self._book.in_flight(made.person)
        if made.rooms and (version != made.version or any(out.get(level, 0) >= most for level, most in made.rooms)):
            return Verdict.capped
        if held.until_ms <= now_ms or held.windows != made.windows:
            return Verdict.no_lease
        lacking = made.micros - held.micros
        if lacking <= 0:
            free = min((self._book.left(window) for window in made.booked), default=made.holds)
            return Verdict.budget_exhausted if free < made.holds else Verdict.reserved
        left = min((self._book.left(window) for window in made.windows), default=lacking)
        return Verdict.budget_exhausted if left < lacking else Verdict.lease_spent

    def confirm(self, billables: Sequence[Billable], tallies: Sequence[Tally] = (), *, now_ms: int) -> list[Confirmed]:
        """See `SpendLedger.confirm`."""
        check(billables, (), tallies)
        check_kinds([one.kind for one in billables])
        with self._changing(tallies):
            before = self._count(tallies, ordered=True)
            return [
                self._confirmed(one, one.offset <= before.get(one.source, one.offset - 1), now_ms) for one in billables
            ]

    def _confirmed(self, one: Billable, old: bool, now_ms: int) -> Confirmed:
        book, found = self._book, self._book.decisions.get(one.decision_id)
        if found is None or found.state == "refused":
            if not old:
                book.count(found.made.key if found is not None else "", "invalid")
            return Confirmed(Billing.unknown, b"")
        made, place = found.made, (one.source, one.offset)
        if one.kind in found.seen:
            return Confirmed(Billing.again, made.decision, one.kind == "impression" and found.impression == place)
        if one.kind == "conversion" and one.conversion_id:
            known = made.advertiser, one.conversion_id
            if book.conversions.setdefault(known, (made.decision_id, now_ms + CONVERSIONS_MS))[0] != made.decision_id:
                return Confirmed(Billing.elsewhere, made.decision)
        found.seen.add(one.kind)
        if not old:
            book.count(made.key, KINDS[one.kind])
        if one.kind == "impression":
            self._exposed(found, old)
            found.impression = place
        billing = self._billed(found, old, now_ms) if one.kind == made.billed_by else Billing.other
        if made.booked and one.kind == made.booked_by and (old or now_ms <= made.last_ms):
            held = made.holds if found.number == "reserved" else 0
            found.number = self._settled(made.booked, held, ONE, old)
        return Confirmed(billing, made.decision, one.kind == "impression")

    def _exposed(self, found: Decision, old: bool) -> None:
        if old and found.out == "out":
            self._book.put_out(found.made, -1)
        elif not old and found.out == "neither":
            self._book.put_out(found.made, 1)
        found.out = "folded" if old else "out"
        heappush(self._book.due, (found.made.kept_ms, found.made.decision_id))

    def _billed(self, found: Decision, old: bool, now_ms: int) -> Billing:
        made, was_out = found.made, found.state == "reserved"
        if not old and now_ms > made.last_ms:
            self._book.count(made.key, "billed_too_late")
            return Billing.too_late
        self._settled(made.counted, 0, made.price, old)
        found.state = self._settled(made.windows, made.micros if was_out else 0, made.price, old)
        if old:
            return Billing.known
        self._book.count(made.key, "billed" if was_out else "billed_late")
        return Billing.billed if was_out else Billing.late

    def _settled(self, windows: Sequence[Window], held: int, price: int, old: bool) -> str:
        spent = 0 if old else price
        for window in windows if held or spent else ():
            account = self._book.account(window)
            account.reserved -= held
            account.spent += spent
        return "known" if old else "billed"

    def folded(self, decision_ids: Sequence[str]) -> None:
        """See `SpendLedger.folded`."""
        check(decision_ids)
        with self._changing() as book:
            for name in decision_ids:
                found = book.decisions.get(name)
                if found is not None and found.out == "out" and "impression" in found.seen:
                    found.out = "folded"
                    book.put_out(found.made, -1)
                    if found.made.person and found.made.rooms:
                        book.versions[found.made.person] = f"{book.epoch}{self._heard[1]}.{self._life}"

    def sweep(self, *, now_ms: int, most: int = 1_000) -> int:
        """See `SpendLedger.sweep`."""
        with self._changing() as book:
            many = self._end_leases(now_ms, most)
            while book.due and book.due[0][0] <= now_ms and many < 2 * most:
                found = book.decisions.get(heappop(book.due)[1])
                if found is not None and found.waits:
                    many += 1
                    self._released(found)
                elif found is not None and found.out == "out" and found.made.kept_ms <= now_ms:
                    many += 1
                    found.out = "neither"  # whoever was to say that it is folded was killed
                    book.put_out(found.made, -1)
            while book.ends and book.ends[0][0] + SLACK_MS < now_ms:
                book.decisions.pop(heappop(book.ends)[1], None)
            while book.conversions and next(iter(book.conversions.values()))[1] < now_ms:
                del book.conversions[next(iter(book.conversions))]
            return many

    def _released(self, found: Decision) -> None:
        book, made = self._book, found.made
        if found.state == "reserved":
            found.state = "released"
            book.count(made.key, "released")
            for window in made.windows if made.micros else ():
                book.account(window).reserved -= made.micros
        if found.number == "reserved":
            found.number = "released"
            for window in made.booked if made.holds else ():
                book.account(window).reserved -= made.holds
        if found.waits:
            found.out = "neither"
            book.put_out(made, -1)

    def totals(self, since: Totals | None = None) -> Totals:
        """See `SpendLedger.totals`."""
        with self._book.lock:
            self._check_open()
            book = self._book
            known = since.number if since is not None and since.epoch == book.epoch else 0
            book.why = "rewound" if book.number < known else None
            self._check_open()
            return Totals(
                epoch=book.epoch,
                number=book.number,
                windows={
                    window: Spent(one.budget, max(one.version, 0), one.spent, one.reserved, one.leased)
                    for window, one in book.accounts.items()
                    if one.number > known
                },
                counts={key: dict(book.counts[key]) for key, number in book.count_numbers.items() if number > known},
                offsets=dict(book.offsets),
            )

    def covered(self, sources: Sequence[Source]) -> dict[Source, int]:
        """See `SpendLedger.covered`."""
        self._check_kept()
        return {source: self._book.offsets[source] for source in sources if source in self._book.offsets}

    def rebuild(self, totals: Totals) -> None:
        """See `SpendLedger.rebuild`."""
        with self._book.lock:
            book = self._book
            if book.why is None:
                raise ValueError("the ledger is open: what is rebuilt would lose what is out")
            anew = Book("rebuilding", secrets.token_hex(6), number=1, need=book.need, lock=book.lock)
            vars(book).update(vars(anew))
            for window, one in totals.windows.items():
                account = book.account(window)
                account.budget, account.version, account.spent = one.budget, one.version, one.spent
            for key, counts in totals.counts.items():
                book.counts[key], book.count_numbers[key] = Counter(counts), 1
            book.offsets = dict(totals.offsets)

    def reopen(self) -> dict[Source, int]:
        """See `SpendLedger.reopen`."""
        with self._changing() as book:
            missing = {source: upto for source, upto in book.need.items() if book.offsets.get(source, -1) < upto}
            if not missing:
                book.need.clear()
                book.why = None
            return missing

    def close(self) -> None:
        """See `SpendLedger.close`."""

    @contextmanager
    def _changing(self, tallies: Sequence[Tally] = ()) -> Iterator[Book]:
        """The book, for one call that changes it, which is numbered; `tallies` are missed if there is none."""
        book = self._book
        with book.lock:
            if not book.epoch:
                self._miss(tallies)
                raise LedgerClosed("the spend ledger is closed: lost")
            book.number += 1
            book.calls[self._life] += 1
            epoch, heard = self._heard
            if epoch == book.epoch and book.calls[self._life] <= heard:
                book.why = "rewound"
            self._heard = book.epoch, book.calls[self._life]
            yield book

    def _count(self, tallies: Sequence[Tally], ordered: bool) -> Mapping[Source, int]:
        """Count what was not counted; how far every partition was before."""
        book = self._book
        before = {tally.source: book.offsets[tally.source] for tally in tallies if tally.source in book.offsets}
        for tally in tallies:
            stored = before.get(tally.source, tally.above)
            if ordered and stored < tally.above:
                book.why = book.why or "rewound"
                self._miss(tallies)
                self._check_open()
            elsewhere = tally.follows and stored not in (tally.above, tally.upto)
            if elsewhere or tally.above < stored < tally.upto:
                raise AlreadyCounted(f"{tally.source.topic}/{tally.source.partition}", stored)
        for tally in tallies:
            if before.get(tally.source, tally.upto - 1) < tally.upto:
                book.offsets[tally.source] = tally.upto
                for (key, name), many in tally.counts.items():
                    book.count(key, name, many)
        return before

    def _miss(self, tallies: Sequence[Tally]) -> None:
        for tally in tallies:
            self._book.need[tally.source] = max(tally.upto, self._book.need.get(tally.source, -1))

    def _check_kept(self) -> None:
        if not self._book.epoch:
            raise LedgerClosed("the spend ledger is closed: lost")

    def _check_open(self) -> None:
        if self._book.why is not None:
            raise LedgerClosed(f"the spend ledger is closed: {self._book.why}")

    def _end_leases(self, now_ms: int, most: int) -> int:
        ended = [whose for whose, held in self._book.leases.items() if held.until_ms <= now_ms][:most]
        for whose in ended:
            self._give_back(whose)
        return len(ended)

    def _give_back(self, whose: tuple[str, str]) -> None:
        held = self._book.leases.pop(whose)
        for window in held.windows:
            self._book.account(window).leased -= held.micros
