"""Requests in, slates out; retried while brokers are away, never skipped or swallowed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from embeddings.stoprule import StopRule
from streams.contract.deadletters import DeadLetter
from streams.contract.messages import Part
from streams.process.metrics import WorkerMetrics
from streams.serving.requests import Answerer
from streams.serving.slates import slate_record
from streams.settings import Settings
from streams.transport.failures import Guard
from streams.transport.ledger import Unit
from streams.transport.letters import DeadLetterTopic, Floods
from streams.transport.publishing import Publisher, PublishFailed
from streams.worker.attempts import whole_or_apart


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
    floods: Floods = field(init=False)

    def __post_init__(self) -> None:
        self.floods = Floods(StopRule(self.settings.limits.dead_letter_share))

    async def __call__(self, unit: Unit) -> None:
        """Answer every readable request of a unit, degraded where it must be.

        Raises:
            PublishFailed: a record can never be published; the worker ends.
        """
        self.metrics.batch("requests", unit.size)
        guard = Guard(
            attempts=self.settings.limits.attempts, retrying=lambda error: unit.retrying(type(error).__name__)
        )
        dead = list(chain.from_iterable(await whole_or_apart(guard, unit.parts, partial(self._answer, unit))))
        self.floods.count(unit.parts, dead)  # and none pauses: an answer is worth seconds

    async def _answer(self, unit: Unit, parts: Sequence[Part], aside: Sequence[DeadLetter]) -> list[DeadLetter]:
        self.answerer.missing = await self.publisher.missing(self.settings.slates.reply_topics)
        slates, dead = self.answerer.respond(parts)
        dead += aside
        topic = self.settings.topics.name("slates")
        out = [slate_record(slate, slate.trigger.reply_to or topic) for slate in slates]
        try:
            await self.publisher.send_all(out, still_waiting=unit.retrying)
        except PublishFailed as error:
            if error.permanent and any(slate.trigger.reply_to for slate in slates):
                raise Unanswerable(str(error)) from error  # one request's fault, not a reason to end
            raise
        written = await self.letters.put(dead, still_waiting=unit.retrying)
        now_ms = self.answerer.now_ms()
        for slate in slates:
            waited_s = (now_ms - slate.trigger.published_ms) / 1000
            self.metrics.published("request", [waited_s], slate.trigger.degraded)
        for letter in written:
            self.metrics.dead_letter("requests", letter.code)
        return dead

    async def stop(self) -> None:
        """Disconnect."""
        await self.publisher.stop()
