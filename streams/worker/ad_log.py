"""What a lost spend ledger is rebuilt from, on the topics: the last figures, decisions, and what happened to ads."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from embeddings.events import Source
from streams.contract.ad_records import AdDecision
from streams.contract.messages import RawRecord
from streams.contract.records import decode_ad, decode_ad_stats
from streams.settings import Settings
from streams.transport.tail import reader, to_end
from streams.worker.ad_figures import Figures

Records = tuple[Source, Sequence[RawRecord]]


class AdLog(Protocol):
    """What is on the topics, each up to its end as it is when it is asked for.

    Raises, from every call:
        KafkaError: the brokers do not answer. Nothing can be rebuilt yet.
    """

    async def figures(self) -> Figures:
        """What was published last."""

    def decisions(self, since_ms: int) -> AsyncIterator[list[tuple[AdDecision, bytes]]]:
        """Decisions published since a moment, with their records."""

    def events_since(self, since_ms: int) -> AsyncIterator[Records]:
        """Events published since a moment, of one partition each time, in order."""

    def events_after(self, offsets: Mapping[Source, int]) -> AsyncIterator[Records]:
        """Events behind these offsets."""


@dataclass(frozen=True, slots=True)
class KafkaAdLog(AdLog):
    """`AdLog` on Kafka, with a consumer of its own each time, in no group."""

    settings: Settings

    async def figures(self) -> Figures:
        """See `AdLog.figures`."""
        records = []
        async with self._reader("ad_stats") as consumer:
            async for fetched in to_end(consumer):
                records += [decode_ad_stats(r.value) for some in fetched.values() for r in some if r.value is not None]
        return Figures.of(records)

    async def decisions(self, since_ms: int) -> AsyncIterator[list[tuple[AdDecision, bytes]]]:
        """See `AdLog.decisions`."""
        async with self._reader("ads") as consumer:
            await _seek(consumer, since_ms)
            async for fetched in to_end(consumer):
                values = [record.value for some in fetched.values() for record in some]
                yield [(decode_ad(value), value) for value in values if value is not None]

    async def events_since(self, since_ms: int) -> AsyncIterator[Records]:
        """See `AdLog.events_since`."""
        async with self._reader("events") as consumer:
            await _seek(consumer, since_ms)
            async for part in _parts(consumer):
                yield part

    async def events_after(self, offsets: Mapping[Source, int]) -> AsyncIterator[Records]:
        """See `AdLog.events_after`."""
        async with self._reader("events") as consumer:
            places = [TopicPartition(*source) for source in offsets]
            consumer.assign(places)
            begins = await consumer.beginning_offsets(places)
            for place, offset in zip(places, offsets.values(), strict=True):
                consumer.seek(place, max(begins[place], offset + 1))
            async for part in _parts(consumer):
                yield part

    def _reader(self, name: Any) -> Any:
        return reader(self.settings.kafka.client_options(), self.settings.topics.name(name))


async def _parts(consumer: AIOKafkaConsumer) -> AsyncIterator[Records]:
    async for fetched in to_end(consumer):
        for place, records in fetched.items():
            yield Source(place.topic, place.partition), records


async def _seek(consumer: AIOKafkaConsumer, since_ms: int) -> None:
    """Go to what was published since a moment, where the broker can tell; else to the beginning."""
    places = list(consumer.assignment())
    if since_ms <= 0 or not places:
        return
    found = await consumer.offsets_for_times(dict.fromkeys(places, since_ms))
    ends = await consumer.end_offsets(places)
    for place in places:
        at = found.get(place)
        consumer.seek(place, at.offset if at is not None else ends[place])
