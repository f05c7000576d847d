"""What stands in a compacted topic: a letter may go back there only while its record is still the newest of its key.

Published again later, it would become the newest version itself: a producer's mended record would be replaced by the
broken one, or what was removed would come back.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from streams.contract.deadletters import NotReplayable, Reason
from streams.transport.tail import reader, to_end


class _Place(NamedTuple):
    """Where the newest record of a key is."""

    partition: int
    offset: int
    timestamp: int


class Standing:
    """The newest record of every key of a topic, up to now."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._newest: dict[bytes | None, _Place] = {}

    @classmethod
    @asynccontextmanager
    async def of(cls, options: Mapping[str, Any], topic: str) -> "AsyncIterator[Standing]":
        """Read a topic to its end, and on as long as it is open.

        Raises:
            KafkaError: nobody answers.
        """
        async with reader(options, topic) as consumer:
            standing = cls(consumer)
            await standing._read()
            yield standing

    async def check(self, reason: Reason, key: bytes | None) -> None:
        """See that a letter's record is the newest of its key; a record without a key replaces none.

        Raises:
            NotReplayable: it is not. The letter stays where it is; discard it.
        """
        if key is None:
            return
        await self._read()
        found = self._newest.get(key)
        if found is None:
            raise NotReplayable("its record was replaced or removed since: nothing of its key stands in the topic")
        if found[:2] != (reason.source.partition, reason.offset):
            raise NotReplayable("a newer record of its key stands in the topic")

    async def _read(self) -> None:
        async for fetched in to_end(self._consumer):
            for record in chain.from_iterable(fetched.values()):
                self._take(record)

    def _take(self, record: ConsumerRecord) -> None:
        held, new = self._newest.get(record.key), _Place(record.partition, record.offset, record.timestamp)
        if held is None or held.partition == new.partition or held.timestamp <= new.timestamp:
            self._newest[record.key] = new
