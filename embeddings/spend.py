"""The spend ledger: what budgets have left, what is reserved for ads that are out, what was spent. One for all workers.

A worker leases part of a line item's budgets, reserves amounts out of its lease when it decides, and whoever reads the
billable event confirms. An amount is in one place at a time: with a budget, in a lease, reserved, or spent.

    budget --lease--> lease --reserve--> reserved --confirm--> spent      expired leases and reservations go back

Money is whole micros. A budget is of a line item or a campaign, for a day of its own clock or for life: a `Window`. By
the ledger's own arithmetic `spent + reserved + leased <= budget` in every window. Beyond its budget a window spends

    overspend <= workers x chunk + outstanding reservations + late billables + rate of spending x replication lag

at most: chunks and reservations that were out when the budget was cut, or chunks spent unheard while the ledger was
away (`reserve(decided=True)`); ads billed after their reservation had expired; and what a Redis that failed over has
forgotten. Where nothing of that happened it is 0, whatever is redelivered or killed.

Per decision id there is one answer. It is kept until `kept_ms`, the end of the billing window, with its state:

    reserved --confirm--> billed --folded--> folded        reserved --sweep--> released --confirm--> billed (late)

What is reserved or billed counts against a person's caps until `folded` says that the person's state has it. So look
up `in_flight` first and read the state after it: then an impression is in one of them, or in both, never in neither.

A ledger that lost its data, or its tail, is closed: it leases and reserves nothing until it was rebuilt.

>>> decision_id("requests", 3, 41, "1") == decision_id("requests", 3, 41, "1")
True
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

import xxhash

from embeddings.events import Source

UNLIMITED = 1 << 61
"""The budget of a window that is only counted."""
MOST_AMOUNT = 10**12
"""So much at most has one reservation or lease, in micros: sums of a batch stay exact."""
MOST_ROWS = 4_096
"""So many rows at most has one call."""
COUNTS = (
    *("opportunities", "targeted", "no_consent", "blocked", "capped", "cap_unknown", "budget_exhausted", "paced"),
    *("unapproved", "bid", "below_floor", "outbid", "top_bid", "won", "served", "impressions", "viewable", "clicks"),
    *("first_quartile", "midpoint", "third_quartile", "complete", "conversions", "invalid"),
    *("reserved", "refused", "released", "billed", "billed_late", "billed_too_late"),
)
"""What is counted per key. The ledger adds the last six itself; the others are what a `Tally` says."""


class Verdict(IntEnum):
    """What became of a reservation."""

    reserved = 0
    again = 1  # its key was there: the stored decision stands
    budget_exhausted = 2
    no_lease = 3  # none, it has ended, or it is of other windows
    lease_spent = 4  # the lease has too little, the budgets have more
    capped = 5
    closed = 6  # not stored: the same key may be reserved later


class Billing(IntEnum):
    """What became of a billable event."""

    billed = 0
    again = 1  # was billed before
    late = 2  # billed after its reservation had expired
    too_late = 3  # after the billing window: counted, not spent
    unknown = 4  # no such decision, or it was refused
    known = 5  # spent already in the totals that the ledger was rebuilt from


class Window(NamedTuple):
    """A budget: whose, and for which day (`2026-11-27`, of the campaign's clock); empty is for life."""

    key: str
    day: str = ""


class Budget(NamedTuple):
    """What a window may spend. A higher `version` replaces a lower one: take the offset of the campaign's record."""

    window: Window
    micros: int
    version: int


class Want(NamedTuple):
    """A worker wants to hold `micros` for a line item, out of every one of these windows; 0 gives the lease back."""

    key: str
    windows: tuple[Window, ...]
    micros: int


class Lease(NamedTuple):
    """What a worker holds for a line item, and until when."""

    key: str
    micros: int
    until_ms: int


class Room(NamedTuple):
    """A cap as a reservation sees it: with this one at most `most_out` of the person may be out under `level`."""

    level: str
    most_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A decision that wants to be paid for.

    Attributes:
        decision_id: of the slot it fills: see `decision_id`.
        key: the line item; `windows` are those of its lease.
        micros: what the impression costs, 0 to `MOST_AMOUNT`.
        decision: returned as it is when the same id comes again.
        expires_ms: when it is released if nothing was billed. It may be billed until `kept_ms`.
        person: whose caps `rooms` are; empty where none can be counted. It stays until then too: pass a keyed hash.
        version: that of `in_flight`: if something was folded since, the count in the state is old, and it is refused.
    """

    decision_id: str
    key: str
    windows: tuple[Window, ...]
    micros: int
    decision: bytes
    expires_ms: int
    kept_ms: int
    person: str = ""
    version: str = ""
    rooms: tuple[Room, ...] = ()


class Answer(NamedTuple):
    """What became of a reservation, and the decision that stands under its id; empty where it was refused."""

    verdict: Verdict
    decision: bytes


class Billable(NamedTuple):
    """A billable event: whose, and where it was read."""

    decision_id: str
    source: Source
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What was counted in the records of an input partition above one offset and up to another.

    `counts` are by key (line item, campaign) and name, of `COUNTS`.
    """

    source: Source
    above: int
    upto: int
    counts: Mapping[tuple[str, str], int]


class InFlight(NamedTuple):
    """What is out for a person, by level of their caps, and the state of that knowledge."""

    out: Mapping[str, int]
    version: str


class Spent(NamedTuple):
    """A window's budget with its version, and where the money is."""

    budget: int
    version: int
    spent: int
    reserved: int
    leased: int

    @property
    def left(self) -> int:
        """What can be leased; negative where a budget was cut below what is out or spent."""
        return self.budget - self.spent - self.reserved - self.leased


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Windows and counts as of one moment, and the last offset of each input partition that they hold.

    `epoch` names the ledger's life since it was rebuilt last, `number` rises within it with every change.
    """

    epoch: str = ""
    number: int = 0
    windows: Mapping[Window, Spent]
    counts: Mapping[str, Mapping[str, int]]
    offsets: Mapping[Source, int]

    def with_newer(self, newer: "Totals") -> "Totals":
        """These totals with what changed since, as `totals(self)` returned it: of a later life that is everything."""
        if newer.epoch != self.epoch:
            return newer
        return Totals(
            epoch=newer.epoch,
            number=newer.number,
            windows={**self.windows, **newer.windows},
            counts={**self.counts, **newer.counts},
            offsets=newer.offsets,
        )


class SpendLedger(Protocol):
    """Budgets, leases and reservations of all workers. Every call is one round trip, atomic, and may block.

    Times are wall clock in ms, as the caller has it; clocks that differ release earlier or later and lose nothing.

    Raises, from every call:
        StoreUnavailable: it may or may not be done. Call again with the same: it is done once.
        StoreRefused: it never will. Stop.
        ValueError: more than `MOST_ROWS`, an amount out of range, a count nobody knows. A defect of the caller.
    """

    def closed(self) -> str | None:
        """Why it is closed (`lost`, `rewound`, `rebuilding`); None while it is open."""

    def set_budgets(self, budgets: Sequence[Budget]) -> None:
        """Take over budgets that are newer than those known; what was spent, reserved and leased stays.

        Raises:
            LedgerClosed: nothing is known that they could be budgets of; call again once it is rebuilt.
        """

    def lease(self, worker: str, wants: Sequence[Want], *, now_ms: int, until_ms: int) -> list[Lease]:
        """Bring leases up or down to what is wanted, as far as the budgets go, and extend them.

        `worker` is a name that no other life of a process has. A lease of other windows goes back first (a new day), as
        do those of anybody that have ended. Whoever reaches no ledger may spend what a lease holds: see `Purse`.

        Raises:
            LedgerClosed: nothing is leased; what is held may not be spent any more.
        """

    def in_flight(self, people: Sequence[str]) -> list[InFlight]:
        """What is out for people: reserved, or billed and not in their states yet. Read their states after this.

        Raises:
            LedgerClosed, StoreUnavailable: not known, so nobody with a cap is eligible.
        """

    def reserve(
        self,
        worker: str,
        reservations: Sequence[Reservation],
        tallies: Sequence[Tally] = (),
        *,
        now_ms: int,
        decided: bool = False,
    ) -> list[Answer]:
        """Take amounts from this worker's leases, in order; an answer for each. An id that was there spends nothing.

        Refusals stand as decisions do, but for `closed`. `decided`: it was decided already, within a lease while the
        ledger was away, or in a life before a loss: never refused, also while it is being rebuilt.

        Raises:
            AlreadyCounted: part of a tally was counted; nothing was done. Count what is above, and call again.
        """

    def confirm(self, billables: Sequence[Billable], tallies: Sequence[Tally] = (), *, now_ms: int) -> list[Billing]:
        """Turn reservations into spending. Call it before the states with these impressions are saved.

        Give a tally, maybe of nothing, of every partition read: it says how far the totals are.

        Raises:
            AlreadyCounted: as `reserve`.
            LedgerClosed: it is not there, or lacks records before these. It notes how far it has to come before it
                opens, and whoever rebuilds it reads them. Go on without.
        """

    def folded(self, decision_ids: Sequence[str]) -> None:
        """Impressions that were confirmed are in their people's states now, which count them from here on.

        Raises:
            LedgerClosed: there is nothing to take them from. Go on.
        """

    def sweep(self, *, now_ms: int, most: int = 1_000) -> int:
        """Release reservations and return leases that have ended, so many at most; how many these were. By anybody."""

    def totals(self, since: Totals | None = None) -> Totals:
        """What changed since those totals, or everything. Offsets are whole always.

        Raises:
            LedgerClosed: they are not to be published.
        """

    def covered(self, sources: Sequence[Source]) -> dict[Source, int]:
        """The last offset counted of those partitions that any was of: tallies begin above it."""

    def rebuild(self, totals: Totals) -> None:
        """Begin anew from totals that were published, closed still. Nothing leased, reserved or out is left.

        Then `reserve(decided=True)` what could still be billed when they were published, `confirm` every billable
        event of that time in order, as of when it came, also those that the totals hold, and `reopen`.

        Raises:
            ValueError: it is open.
        """

    def reopen(self) -> dict[Source, int]:
        """Open it, unless records are missing: up to which offset, by partition, they have to be confirmed first."""

    def close(self) -> None:
        """Give back connections; the next call connects again."""


class Purse:
    """What a worker holds in leases, kept beside the ledger so that deciding needs no round trip.

    >>> purse = Purse()
    >>> purse.put([Lease("c/l", 25, until_ms=1_000)])
    >>> [purse.take("c/l", 10, now_ms=0) for _ in range(3)], purse.left("c/l", now_ms=0)
    ([True, True, False], 5)
    >>> purse.left("c/l", now_ms=1_000)
    0
    """

    def __init__(self) -> None:
        self._held: dict[str, Lease] = {}

    def put(self, leases: Sequence[Lease]) -> None:
        """Take over leases, once the ledger was told of everything taken before."""
        self._held.update((lease.key, lease) for lease in leases)

    def left(self, key: str, *, now_ms: int) -> int:
        """What may still be spent for a line item; 0 once the lease has ended."""
        lease = self._held.get(key)
        return lease.micros if lease is not None and now_ms < lease.until_ms else 0

    def take(self, key: str, micros: int, *, now_ms: int) -> bool:
        """Spend some of a lease, if there is enough."""
        if key not in self._held or micros > self.left(key, now_ms=now_ms):
            return False
        self._held[key] = self._held[key]._replace(micros=self._held[key].micros - micros)
        return True

    def drop(self) -> None:
        """The ledger is closed: nothing of it may be spent."""
        self._held.clear()


def decision_id(topic: str, partition: int, offset: int, imp_id: str) -> str:
    """The id of what is decided for a slot of a request: an `imp.id` is unique only inside one."""
    return xxhash.xxh128_hexdigest(f"{topic}\0{partition}\0{offset}\0{imp_id}".encode())


def slate_decision_id(slate_id: str, slot: int) -> str:
    """The id of what is decided for a slot of a slate nobody gave `imp` ids for."""
    return xxhash.xxh128_hexdigest(f"{slate_id}\0{slot}".encode())


def check(rows: Sequence[object], amounts: Sequence[int] = (), tallies: Sequence[Tally] = ()) -> None:
    """Can a call be made so?

    Raises:
        ValueError: no; the message says what and what is allowed.
    """
    if len(rows) > MOST_ROWS:
        raise ValueError(f"{len(rows)} rows in one call of the ledger, allowed are {MOST_ROWS}")
    if amounts and not 0 <= min(amounts) <= max(amounts) <= MOST_AMOUNT:
        raise ValueError(f"amounts from {min(amounts)} to {max(amounts)}, allowed are 0 to {MOST_AMOUNT}")
    for tally in tallies:
        if not tally.above <= tally.upto or any(
            name not in COUNTS or count < 0 for (_, name), count in tally.counts.items()
        ):
            raise ValueError(f"a tally of {tally.source} that runs backwards, or counts what is not in COUNTS")


def check_budgets(budgets: Sequence[Budget]) -> None:
    """Can these be budgets?

    Raises:
        ValueError: no; the message says which.
    """
    check(budgets)
    for budget in budgets:
        if not 0 <= budget.micros <= UNLIMITED:
            raise ValueError(f"a budget of {budget.micros} for {budget.window}, allowed are 0 to {UNLIMITED}")
