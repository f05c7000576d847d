"""What goes out of the topics that have lanes, and comes back: units, from the records fetched to the ledger's entry.

No I/O, no Faust.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import time

from embeddings.events import Source
from streams.contract.fields import FIRST_MS, LAST_KEPT_MS
from streams.contract.messages import Part
from streams.transport.ahead import Ahead
from streams.transport.gates import Gate, Lane
from streams.transport.ledger import Ledger, Unit


@dataclass(frozen=True, slots=True)
class Lag:
    """How far behind its end a partition is committed, in records; and how old the first of these is.

    `seconds` is 0 where nothing is behind. Where nothing was fetched of it yet, it is the last delivered record's age.
    """

    records: int
    seconds: float


class Deliveries:
    """Units of what was fetched, through the gate of their lane.

    Attributes:
        ledger: what was delivered and acknowledged.
        gates: the gate of each topic that has a lane.
    """

    def __init__(self, lanes: Mapping[str, Lane], ahead: Ahead, committed: Callable[[Source], int]) -> None:
        """Units are cut of `ahead`; `committed` tells the group's offset of a partition, -1 where there is none."""
        self.ledger = Ledger()
        self.gates = {topic: Gate(lane) for topic, lane in lanes.items()}
        self._ahead, self._committed = ahead, committed
        self._written_ms: dict[Source, int] = {}
        self._first: dict[Source, int] = {}

    def is_open(self, topic: str) -> bool:
        """Whether another unit of a topic may be delivered."""
        return self.gates[topic].is_open

    def cut(self, topic: str, sources: Collection[Source]) -> Unit | None:
        """A unit of what was fetched of some partitions of a lane; None where nothing was, or its gate is shut."""
        gate = self.gates[topic]
        parts = self._parts(sources, gate.lane.max_batch) if gate.is_open else []
        return self.ledger.unit(parts) if parts else None

    def _parts(self, sources: Collection[Source], most: int) -> list[Part]:
        taken = self._ahead.take(sources, most)
        return [Part(source, some, some[-1].offset, self._committed(source)) for source, some in taken.items()]

    def deliver(self, unit: Unit, *, generation: int) -> None:
        """Enter a unit, just before the agent gets it."""
        self.ledger.deliver(unit, generation=generation)
        self.gates[unit.topic].let_out(unit)
        self._note(unit.parts)

    def top_up(self, unit: Unit, sources: Collection[Source], flows: Callable[[], bool]) -> bool:
        """Add to a unit what was fetched of its lane's partitions since its delivery; whether that filled it.

        From any thread. What is taken and not added was sent back: it comes again. Of a deeper lane the next unit may
        be out already.
        """
        gate = self.gates[unit.topic]
        epochs = self.ledger.epochs(sources)  # first: a gate is closed before they change
        room = gate.lane.max_batch - unit.size
        if room <= 0 or gate.lane.depth > 1 or gate.closed or not flows():
            return False
        parts = self._parts(sources, room)
        for part in parts:
            part.epoch = epochs[part.source]
        self.ledger.extend(unit, parts)
        self._note(parts)
        return bool(parts) and unit.size >= gate.lane.max_batch

    def _note(self, parts: Iterable[Part]) -> None:
        """Take down when the last records were written, as far as their timestamps can be that."""
        last = ((part.source, part.records[-1].timestamp) for part in parts)
        self._written_ms.update((source, at) for source, at in last if FIRST_MS <= at <= LAST_KEPT_MS)

    def let_back(self, unit: Unit) -> bool:
        """A unit is over; whether that opened its gate."""
        return self.gates[unit.topic].let_back(unit)

    @contextmanager
    def void(self, sources: Collection[Source]) -> Iterator[None]:
        """Inside the block nothing is delivered of the lanes of these partitions; what was so far is void."""
        gates = [self.gates[topic] for topic in {source.topic for source in sources}]
        for gate in gates:
            gate.closed += 1
        try:
            self.forget(sources)
            yield
        finally:
            for gate in gates:
                gate.clear()
                gate.closed -= 1

    def forget(self, sources: Iterable[Source]) -> None:
        """The positions of partitions change; see `Ledger.forget`."""
        for source in sources:
            self.ledger.forget(source)

    def begin(self, first: Mapping[Source, int]) -> None:
        """Take down where partitions begin: nothing before is behind."""
        self._first.update(first)

    def lag(self, source: Source, end: int, read: int = -1) -> Lag:
        """How far a partition is behind its end; `read` is the offset up to where all was taken over, -1 for not known.

        Markers of transactions are no backlog, what waits behind an open one is.
        """
        done = max(self._committed(source), read if self.ledger.is_settled(source) else -1, self._first.get(source, 0))
        behind, written_ms = max(end - done, 0), self._first_unread_ms(source)
        return Lag(behind, max(time() - written_ms / 1000, 0.0) if behind and written_ms else 0.0)

    def _first_unread_ms(self, source: Source) -> int:
        """When the first record was written that is not acknowledged, else the last delivered one; 0 for not known."""
        for written_ms in (self.ledger.first_ms(source), self._ahead.first_ms(source)):
            if FIRST_MS <= written_ms <= LAST_KEPT_MS:
                return written_ms
        return self._written_ms.get(source, 0)
