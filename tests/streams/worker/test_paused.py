"""A bad deploy pauses the partitions it hits, and nothing else, until it is released; no letter twice."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from embeddings.errors import UnreadableState
from embeddings.events import Fate, Source
from embeddings.store import PartitionMark
from streams.contract.deadletters import OFFSET, PARTITION
from streams.contract.messages import Part
from streams.process.member import Pause
from streams.transport.failures import Guard
from streams.transport.ledger import Unit
from streams.worker.paused import Paused
from tests.streams.builders import Raw, an_event, committed
from tests.streams.lanes import Worker, a_worker, shaky_store

EVENTS, OTHER = (Source("marquee.events.v1", partition) for partition in range(2))


def bad(count: int, start: int = 0) -> list[Raw]:
    return [Raw(start + n, b"{", b"k") for n in range(count)]


def good(count: int, start: int = 0) -> list[Raw]:
    return [an_event(start + n, f"u{n % 5}", "i001") for n in range(count)]


@pytest.fixture
def worker() -> Worker:
    worker = a_worker()
    worker.service.users.claim([EVENTS, OTHER])
    return worker


def letters(worker: Worker) -> list[tuple[int, int]]:
    found = [dict(letter.headers) for letter in worker.topics.of("marquee.events.v1.dlq")]
    return [(int(headers[PARTITION]), int(headers[OFFSET])) for headers in found]


def mark(worker: Worker) -> PartitionMark:
    return worker.service.users.marks([EVENTS])[EVENTS]


async def deliver(worker: Worker, log: Sequence[Raw], batch: int, source: Source = EVENTS) -> bool:
    """What the transport does from the partition's mark on; returns whether the end was reached."""
    at = worker.service.users.marks([source])[source].offset + 1
    if source in worker.events.paused:
        return False
    while at < len(log):
        some = log[at : at + batch]
        try:
            await worker.events(Unit([Part(source, some, some[-1].offset, -1)], len(some), source.topic))
        except Pause as why:
            if why.positions != {source: worker.service.users.marks([source])[source].offset + 1}:
                raise
            return False
        if source in worker.events.paused:
            return False
        at += batch
    return True


async def restarted(worker: Worker) -> Worker:
    """Another process on the same broker and store."""
    again = Worker(worker.service, worker.topics)
    await again.events.positions(committed(dict.fromkeys((EVENTS, OTHER), -1)))
    return again


async def look(worker: Worker) -> None:
    paused = worker.events.paused
    paused.every_s = 0.001
    running = asyncio.create_task(paused.run())
    await asyncio.sleep(0.05)
    running.cancel()


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 64, 512])
async def test_a_thousand_bad_records_pause_and_after_one_release_the_good_ones_come(
    worker: Worker, batch: int
) -> None:
    log = bad(1_000) + good(50, 1_000)
    assert not await deliver(worker, log, batch)
    stopped = len(letters(worker))
    assert 110 <= stopped <= max(batch, 128)
    for _ in range(6):
        worker = await restarted(worker)
        assert not await deliver(worker, log, batch)
    assert len(letters(worker)) == stopped, "a restart writes none again, and no others"
    assert worker.service.users.go_on([EVENTS, OTHER]).keys() == {EVENTS}
    await look(worker)
    assert await deliver(worker, log, batch)
    assert Counter(letters(worker)) == Counter({(0, n): 1 for n in range(1_000)})
    assert mark(worker).totals[Fate.applied] == 50
    assert not mark(worker).run.paused


async def test_after_a_release_restarts_make_progress(worker: Worker) -> None:
    log = bad(1_000) + good(10, 1_000)
    await deliver(worker, log, 100)
    worker.service.users.go_on([EVENTS])
    for at in range(0, 1_000, 300):
        worker = await restarted(worker)
        await deliver(worker, log[: at + 300], 100)
    worker = await restarted(worker)
    assert await deliver(worker, log, 100)
    assert Counter(letters(worker)) == Counter({(0, n): 1 for n in range(1_000)})


async def test_what_is_released_is_judged_again_once_good_records_came(worker: Worker) -> None:
    log = bad(300) + good(200, 300) + bad(300, 500)
    await deliver(worker, log, 50)
    worker.service.users.go_on([EVENTS])
    await look(worker)
    assert not await deliver(worker, log, 50)
    assert mark(worker).offset >= 600


async def test_exactly_half_and_three_bad_ones_pass(worker: Worker) -> None:
    log = [record for n in range(0, 1_500, 2) for record in (*bad(1, n), *good(1, n + 1))]
    assert await deliver(worker, log, 333)
    assert await deliver(worker, bad(3), 3, OTHER)


