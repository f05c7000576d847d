"""Partitions of a worker that are paused for a bad deploy: what is said of them, and when they go on.

Whether a partition is paused stands in its mark and nowhere else, so that it is paused for whoever claims it next, and
`marquee dlq release` is one write to that mark. The worker looks at the marks of its paused partitions once a second.
"""

import asyncio
import logging
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from embeddings.errors import StoreUnavailable
from embeddings.events import Source
from embeddings.store import PartitionMark, UserStore
from streams.process.metrics import Metrics

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Paused(Mapping[Source, PartitionMark]):
    """The paused partitions of this worker with their marks; read from any thread.

    Attributes:
        reads: where the marks are; another store than the one that claims.
        metrics: shows each of them.
        gone_on: called when some may be delivered again.
        owned: the partitions of this worker now.
        at: where the last pause of a partition began: the offset it goes on from.
    """

    reads: UserStore
    metrics: Metrics
    gone_on: Callable[[], object] = lambda: None
    owned: Callable[[], Container[Source]] | None = None
    every_s: float = 1.0
    at: dict[Source, int] = field(init=False, default_factory=dict)
    _marks: dict[Source, PartitionMark] = field(init=False, default_factory=dict)
    _shown: dict[Source, PartitionMark] = field(init=False, default_factory=dict)

    def __getitem__(self, source: Source) -> PartitionMark:
        return self._marks[source]

    def __iter__(self) -> Iterator[Source]:
        return iter(list(self._marks))

    def __len__(self) -> int:
        return len(self._marks)

    def claimed(self, marks: Mapping[Source, PartitionMark]) -> None:
        """These partitions are this worker's now, and no others."""
        self._marks = {
            source: mark for source, mark in self._marks.items() if source in marks and marks[source] == mark
        }
        self.told(marks)

    def told(self, marks: Mapping[Source, PartitionMark]) -> None:
        """Take down which partitions a claim found paused, or a batch made so."""
        for source, mark in marks.items():
            if mark.run.paused and source not in self._marks:
                self.at[source] = mark.offset + 1
                self._marks[source] = mark
                log.error("%s", sentence(source, mark))

    def said(self) -> str | None:
        """What an operator must know, or None."""
        mine = self._mine()
        return "; ".join(sentence(source, mine[source]) for source in sorted(mine)) or None

    async def run(self) -> None:
        """Show what is paused and let go on what was released, for as long as the worker lives."""
        while True:
            if self._marks:
                with suppress(StoreUnavailable):  # they stay paused until it answers
                    self._look(await asyncio.to_thread(self.reads.marks, list(self)))
            self._show(self._mine())
            await asyncio.sleep(self.every_s)

    def _look(self, found: Mapping[Source, PartitionMark]) -> None:
        released = [source for source, mark in found.items() if not mark.run.paused]
        for source in released:
            if self._marks.pop(source, None) is not None:
                log.warning("%s/%d goes on at offset %d: it is not paused any more", *source, found[source].offset + 1)
        if released:
            self.gone_on()

    def _mine(self) -> dict[Source, PartitionMark]:
        """What is paused of this worker's: a lost partition is forgotten at the next claim only."""
        owned = self.owned() if self.owned is not None else self._marks
        return {source: mark for source, mark in list(self._marks.items()) if source in owned}

    def _show(self, now: dict[Source, PartitionMark]) -> None:
        for source, mark in self._shown.items() - now.items():
            self.metrics.goes_on(source, mark.run.code)
        for source, mark in now.items():
            self.metrics.paused(source, mark.run.code, mark.run.share)
        self._shown = now


def sentence(source: Source, mark: PartitionMark) -> str:
    """What is paused and why, and the command that lets it go on."""
    run = mark.run
    return (
        f"{source.topic}/{source.partition} is paused at offset {mark.offset + 1}: {run.dead} of the last "
        f"{run.records} records ({run.share:.0%}) became dead letters, most of them {run.code}; nothing is lost. Mend "
        "the producer, look at `marquee dlq list`, then "
        f"`marquee dlq release --topic events --partition {source.partition}`"
    )
