"""The shells around the pipeline: answer a batch, publish, store; retry what is transient, never skip, never swallow.

A lane computes and waits for Redis in the event loop that it is called in, so each is called in one of its own
(`OwnLoop`): heartbeats and health pages live meanwhile, a lane that waits for Redis holds up no other, and a batch
changes threads twice, not at every stage.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeGuard, TypeVar

from embeddings.errors import Fenced, StoreUnavailable
from embeddings.events import Source
from embeddings.store import StoreRewound, UserStore
from streams.answering import Answerer
from streams.cloudevents import echo, event_headers
from streams.deadletters import Code, DeadLetter, dead_letter_record
from streams.failures import DeadLetterShare, Failed, Guard, Succeeded, Verdict
from streams.hosting import Rewind
from streams.ledger import Part, Unit, shard_of
from streams.metrics import WorkerMetrics
from streams.pipeline import Answer, Recommender
from streams.publishing import Outgoing, Publisher
from streams.records import RawRecord, encode
from streams.settings import Settings
from streams.slates import PublishedSlate

T = TypeVar("T")
log = logging.getLogger(__name__)

_TURNS = 6
"""So often the loop goes round until aiokafka's sender has written what it was given to the socket."""


@dataclass(slots=True)
class Thread:
    """One worker thread; `await run(f, *args)` calls in it."""

    name: str
    _pool: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=self.name)

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """Call in the thread and wait."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)


class OwnLoop:
    """A thread with an event loop; `await run(f(...))` runs a coroutine in it. Ends with the process."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=name, daemon=True).start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run there and wait; who stops waiting cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


@dataclass(slots=True, kw_only=True)
class EventsLane:
    """Behaviour in, slates and observations out, states stored, then acknowledged."""

    recommender: Recommender
    publisher: Publisher
    settings: Settings
    metrics: WorkerMetrics
    dead_share: DeadLetterShare

    async def __call__(self, unit: Unit) -> None:
        """Handle one unit whole; returns when everything it led to is durable.

        Raises:
            Rewind: the store lost data or the partition; the lane is fetched again from what the store has.
            PublishFailed: a record can never be published; the worker ends.
            TooManyDeadLetters: a bad deploy; the worker ends with the unit unacknowledged.
        """
        self.metrics.batch("events", unit.size)
        for answer in await self._answers(unit):
            self.metrics.events(answer.fate_R)
            for letter in answer.decoded.dead:
                self.metrics.dead_letter("events", letter.code)

    async def _answers(self, unit: Unit) -> list[Answer]:
        done = await self._guard(unit).run(lambda: self._apply(unit, unit.parts, ()))
        if not _puzzles(done):
            return [_settled(done)]
        log.error("a batch of %d is taken apart, record by record", unit.size)
        return [await self._one(unit, part, record) for part in unit.parts for record in part.records]

    async def _one(self, unit: Unit, part: Part, record: RawRecord) -> Answer:
        """Apply one record alone; put it aside when it fails even so."""
        alone = Part(part.source, [record], record.offset, part.committed)
        done = await self._guard(unit).run(lambda: self._apply(unit, [alone], ()))
        if not _puzzles(done):
            return _settled(done)
        nothing, letter = Part(part.source, [], record.offset, part.committed), _gave_up(part, record, done)
        return _settled(await self._guard(unit).run(lambda: self._apply(unit, [nothing], [letter])))

    def _guard(self, unit: Unit) -> Guard:
        return Guard(attempts=self.settings.limits.attempts, retrying=lambda error: self._waits(unit, error))

    def _waits(self, unit: Unit, error: Exception) -> None:
        if isinstance(error, StoreUnavailable):
            self.metrics.redis_error("unavailable")
        unit.retrying(type(error).__name__)

    async def _apply(self, unit: Unit, parts: Sequence[Part], aside: Sequence[DeadLetter]) -> Answer:
        try:
            answer = self.recommender.respond(parts, aside)
            if unit.retry_reason is None:  # the first try: a batch counts once
                self.dead_share.count(sum(len(part.records) for part in parts) + len(aside), len(answer.decoded.dead))
            travelling = asyncio.ensure_future(self._publish(unit, answer, parts))
            try:
                for _ in range(_TURNS):
                    await asyncio.sleep(0)
                self.recommender.tell(answer)
                await self.publisher.send_all(self._observations(answer), still_waiting=unit.retrying)
            finally:
                await travelling
            self.recommender.store(answer)
            return answer
        except StoreRewound as why:
            self.metrics.redis_error("fenced")
            raise Fenced(str(why)) from why

    async def _publish(self, unit: Unit, answer: Answer, parts: Sequence[Part]) -> None:
        with self.metrics.stage("publish"):
            await self.publisher.send_all(self._outgoing(answer, parts), still_waiting=unit.retrying)
        published_ms = self.recommender.now_ms()
        self.metrics.published("event", [(published_ms - s.trigger.published_ms) / 1000 for s in answer.slates])

    def _observations(self, answer: Answer) -> list[Outgoing]:
        topic = self.settings.topics.name("observations")
        return [Outgoing(topic, b"%d" % s.partition, value, (), s.partition) for s, value in answer.told]

    def _outgoing(self, answer: Answer, parts: Sequence[Part]) -> list[Outgoing]:
        """What is put aside leaves once: not again where the batch was stored or committed before."""
        topics, marks = self.settings.topics, answer.loaded.marks
        done = {part.source: max(part.committed - 1, marks[part.source].offset) for part in parts}
        dead = [letter for letter in answer.decoded.dead if letter.offset > done[letter.source]]
        return [
            *(slate_record(slate, topics.name("slates")) for slate in answer.slates),
            *(Outgoing(topics.name("traces"), trace.user_id.encode(), encode(trace)) for trace in answer.traces),
            *dead_letters(dead, topics.dead_letters("events")),
            *(f.outgoing for f in answer.decoded.misrouted if f.offset > done[f.source]),
        ]

    async def positions(self, committed: Mapping[Source, int]) -> Mapping[Source, int]:
        """Claim the assigned partitions; start where the store is, if that is before the committed offset."""
        mine = [source for source in committed if source.topic == self.settings.topics.name("events")]
        store: UserStore = self.recommender.users
        while True:
            try:
                marks = store.claim(mine)
                break
            except StoreUnavailable as error:
                log.warning("partitions cannot be claimed yet: %s", error)
                await asyncio.sleep(0.5)
        behind = {s: mark.offset + 1 for s, mark in marks.items() if mark.offset + 1 < committed[s]}
        if behind:
            log.warning("the store is behind the log in %d partitions; they are folded again", len(behind))
        return behind


