"""What a house without Kafka has published, of which a ledger that lost something is rebuilt."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embeddings.events import Source
from streams.contract.ad_records import AdDecision, AdStats
from streams.contract.messages import RawRecord
from streams.worker.ad_figures import POSITION, Figures
from streams.worker.ad_log import AdLog, Records


@dataclass(slots=True)
class AdTopics(AdLog):
    """`ads`, `events` and `ad-stats`, as far as a rebuild reads them."""

    decided: list[tuple[AdDecision, bytes]] = field(default_factory=list)
    happened: dict[Source, list[RawRecord]] = field(default_factory=dict)
    stats: dict[str, AdStats] = field(default_factory=dict)

    def publish(self, source: Source, records: Sequence[Any]) -> None:
        """Events, with the offsets they have."""
        self.happened.setdefault(source, []).extend(records)

    def stand(self, changed: Figures) -> None:
        """Figures that changed; the position comes last."""
        position = changed.records[POSITION]
        self.stats = {**self.stats, **changed.records}
        self.stats.pop(POSITION)
        self.stats[POSITION] = position

    async def figures(self) -> Figures:
        """See `AdLog.figures`."""
        return Figures.of(self.stats.values())

    async def decisions(self, since_ms: int) -> AsyncIterator[list[tuple[AdDecision, bytes]]]:
        """See `AdLog.decisions`."""
        yield [one for one in self.decided if one[0].decided_ms >= since_ms]

    async def events_since(self, since_ms: int) -> AsyncIterator[Records]:
        """See `AdLog.events_since`."""
        for source, records in self.happened.items():
            yield source, [record for record in records if record.timestamp >= since_ms]

    async def events_after(self, offsets: Mapping[Source, int]) -> AsyncIterator[Records]:
        """See `AdLog.events_after`."""
        for source, offset in offsets.items():
            yield source, [record for record in self.happened.get(source, ()) if record.offset > offset]
