"""What an error means for the messages being processed: skip, retry, dead-letter or crash. The only place that says.

retry        transient: Redis or the broker is away. The same batch again, with growing pauses, for as long as it takes
             while the partition waits; never skipped
skip         somebody else does it: the partition was lost, its new owner applies the batch. Not acknowledged here
dead_letter  nobody knows why it fails. After a few tries the batch is taken apart, and what still fails is kept aside
crash        going on would lose or spoil something. The process ends non-zero and is started again

>>> judge(StoreUnavailable("timeout")), judge(Fenced("events/3")), judge(ZeroDivisionError())
(<Verdict.retry: 'retry'>, <Verdict.skip: 'skip'>, <Verdict.dead_letter: 'dead_letter'>)
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from aiokafka.errors import (
    IllegalGenerationError,
    KafkaError,
    KafkaTimeoutError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from embeddings.errors import (
    AlreadyCounted,
    Fenced,
    IdCollision,
    LedgerClosed,
    SnapshotRefused,
    StoreRefused,
    StoreUnavailable,
    UnreadableState,
)
from streams.configuration import SettingsError
from streams.contract.observations import LaterObservation
from streams.transport.logs import ForeignLog
from streams.transport.publishing import PublishFailed
from streams.transport.topic_watch import TopicGone

log = logging.getLogger(__name__)
T = TypeVar("T")


class Verdict(Enum):
    """What becomes of the messages."""

    skip = "skip"
    retry = "retry"
    dead_letter = "dead_letter"
    crash = "crash"


class Contested(Exception):
    """Partitions are lost again and again though the group does not change. The worker ends: nobody would gain."""


_VERDICTS: tuple[tuple[type[BaseException], Verdict], ...] = (
    (StoreUnavailable, Verdict.retry),
    (LedgerClosed, Verdict.retry),
    (KafkaTimeoutError, Verdict.retry),
    (IllegalGenerationError, Verdict.skip),
    (RebalanceInProgressError, Verdict.skip),
    (UnknownMemberIdError, Verdict.skip),
    (Fenced, Verdict.skip),
    (SnapshotRefused, Verdict.skip),
    (IdCollision, Verdict.dead_letter),
    (StoreRefused, Verdict.crash),
    (UnreadableState, Verdict.crash),
    (AlreadyCounted, Verdict.crash),
    (LaterObservation, Verdict.crash),
    (ForeignLog, Verdict.crash),
    (TopicGone, Verdict.crash),
    (SettingsError, Verdict.crash),
    (Contested, Verdict.crash),
    (MemoryError, Verdict.crash),
    (ConnectionError, Verdict.retry),
    (TimeoutError, Verdict.retry),
    (OSError, Verdict.crash),
)


def judge(error: BaseException) -> Verdict:
    """What an error means. Unknown ones are the message's fault until shown otherwise."""
    if isinstance(error, PublishFailed):
        return Verdict.crash if error.permanent else Verdict.retry
    for kind, verdict in _VERDICTS:
        if isinstance(error, kind):
            return verdict
    if isinstance(error, KafkaError):
        return Verdict.retry if error.retriable else Verdict.crash
    return Verdict.dead_letter if isinstance(error, Exception) else Verdict.crash


@dataclass(frozen=True, slots=True)
class Failed:
    """A batch that was not done, what is to become of its messages, and why."""

    verdict: Verdict
    error: Exception


@dataclass(frozen=True, slots=True)
class Succeeded(Generic[T]):
    """A batch that was done, with its result."""

    result: T


@dataclass(slots=True, kw_only=True)
class Guard:
    """Runs a batch until its fate is known. `retrying` is called before each pause, so that the watchdog knows.

    Not where brokers answer that there is no such topic: nothing is away then, and the watchdog ends the process.

    Pauses grow from 50 ms to `longest_pause_s`, each with jitter, so that workers do not return all at once.
    """

    attempts: int = 3
    longest_pause_s: float = 5.0
    retrying: Callable[[Exception], None] = lambda _error: None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random

    async def run(self, work: Callable[[], Awaitable[T]]) -> Succeeded[T] | Failed:
        """The result of `work`, or the verdict on its error; raises nothing but cancellation."""
        unknown = pause = 0
        while True:
            try:
                return Succeeded(await work())
            except Exception as error:
                verdict = judge(error)
                unknown += verdict is Verdict.dead_letter
                if verdict in (Verdict.skip, Verdict.crash) or unknown >= self.attempts:
                    log.log(_LEVELS[verdict], "batch failed: %s: %s", verdict.value, _said(error))
                    return Failed(verdict, error)
                if pause == 0:
                    log.warning("batch is tried again until it is done: %s", _said(error))
                if not isinstance(error, PublishFailed) or error.away:
                    self.retrying(error)
            await self.sleep(min(self.longest_pause_s, 0.05 * 2 ** min(pause, 10)) * (0.5 + self.jitter() / 2))
            pause += 1


_LEVELS = {Verdict.skip: logging.INFO, Verdict.crash: logging.CRITICAL, Verdict.dead_letter: logging.ERROR}


def is_known(error: BaseException) -> bool:
    """Whether an error's message says what there is to say, to whoever runs this; of the others the traceback does."""
    return bool(str(error)) and isinstance(error, (KafkaError, PublishFailed, *(kind for kind, _ in _VERDICTS)))


def _said(error: Exception) -> str:
    """An error as a log line may have it: texts of unknown errors may quote a payload, so only their kind is said."""
    return f"{type(error).__name__}: {error}" if is_known(error) else type(error).__name__