@dataclass(frozen=True, slots=True)
class EventShards:
    """The lane of each shard of the events topic, each in its own loop."""

    lanes: Sequence[EventsLane]
    loops: Sequence[OwnLoop]

    @classmethod
    def of(cls, lanes: Sequence[EventsLane]) -> "EventShards":
        """Start a loop for each lane."""
        return cls(lanes, [OwnLoop(f"events-{shard}") for shard in range(len(lanes))])

    async def __call__(self, unit: Unit) -> None:
        """See `EventsLane`."""
        await self.loops[unit.shard].run(self.lanes[unit.shard](unit))

    async def positions(self, committed: Mapping[Source, int]) -> Mapping[Source, int]:
        """See `EventsLane.positions`; every partition is claimed for its shard's store."""
        behind: dict[Source, int] = {}
        for shard, (lane, loop) in enumerate(zip(self.lanes, self.loops, strict=True)):
            mine = {
                source: at for source, at in committed.items() if shard_of(source.partition, len(self.lanes)) == shard
            }
            behind |= await loop.run(lane.positions(mine))
        return behind

    async def stop(self) -> None:
        """Disconnect the publishers."""
        for lane, loop in zip(self.lanes, self.loops, strict=True):
            await loop.run(lane.publisher.stop())


@dataclass(slots=True, kw_only=True)
class RequestsLane:
    """Requests in, slates out. Reads user state, never writes it, so any worker may answer."""

    answerer: Answerer
    publisher: Publisher
    settings: Settings
    metrics: WorkerMetrics

    async def __call__(self, unit: Unit) -> None:
        """Answer every readable request of a unit, degraded where it must be.

        Raises:
            PublishFailed: a record can never be published; the worker ends.
        """
        self.metrics.batch("requests", unit.size)
        done = await self._guard(unit).run(lambda: self._answer(unit, unit.parts))
        if not _puzzles(done):
            return _settled(done)
        log.error("a batch of %d is taken apart, record by record", unit.size)
        for part in unit.parts:
            for record in part.records:
                await self._one(unit, part, record)

    async def _one(self, unit: Unit, part: Part, record: RawRecord) -> None:
        """Answer one request alone; put it aside when that fails even so."""
        alone = Part(part.source, [record], record.offset, part.committed)
        done = await self._guard(unit).run(lambda: self._answer(unit, [alone]))
        if _puzzles(done):
            letter = _gave_up(part, record, done)
            done = await self._guard(unit).run(lambda: self._publish(unit, [], [letter]))
        _settled(done)

    def _guard(self, unit: Unit) -> Guard:
        return Guard(attempts=self.settings.limits.attempts, retrying=lambda error: unit.retrying(type(error).__name__))

    async def _answer(self, unit: Unit, parts: Sequence[Part]) -> None:
        await self._publish(unit, *self.answerer.respond(parts))

    async def _publish(self, unit: Unit, slates: Sequence[PublishedSlate], dead: Sequence[DeadLetter]) -> None:
        topics = self.settings.topics
        out = [slate_record(slate, slate.trigger.reply_to or topics.name("slates")) for slate in slates]
        out += dead_letters(dead, topics.dead_letters("requests"))
        await self.publisher.send_all(out, still_waiting=unit.retrying)
        now_ms = self.answerer.now_ms()
        for slate in slates:
            waited_s = (now_ms - slate.trigger.published_ms) / 1000
            self.metrics.published("request", [waited_s], slate.trigger.degraded)
        for letter in dead:
            self.metrics.dead_letter("requests", letter.code)


def _puzzles(done: Succeeded[T] | Failed) -> TypeGuard[Failed]:
    """Did it fail, and nobody knows why?"""
    return isinstance(done, Failed) and done.verdict is Verdict.dead_letter


def _settled(done: Succeeded[T] | Failed) -> T:
    """The result, or what the agent ends its unit with."""
    if isinstance(done, Succeeded):
        return done.result
    raise Rewind(str(done.error)) if done.verdict is Verdict.skip else done.error


def _gave_up(part: Part, record: RawRecord, failed: Failed) -> DeadLetter:
    return DeadLetter(part.source, record.offset, record, Code.handler_error, type(failed.error).__name__)


def slate_record(slate: PublishedSlate, topic: str) -> Outgoing:
    """A slate on its topic, keyed by user, with CloudEvents headers and the place of its trigger."""
    trigger = slate.trigger
    passed = echo(*trigger.source, trigger.offset, trigger.headers)
    headers = event_headers(slate.slate_id, "marquee.slate.v1", "marquee", trigger.event_ms, passed)
    return Outgoing(topic, trigger.user_id.encode(), slate.value, headers)


def dead_letters(letters: Sequence[DeadLetter], topic: str) -> list[Outgoing]:
    """Dead letters as records of their topic."""
    return [dead_letter_record(letter, topic) for letter in letters]
