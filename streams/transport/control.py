"""The control lane: topics that every worker reads whole, without a group, from their start, for as long as it lives.

Catalogue, counters, models, campaigns and privacy records reach every worker this way, on a consumer of their own, so
that a blocked event batch never holds back a removal or a kill switch.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from streams.transport.brokers import answer, unanswered
from streams.transport.logs import logs_of
from streams.transport.tail import Reading, end_of, state_of

log = logging.getLogger(__name__)

Handler = Callable[[Sequence[ConsumerRecord]], Awaitable[None]]
_POLL_MS = 200
_PAUSE_S, _TRIES_A_LINE = 0.5, 60
_HELD_S = 5.0
_MOST_OFFSET = 2**63
_UNHEARD_S = 6.0
"""Brokers that answer nothing for so long may have moved, all of them."""


@dataclass(slots=True)
class _Reading(Reading):
    """How far a partition was read, and since when an open transaction holds it up."""

    _held: tuple[int, float] = (-1, 0.0)

    def held(self, state: Any) -> bool:
        """Whether an open transaction has just been holding back records for `_HELD_S`; true once each."""
        if state.highwater is None or not self.position >= end_of(state) < state.highwater:
            self._held = (-1, 0.0)
        elif self._held[0] != self.position:
            self._held = (self.position, time.monotonic() + _HELD_S)
        elif time.monotonic() >= self._held[1]:
            self._held = (self.position, math.inf)
            return True
        return False


@dataclass(slots=True, kw_only=True)
class ControlReader:
    """Hands the records of each topic, in the order of their partitions, to that topic's handler, batch by batch.

    `caught_up` is set once everything that was there at the start has been handled, of every partition of every topic.

    Attributes:
        options: of every client; partitions that are added are found within their `metadata_max_age_ms`.
        handlers: whose records go to whom.
        max_records: most records in one batch.
        silent_s: a partition that is not answered for this long is not read any more, says `unread`.
    """

    options: Mapping[str, Any]
    handlers: Mapping[str, Handler]
    max_records: int = 2_000
    silent_s: float = 60.0
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)
    lives: Mapping[str, Callable[[str], object]] = field(default_factory=dict)
    """Of some topics, who is told the identity of the log before its first record, and before one that begins anew."""
    at_end: Callable[[], object] = lambda: None
    """Called once, when everything was read to its end for the first time."""
    _handled: dict[TopicPartition, int] = field(init=False, default_factory=dict)
    _readings: dict[TopicPartition, _Reading] = field(init=False, default_factory=dict)
    _heard_s: float = field(init=False, default_factory=time.time)
    """Epoch second of the last answer, or of the last look for who could give one."""

    def unread(self) -> str | None:
        """Why the topics are not read to their end now, or None."""
        for topic in self.handlers:
            readings = {tp.partition: reading for tp, reading in self._readings.items() if tp.topic == topic}
            if not readings:
                return f"{topic} is not read yet: the brokers have not named its partitions"
            for partition, reading in readings.items():
                if reading.end is None:
                    return f"{topic}/{partition} is not read yet: its leader has not answered"
                if not reading.read:
                    return f"{topic}/{partition} is still being read: {reading.position} of {reading.end}"
                if (silent_s := time.time() - reading.answered_ms / 1000) > self.silent_s:
                    return f"{topic}/{partition} is not read any more: its leader has not answered for {silent_s:.0f} s"
        return None

    async def run(self) -> None:
        """Read until cancelled. A handler's error ends it, and with it the worker: half a catalogue is no catalogue."""
        consumer = await self._started()
        try:
            while True:
                await self._read(consumer)
                await self._look_for_brokers(consumer)
        finally:
            await consumer.stop()

    async def _started(self) -> AIOKafkaConsumer:
        tries = 0
        while True:
            consumer = AIOKafkaConsumer(
                *self.handlers,
                **self.options,
                group_id=None,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                fetch_max_wait_ms=50,
                max_partition_fetch_bytes=8 * 1024 * 1024,
            )
            try:
                await consumer.start()
                return consumer
            except KafkaError as error:
                if tries % _TRIES_A_LINE == 0:
                    said = unanswered(error) or error
                    log.warning("control topics cannot be read yet (%s); trying again", said)
                tries += 1
                await consumer.stop()
                await asyncio.sleep(_PAUSE_S)
            except BaseException:
                await consumer.stop()
                raise

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=self.max_records)
        again = self._assigned(consumer)
        for partition, records in fetched.items():
            if partition not in again:
                if partition.topic in self.lives and records[0].offset <= self._handled.get(partition, _MOST_OFFSET):
                    await self._tell_life(consumer, partition.topic)
                await self.handlers[partition.topic](records)
                self._handled[partition] = records[-1].offset
        self._note(consumer, quiet=not fetched)
        if not self.caught_up.is_set() and self.unread() is None:
            self.at_end()
            self.caught_up.set()

    async def _tell_life(self, consumer: AIOKafkaConsumer, topic: str) -> None:
        """Ask which log it is, until a broker says it: what was fetched of it waits."""
        while True:
            with suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(_UNHEARD_S):
                    logs = await logs_of(consumer._client, [topic])
                if topic in logs:
                    self.lives[topic](logs[topic].identity)
                    return
            await asyncio.sleep(_PAUSE_S)

    async def _look_for_brokers(self, consumer: AIOKafkaConsumer) -> None:
        self._heard_s = max((self._heard_s, *(reading.answered_ms / 1000 for reading in self._readings.values())))
        if time.time() - self._heard_s > _UNHEARD_S:
            await answer(consumer._client, self.options)
            self._heard_s = time.time()

    def _assigned(self, consumer: AIOKafkaConsumer) -> set[TopicPartition]:
        """Go on where a partition was read to, if there are others now: aiokafka begins all of them again.

        Returns:
            Partitions of which what was fetched is fetched again.
        """
        assigned = consumer.assignment()
        if assigned == self._readings.keys():
            return set()
        again: set[TopicPartition] = assigned & self._readings.keys()
        for partition in again:
            consumer.seek(partition, self._readings[partition].position)
        log.info("control topics: %d partitions are read", len(assigned))
        self._readings = {partition: self._readings.get(partition) or _Reading() for partition in assigned}
        return again

    def _note(self, consumer: AIOKafkaConsumer, *, quiet: bool) -> None:
        """Note how far each partition was read, and say what an open transaction holds back."""
        for partition, reading in self._readings.items():
            if (state := state_of(consumer, partition)) is None:
                continue
            reading.follow(state, quiet=quiet)
            if reading.held(state):
                where = (*partition, reading.position, state.highwater - 1)
                log.warning("%s/%d: what offsets %d to %d hold waits for a transaction that is open", *where)
