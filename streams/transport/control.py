"""The control lane: topics that every worker reads whole, without a group, from their start, for as long as it lives.

Catalogue, counters, models, campaigns and privacy records reach every worker this way, on a consumer of their own, so
that a blocked event batch never holds back a removal or a kill switch.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError

log = logging.getLogger(__name__)

Handler = Callable[[Sequence[ConsumerRecord]], Awaitable[None]]
_POLL_MS = 200
_QUIET_POLLS = 2


@dataclass(slots=True, kw_only=True)
class ControlReader:
    """Hands the records of each topic, in the order of their partitions, to that topic's handler, batch by batch.

    `caught_up` is set once everything that was there at the start has been handled: after records, or none, two polls
    in a row brought nothing. It does not ask for end offsets, which not every broker reports truly.
    """

    options: Mapping[str, Any]
    handlers: Mapping[str, Handler]
    max_records: int = 2_000
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Read until cancelled. A handler's error ends it, and with it the worker: half a catalogue is no catalogue."""
        consumer = AIOKafkaConsumer(
            *self.handlers,
            **self.options,
            group_id=None,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=50,
            max_partition_fetch_bytes=8 * 1024 * 1024,
        )
        await self._start(consumer)
        try:
            await self._read(consumer)
        finally:
            await consumer.stop()

    async def _start(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                await consumer.start()
                return
            except KafkaError as error:
                log.warning("control topics cannot be read yet (%s); trying again", error)
                await asyncio.sleep(0.5)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        quiet = 0
        while True:
            fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=self.max_records)
            for partition, records in fetched.items():
                await self.handlers[partition.topic](records)
            quiet = 0 if fetched else quiet + 1
            if quiet >= _QUIET_POLLS and consumer.assignment():
                self.caught_up.set()
