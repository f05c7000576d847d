"""Where assigned partitions go on: asked of the brokers and of `positions`, and always inside of what is there."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from aiokafka.errors import KafkaError

from embeddings.events import Source
from streams.transport.deliveries import Deliveries
from streams.transport.fetching import Batching, BatchThread
from streams.transport.logs import ForeignLog, Stretch, read_ends

log = logging.getLogger(__name__)

_LOOKS, _LOOK_AGAIN_S, _ASK_AGAIN_S = 4, 1.0, 0.5
"""A broker that became a leader just now may say too low an end, so what does not fit is looked at again, by what is
there."""


@dataclass(slots=True, kw_only=True)
class Places:
    """Chooses the offsets of a consumer's partitions, and knows what was committed with them.

    `committed` tells the group's offset of a partition; `waiting` is called while brokers do not answer.
    """

    batching: Batching
    thread: BatchThread
    deliveries: Deliveries
    committed: Callable[[Source], int]
    waiting: Callable[[str], object]
    _notes: dict[Source, str] = field(default_factory=dict)

    async def choose(self, sources: Collection[Source]) -> dict[Source, int]:
        """Where partitions go on: where `positions` says, else at the committed offset, but at a record that is there.

        Raises:
            ForeignLog: what `positions` remembers is of another log, at every look.
        """
        choose = self.batching.positions
        for looks in range(1, _LOOKS + 1):
            stretches = await self._look(sources, closely=looks > 1)
            wanted = {source: stretch.committed for source, stretch in stretches.items()}
            try:
                wanted |= await choose(stretches, self.waiting) if choose is not None else {}
            except ForeignLog:
                if looks == _LOOKS:
                    raise
            else:
                if looks == _LOOKS or all(wanted[source] <= stretches[source].end for source in sources):
                    break
            await asyncio.sleep(_LOOK_AGAIN_S if looks > 1 else 0)
        self.deliveries.begin({source: stretch.first for source, stretch in stretches.items()})
        return placed(wanted, stretches)

    async def _look(self, sources: Collection[Source], *, closely: bool) -> dict[Source, Stretch]:
        while True:
            try:
                found = await self.thread.look(sources)
                if closely:
                    found = await read_ends(self.batching.client_options, found)
                self._notes.update((source, stretch.note) for source, stretch in found.items())
                return {source: replace(stretch, committed=self.committed(source)) for source, stretch in found.items()}
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("partitions cannot be looked at yet: %s", str(error) or type(error).__name__)
                self.waiting("brokers do not answer")
                await asyncio.sleep(_ASK_AGAIN_S)

    def notes_more(self, source: Source) -> bool:
        """Whether the note of a partition differs from the one that was committed last; it is from now on."""
        was, note = self._notes.get(source, ""), self.batching.note(source)
        self._notes[source] = note
        return was != note


def placed(wanted: Mapping[Source, int], stretches: Mapping[Source, Stretch]) -> dict[Source, int]:
    """Where to start from, inside of what is there.

    >>> here = Source("events", 0)
    >>> [placed({here: at}, {here: Stretch(first=10, end=20)})[here] for at in (-1, 9, 10, 20, 21)]
    [10, 10, 10, 20, 10]
    """
    return {
        source: offset if stretches[source].first <= offset <= stretches[source].end else stretches[source].first
        for source, offset in wanted.items()
    }
