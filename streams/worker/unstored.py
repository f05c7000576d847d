"""What was answered and is not stored yet: on its way to the broker, then into the store, all of it or none."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from embeddings.errors import Fenced
from embeddings.store import StoreRewound
from streams.contract.deadletters import DeadLetter
from streams.contract.messages import Outgoing
from streams.process.member import Rewind
from streams.process.metrics import WorkerMetrics
from streams.serving.ad_events import AdEvents
from streams.serving.pipeline import Answer, Recommender
from streams.transport.failures import Failed, Guard, Verdict
from streams.transport.ledger import Unit
from streams.transport.letters import DeadLetterTopic
from streams.transport.publishing import Publisher
from streams.worker.shown import Shown


@dataclass(slots=True, eq=False)
class Answered:
    """A unit, or one record of it, that was answered and is not stored yet."""

    unit: Unit
    answer: Answer
    outgoing: Sequence[Outgoing]
    dead: Sequence[DeadLetter]
    travelling: "asyncio.Future[None]" = field(init=False)
    written: list[DeadLetter] = field(init=False, default_factory=list)
    """Dead letters of this batch that were not there yet."""
    told: Sequence[Outgoing] = ()
    taken: Mapping[str, int] = field(default_factory=dict)
    """Where what people took had stood in their slates."""
    number: int = 0
    stored: bool = False
    dropped: BaseException | None = None


@dataclass(slots=True, kw_only=True)
class Unstored:
    """The queue between answering and the store, oldest first.

    The broker acknowledges slates and observations, then the states are stored, those of all units at once that were
    answered by then. Where that fails for good none of them is stored, and nothing may be answered until `reopen`.
    """

    recommender: Recommender
    publisher: Publisher
    teller: Publisher
    letters: DeadLetterTopic
    metrics: WorkerMetrics
    shown: Shown
    attempts: int
    ads: AdEvents | None = None
    """Is told what is stored."""
    answering: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    """Held while a unit is answered."""
    era: int = field(init=False, default=0)
    """Rises when what was begun becomes void."""
    _storing: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _kept: list[Answered] = field(init=False, default_factory=list)
    _void: bool = field(init=False, default=False)

    def check(self, era: int) -> None:
        """See that what was begun in an era is not void.

        Raises:
            Fenced: it is.
        """
        if self._void or era != self.era:
            raise Fenced("the lane was sent back")

    def send(self, unit: Unit, answer: Answer, outgoing: Sequence[Outgoing], dead: Sequence[DeadLetter]) -> Answered:
        """Send off what a batch led to."""
        one = Answered(unit, answer, outgoing, dead)
        one.travelling = self._published(one)
        return one

    def add(self, one: Answered) -> None:
        """Have a batch stored in its turn; the store has kept what it changes."""
        self._kept.append(one)

    async def settle(self, one: Answered) -> None:
        """Return when a batch, and all before it, is stored.

        Raises:
            Rewind: it was dropped; the lane is fetched again from what the store has.
            PublishFailed: a record can never be published; the worker ends.
        """
        async with self._storing:
            if not (one.stored or one.dropped):
                await self._store_kept()
        if (reason := one.dropped) is not None:
            raise Rewind(str(reason)) from reason

    def drop(self, why: BaseException) -> None:
        """Nothing of what was kept will be stored, and nothing more answered until the lane was sent back."""
        self._void, self.era = True, self.era + 1
        for one in self._kept:
            one.dropped = why
        self._kept.clear()
        self.recommender.users.discard()

    def reopen(self) -> None:
        """The lane was sent back to what is stored."""
        self._void = False

    def guard(self, *units: Unit) -> Guard:
        """Retries what is done for some units, and has them declare it."""

        def retrying(error: Exception) -> None:
            for unit in units:
                unit.retrying(type(error).__name__)

        return Guard(attempts=self.attempts, retrying=retrying)

    @contextmanager
    def rewound_is_fenced(self) -> Iterator[None]:
        """A store that lost what it had has the lane sent back, as one that another worker claimed."""
        try:
            yield
        except StoreRewound as why:
            self.metrics.redis.failed("fenced")
            raise Fenced(str(why)) from why

    def _published(self, one: Answered) -> "asyncio.Future[None]":
        """Send what a batch led to; done when the broker has it."""
        travelling = asyncio.ensure_future(self._publish(one))
        travelling.add_done_callback(lambda done: done.cancelled() or done.exception())  # somebody looks at it: here
        return travelling

    async def _publish(self, one: Answered) -> None:
        with self.metrics.stage("publish"):
            await self.publisher.send_all(one.outgoing, still_waiting=one.unit.retrying)
            one.written += await self.letters.put(one.dead, still_waiting=one.unit.retrying)
        self.shown.published("event", one.answer.slates, self.recommender.now_ms())

    async def _store_kept(self) -> None:
        """Store what was kept by now, or drop it all; an unknown error is no record's fault and is raised."""
        kept = list(self._kept)
        done = await self.guard(*(one.unit for one in kept)).run(lambda: self._store(kept))
        if isinstance(done, Failed):
            if kept[-1].dropped is None:
                self.drop(done.error)
            if done.verdict is not Verdict.skip:
                raise done.error

    async def _store(self, kept: Sequence[Answered]) -> None:
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
        async with self.answering:  # a slate that is being written comes first
            if (why := kept[-1].dropped) is not None:
                raise Fenced(str(why)) from why
            with self.rewound_is_fenced():
                self.recommender.store(kept[-1].number)
            for one in kept:
                one.stored = True
            del self._kept[: len(kept)]
            if self.ads is not None:
                self.ads.stored({source: mark for one in kept for source, mark in one.answer.marks.items()})

    async def _publish_again(self) -> None:
        """All that is kept, in order: what was answered later may be there already, and must come last."""
        async with self.answering:
            for one in self._kept:
                one.travelling = self._published(one)
                await asyncio.wait({one.travelling})
