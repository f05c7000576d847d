"""How one topic is batched, and the gate that its units go through. No I/O, no Faust."""

from dataclasses import dataclass, field
from time import monotonic

from streams.transport.ledger import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """How one topic is batched. Every topic with a lane has its own gate, so a blocked one holds no other back."""

    max_batch: int = 512
    """Most records of a unit."""
    depth: int = 1
    """Nothing more is delivered while this many units are un-acknowledged and not `answered`."""
    behind: int = 0
    """So many more units may be un-acknowledged that were `answered`."""
    stuck_after_s: float = 120.0
    """A lane whose oldest unit is un-acknowledged for this long, undeclared, ends the process."""
    give_up_after_s: float = 1_800.0
    """So does one that is un-acknowledged for this long, whatever it declared."""

    def __post_init__(self) -> None:
        if min(self.max_batch, self.depth, self.behind + 1) < 1:
            raise ValueError("max_batch and depth are at least 1, behind is at least 0")


@dataclass(slots=True)
class Gate:
    """The un-acknowledged units of a lane."""

    lane: Lane
    out: set[Unit] = field(default_factory=set)
    closed: int = 0
    """So many times the lane is being sent back right now."""
    moved_s: float = field(default_factory=monotonic)
    """Monotonic time of the last delivery or acknowledgement."""

    @property
    def is_open(self) -> bool:
        """Whether another unit may be delivered."""
        working = sum(not unit.over.is_set() for unit in self.out)
        return not self.closed and working < self.lane.depth and len(self.out) < self.lane.depth + self.lane.behind

    def let_out(self, unit: Unit) -> None:
        """A unit is delivered."""
        self.out.add(unit)
        self.moved_s = unit.delivered_s = monotonic()

    def let_back(self, unit: Unit) -> bool:
        """A unit is acknowledged; whether that opened the gate."""
        was_open = self.is_open
        self.out.discard(unit)
        unit.over.set()
        self.moved_s = monotonic()
        return not was_open

    def clear(self) -> None:
        """What is out is void: its lane was sent back."""
        self.out.clear()
        self.moved_s = monotonic()

    def stuck_s(self, now_s: float) -> float:
        """How long nothing moved or was declared although a unit is out; 0 when none is."""
        units = list(self.out)  # the watchdog asks from its own thread
        since_s = max((max(u.delivered_s, u.declared_s) for u in units), default=now_s)
        return max(0.0, now_s - max(self.moved_s, since_s)) if units else 0.0

    def oldest_s(self, now_s: float) -> float:
        """How long the oldest unit has been out; 0 when none is."""
        return max((now_s - unit.delivered_s for unit in list(self.out)), default=0.0)