async def test_other_partitions_of_a_batch_go_on(worker: Worker) -> None:
    first, then = bad(200), bad(100, 200)
    await worker.events(Unit([Part(EVENTS, first, 199, -1), Part(OTHER, good(5), 4, -1)], 205, "events"))
    assert set(worker.events.paused) == {EVENTS}
    with pytest.raises(Pause) as left:
        await worker.events(Unit([Part(EVENTS, then, 299, -1), Part(OTHER, good(5, 5), 9, -1)], 105, "events"))
    assert left.value.positions == {EVENTS: 200}
    marks = worker.service.users.marks([EVENTS, OTHER])
    assert (marks[EVENTS].offset, marks[OTHER].offset) == (199, 9)
    assert len(letters(worker)) == 200


async def test_a_partition_that_was_released_meanwhile_still_comes_from_where_it_was_left(worker: Worker) -> None:
    """The release is seen between leaving records alone and saying so."""
    await worker.events(Unit([Part(EVENTS, bad(200), 199, -1)], 200, "events"))
    store = shaky_store(worker)

    def flush(number: int) -> None:
        worker.events.paused._marks.clear()
        store.real.flush(number)

    store.flush = flush
    parts = [Part(EVENTS, bad(9, 500), 508, -1), Part(OTHER, good(5), 4, -1)]
    with pytest.raises(Pause) as left:
        await worker.events(Unit(parts, 14, "events"))
    assert left.value.positions == {EVENTS: 200}


class Brittle:
    """A service that fails on every record, nobody knows why."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def respond(self, parts: Sequence[Part], aside: Sequence[Any] = ()) -> Any:
        if any(part.records for part in parts):
            raise KeyError("user-canary")
        return self.real.respond(parts, aside)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    begin = Guard.__init__

    async def no_pause(_seconds: float) -> None:
        return

    monkeypatch.setattr(Guard, "__init__", lambda self, **named: begin(self, **named, sleep=no_pause))
    return


@pytest.mark.usefixtures("impatient")
async def test_a_fault_of_ours_on_every_record_pauses_as_well(worker: Worker) -> None:
    worker.events.recommender = Brittle(worker.service.recommender)  # type: ignore[assignment]
    assert not await deliver(worker, good(1_600), 400)
    assert 110 <= len(letters(worker)) <= 120
    assert mark(worker).run.code == "handler_error"
    assert "handler_error" in (worker.events.paused.said() or "")


async def test_whoever_operates_it_is_told(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    await deliver(worker, bad(200), 200)
    paused = worker.events.paused
    said = paused.said()
    assert said is not None
    for word in ("events.v1/0", "offset 200", "200 of the last 200", "100%", "malformed", "marquee dlq release"):
        assert word in said
    assert said in caplog.text
    await look(worker)
    assert worker.metric("partition_paused", topic=EVENTS.topic, partition="0", code="malformed") == 1
    worker.service.users.go_on([EVENTS])
    await look(worker)
    assert worker.metric("partition_paused", topic=EVENTS.topic, partition="0", code="malformed") is None
    assert paused.said() is None


async def test_a_lost_partition_is_not_spoken_of(worker: Worker) -> None:
    await deliver(worker, bad(200), 200)
    await look(worker)
    worker.events.paused.owned = lambda: {OTHER}
    await look(worker)
    assert worker.events.paused.said() is None
    assert worker.metric("partition_paused", topic=EVENTS.topic, partition="0", code="malformed") is None


async def test_whoever_takes_over_a_paused_partition_pauses_at_once(worker: Worker) -> None:
    await deliver(worker, bad(300), 100)
    before = len(letters(worker))
    other = await restarted(worker)
    assert set(other.events.paused) == {EVENTS}
    assert isinstance(other.events.paused, Paused)
    assert len(letters(worker)) == before


async def test_a_worker_killed_between_letters_and_store_leaves_them_to_be_written_once(worker: Worker) -> None:
    log = bad(60) + good(40, 60)
    for _ in range(3):
        shaky_store(worker, flush=[UnreadableState("killed here")])
        with pytest.raises(UnreadableState):
            await worker.events(Unit([Part(EVENTS, log, 99, -1)], 100, EVENTS.topic))
        assert mark(worker) == PartitionMark()
        worker.service.recommender.users = worker.service.users
        worker = await restarted(worker)
    assert await deliver(worker, log, 30)
    assert Counter(letters(worker)) == Counter({(0, n): 1 for n in range(60)})
    written = worker.metric("dead_letters_total", topic="events", code="malformed")
    assert written == 0, "this process wrote none"


async def test_tries_write_a_letter_once(worker: Worker) -> None:
    shaky_store(worker, keep=[ZeroDivisionError()] * 2)
    await worker.events(Unit([Part(EVENTS, bad(5), 4, -1)], 5, EVENTS.topic))
    assert len(letters(worker)) == 5


async def test_what_was_let_through_once_is_not_judged_again_when_the_store_lost_it(worker: Worker) -> None:
    """Below the group's committed offset nothing but the fold happens."""
    log = bad(1_000)
    await worker.events(Unit([Part(EVENTS, log, 999, 1_000)], 1_000, EVENTS.topic))
    assert mark(worker).totals[Fate.dead_lettered] == 1_000
    assert not mark(worker).run.paused
    assert letters(worker) == []
