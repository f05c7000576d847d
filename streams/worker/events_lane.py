"""Behaviour in, slates and observations out, states stored, then acknowledged; retried, never skipped or swallowed.

A lane computes and waits for Redis in the event loop that it is called in, so each is called in one of its own
(`OwnLoop`): heartbeats and health pages live meanwhile, a lane that waits for Redis holds up no other, and a batch
changes threads twice, not at every stage.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from embeddings.errors import Fenced, StoreUnavailable
from embeddings.events import Source
from embeddings.store import PartitionMark, StoreRewound
from streams.contract.deadletters import Code, DeadLetter, dead_letter_record
from streams.contract.decode import Decoded, Misrouted
from streams.contract.homes import Homes
from streams.contract.messages import Outgoing, Part
from streams.contract.records import encode
from streams.process.member import Pause
from streams.process.metrics import WorkerMetrics
from streams.serving.ad_events import AdEvents
from streams.serving.ad_slates import SlateAds
from streams.serving.pipeline import Answer, Recommender
from streams.serving.slates import PublishedSlate, ad_records, slate_record
from streams.settings import Settings
from streams.transport.ledger import Unit
from streams.transport.letters import DeadLetterTopic
from streams.transport.logs import Expired, Stretch, refuse_foreign
from streams.transport.publishing import Publisher
from streams.worker.attempts import whole_or_apart
from streams.worker.complaints import MISDATED, MISROUTED, Complaint
from streams.worker.paused import Paused
from streams.worker.shown import Shown
from streams.worker.unread_sample import UnreadSample
from streams.worker.unstored import Answered, Unstored

log = logging.getLogger(__name__)

_SURELY_FITS = 65_536
"""Every topic takes a record of so many bytes."""


@dataclass(slots=True, kw_only=True)
class EventsLane:
    """Units are answered one after the other, each on top of what the one before it changed (`Unstored`)."""

    recommender: Recommender
    publisher: Publisher
    teller: Publisher
    """For observations: aiokafka has one request per broker under way, and slates do not wait behind them."""
    settings: Settings
    metrics: WorkerMetrics
    letters: DeadLetterTopic
    paused: Paused
    shown: Shown
    ads: AdEvents | None = None
    """What confirms events of ads, which the recommender asks what was seen of them."""
    slate_ads: SlateAds | None = None
    """What lays ads on slates, for the recommender."""
    unstored: Unstored = field(init=False)
    homes: Homes = field(init=False)
    expired: Expired = field(init=False)
    unread: UnreadSample = field(init=False)
    misrouted: Complaint = field(init=False, default_factory=lambda: Complaint(MISROUTED))
    misdated: Complaint = field(init=False, default_factory=lambda: Complaint(MISDATED))

    def __post_init__(self) -> None:
        self.unread = UnreadSample("events", self.settings.topics.name("events"), self.metrics.unread)
        self.homes, self.expired = self.recommender.rules.homes, Expired(self._count_expired)
        self.unstored = Unstored(
            recommender=self.recommender,
            publisher=self.publisher,
            teller=self.teller,
            letters=self.letters,
            metrics=self.metrics,
            shown=self.shown,
            attempts=self.settings.limits.attempts,
            ads=self.ads,
        )

    async def __call__(self, unit: Unit) -> None:
        """Handle one unit whole; returns when everything it led to is durable.

        Raises:
            Rewind: the store lost data or the partition; the lane is fetched again from what the store has.
            PublishFailed: a record can never be published; the worker ends.
            Pause: all is done but for partitions that are paused: most of what they brought became dead letters.
        """
        queue, era = self.unstored, self.unstored.era
        try:
            async with queue.answering:
                unit.top_up()
                self.metrics.batch("events", unit.size)
                answer = partial(self._answer, unit, era)
                with self.metrics.spans.batch("events", unit.parts):
                    answered = await whole_or_apart(queue.guard(unit), unit.parts, answer, paused=self.paused)
        except BaseException as why:
            if era == queue.era:  # whatever comes after this unit would be folded without it
                queue.drop(why)
            raise
        if answered:
            await queue.settle(answered[-1])
        for one in answered:
            for source, mark in one.answer.marks.items():
                self.homes.stored(source, mark.offset)
        for one in answered:
            self._count_ads(one.answer)
            self.shown.stored(one.answer, one.taken)
            self._complain(one.answer.decoded)
            for letter in one.written:
                self.metrics.dead_letter("events", letter.code)
        if left := self._left(unit, answered):
            raise Pause(left)

    def _count_ads(self, answer: Answer) -> None:
        for slate in self._with_ads(answer):
            for decision in slate.ads:
                self.metrics.ads.decided(decision.outcome, price_micros=decision.record.price_micros)
        if self.slate_ads:
            self.metrics.ads.funnel(self.slate_ads.server.funnel.take_names())

    async def tell_funnel(self) -> None:
        """Have the ledger told what became of ads on slates, also while no events come. In the lane's own loop."""
        if self.slate_ads:
            self.slate_ads.server.tell(())

    def _left(self, unit: Unit, answered: Sequence[Answered]) -> dict[Source, int]:
        """Partitions of which records were left alone, and where they go on one day."""
        done = {source: mark.offset for one in answered for source, mark in one.answer.marks.items()}
        return {
            part.source: self.paused.at[part.source] for part in unit.parts if part.last > done.get(part.source, -1)
        }

    def _complain(self, decoded: Decoded) -> None:
        records, topic = len(decoded.batch) + len(decoded.aside), self.settings.topics.name("events")
        self.metrics.slates.misdated.inc(decoded.misdated)
        self.unread.look(decoded.records)
        self.misrouted.count(topic, records, len(decoded.misrouted))
        self.misdated.count(topic, records, decoded.misdated)

    async def _answer(self, unit: Unit, era: int, parts: Sequence[Part], aside: Sequence[DeadLetter]) -> Answered:
        """Answer a batch and send its slates off; meanwhile tell what it teaches and keep what it changes."""
        self.unstored.check(era)
        with self.unstored.rewound_is_fenced():
            answer = self.recommender.respond(parts, aside)
        one = self.unstored.send(unit, answer, *self._outgoing(answer, parts))
        one.taken = self.shown.judge(answer)  # before anything is on its way
        try:
            await self.publisher.written()
            unit.answered()
            self.recommender.tell(answer)
            one.told = self._observations(answer)
            if one.travelling.done():
                one.travelling.result()
            one.number = self.recommender.keep(answer)
        except BaseException:
            await asyncio.wait({one.travelling})
            raise
        self.unstored.add(one)
        self.paused.told(answer.marks)
        return one

    def _observations(self, answer: Answer) -> list[Outgoing]:
        topic = self.settings.topics.name("observations")
        return [Outgoing(topic, b"%d" % s.partition, value, (), s.partition) for s, value in answer.told]

    def _outgoing(self, answer: Answer, parts: Sequence[Part]) -> tuple[list[Outgoing], list[DeadLetter]]:
        """What leaves, and its dead letters; not again where the batch was stored or committed before."""
        topics, marks = self.settings.topics, answer.loaded.marks
        done = {part.source: max(part.committed - 1, marks[part.source].offset) for part in parts}
        dead = [letter for letter in answer.decoded.dead if letter.offset > done[letter.source]]
        out = [
            *(slate_record(slate, topics.name("slates")) for slate in answer.slates),
            *(record for slate in self._with_ads(answer) for record in ad_records(slate, topics.name("ads"))),
            *(Outgoing(topics.name("traces"), trace.user_id.encode(), encode(trace)) for trace in answer.traces),
            *(
                self._home(f, parts)
                for f in answer.decoded.misrouted
                if f.offset > done[f.source] or _never_left(f, marks)
            ),
        ]
        return out, dead

    def _with_ads(self, answer: Answer) -> Sequence[PublishedSlate]:
        return answer.slates if self.slate_ads else ()

    def _home(self, record: Misrouted, parts: Sequence[Part]) -> Outgoing:
        """What is sent to the right partition; a letter where the topic takes it compressed only."""
        outgoing, source = record.outgoing, record.source
        if len(outgoing.value or b"") < _SURELY_FITS:
            return outgoing
        (raw,) = (r for part in parts if part.source == source for r in part.records if r.offset == record.offset)
        said = "in a foreign partition, and larger than its topic takes uncompressed"
        letter = DeadLetter(source, record.offset, raw, Code.misrouted, said)
        return outgoing._replace(smaller=dead_letter_record(letter, self.letters.topic))

    async def positions(
        self, stretches: Mapping[Source, Stretch], waiting: Callable[[str], object] = lambda reason: None
    ) -> Mapping[Source, int]:
        """Claim the assigned partitions; start where the store is, if that is before the committed offset.

        Raises:
            ForeignLog: the store's marks are of another log; nothing was claimed.
        """
        mine = {s: stretch for s, stretch in stretches.items() if s.topic == self.settings.topics.name("events")}
        marks: Mapping[Source, PartitionMark] = {}
        if mine:
            self.unstored.drop(Fenced("the lane was sent back"))
            self.letters.doubt()
            marks = await self._claimed(mine, waiting)
            self.unstored.reopen()
            self.paused.claimed(marks)
            if self.ads is not None:
                self.ads.claimed(marks)
        after = {source: mark.offset + 1 for source, mark in marks.items()}
        for source, stretch in mine.items():
            count, committed = self.settings.topics.partitions, stretch.committed
            self.homes.take(source, note=stretch.note, count=count, after=after[source], committed=committed)
            self.recommender.logs[source] = stretch.log
        for source, stretch in stretches.items():
            self.expired.note(source, max(stretch.committed, after.get(source, 0)), stretch)
        behind = {source: offset for source, offset in after.items() if offset < stretches[source].committed}
        if behind:
            gone = sum(max(stretches[source].first - offset, 0) for source, offset in behind.items())
            but = f", but for {gone} records that expired meanwhile" if gone else ""
            log.warning("the store is behind the log in %d partitions; they are folded again%s", len(behind), but)
        return behind

    async def is_behind(self, sources: Sequence[Source]) -> bool:
        """Whether the store lost what it had of claimed partitions; where nothing comes nothing else would notice."""
        try:
            self.recommender.users.verify(sources)
        except StoreRewound as why:
            log.warning("the store lost what it had: %s", why)
            return True
        except (Fenced, StoreUnavailable):
            return False  # the next batch meets it
        return False

    async def _claimed(
        self, mine: Mapping[Source, Stretch], waiting: Callable[[str], object]
    ) -> Mapping[Source, PartitionMark]:
        users = self.recommender.users
        while True:
            try:
                for source, mark in users.marks(list(mine)).items():
                    refuse_foreign(source, mine[source], after=mark.offset + 1, log=mark.log, where="Redis")
                return users.claim(list(mine))
            except StoreUnavailable as error:
                log.warning("partitions cannot be claimed yet: %s", error)
                waiting("the store does not answer")
                await asyncio.sleep(0.5)

    def _count_expired(self, topic: str, records: int) -> None:
        names = self.settings.topics.name
        self.metrics.expired.labels("events" if topic == names("events") else "requests").inc(records)

    async def stop(self) -> None:
        """Disconnect."""
        await self.publisher.stop()
        await self.teller.stop()


def _never_left(record: Misrouted, marks: Mapping[Source, PartitionMark]) -> bool:
    """Was a record folded where it stands, before its topic grew, and has the store lost that?"""
    return not record.left and record.offset > marks[record.source].offset
