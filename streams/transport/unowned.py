"""The lag of partitions that nobody delivers: those of no live member of their group, and those that are paused.

A partition's owner knows its lag from its fetches. Of what nobody has, one process asks: the owner of the first
partition. Every few seconds it asks the coordinator who has what, and of the rest the committed offsets and the ends;
how old the first unread record is says that record itself, one fetch each, of so many partitions at a look at most.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import for_code

from deploy.kafka_admin import admin_client
from embeddings.events import Source
from streams.contract.fields import FIRST_MS, LAST_KEPT_MS
from streams.transport.deliveries import Lag
from streams.transport.logs import logs_of

log = logging.getLogger(__name__)
T = TypeVar("T")

_MOST_DATED = 64
"""Partitions of which a look fetches the first unread record."""
_FETCH_MS, _LOOK_S = 500, 20.0
_SETTLED = "Stable", "Empty", "Dead"


@dataclass(slots=True, kw_only=True)
class Unowned:
    """Looks after partitions that nobody delivers.

    Attributes:
        options: of every client.
        groups: the topics that each group reads.
        leads: whether it is this process that tells of what nobody has.
        paused: partitions of this process of which nothing is delivered, and the offsets they go on from.
        every_s: pause between looks.
        lags: of partitions that nobody has, as of the last look.
    """

    options: Mapping[str, Any]
    groups: Mapping[str, Collection[str]]
    leads: Callable[[], bool] = lambda: False
    paused: Callable[[], Mapping[Source, int]] = dict
    every_s: float = 10.0
    lags: dict[Source, Lag] = field(init=False, default_factory=dict)
    _written_ms: dict[Source, int] = field(init=False, default_factory=dict)
    _known: bool = field(init=False, default=False)
    _said: str = field(init=False, default="")

    def many(self, names: Mapping[str, T]) -> dict[T, int] | None:
        """How many partitions of each topic are nobody's, by the topics' short names; None where others tell."""
        return dict(Counter(names[source.topic] for source in self.lags)) if self._known else None

    def dated(self, source: Source, lag: Lag) -> Lag:
        """The lag of a partition of this process; where it is paused, by its first unread record."""
        written_ms = self._written_ms.get(source)
        return lag if written_ms is None or not lag.records else Lag(lag.records, _age_s(written_ms))

    async def run(self) -> None:
        """Look for as long as the process lives; what is not answered is asked again."""
        while True:
            await asyncio.sleep(self.every_s)
            leads, paused = self.leads(), self.paused()
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self.look(leads=leads, paused=paused)
                self._said = ""
            except Exception as error:  # whatever a broker answers, nothing ends for want of a figure
                self._forget()
                if (said := f"{type(error).__name__}: {error}") != self._said:
                    log.warning("the lag of partitions that nobody delivers is not known: %s", said)
                self._said = said

    def _forget(self) -> None:
        self.lags, self._written_ms, self._known = {}, {}, False

    async def look(self, *, leads: bool, paused: Mapping[Source, int]) -> None:
        """Ask once.

        Raises:
            KafkaError, OSError, TimeoutError, NotImplementedError: brokers do not answer, or not this.
        """
        if not leads and not paused:
            self._forget()
            return
        consumer = AIOKafkaConsumer(**self.options, group_id=None, auto_offset_reset="earliest", fetch_max_wait_ms=50)
        try:
            await consumer.start()
            unread = await self._unread(consumer) if leads else {}
            if unread is None:
                return
            waiting = {source: first for source, (first, records) in unread.items() if records}
            written_ms = await _written(consumer, {**waiting, **paused})
        finally:
            await consumer.stop()
        self._written_ms = {source: written_ms[source] for source in paused if source in written_ms}
        self.lags = {
            source: Lag(records, _age_s(written_ms[source]) if source in written_ms else 0.0)
            for source, (_, records) in unread.items()
        }
        self._known = leads

    async def _unread(self, consumer: AIOKafkaConsumer) -> dict[Source, tuple[int, int]] | None:
        """Of each partition that nobody has, the first unread offset and how many there are; None in a rebalance."""
        found: dict[Source, tuple[int, int]] = {}
        async with admin_client(**self.options) as admin:
            for group, topics in self.groups.items():
                if (held := await _held(admin, group)) is None:
                    return None
                logs = await logs_of(consumer._client, topics)
                there = {Source(topic, n) for topic, known in logs.items() for n in range(known.partitions)}
                found |= await _behind(admin, consumer, group, sorted(there - held))
        return found


async def _held(admin: AIOKafkaAdminClient, group: str) -> set[Source] | None:
    """The partitions of the live members of a group; None while they are being divided.

    Raises:
        KafkaError: the coordinator is away, or this client may not describe the group.
    """
    (answer,) = await admin.describe_consumer_groups([group])
    code, _, state, _, _, members, *_ = answer.groups[0]
    if code:
        raise for_code(code)(group)
    if state not in _SETTLED or not all(member[-1] for member in members):  # Tansu settles before it has divided
        return None
    given = [ConsumerProtocol.ASSIGNMENT.decode(member[-1]).assignment for member in members]
    return {Source(topic, n) for topics in given for topic, partitions in topics for n in partitions}


async def _behind(
    admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, group: str, sources: Sequence[Source]
) -> dict[Source, tuple[int, int]]:
    """Where a group would go on in some partitions, and how many records are there from then on."""
    if not sources:
        return {}
    places = {source: TopicPartition(*source) for source in sources}
    committed = await admin.list_consumer_group_offsets(group, partitions=list(places.values()))
    consumer.assign(list(places.values()))
    begins = await consumer.beginning_offsets(list(places.values()))
    ends = await consumer.end_offsets(list(places.values()))
    first = {source: max(committed[tp].offset if tp in committed else -1, begins[tp]) for source, tp in places.items()}
    return {source: (first[source], max(ends[tp] - first[source], 0)) for source, tp in places.items()}


async def _written(consumer: AIOKafkaConsumer, first: Mapping[Source, int]) -> dict[Source, int]:
    """When the record at an offset, or the next one after it, was written; of the partitions that answer in time."""
    places = {TopicPartition(*source): offset for source, offset in list(first.items())[:_MOST_DATED]}
    consumer.assign(list(places))
    for place, offset in places.items():
        consumer.seek(place, offset)
    found: dict[Source, int] = {}
    for _ in places:
        left = [place for place in places if Source(*place) not in found]
        fetched = await consumer.getmany(*left, timeout_ms=_FETCH_MS) if left else {}
        if not fetched:
            break
        found |= {Source(*place): records[0].timestamp for place, records in fetched.items()}
    return {source: at for source, at in found.items() if FIRST_MS <= at <= LAST_KEPT_MS}


def _age_s(written_ms: int) -> float:
    return max(time() - written_ms / 1000, 0.0)
