"""The shells around the pipeline: answer a batch, publish, store; retry what is transient, never skip, never swallow.

A lane computes and waits for Redis in the event loop that it is called in, so each is called in one of its own
(`OwnLoop`): heartbeats and health pages live meanwhile, a lane that waits for Redis holds up no other, and a batch
changes threads twice, not at every stage.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeGuard, TypeVar

from embeddings.errors import Fenced, StoreUnavailable
from embeddings.events import Source
from embeddings.store import StoreRewound, UserStore
from streams.contract.cloudevents import echo, event_headers
from streams.contract.deadletters import Code, DeadLetter, dead_letter_record
from streams.contract.messages import Outgoing, Part, RawRecord
from streams.contract.records import encode
from streams.process.member import Rewind
from streams.process.metrics import WorkerMetrics
from streams.process.threads import OwnLoop
from streams.serving.pipeline import Answer, Recommender
from streams.serving.requests import Answerer
from streams.serving.slates import PublishedSlate
from streams.settings import Settings
from streams.transport.failures import DeadLetterShare, Failed, Guard, Succeeded, Verdict
from streams.transport.ledger import Unit
from streams.transport.publishing import Publisher

T = TypeVar("T")
L = TypeVar("L", "EventsLane", "RequestsLane")
log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Kept:
    """A unit, or one record of it, that was answered and is not stored yet."""

    unit: Unit
    answer: Answer
    outgoing: Sequence[Outgoing]
    travelling: "asyncio.Future[None]"
    told: Sequence[Outgoing] = ()
    number: int = 0
    stored: bool = False
    dropped: BaseException | None = None


@dataclass(slots=True, kw_only=True)
class EventsLane:
    """Behaviour in, slates and observations out, states stored, then acknowledged.

    Units are answered one after the other, each on top of what the one before it changed. Meanwhile those before it
    are on their way: the broker acknowledges their slates and observations, then their states are stored, those of all
    units at once that were answered by then. Where that fails for good none of them is stored, and the lane is void
    until it was sent back to what is.
    """

    recommender: Recommender
    publisher: Publisher
    teller: Publisher
    """For observations: aiokafka has one request per broker under way, and slates do not wait behind them."""
    settings: Settings
    metrics: WorkerMetrics
    dead_share: DeadLetterShare
    _answering: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _storing: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _kept: list[_Kept] = field(init=False, default_factory=list)
    _era: int = field(init=False, default=0)
    """Rises when what was begun becomes void."""
    _void: bool = field(init=False, default=False)

    async def __call__(self, unit: Unit) -> None:
        """Handle one unit whole; returns when everything it led to is durable.

        Raises:
            Rewind: the store lost data or the partition; the lane is fetched again from what the store has.
            PublishFailed: a record can never be published; the worker ends.
            TooManyDeadLetters: a bad deploy; the worker ends with the unit unacknowledged.
        """
        era = self._era
        try:
            async with self._answering:
                self.metrics.batch("events", unit.size)
                answered = await self._answers(unit, era)
        except BaseException as why:
            if era == self._era:  # whatever comes after this unit would be folded without it
                self._drop(why)
            raise
        async with self._storing:
            if not (answered[-1].stored or answered[-1].dropped):
                await self._store_kept()
        if (reason := answered[-1].dropped) is not None:
            raise Rewind(str(reason)) from reason
        for one in answered:
            self.metrics.events(one.answer.fate_R)
            for letter in one.answer.decoded.dead:
                self.metrics.dead_letter("events", letter.code)

    async def _answers(self, unit: Unit, era: int) -> list[_Kept]:
        done = await self._guard([unit]).run(lambda: self._answer(unit, unit.parts, (), era))
        if not _puzzles(done):
            return [_settled(done)]
        log.error("a batch of %d is taken apart, record by record", unit.size)
        return [await self._one(unit, part, record, era) for part in unit.parts for record in part.records]

    async def _one(self, unit: Unit, part: Part, record: RawRecord, era: int) -> _Kept:
        """Answer one record alone; put it aside when it fails even so."""
        alone = Part(part.source, [record], record.offset, part.committed)
        done = await self._guard([unit]).run(lambda: self._answer(unit, [alone], (), era))
        if not _puzzles(done):
            return _settled(done)
        nothing, letter = Part(part.source, [], record.offset, part.committed), _gave_up(part, record, done)
        return _settled(await self._guard([unit]).run(lambda: self._answer(unit, [nothing], [letter], era)))

    def _guard(self, units: Sequence[Unit]) -> Guard:
        return Guard(attempts=self.settings.limits.attempts, retrying=lambda error: self._waits(units, error))

    def _waits(self, units: Sequence[Unit], error: Exception) -> None:
        if isinstance(error, StoreUnavailable):
            self.metrics.redis_error("unavailable")
        for unit in units:
            unit.retrying(type(error).__name__)

    async def _answer(self, unit: Unit, parts: Sequence[Part], aside: Sequence[DeadLetter], era: int) -> _Kept:
        """Answer a batch and send its slates off; meanwhile tell what it teaches and keep what it changes."""
        if self._void or era != self._era:
            raise Fenced("the lane was sent back")
        with self._rewound_is_fenced():
            answer = self.recommender.respond(parts, aside)
        if unit.retry_reason is None:  # the first try: a batch counts once
            self.dead_share.count(sum(len(part.records) for part in parts) + len(aside), len(answer.decoded.dead))
        outgoing = self._outgoing(answer, parts)
        kept = _Kept(unit, answer, outgoing, self._published(unit, answer, outgoing))
        try:
            await self.publisher.written()
            unit.answered()
            self.recommender.tell(answer)
            kept.told = self._observations(answer)
            if kept.travelling.done():
                kept.travelling.result()
            kept.number = self.recommender.keep(answer)
        except BaseException:
            await asyncio.wait({kept.travelling})
            raise
        self._kept.append(kept)
        return kept

    def _published(self, unit: Unit, answer: Answer, outgoing: Sequence[Outgoing]) -> "asyncio.Future[None]":
        """Send what a batch led to; done when the broker has it."""
        travelling = asyncio.ensure_future(self._publish(unit, answer, outgoing))
        travelling.add_done_callback(lambda done: done.cancelled() or done.exception())  # somebody looks at it: here
        return travelling

    async def _publish(self, unit: Unit, answer: Answer, outgoing: Sequence[Outgoing]) -> None:
        with self.metrics.stage("publish"):
            await self.publisher.send_all(outgoing, still_waiting=unit.retrying)
        published_ms = self.recommender.now_ms()
        self.metrics.published("event", [(published_ms - s.trigger.published_ms) / 1000 for s in answer.slates])

    async def _store_kept(self) -> None:
        """Store what was kept by now, or drop it all; an unknown error is no record's fault and is raised."""
        kept = list(self._kept)
        done = await self._guard([one.unit for one in kept]).run(lambda: self._store(kept))
        if isinstance(done, Failed):
            if kept[-1].dropped is None:
                self._drop(done.error)
            if done.verdict is not Verdict.skip:
                raise done.error

    async def _store(self, kept: Sequence[_Kept]) -> None:
        """Wait until the broker has all that these batches led to, then store them."""
        if any(one.travelling.done() and one.travelling.exception() for one in kept):
            await self._publish_again()
        told = [record for one in kept for record in one.told]
        sending = asyncio.ensure_future(self.teller.send_all(told, still_waiting=kept[0].unit.retrying))
        await asyncio.wait({sending, *(one.travelling for one in kept)})
        sending.result()
        for one in kept:
            one.told = ()
            one.travelling.result()
        async with self._answering:  # a slate that is being written comes first
            if (why := kept[-1].dropped) is not None:
                raise Fenced(str(why)) from why
            with self._rewound_is_fenced():
                self.recommender.store(kept[-1].number)
            for one in kept:
                one.stored = True
            del self._kept[: len(kept)]

    async def _publish_again(self) -> None:
        """All that is kept, in order: what was answered later may be there already, and must come last."""
        async with self._answering:
            for one in self._kept:
                one.travelling = self._published(one.unit, one.answer, one.outgoing)
                await asyncio.wait({one.travelling})

    def _drop(self, why: BaseException) -> None:
        """Nothing of what was kept will be stored, and nothing more answered until the lane was sent back."""
        self._void, self._era = True, self._era + 1
        for one in self._kept:
            one.dropped = why
        self._kept.clear()
        self.recommender.users.discard()

    @contextmanager
    def _rewound_is_fenced(self) -> Iterator[None]:
        try:
            yield
        except StoreRewound as why:
            self.metrics.redis_error("fenced")
            raise Fenced(str(why)) from why

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
        if not mine:
            return {}
        self._drop(Fenced("the lane was sent back"))
        store: UserStore = self.recommender.users
        while True:
            try:
                marks = store.claim(mine)
                self._void = False
                break
            except StoreUnavailable as error:
                log.warning("partitions cannot be claimed yet: %s", error)
                await asyncio.sleep(0.5)
        behind = {s: mark.offset + 1 for s, mark in marks.items() if mark.offset + 1 < committed[s]}
        if behind:
            log.warning("the store is behind the log in %d partitions; they are folded again", len(behind))
        return behind

    async def stop(self) -> None:
        """Disconnect."""
        await self.publisher.stop()
        await self.teller.stop()


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

    async def stop(self) -> None:
        """Disconnect."""
        await self.publisher.stop()


class Shards(Generic[L]):
    """A lane for each shard of a topic, each in a loop of its own."""

    def __init__(self, name: str, lanes: Sequence[L]) -> None:
        """Start a loop for each lane, called by this name in lists of threads."""
        self.lanes: Sequence[L] = lanes
        self._loops = [OwnLoop(f"{name}-{shard}") for shard in range(len(lanes))]

    async def __call__(self, unit: Unit) -> None:
        """Let its shard's lane handle a unit."""
        await self._loops[0].run(self.lanes[0](unit))

    async def stop(self) -> None:
        """Disconnect the publishers."""
        for lane, loop in zip(self.lanes, self._loops, strict=True):
            await loop.run(lane.stop())


class EventShards(Shards[EventsLane]):
    """The shards of the events topic."""

    async def positions(self, committed: Mapping[Source, int]) -> Mapping[Source, int]:
        """See `EventsLane.positions`; every partition is claimed for its shard's store."""
        behind: dict[Source, int] = {}
        for lane, loop in zip(self.lanes, self._loops, strict=True):
            if committed:
                behind |= await loop.run(lane.positions(committed))
        return behind


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
