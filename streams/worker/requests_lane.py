"""Requests in, slates out; retried while brokers are away, never skipped or swallowed."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from statistics import mode

from embeddings.events import Source
from embeddings.stoprule import WELL, BadRun, StopRule
from streams.contract.deadletters import Code, DeadLetter
from streams.contract.messages import Part
from streams.process.metrics import WorkerMetrics
from streams.serving.requests import Answerer
from streams.serving.slates import slate_record
from streams.settings import Settings
from streams.transport.failures import Guard
from streams.transport.ledger import Unit
from streams.transport.letters import DeadLetterTopic
from streams.transport.publishing import Publisher, PublishFailed
from streams.worker.attempts import whole_or_apart

log = logging.getLogger(__name__)


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
    _rule: StopRule = field(init=False)
    _runs: dict[Source, BadRun] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._rule = StopRule(self.settings.limits.dead_letter_share)

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
        for part in unit.parts:
            self._judge(part, [letter.code for letter in dead if letter.source == part.source])

    def _judge(self, part: Part, codes: Sequence[Code]) -> None:
        """Tell of a bad deploy. Requests never pause: who asks rightly waits for an answer that is worth seconds."""
        before = self._runs.get(part.source, WELL)
        run = self._rule.after(before, records=len(part.records), dead=len(codes), code=mode(codes) if codes else "")
        if run.paused:
            said = "%s/%d: %d of the last %d requests (%.0f%%) became dead letters, most of them %s; others go on"
            log.error(said, *part.source, run.dead, run.records, 100 * run.share, run.code)
            run = run.release()
        self._runs[part.source] = run

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
