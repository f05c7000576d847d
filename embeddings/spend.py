"""The spend ledger: what budgets have left, what is reserved for ads that are out, what was spent. One for all workers.

A worker leases part of a line item's budgets, reserves amounts out of its lease when it decides, and whoever reads the
billable event confirms. An amount is in one place at a time: with a budget, in a lease, reserved, or spent.

    budget --lease--> lease --reserve--> reserved --confirm--> spent      expired leases and reservations go back

Money is whole micros. A budget is of a line item or a campaign, for a day of its own clock or for life: a `Window`. It
may be a booked number too, of impressions or clicks in millionths: these are reserved without a lease. By the ledger's
own arithmetic `spent + reserved + leased <= budget` in every window. Beyond its budget a window spends

    overspend <= workers x chunk + outstanding reservations + late billables + rate of spending x replication lag
                 + sum over decisions out of max(0, spends - micros)

at most: chunks and reservations that were out when the budget was cut or came, or chunks spent unheard while the
ledger was away (`reserve(decided=True)`); ads billed after their reservation had expired; and what a Redis that failed
over has forgotten. Where nothing of that happened these are 0, whatever is redelivered or killed.

The last sum is of ads that cost more than was reserved for them: a click costs its price, an impression that may bring
one holds `chance x price`. It runs over what is billed after the window's last lease was granted: what was reserved
then and what leases still paid for, so it is at most (reserved + leased) x (1 / chance - 1), everything clicked. Where
chances are right it is 0 on average and spreads by price x sqrt(sum of chance x (1 - chance)). It is 0 where `micros`
is the whole price, as is proper while a budget is worth few clicks.

Per decision id there is one answer. It is kept until `kept_ms` with two states, of its money and of its impression:

    reserved --billed_by--> billed                  reserved --sweep--> released --billed_by--> billed (late)
    out --impression, folded--> in the state        out --sweep, no impression--> not out --impression--> out

The event of kind `billed_by` spends, until `billed_until_ms`; the first of every kind counts, whenever it comes. An id
of a conversion is the first decision's that it came for, `elsewhere` for others of the advertiser. What is out counts
against caps until `folded` says that the person's state has it: look up (`known`) before reading that, never after.

A ledger that lost its data, or its tail, is closed: it leases and reserves nothing until it was rebuilt.

>>> decision_id("requests", 3, 41, "1") == decision_id("requests", 3, 41, "1")
True
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import xxhash

from embeddings.errors import LedgerClosed
from embeddings.events import Source
from embeddings.spend_outcomes import Billing as Billing
from embeddings.spend_outcomes import Verdict as Verdict

UNLIMITED = 1 << 61
"""The budget of a window that is only counted."""
ONE = 1_000_000
"""One of a booked number."""
MOST_AMOUNT = 10**12
"""So much at most has one reservation or lease, in micros: sums of a batch stay exact."""
MOST_ROWS = 4_096
"""So many rows at most has one call, but for `SpendLedger.known`."""
KINDS: Mapping[str, str] = {"impression": "impressions", "click": "clicks", "conversion": "conversions"} | {
    kind: kind for kind in ("viewable", "first_quartile", "midpoint", "third_quartile", "complete")
}
"""What may happen to an ad that was decided, and the name under which the first of a decision is counted."""
TOLD = (
    *("targeted", "blocked", "unapproved", "capped", "cap_unknown", "paced", "budget_exhausted"),
    *("bid", "below_floor", "outbid", "won", "served"),
)
"""What a `Tally` may count, and names that begin with `LOST_TO`."""
LOST_TO = "lost_to:"
"""Before the key of a line item: so often that one got what was wanted. Whoever counts takes the few lost to most."""
OWN = (*KINDS.values(), "invalid", "reserved", "refused", "released", "billed", "billed_late", "billed_too_late")
"""What the ledger counts itself; `invalid` are events of what was refused, and of nothing known: those of key ""."""


class Window(NamedTuple):
    """A budget: whose, for which day (`2026-11-27`, of the campaign's clock; empty: for life), of money or a number."""

    key: str
    day: str = ""
    counts: bool = False


class Budget(NamedTuple):
    """What a window may spend, of a number `n * ONE`. The highest `version` stands: a campaign's offset."""

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


@dataclass(slots=True, kw_only=True)
class Reservation:
    """A decision that wants to be paid for. Nobody changes one; that is not enforced, which took as long again.

    Attributes:
        decision_id: of the slot it fills: see `decision_id`.
        key: the line item, of `advertiser`, for whom an id of a conversion counts once; `windows` are of its lease.
        micros: what is reserved, 0 to `MOST_AMOUNT`.
        decision: returned as it is when the same id comes again, and with every event of it.
        expires_ms: when it is released if nothing was billed.
        kept_ms: until when it is known, and its events count: the end of the attribution window.
        person: whose caps `rooms` are; empty where none can be counted. It stays until then too: pass a keyed hash.
        version: that of `known`: if something was folded since, the count in the state is old, and it is refused.
        billed_by: the kind of event that is paid for, of `KINDS`.
        spends: what it costs then, 0 to `MOST_AMOUNT`; None is `micros`. If more, see the bound above.
        billed_until_ms: when it costs nothing any more; None is `kept_ms`.
        counted: windows without a budget: what it spends is counted there, nothing is reserved.
        booked: windows of numbers; an event of kind `booked_by` takes `ONE` of them, as it does money.
        holds: what is reserved of one until then, up to `ONE`: the chance that it happens.
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
    billed_by: str = "impression"
    spends: int | None = None
    billed_until_ms: int | None = None
    counted: tuple[Window, ...] = ()
    booked: tuple[Window, ...] = ()
    booked_by: str = "impression"
    holds: int = ONE
    advertiser: str = ""

    @property
    def price(self) -> int:
        """What is spent when it is billed."""
        return self.micros if self.spends is None else self.spends

    @property
    def last_ms(self) -> int:
        """The last moment at which it can be billed."""
        return self.kept_ms if self.billed_until_ms is None else self.billed_until_ms


class Answer(NamedTuple):
    """What became of a reservation, and the decision that stands under its id; empty where it was refused."""

    verdict: Verdict
    decision: bytes


class Billable(NamedTuple):
    """Something that happened to an ad: which, where it was read, what, of `KINDS`; the id of a conversion."""

    decision_id: str
    source: Source
    offset: int
    kind: str = "impression"
    conversion_id: str = ""


class Confirmed(NamedTuple):
    """What became of an event, and the decision that it is of; empty where that is unknown.

    `exposes`: this is the impression that caps count, the first of its decision, also when that very record comes
    again. Whoever finds it so folds it into the person's state and says `folded`.
    """

    billing: Billing
    decision: bytes
    exposes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What was counted in the records of an input partition above one offset and up to another.

    `counts` are by key (line item, campaign) and name, of `TOLD`. One that `follows`, of a partition that several tell,
    counts where the ledger stands at `above`, did where it stands at `upto`, and else is `AlreadyCounted`.
    """

    source: Source
    above: int
    upto: int
    counts: Mapping[tuple[str, str], int]
    follows: bool = False


class InFlight(NamedTuple):
    """What is out for a person, by level of their caps, and the state of that knowledge."""

    out: Mapping[str, int]
    version: str


class Known(NamedTuple):
    """What is out for people, None while the ledger is closed (`why`), and decisions; empty where there is none."""

    out: list[InFlight] | None
    decisions: list[bytes]
    why: str = ""


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
        windows, counts = {**self.windows, **newer.windows}, {**self.counts, **newer.counts}
        return replace(newer, windows=windows, counts=counts)


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
        do those of anybody that have ended. Whoever reaches no ledger may spend what a lease holds.

        Raises:
            LedgerClosed: nothing is leased; what is held may not be spent any more.
        """

    def known(self, people: Sequence[str], decision_ids: Sequence[str]) -> Known:
        """What is out for people (see `in_flight`), and decisions (see there): one round trip, however many they are.

        Raises:
            LedgerClosed: it has lost everything.
        """

    def in_flight(self, people: Sequence[str]) -> list[InFlight]:
        """What is out for people: reserved, or billed and not in their states yet. Read their states after this.

        Raises:
            LedgerClosed, StoreUnavailable: not known, so nobody with a cap is eligible.
        """
        if (found := self.known(people, ())).out is None:
            raise LedgerClosed(f"the spend ledger is closed: {found.why}")
        return found.out

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

    def confirm(self, billables: Sequence[Billable], tallies: Sequence[Tally] = (), *, now_ms: int) -> list[Confirmed]:
        """Count events, and turn reservations into spending. Call it before states with these impressions are saved.

        Give a tally, maybe of nothing, of every partition read: it says how far the totals are. Without it what is
        `invalid` counts as often as it is redelivered; everything else counts once always.

        Raises:
            AlreadyCounted: as `reserve`.
            LedgerClosed: it is not there, or lacks records before these. It notes how far it has to come before it
                opens, and whoever rebuilds it reads them. Go on without.
        """

    def folded(self, decision_ids: Sequence[str]) -> None:
        """Impressions that were confirmed are in their people's states now, which count them from here on.

        Whether or not they are what is paid for; ids without an impression stay out.

        Raises:
            LedgerClosed: there is nothing to take them from. Go on.
        """

    def decisions(self, decision_ids: Sequence[str]) -> list[bytes]:
        """The decisions that stand under these ids; empty where there is none, or it was refused. Changes nothing.

        Raises:
            LedgerClosed: it has lost them.
        """
        return self.known((), decision_ids).decisions

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

        Then `reserve(decided=True)` what was kept still when they were published, `confirm` every event of these in
        order, as of when it came, also those that the totals hold, and `reopen`.

        Raises:
            ValueError: it is open.
        """

    def reopen(self) -> dict[Source, int]:
        """Open it, unless records are missing: up to which offset, by partition, they have to be confirmed first."""

    def close(self) -> None:
        """Give back connections; the next call connects again."""


def decision_id(topic: str, partition: int, offset: int, imp_id: str) -> str:
    """The id of what is decided for a slot of a request: an `imp.id` is unique only inside one."""
    return xxhash.xxh128_hexdigest(f"{topic}\0{partition}\0{offset}\0{imp_id}".encode())


def slate_decision_id(slate_id: str, slot: int) -> str:
    """The id of what is decided for a slot of a slate nobody gave `imp` ids for."""
    return xxhash.xxh128_hexdigest(f"{slate_id}\0{slot}".encode())
