"""A topic up to its end as it is now, without keeping anybody's place in it, and without making one that is not there.

Leans on private names of aiokafka 0.14.0: what the last answered fetch of a partition said of its end.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from embeddings.events import Source

_POLL_MS = 1_000
_EMPTY_ANSWERS = 3

Fetched = Mapping[TopicPartition, Sequence[ConsumerRecord]]


@dataclass(slots=True)
class Reading:
    """How far a partition was read; `end` is where it ended when it was answered first.

    A transaction that is open ends it too. An end can be out of reach: compaction may have left nothing below it, and
    then the broker has nothing to answer, again and again, while nothing comes from another partition either.
    """

    position: int = 0
    end: int | None = None
    answered_ms: int = 0
    empty: int = 0
    read: bool = False
    unread: int = 0
    """Records between `position` and the end of the last answer."""

    def follow(self, state: Any, *, quiet: bool) -> None:
        """Take over how far aiokafka is; `quiet` if it brought nothing of any partition just now."""
        self.empty = self.empty if quiet and state.position == self.position else 0
        self.position = state.position
        if state.timestamp is not None and state.timestamp != self.answered_ms:
            self.answered_ms = state.timestamp
            self.empty += quiet
            self.unread = max(end_of(state) - self.position, 0)
            if self.end is None:
                self.end = end_of(state)
        self.read |= self.end is not None and (self.position >= self.end or self.empty >= _EMPTY_ANSWERS)


def end_of(state: Any) -> int:
    """Where an answered partition ends for a reader of what is committed."""
    end: int = state.highwater if state.lso is None or state.lso < 0 else state.lso
    return end


def state_of(consumer: AIOKafkaConsumer, place: TopicPartition) -> Any:
    """What aiokafka knows of a partition, None before its leader said where it begins."""
    assignment = consumer._subscription.subscription.assignment
    state = assignment.state_value(place) if assignment is not None else None
    return state if state is not None and state.has_valid_position else None


@asynccontextmanager
async def reader(
    options: Mapping[str, Any], topic: str, *, last: int | None = None, partitions: Collection[int] | None = None
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of a topic, or of some partitions, at its beginning or that many offsets before its end.

    It is assigned nothing where there is no such topic.

    Raises:
        KafkaError: nobody answers.
    """
    consumer = AIOKafkaConsumer(
        **options,
        group_id=None,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=50,
    )
    try:
        await consumer.start()
        if topic in await consumer.topics():  # asking for it by name may create it
            await consumer._client.add_topic(topic)
            there = sorted(consumer.partitions_for_topic(topic) or ())
            places = [TopicPartition(topic, n) for n in there if partitions is None or n in partitions]
            consumer.assign(places)
            begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
            for place in places:
                consumer.seek(place, begins[place] if last is None else max(begins[place], ends[place] - last))
        yield consumer
    finally:
        await consumer.stop()


async def to_end(consumer: AIOKafkaConsumer) -> AsyncIterator[Fetched]:
    """What a consumer with positions has not read, up to where its partitions end now; nothing in a second: {}.

    The embedded broker tells the offset after the *first* record of the last batch for an end; batches come whole.

    Raises:
        KafkaError: nobody tells where they end.
    """
    places = list(consumer.assignment())
    ends = await consumer.end_offsets(places) if places else {}
    readings = {place: Reading(end=ends[place]) for place in places}
    while True:
        left = [place for place, reading in readings.items() if await consumer.position(place) < ends[place]]
        left = [place for place in left if not readings[place].read]
        if not left:
            return
        fetched = await consumer.getmany(*left, timeout_ms=_POLL_MS)
        yield fetched
        for place in left:
            if (state := state_of(consumer, place)) is not None:
                readings[place].follow(state, quiet=not fetched)


async def last_records(
    options: Mapping[str, Any],
    topic: str,
    most: int = 100,
    *,
    partitions: Collection[int] | None = None,
    silent_s: int = 5,
) -> list[tuple[Source, list[ConsumerRecord]]]:
    """Up to `most` records of each partition of a topic, those written last, in their order; none where there are none.

    Raises:
        KafkaError: the brokers do not answer, or not for `silent_s`.
    """
    found: dict[int, list[ConsumerRecord]] = {}
    silent = 0
    async with reader(options, topic, last=most, partitions=partitions) as consumer:
        async for fetched in to_end(consumer):
            silent = 0 if fetched else silent + 1
            if silent > silent_s:
                raise KafkaTimeoutError(f"{topic} is not answered for")
            for place, records in fetched.items():
                found[place.partition] = [*found.get(place.partition, ()), *records][-most:]
    return [(Source(topic, partition), records) for partition, records in sorted(found.items())]
