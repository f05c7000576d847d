"""What was delivered in batches, what of it was acknowledged, and up to where that may be committed. No I/O, no Faust.

A `Unit` is one delivery: records of one topic from any of its partitions. The ledger keeps, per partition, the units
in delivery order; only an acknowledged prefix of them is ever committed. Offsets are copied, never computed: holes
left by compaction, transaction markers or retention need no care.

>>> ledger, here = Ledger(), Source("events", 0)
>>> first, second = (ledger.unit([Part(here, [None] * 10, last, -1)]) for last in (9, 25))
>>> ledger.deliver(first, generation=1), ledger.deliver(second, generation=1)
(True, True)
>>> ledger.ack(second), ledger.take(here, generation=1)     # a hole before it: nothing to commit
(True, None)
>>> ledger.ack(first), ledger.take(here, generation=1)
(True, 26)
"""

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic

from embeddings.events import Source
from streams.contract.messages import Part

_MOMENT_S = 10.0
"""Longer than the pause between two attempts, and than two looks whether brokers answer."""


@dataclass(slots=True, eq=False)
class Unit:
    """One batch: the records of one topic that arrived while the batch before was processed, at most `max_batch`.

    The agent reads `parts`; the rest is book-keeping. A unit that waits for something outside (Redis is away) says so
    with `retrying` whenever it saw that, at least once per `stuck_after_s`, or it is taken for stuck.
    """

    parts: list[Part]
    size: int
    topic: str = ""
    acked: bool = False
    generation: int = -1
    delivered_s: float = 0.0
    """Monotonic time of delivery."""
    declared_s: float = 0.0
    """Monotonic time of the last `retrying`."""
    waits_for: str = ""
    """What was away then."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, in the loop that delivers, when the next unit of the lane may be worked on."""
    tell_over: Callable[[], object] = lambda: None
    more: "Callable[[Unit], object]" = lambda unit: None

    def __len__(self) -> int:
        return self.size

    def top_up(self) -> None:
        """Add what was fetched since the delivery, up to `max_batch`; from any thread, before `parts` are read."""
        self.more(self)

    def answered(self) -> None:
        """Say that the next unit may be delivered and worked on, though this one's effects are not durable yet.

        From any thread. Without it the next one comes when this one is acknowledged.
        """
        self.tell_over()

    def retrying(self, reason: str, *, now_s: float | None = None) -> None:
        """Declare that the unit is not stuck: what `reason` names (for the log, no ids) was just seen to be away."""
        self.declared_s, self.waits_for = monotonic() if now_s is None else now_s, reason

    def is_waiting(self, now_s: float) -> bool:
        """Whether what it needs was away a moment ago, so that nobody need wait for it."""
        return now_s - self.declared_s < _MOMENT_S


class Ledger:
    """Per partition: (unit, next offset) in delivery order.

    A partition that is sent back to an earlier offset is forgotten: what was delivered before may still be
    acknowledged, to no effect, and what was fetched before and not delivered yet is dropped at delivery.
    """

    def __init__(self) -> None:
        self._delivered: dict[Source, deque[tuple[Unit, int]]] = {}
        self._epochs: Counter[Source] = Counter()
        self._lock = threading.Lock()

    def unit(self, parts: Iterable[Part]) -> Unit:
        """A unit of parts that were fetched now."""
        kept = list(parts)
        for part in kept:
            part.epoch = self._epochs[part.source]
        return Unit(kept, sum(len(p.records) for p in kept), kept[0].source.topic)

    def deliver(self, unit: Unit, *, generation: int) -> bool:
        """Enter a unit, just before the agent gets it; False where nothing of it is still to be processed."""
        with self._lock:
            self._refresh(unit)
            unit.generation = generation
            for part in unit.parts:
                self._delivered.setdefault(part.source, deque()).append((unit, part.last + 1))
            return bool(unit.parts)

    def refresh(self, unit: Unit) -> bool:
        """Take out of a unit what was sent back since it was fetched; False where nothing of it is left."""
        with self._lock:
            self._refresh(unit)
            return bool(unit.parts)

    def _refresh(self, unit: Unit) -> None:
        unit.parts = [p for p in unit.parts if p.epoch == self._epochs[p.source]]
        unit.size = sum(len(p.records) for p in unit.parts)

    def epochs(self, sources: Iterable[Source]) -> dict[Source, int]:
        """Which life of each partition this is; `extend` wants to know what it was before its records were taken."""
        return {source: self._epochs[source] for source in sources}

    def extend(self, unit: Unit, parts: Iterable[Part]) -> None:
        """Add records to the unit that was delivered last; what was sent back since they were taken is left out."""
        with self._lock:
            self._refresh(unit)
            mine = {part.source: part for part in unit.parts}
            for part in (part for part in parts if part.epoch == self._epochs[part.source]):
                delivered = self._delivered.setdefault(part.source, deque())
                if (held := mine.get(part.source)) is None:
                    unit.parts.append(part)
                else:
                    held.records, held.last = [*held.records, *part.records], part.last
                    delivered.pop()
                delivered.append((unit, part.last + 1))
            unit.size = sum(len(p.records) for p in unit.parts)

    def ack(self, unit: Unit) -> bool:
        """Mark a unit as processed; False if it was already."""
        was, unit.acked = unit.acked, True
        return not was

    def committable(self) -> Iterator[Source]:
        """Partitions whose oldest unit is acknowledged."""
        return (source for source, units in list(self._delivered.items()) if units and units[0][0].acked)

    def first_ms(self, source: Source) -> int:
        """When the first record was written that is delivered and not acknowledged; 0 where there is none."""
        with self._lock:
            for unit, _ in self._delivered.get(source, ()):
                for part in unit.parts if not unit.acked else ():
                    if part.source == source and len(part.records):
                        return int(part.records[0].timestamp)
            return 0

    def is_settled(self, source: Source) -> bool:
        """Whether all that was delivered of a partition is acknowledged."""
        with self._lock:
            return all(unit.acked for unit, _ in self._delivered.get(source, ()))

    def take(self, source: Source, *, generation: int) -> int | None:
        """Remove the acknowledged prefix; the offset to commit, None when nothing of this generation was in it."""
        with self._lock:
            units, offset = self._delivered.get(source) or deque(), None
            while units and units[0][0].acked:
                unit, after = units.popleft()
                if unit.generation == generation:
                    offset = after
            return offset

    def forget(self, source: Source) -> None:
        """The partition's position changes: nothing delivered or fetched so far is committed or delivered."""
        with self._lock:
            self._delivered.pop(source, None)
            self._epochs[source] += 1
