"""Looking into a dead-letter topic, and dealing with what lies there: list, show, replay, discard.

A topic cannot forget single records, so what was dealt with is kept as the committed offset of a group that nobody
consumes in, and, for letters dealt with out of order, as ranges in that commit's metadata. A broker that drops the
metadata, as the embedded one does, forgets those: deal with letters in order there.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from deploy.kafka_admin import admin_client
from streams.commands.standing import Standing
from streams.contract.deadletters import NotReplayable, Reason, replay_record
from streams.contract.messages import Outgoing, RawRecord
from streams.transport.publishing import Publisher
from streams.transport.tail import to_end

_ONE_MS = 2_000

#: A commit's metadata holds 4,096 bytes; two offsets of twelve digits make a range.
_MOST_RANGES = 150


class TooScattered(Exception):
    """What was dealt with no longer fits a commit's metadata. Nothing more is published; deal with older ones first."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it lies in its topic. `reason` is None where something else wrote the record."""

    partition: int
    offset: int
    record: RawRecord
    reason: Reason | None
    done: bool

    @property
    def code(self) -> str:
        """Its code; `foreign` where something else wrote the record."""
        return self.reason.code if self.reason else "foreign"


Chosen = Callable[[Letter], bool]


@dataclass(slots=True)
class Report:
    """What a replay or discard did, or would do: letters by code, and those left with the reason."""

    handled: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    dry_run: bool = False


@dataclass(slots=True)
class Done:
    """Which offsets of a partition were dealt with: all below `below`, and those in ranges above it.

    >>> done = Done.parse(3, "5-6")
    >>> 2 in done, 4 in done, 6 in done
    (True, False, True)
    """

    below: int = 0
    ranges: list[list[int]] = field(default_factory=list)

    @classmethod
    def parse(cls, below: int, text: str) -> "Done":
        """From a committed offset and its metadata; metadata that is not ours counts as none."""
        try:
            ranges = [[int(end) for end in part.split("-")] for part in text.split(",") if part]
        except ValueError:
            ranges = []
        return cls(max(below, 0), [ends for ends in ranges if len(ends) == 2])

    def __contains__(self, offset: int) -> bool:
        return offset < self.below or any(first <= offset <= last for first, last in self.ranges)

    def text(self) -> str:
        """The ranges, for the commit's metadata."""
        return ",".join(f"{first}-{last}" for first, last in self.ranges)


@dataclass(slots=True)
class _Pass:
    """One way through a partition: what was dealt with before it, and by it."""

    before: Done
    prefix: int = 0
    gap: bool = False
    new: list[list[int]] = field(default_factory=list)

    def step(self, offset: int, done: bool) -> None:
        """Take the next letter into account; holes in the offsets need no care."""
        self.gap = self.gap or not done
        if not self.gap:
            self.prefix = offset + 1
        elif done and offset not in self.before:
            if self.new and self.new[-1][1] == offset - 1:
                self.new[-1][1] = offset
            else:
                self.new.append([offset, offset])

    def room(self) -> bool:
        """Would one more separate letter still fit into a commit's metadata?"""
        return len(self.before.ranges) + len(self.new) < _MOST_RANGES

    def after(self) -> Done:
        """Both together."""
        out = Done(max(self.before.below, self.prefix))
        for first, last in sorted([*self.before.ranges, *self.new]):
            if out.ranges and first <= out.ranges[-1][1] + 1:
                out.ranges[-1][1] = max(last, out.ranges[-1][1])
            elif last >= out.below:
                out.ranges.append([first, last])
        return out


