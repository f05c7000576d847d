"""Requests in, slates and what they teach out; retried while brokers are away, never skipped or swallowed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from embeddings.stoprule import StopRule
from streams.contract.deadletters import DeadLetter
from streams.contract.messages import Outgoing, Part
from streams.contract.observations import pieces
from streams.process.metrics import WorkerMetrics
from streams.serving.requests import Answerer
from streams.serving.shown_writer import observe_shown
from streams.serving.slates import PublishedSlate, ad_records, slate_record
from streams.settings import Settings
from streams.transport.failures import Guard
from streams.transport.ledger import Unit
from streams.transport.letters import DeadLetterTopic, Floods
from streams.transport.publishing import Publisher, PublishFailed
from streams.worker.attempts import settled, whole_or_apart
from streams.worker.shown import Shown
from streams.worker.unread_sample import UnreadSample


class Unanswerable(Exception):
    """Brokers will never take an answer where a request wants it: too large for that topic, or not allowed there."""


@dataclass(slots=True, kw_only=True)
class RequestsLane:
    """Reads user state, never writes it, so any worker may answer."""

    answerer: Answerer
    publisher: Publisher
    letters: DeadLetterTopic
    settings: Settings
    metrics: WorkerMetrics
    shown: Shown
    floods: Floods = field(init=False)
    unread: UnreadSample = field(init=False)

    def __post_init__(self) -> None:
        self.floods = Floods(StopRule(self.settings.limits.dead_letter_share))
        self.unread = UnreadSample("requests", self.settings.topics.name("requests"), self.metrics.unread)

    async def __call__(self, unit: Unit) -> None:
        """Answer every readable request of a unit, degraded where it must be.

        Raises:
            PublishFailed: a record can never be published; the worker ends.
        """
        self.metrics.batch("requests", unit.size)
        guard = Guard(
            attempts=self.settings.limits.attempts, retrying=lambda error: unit.retrying(type(error).__name__)
        )
        with self.metrics.spans.batch("requests", unit.parts):
            done = await whole_or_apart(guard, unit.parts, partial(self._answer, unit))
        self.floods.count(unit.parts, [letter for _, dead in done for letter in dead])  # and none pauses: an answer is
        # worth seconds
        self.unread.look(random.choice(unit.parts).records)
        told = [record for slates, _ in done for record in taught(self.settings, self.answerer, slates)]
        settled(await guard.run(lambda: self.publisher.send_all(told, still_waiting=unit.retrying)))

    async def _answer(
        self, unit: Unit, parts: Sequence[Part], aside: Sequence[DeadLetter]
    ) -> tuple[list[PublishedSlate], list[DeadLetter]]:
        self.answerer.missing = await self.publisher.missing(self.settings.slates.reply_topics)
        slates, dead = self.answerer.respond(parts)
        dead += aside
        topic = self.settings.topics.name("slates")
        out = [slate_record(slate, slate.trigger.reply_to or topic) for slate in slates]
        out += [record for slate in slates for record in ad_records(slate, self.settings.topics.name("ads"))]
        try:
            with self.metrics.stage("publish", "requests"):
                await self.publisher.send_all(out, still_waiting=unit.retrying)
        except PublishFailed as error:
            if error.permanent and any(slate.trigger.reply_to for slate in slates):
                raise Unanswerable(str(error)) from error  # one request's fault, not a reason to end
            raise
        written = await self.letters.put(dead, still_waiting=unit.retrying)
        count_answers(self.metrics, self.shown, slates, self.answerer.now_ms())
        count_funnel(self.metrics, self.answerer)
        for letter in written:
            self.metrics.dead_letter("requests", letter.code)
        return slates, dead

    async def tell_funnel(self) -> None:
        """Have the ledger told what became of line items, also while no requests come. In the lane's own loop."""
        if self.answerer.ads:
            self.answerer.ads.server.tell(())

    async def stop(self) -> None:
        """Disconnect."""
        await self.publisher.stop()


def taught(settings: Settings, answerer: Answerer, slates: Sequence[PublishedSlate]) -> list[Outgoing]:
    """What slates and their ads teach, once they are out, where the events of the same people are told."""
    told = answerer.ads.take_told() if answerer.ads else []
    if not settings.observe.enabled:
        return []
    topic = settings.topics.name("observations")
    return [
        Outgoing(topic, b"%d" % o.source.partition, value, (), o.source.partition)
        for o in (*observe_shown(slates, settings.observe.shown), *told)
        for value in pieces(o)
    ]


def count_answers(metrics: WorkerMetrics, shown: Shown, slates: Sequence[PublishedSlate], now_ms: int) -> None:
    """Take down slates that are out since now, and what became of their ads."""
    shown.published("request", slates, now_ms)
    for slate in slates:
        for decision in slate.ads:
            metrics.ads.decided(decision.outcome, price_micros=decision.record.price_micros)


def count_funnel(metrics: WorkerMetrics, answerer: Answerer) -> None:
    """Take down how far line items came in what was decided; in the thread that decides."""
    if answerer.ads:
        metrics.ads.funnel(answerer.ads.server.funnel.take_names())
