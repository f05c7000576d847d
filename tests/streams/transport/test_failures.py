import asyncio
import errno
import logging

import pytest
from aiokafka.errors import (
    CorruptRecordException,
    IllegalGenerationError,
    KafkaConnectionError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RequestTimedOutError,
    UnknownTopicOrPartitionError,
)

from embeddings.errors import (
    AlreadyCounted,
    EmbeddingsError,
    Fenced,
    IdCollision,
    LedgerClosed,
    SnapshotRefused,
    StoreUnavailable,
    UnreadableState,
)
from streams.transport.failures import (
    _VERDICTS,
    Failed,
    Guard,
    Succeeded,
    Verdict,
    judge,
)
from streams.transport.publishing import PublishFailed


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (StoreUnavailable(), Verdict.retry),
        (KafkaConnectionError(), Verdict.retry),
        (KafkaTimeoutError(), Verdict.retry),
        (RequestTimedOutError(), Verdict.retry),
        (PublishFailed(1, 2, KafkaTimeoutError()), Verdict.retry),
        (ConnectionResetError(), Verdict.retry),
        (TimeoutError(), Verdict.retry),
        (Fenced(), Verdict.skip),
        (IllegalGenerationError(), Verdict.skip),
        (SnapshotRefused(), Verdict.skip),
        (IdCollision(), Verdict.dead_letter),
        (ZeroDivisionError(), Verdict.dead_letter),
        (KeyError("x"), Verdict.dead_letter),
        (UnreadableState(), Verdict.crash),
        (LedgerClosed("lost"), Verdict.retry),
        (AlreadyCounted("events/0", 7), Verdict.crash),
        (PublishFailed(1, 2, MessageSizeTooLargeError()), Verdict.crash),
        (CorruptRecordException(), Verdict.crash),
        (MemoryError(), Verdict.crash),
        (OSError(errno.ENOSPC, "full"), Verdict.crash),
        (SystemExit(), Verdict.crash),
    ],
)
def test_every_error_has_a_verdict(error: BaseException, verdict: Verdict) -> None:
    assert judge(error) is verdict


def test_no_error_of_the_embeddings_is_left_to_the_default() -> None:
    named = {kind for kind, _ in _VERDICTS}
    assert set(EmbeddingsError.__subclasses__()) <= named


class Work:
    """Fails with each error in turn, then returns its result."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.pauses: list[float] = []

    async def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)

    def guard(self) -> Guard:
        return Guard(attempts=3, sleep=self.sleep, jitter=lambda: 1.0)


async def test_a_transient_error_is_tried_again_for_as_long_as_it_takes() -> None:
    work = Work(*[StoreUnavailable("gone")] * 50)
    assert await work.guard().run(work) == Succeeded("done")
    assert work.pauses[:4] == [0.05, 0.1, 0.2, 0.4]
    assert max(work.pauses) == 5.0


async def test_an_unknown_error_is_tried_three_times() -> None:
    work = Work(ValueError(), ValueError())
    assert await work.guard().run(work) == Succeeded("done")
    work = Work(*[ValueError()] * 3)
    outcome = await work.guard().run(work)
    assert isinstance(outcome, Failed)
    assert outcome.verdict is Verdict.dead_letter
    assert work.errors == []


async def test_redis_being_away_in_between_does_not_use_up_the_tries() -> None:
    work = Work(ValueError(), StoreUnavailable(), StoreUnavailable(), StoreUnavailable(), ValueError())
    assert await work.guard().run(work) == Succeeded("done")


@pytest.mark.parametrize(("error", "verdict"), [(Fenced(), Verdict.skip), (UnreadableState(), Verdict.crash)])
async def test_what_cannot_be_helped_is_not_tried_again(error: Exception, verdict: Verdict) -> None:
    work = Work(error)
    assert await work.guard().run(work) == Failed(verdict, error)
    assert work.pauses == []


async def test_the_watchdog_hears_of_every_declared_retry() -> None:
    heard: list[Exception] = []
    work = Work(StoreUnavailable(), StoreUnavailable())
    await Guard(sleep=work.sleep, retrying=heard.append).run(work)
    assert len(heard) == 2


async def test_a_topic_that_the_brokers_do_not_have_excuses_nobody() -> None:
    heard: list[Exception] = []
    gone, away = (PublishFailed(1, 1, cause) for cause in (UnknownTopicOrPartitionError(), KafkaTimeoutError()))
    work = Work(gone, away, gone)
    assert await Guard(sleep=work.sleep, retrying=heard.append).run(work) == Succeeded("done")
    assert heard == [away]


async def test_cancellation_passes_through() -> None:
    async def endless() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(Guard().run(endless))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_log_line_quotes_an_unknown_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    work = Work(*[KeyError("user-canary")] * 3)
    await work.guard().run(work)
    assert "KeyError" in caplog.text
    assert "canary" not in caplog.text
