"""What a spend ledger in memory is kept in: windows, leases, decisions, people, counts."""

from collections import Counter
from dataclasses import dataclass, field
from threading import RLock

from embeddings.events import Source
from embeddings.spend import InFlight, Reservation, Verdict, Window


@dataclass(slots=True)
class Account:
    """A window; it has a budget once it has a version."""

    budget: int = 0
    version: int = -1
    spent: int = 0
    reserved: int = 0
    leased: int = 0
    number: int = 0

    @property
    def left(self) -> int:
        """What can be leased."""
        return self.budget - self.spent - self.reserved - self.leased


@dataclass(slots=True)
class Held:
    """A lease."""

    micros: int = 0
    until_ms: int = 0
    windows: tuple[Window, ...] = ()


@dataclass(slots=True)
class Decision:
    """A reservation and what has become of it.

    `state` is of its money: reserved, released, billed, known (spent in totals) or refused. `number` is of what was
    booked, and none if that is nothing. `out` is of its impression:
    counted as out for the person, in their state (`folded`), or neither. `seen` are kinds of events that were counted,
    `impression` is where the first of these was read.
    """

    made: Reservation
    state: str
    verdict: Verdict = Verdict.reserved
    number: str = "none"
    out: str = "out"
    seen: set[str] = field(default_factory=set)
    impression: tuple[Source, int] | None = None

    @property
    def waits(self) -> bool:
        """Is there something for a sweep: money, or an impression that does not come?"""
        return "reserved" in (self.state, self.number) or (self.out == "out" and "impression" not in self.seen)


@dataclass
class Book:
    """What ledgers share, as those of several workers share a Redis."""

    why: str | None = "lost"
    epoch: str = ""
    number: int = 0
    accounts: dict[Window, Account] = field(default_factory=dict)
    leases: dict[tuple[str, str], Held] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)
    due: list[tuple[int, str]] = field(default_factory=list)
    ends: list[tuple[int, str]] = field(default_factory=list)
    out: dict[str, Counter[str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    count_numbers: dict[str, int] = field(default_factory=dict)
    offsets: dict[Source, int] = field(default_factory=dict)
    conversions: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    """By advertiser and id: whose they are, and until when that is known."""
    calls: Counter[str] = field(default_factory=Counter)
    need: dict[Source, int] = field(default_factory=dict)
    lock: RLock = field(default_factory=RLock)

    def account(self, window: Window) -> Account:
        """A window, about to change."""
        account = self.accounts.setdefault(window, Account())
        account.number = self.number
        return account

    def left(self, window: Window) -> int:
        """What can be leased of a window."""
        return self.accounts[window].left if window in self.accounts else 0

    def count(self, key: str, name: str, many: int = 1) -> None:
        """Count something of a key."""
        self.counts.setdefault(key, Counter())[name] += many
        self.count_numbers[key] = self.number

    def in_flight(self, person: str) -> InFlight:
        """What is out for a person."""
        out = {level: many for level, many in self.out.get(person, {}).items() if many}
        return InFlight(out, self.versions.get(person, ""))

    def put_out(self, made: Reservation, step: int) -> None:
        """One more, or less, is out for a person."""
        if made.person:
            levels = self.out.setdefault(made.person, Counter())
            for room in made.rooms:
                levels[room.level] = max(0, levels[room.level] + step)
