"""What cannot be read of the control topics: every worker reads it, at every start, and one of them writes it, once.

The worker that owns the first partition of `events` writes, because the group has one such at a time; it looks first at
what lies there. The others keep what they read until they see it there: they may own that partition next.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from aiokafka.errors import KafkaError

from streams.contract.deadletters import DeadLetter
from streams.process.metrics import Metrics
from streams.settings import TopicName
from streams.transport.letters import DeadLetterTopic
from streams.transport.publishing import PublishFailed

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class ControlLetters:
    """Letters of the control topics that are not known to lie in their topics.

    Attributes:
        topics: where they go, by the topic they come from.
        metrics: counts those that this worker wrote.
        leads: whether it is this worker that writes.
        settled_s: it writes when it has been the one for so long: what its predecessor sent has arrived by then.
        look_s: how often another one looks whether they are there.
    """

    topics: Mapping[TopicName, DeadLetterTopic]
    metrics: Metrics
    leads: Callable[[], bool] = lambda: False
    settled_s: float = 3.0
    look_s: float = 30.0
    pending: dict[TopicName, list[DeadLetter]] = field(init=False, default_factory=dict)
    _leads_s: float | None = field(init=False, default=None)
    _looked_s: float = field(init=False, default=0.0)

    def add(self, topic: TopicName, letters: Sequence[DeadLetter]) -> None:
        """Take down what could not be read."""
        if letters:
            codes = ", ".join(sorted({letter.code for letter in letters}))
            log.warning("%s: %d records cannot be used: %s", topic, len(letters), codes)
            self.pending.setdefault(topic, []).extend(letters)

    async def run(self) -> None:
        """Write for as long as the worker lives; what cannot be written now is tried again."""
        while True:
            await asyncio.sleep(min(self.settled_s, self.look_s) / 3)
            try:
                await self._step(monotonic())
            except (KafkaError, OSError, TimeoutError, PublishFailed) as error:
                log.warning("dead letters of control topics wait: %s", error)

    async def _step(self, now_s: float) -> None:
        if not self.leads():
            self._leads_s = None
        elif self._leads_s is None:
            self._leads_s = now_s
        writes = self._leads_s is not None and now_s - self._leads_s >= self.settled_s
        if not writes and now_s - self._looked_s < self.look_s:
            return
        self._looked_s = now_s
        for name, letters in self.pending.items():
            if some := list(letters):
                await self._settle(name, some, writes=writes)

    async def _settle(self, name: TopicName, letters: list[DeadLetter], *, writes: bool) -> None:
        """See that letters are there; those that a broker will never take are left where they came from."""
        left, topic = list[DeadLetter](), self.topics[name]
        if writes:
            topic.doubt()
            try:
                for letter in await topic.put(letters):
                    self.metrics.dead_letter(name, letter.code)
            except PublishFailed as error:
                if not error.permanent:
                    raise
                log.error("%s: dead letters cannot be written, the records stay where they are: %s", name, error)
        else:
            left = await topic.missing(letters)
        self.pending[name] = left + self.pending[name][len(letters) :]

    async def stop(self) -> None:
        """Disconnect."""
        for topic in self.topics.values():
            await topic.publisher.stop()