@dataclass(slots=True, kw_only=True)
class DeadLetterBox:
    """One dead-letter topic. `group` holds what was dealt with.

    `compacted` is the topic that the letters came from, where it keeps the newest record of each key only.
    """

    client_options: Mapping[str, Any]
    topic: str
    group: str
    idempotent: bool = True
    compacted: str | None = None

    async def letters(self, *, done: bool = False, most: int | None = None) -> list[Letter]:
        """The first `most` letters in the order of their partitions; those dealt with only if asked for."""
        out: list[Letter] = []
        async with self._consumer() as consumer:
            async for letter in self._read(consumer, await self._done(consumer)):
                if done or not letter.done:
                    out.append(letter)
                if most is not None and len(out) >= most:
                    break
        return out

    async def letter(self, partition: int, offset: int) -> Letter | None:
        """One letter, or None where there is none."""
        async with self._consumer() as consumer:
            where = TopicPartition(self.topic, partition)
            if where not in consumer.assignment():
                return None
            done = (await self._done(consumer)).get(partition, Done())
            consumer.seek(where, offset)
            fetched = await consumer.getmany(where, timeout_ms=_ONE_MS, max_records=1)
            found = [_letter(record, done) for record in fetched.get(where, ()) if record.offset == offset]
            return found[0] if found else None

    async def replay(
        self, chosen: Chosen, *, most_attempts: int, rate_per_s: float = 100.0, dry_run: bool = False
    ) -> Report:
        """Publish the chosen letters to where they came from, each acknowledged before it counts as dealt with.

        Killed in between, a letter may be published again; its `ce_id` or `event_id` keeps the effect single. Letters
        of a compacted topic go back only while nothing newer of their key stands there.

        Raises:
            PublishFailed: The broker did not take a letter. It and those after it are not dealt with.
            TooScattered: See there.
        """
        publisher = Publisher(self.client_options, idempotent=self.idempotent)
        standing: Standing | None = None

        async def publish(letter: Letter) -> str | None:
            """Returns why the letter stays, or None once it is published."""
            started = time.monotonic()
            try:
                if letter.reason and letter.reason.attempts >= most_attempts:
                    raise NotReplayable(f"replayed {letter.reason.attempts} times already")
                original: Outgoing = replay_record(letter.record)
                if standing is not None:
                    await standing.check(Reason.of(letter.record), original.key)
            except NotReplayable as error:
                return str(error)
            if not dry_run:
                await publisher.send_all([original])
                await asyncio.sleep(max(0.0, 1 / rate_per_s - (time.monotonic() - started)))
            return None

        async with AsyncExitStack() as open_:
            open_.push_async_callback(publisher.stop)
            if self.compacted is not None:
                standing = await open_.enter_async_context(Standing.of(self.client_options, self.compacted))
            return await self._handle(chosen, publish, dry_run)

    async def discard(self, chosen: Chosen, *, dry_run: bool = False) -> Report:
        """Count the chosen letters as dealt with; they go when the topic's retention takes them.

        Raises:
            TooScattered: See there.
        """

        async def nothing(_letter: Letter) -> str | None:
            return None

        return await self._handle(chosen, nothing, dry_run)

    async def _handle(self, chosen: Chosen, handle: Callable[[Letter], Awaitable[str | None]], dry_run: bool) -> Report:
        report = Report(dry_run=dry_run)
        passes: dict[int, _Pass] = {}
        async with self._consumer() as consumer:
            before = await self._done(consumer)
            try:
                async for letter in self._read(consumer, before):
                    through = passes.setdefault(letter.partition, _Pass(before.get(letter.partition, Done())))
                    through.step(letter.offset, letter.done or await self._one(letter, chosen, handle, through, report))
            finally:
                if not dry_run and passes:
                    await consumer.commit(self._commits(passes))
        return report

    async def _one(
        self,
        letter: Letter,
        chosen: Chosen,
        handle: Callable[[Letter], Awaitable[str | None]],
        through: _Pass,
        report: Report,
    ) -> bool:
        if not chosen(letter):
            return False
        if not through.room():
            raise TooScattered("too many separate letters were dealt with; choose older ones first")
        why = await handle(letter)
        (report.left if why else report.handled)[why or letter.code] += 1
        return why is None

    def _commits(self, passes: Mapping[int, _Pass]) -> dict[TopicPartition, OffsetAndMetadata]:
        done = {partition: through.after() for partition, through in passes.items()}
        return {
            TopicPartition(self.topic, partition): OffsetAndMetadata(each.below, each.text())
            for partition, each in done.items()
        }

    async def _done(self, consumer: AIOKafkaConsumer) -> dict[int, Done]:
        """The public `committed` leaves out the metadata, and not every broker answers the admin client readably."""
        committed = await consumer._coordinator.fetch_committed_offsets(list(consumer.assignment()))
        return {where.partition: Done.parse(found.offset, found.metadata) for where, found in committed.items()}

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        partitions = await self._partitions()
        consumer = AIOKafkaConsumer(
            **self.client_options,
            group_id=self.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        await consumer.start()
        try:
            consumer.assign([TopicPartition(self.topic, partition) for partition in partitions])
            yield consumer
        finally:
            await consumer.stop()

    async def _partitions(self) -> list[int]:
        async with admin_client(**self.client_options) as admin:
            (described,) = await admin.describe_topics([self.topic])
        return sorted(each["partition"] for each in described["partitions"])

    async def _read(self, consumer: AIOKafkaConsumer, done: dict[int, Done]) -> AsyncIterator[Letter]:
        """Every letter from the start of the topic, partition by partition in order, up to the end as it is now.

        A replayed record that is unreadable still is dead-lettered again at once: without this end a replay would
        catch up with what it causes.
        """
        if consumer.assignment():
            await consumer.seek_to_beginning()
        async for fetched in to_end(consumer):
            for where, records in fetched.items():
                for record in records:
                    yield _letter(record, done.get(where.partition, Done()))


def _letter(record: Any, done: Done) -> Letter:
    try:
        reason: Reason | None = Reason.of(record)
    except NotReplayable:
        reason = None
    return Letter(record.partition, record.offset, record, reason, record.offset in done)
