"""Requests in, slates out; retried while brokers are away, never skipped or swallowed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from streams.contract.deadletters import DeadLetter, dead_letter_records
from streams.contract.messages import Part
from streams.process.metrics import WorkerMetrics
from streams.serving.requests import Answerer
from streams.serving.slates import slate_record
from streams.settings import Settings
from streams.transport.failures import Guard
from streams.transport.ledger import Unit
from streams.transport.publishing import Publisher, PublishFailed
from streams.worker.attempts import whole_or_apart


class Unanswerable(Exception):
    """Brokers will never take an answer where a request wants it: too large for that topic, or not allowed there."""


@dataclass(slots=True, kw_only=True)
class RequestsLane:
    """Reads user state, never writes it, so any worker may answer."""

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
        guard = Guard(
            attempts=self.settings.limits.attempts, retrying=lambda error: unit.retrying(type(error).__name__)
        )
        await whole_or_apart(guard, unit.parts, partial(self._answer, unit))

    async def _answer(self, unit: Unit, parts: Sequence[Part], aside: Sequence[DeadLetter]) -> None:
        self.answerer.missing = await self.publisher.missing(self.settings.slates.reply_topics)
        slates, unreadable = self.answerer.respond(parts)
        topics, dead = self.settings.topics, [*unreadable, *aside]
        out = [slate_record(slate, slate.trigger.reply_to or topics.name("slates")) for slate in slates]
        out += dead_letter_records(dead, topics.dead_letters("requests"))
        try:
            await self.publisher.send_all(out, still_waiting=unit.retrying)
        except PublishFailed as error:
            if error.permanent and any(slate.trigger.reply_to for slate in slates):
                raise Unanswerable(str(error)) from error  # one request's fault, not a reason to end
            raise
        now_ms = self.answerer.now_ms()
        for slate in slates:
            waited_s = (now_ms - slate.trigger.published_ms) / 1000
            self.metrics.published("request", [waited_s], slate.trigger.degraded)
        for letter in dead:
            self.metrics.dead_letter("requests", letter.code)

    async def stop(self) -> None:
        """Disconnect."""
        await self.publisher.stop()
