"""Dead letters as they are written: each record's once, over tries, restarts, owners and workers.

What lies in the topic is the only truth about what was written: a worker that was killed, or whose call failed, may or
may not have written a letter, and no mark can say so. So whoever is in doubt reads the topic's end first. A letter is
known by the place its record stood at and by the record itself: a topic made anew uses the same places again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from statistics import mode
from typing import Any

from aiokafka import ConsumerRecord
from xxhash import xxh3_64_intdigest

from embeddings.events import Source
from embeddings.stoprule import WELL, BadRun, StopRule
from streams.contract.cloudevents import Headers
from streams.contract.deadletters import OFFSET, PARTITION, TOPIC, DeadLetter, dead_letter_record
from streams.contract.messages import Outgoing, Part
from streams.transport.publishing import Publisher
from streams.transport.tail import reader, to_end

log = logging.getLogger(__name__)

LATEST = 200_000
"""Whoever takes over partitions looks through so many letters: more than the one before can have written and not
acknowledged."""
_REMEMBERED = 100_000

Read = Callable[[], AsyncIterator[Sequence[ConsumerRecord]]]
Tell = Callable[[str], None]


def _nobody(_reason: str) -> None:
    """Nobody wants to be told."""


@dataclass(slots=True, kw_only=True)
class DeadLetterTopic:
    """Writes dead letters to their topic, those that are not there. Called in one loop.

    Attributes:
        topic: its name.
        publisher: through which they go.
        read: what lies there, as far back as it matters.
    """

    topic: str
    publisher: Publisher
    read: Read
    _doubts: int = field(init=False, default=1)
    _looked: int = field(init=False, default=0)  # so many doubts are settled
    _found: set[int] = field(init=False, default_factory=set)
    _wrote: dict[int, None] = field(init=False, default_factory=dict)
    _turn: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)

    @classmethod
    def of(
        cls, options: Mapping[str, Any], topic: str, publisher: Publisher, *, last: int | None = LATEST
    ) -> "DeadLetterTopic":
        """One that looks through the last so many letters, or all."""
        return cls(topic=topic, publisher=publisher, read=partial(read_to_end, options, topic, last=last))

    def doubt(self) -> None:
        """Somebody else may have written letters: look before the next one is written. From any thread."""
        self._doubts += 1

    async def put(self, letters: Sequence[DeadLetter], *, still_waiting: Tell = _nobody) -> list[DeadLetter]:
        """Write those that are not there and return them once the broker has them.

        Raises:
            PublishFailed: some may be there, some not; call again, none is written twice.
            KafkaError: nobody answers; call again.
        """
        if not letters:
            return []
        async with self._turn:
            missing = await self._missing(letters, still_waiting)
            records = {_identity(record.headers, record.key, record.value): record for _, record in missing}
            try:
                await self.publisher.send_all(records.values(), still_waiting=still_waiting)
            except BaseException:
                self.doubt()
                raise
            self._wrote.update(dict.fromkeys(records))
            for old in list(self._wrote)[: max(0, len(self._wrote) - _REMEMBERED)]:
                del self._wrote[old]
            return [letter for letter, _ in missing]

    async def missing(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Which letters are not there now.

        Raises:
            KafkaError: nobody answers; ask again.
        """
        async with self._turn:
            self.doubt()
            return [letter for letter, _ in await self._missing(letters, _nobody)]

    async def _missing(self, letters: Sequence[DeadLetter], still_waiting: Tell) -> list[tuple[DeadLetter, Outgoing]]:
        if (doubts := self._doubts) != self._looked:
            found = set[int]()
            async with aclosing(self.read()) as batches:  # type: ignore[type-var]
                async for records in batches:
                    found.update(_identity(record.headers, record.key, record.value) for record in records)
                    if not records:
                        still_waiting("brokers do not answer")
            self._found, self._looked = found, doubts
            self._wrote.clear()
        written = [(letter, dead_letter_record(letter, self.topic)) for letter in letters]
        return [(letter, record) for letter, record in written if not self._is_there(record)]

    def _is_there(self, record: Outgoing | None) -> bool:
        """Whether a letter, or what was published where the topic did not take it, is known to be there."""
        if record is None:
            return False
        identity = _identity(record.headers, record.key, record.value)
        return identity in self._found or identity in self._wrote or self._is_there(record.smaller)


@dataclass(slots=True)
class Floods:
    """Tells of bad deploys where no partition pauses."""

    rule: StopRule
    _runs: dict[Source, BadRun] = field(init=False, default_factory=dict)

    def count(self, parts: Sequence[Part], dead: Sequence[DeadLetter]) -> None:
        """Take into account what was delivered and what of it became dead letters; one line where a flood begins."""
        for source, records in ((part.source, len(part.records)) for part in parts):
            codes = [letter.code for letter in dead if letter.source == source]
            run = self._runs.get(source, WELL)
            run = self.rule.after(run, records=records, dead=len(codes), code=mode(codes) if codes else "")
            if run.paused:
                said = "%s/%d: %d of the last %d records (%.0f%%) became dead letters, most of them %s; others go on"
                log.error(said, *source, run.dead, run.records, 100 * run.share, run.code)
                run = run.release()
            self._runs[source] = run


def _identity(headers: Headers, key: bytes | None, value: bytes | None) -> int:
    last = dict(headers)
    parts = (last.get(TOPIC), last.get(PARTITION), last.get(OFFSET), key, value)
    return xxh3_64_intdigest(b"\0".join(part or b"" for part in parts))


async def read_to_end(
    options: Mapping[str, Any], topic: str, *, last: int | None = None
) -> AsyncIterator[Sequence[ConsumerRecord]]:
    """The records of a topic up to its end as it is now, or the last so many of each partition; none in a second: [].

    Raises:
        KafkaError: nobody answers.
    """
    async with reader(options, topic, last=last) as consumer, aclosing(to_end(consumer)) as batches:  # type: ignore[type-var]
        async for fetched in batches:
            for records in fetched.values() or ([],):
                yield records
