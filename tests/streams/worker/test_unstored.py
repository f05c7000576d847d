"""Units of one lane under way together: answered in turn, stored together, dropped together."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from embeddings.errors import Fenced, StoreUnavailable
from embeddings.events import Fate, Source
from embeddings.store import PartitionMark, StoreRewound
from streams.process.member import Rewind
from streams.transport.publishing import PublishFailed
from tests.streams.builders import Raw, committed
from tests.streams.lanes import AWAY, LOG, TOO_LARGE, Worker, a_worker, shaky_store

FIRST, SECOND, THIRD = LOG[:10], LOG[10:20], LOG[20:]
FETCHED = Source("marquee.events.v1", 0)


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    """A worker whose broker acknowledges nothing until it is told."""
    worker = a_worker()
    worker.service.users.claim([FETCHED])
    worker.topics.acknowledges.clear()
    yield worker
    worker.topics.acknowledges.set()


def begin(worker: Worker, *logs: Sequence[Raw]) -> list["asyncio.Task[None]"]:
    return [asyncio.ensure_future(worker.take(log, FETCHED)) for log in logs]


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def slates(worker: Worker) -> list[str]:
    """The inputs of the slates published, in order."""
    headers = [dict(slate.headers) for slate in worker.topics.of("marquee.slates.v1")]
    return [header["marquee-input"].decode().rpartition("/")[2] for header in headers]


def offsets(*logs: Sequence[Raw]) -> list[str]:
    return [str(record.offset) for log in logs for record in log]


def marked(worker: Worker) -> PartitionMark:
    return worker.service.users.marks([FETCHED])[FETCHED]


async def outcomes(tasks: list["asyncio.Task[None]"]) -> list[type[BaseException] | None]:
    done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    return [None if error is None else type(error) for error in done]


async def test_a_unit_is_answered_while_the_one_before_is_on_its_way(worker: Worker) -> None:
    store = shaky_store(worker)
    tasks = begin(worker, FIRST, SECOND, THIRD)
    await until(lambda: len(slates(worker)) == 30)
    await asyncio.sleep(0.01)
    assert slates(worker) == offsets(FIRST, SECOND, THIRD)
    assert (marked(worker), "flush" in store.calls, any(task.done() for task in tasks)) == (
        PartitionMark(),
        False,
        False,
    )
    worker.topics.acknowledges.set()
    assert await outcomes(tasks) == [None] * 3
    assert store.calls.count("flush") == 2  # the first, then those that were answered meanwhile
    assert marked(worker).totals[Fate.applied] == 30


@pytest.mark.parametrize("held", ["slates", "observations"])
async def test_nothing_is_stored_before_the_broker_has_all_it_led_to(worker: Worker, held: str) -> None:
    store, worker.topics.held = shaky_store(worker), held
    tasks = begin(worker, FIRST, SECOND)
    await until(lambda: len(slates(worker)) == 20 and "observations.v1" in worker.topics.count())
    await asyncio.sleep(0.05)
    assert ("flush" in store.calls, marked(worker)) == (False, PartitionMark())
    worker.topics.acknowledges.set()
    assert await outcomes(tasks) == [None, None]
    assert worker.waited == []


async def test_a_unit_that_is_sent_back_while_its_slates_are_written_is_void(worker: Worker) -> None:
    async def written() -> None:
        await worker.events.positions(committed({FETCHED: 0}))

    worker.topics.written = written  # type: ignore[method-assign]
    worker.topics.acknowledges.set()
    assert await outcomes(begin(worker, FIRST)) == [Rewind]
    assert marked(worker) == PartitionMark()


async def test_units_under_way_together_leave_what_they_leave_one_by_one(worker: Worker) -> None:
    tasks = begin(worker, FIRST, SECOND, THIRD)
    await until(lambda: len(slates(worker)) == 30)
    worker.topics.acknowledges.set()
    await outcomes(tasks)
    alone = a_worker()
    alone.service.users.claim([FETCHED])
    for log in (FIRST, SECOND, THIRD):
        await alone.take(log, FETCHED)
    users = sorted({(record.key or b"").decode() for record in LOG})
    assert worker.service.states(*users) == alone.service.states(*users)
    assert marked(worker) == marked(alone)
    assert [r.value for r in worker.topics.of("marquee.slates.v1")] == [
        r.value for r in alone.topics.of("marquee.slates.v1")
    ]


@pytest.mark.parametrize("error", [Fenced("claimed"), StoreRewound("gone")])
async def test_a_refused_flush_drops_all_that_is_under_way_until_the_lane_was_sent_back(
    worker: Worker, error: Exception
) -> None:
    shaky_store(worker, flush=[error])
    tasks = begin(worker, FIRST, SECOND)
    await until(lambda: len(slates(worker)) == 20)
    worker.topics.acknowledges.set()
    assert await outcomes(tasks) == [Rewind, Rewind]
    assert await outcomes(begin(worker, THIRD)) == [Rewind]
    assert (marked(worker), slates(worker)) == (PartitionMark(), offsets(FIRST, SECOND))
    assert await worker.events.positions(committed({FETCHED: 20})) == {FETCHED: 0}
    assert await outcomes(begin(worker, LOG)) == [None]
    assert marked(worker).totals == (30, *[0] * 9)


async def test_a_unit_that_is_lost_takes_with_it_what_would_be_folded_without_it(worker: Worker) -> None:
    shaky_store(worker, load=[Fenced("claimed")])
    tasks = begin(worker, FIRST, SECOND)
    worker.topics.acknowledges.set()
    assert await outcomes(tasks) == [Rewind, Rewind]
    assert marked(worker) == PartitionMark()


async def test_a_cancelled_unit_takes_with_it_what_would_be_folded_without_it(worker: Worker) -> None:
    tasks = begin(worker, FIRST, SECOND, THIRD)
    await asyncio.sleep(0)  # the first is being answered, the others wait
    tasks[1].cancel()
    worker.topics.acknowledges.set()
    assert (await outcomes(tasks))[1:] == [asyncio.CancelledError, Rewind]
    assert marked(worker).offset in (-1, FIRST[-1].offset)


async def test_what_was_begun_before_the_lane_was_sent_back_is_void(worker: Worker) -> None:
    tasks = begin(worker, FIRST, SECOND)
    await until(lambda: len(slates(worker)) == 20)
    assert await worker.events.positions(committed({FETCHED: 0})) == {}
    worker.topics.acknowledges.set()
    assert await outcomes(tasks) == [Rewind, Rewind]
    assert marked(worker) == PartitionMark()
    assert await outcomes(begin(worker, LOG)) == [None]
    assert marked(worker).totals == (30, *[0] * 9)


async def test_what_the_broker_did_not_take_is_published_again_with_all_that_came_after(worker: Worker) -> None:
    sending, failures = worker.topics.send_all, [AWAY]

    async def send_all(records: Any, **named: Any) -> None:
        await sending(records, **named)
        if failures and any(record.topic.endswith("slates.v1") for record in records):
            raise failures.pop()

    worker.topics.send_all = send_all  # type: ignore[method-assign]
    tasks = begin(worker, FIRST, SECOND)
    await until(lambda: len(slates(worker)) == 20)
    worker.topics.acknowledges.set()
    assert await outcomes(tasks) == [None, None]
    assert slates(worker) == offsets(FIRST, SECOND, FIRST, SECOND)
    assert worker.waited == ["PublishFailed"]
    assert marked(worker).totals[Fate.applied] == 20


async def test_a_unit_that_can_never_be_published_leaves_nothing_of_those_after_it(worker: Worker) -> None:
    sending = worker.topics.send_all

    async def send_all(records: Any, **named: Any) -> None:
        await sending(records, **named)
        raise TOO_LARGE

    worker.topics.send_all = send_all  # type: ignore[method-assign]
    tasks = begin(worker, FIRST, SECOND)
    await until(lambda: len(slates(worker)) == 20)
    worker.topics.acknowledges.set()
    assert await outcomes(tasks) == [PublishFailed, Rewind]
    assert marked(worker) == PartitionMark()


async def test_a_store_that_is_away_is_asked_again_and_nothing_is_published_again(worker: Worker) -> None:
    shaky_store(worker, flush=[StoreUnavailable("timeout")] * 2)
    tasks = begin(worker, FIRST, SECOND)
    await until(lambda: len(slates(worker)) == 20)
    worker.topics.acknowledges.set()
    assert await outcomes(tasks) == [None, None]
    assert worker.topics.count() == {"slates.v1": 20, "observations.v1": 2}
    assert set(worker.waited) == {"StoreUnavailable"}
