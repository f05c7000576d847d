"""Every worker reads what is wrong with the control topics at every start; it is written once."""

import asyncio
from collections import Counter

import pytest
from aiokafka.errors import KafkaTimeoutError

from embeddings.events import Source
from streams.contract.deadletters import OFFSET, Code, DeadLetter
from streams.process.metrics import WorkerMetrics
from streams.worker.control_letters import ControlLetters
from tests.streams.builders import Raw
from tests.streams.lanes import AWAY, TOO_LARGE, Topics

CATALOG = Source("marquee.catalog.v1", 0)


def letters(*offsets: int) -> list[DeadLetter]:
    return [DeadLetter(CATALOG, offset, Raw(offset, b"{", b"k"), Code.malformed, "why") for offset in offsets]


@pytest.fixture
def broker() -> Topics:
    return Topics()


def a_worker(broker: Topics, *, leads: bool, settled_s: float = 3.0) -> ControlLetters:
    return ControlLetters(
        topics={"catalog": broker.letters("catalog"), "models": broker.letters("models")},
        metrics=WorkerMetrics(process=False),
        leads=lambda: leads,
        settled_s=settled_s,
    )


def there(broker: Topics) -> Counter[int]:
    return Counter(int(dict(record.headers)[OFFSET]) for record in broker.published)


def counted(worker: ControlLetters) -> float | None:
    labels = {"topic": "catalog", "code": "malformed"}
    return worker.metrics.registry.get_sample_value("marquee_dead_letters_total", labels)


async def test_many_workers_and_many_starts_write_a_letter_once(broker: Topics) -> None:
    for _start in range(3):
        workers = [a_worker(broker, leads=n == 1) for n in range(3)]
        for worker in workers:
            worker.add("catalog", letters(3, 7))
        for now_s in (100.0, 104.0, 140.0):
            await asyncio.gather(*(worker._step(now_s) for worker in workers))
        assert [worker.pending for worker in workers] == [{"catalog": []}] * 3
    assert there(broker) == {3: 1, 7: 1}
    assert counted(workers[1]) == 0, "its predecessor wrote them"


async def test_whoever_leads_next_writes_what_was_not_written(broker: Topics) -> None:
    first, second = a_worker(broker, leads=True), a_worker(broker, leads=False)
    for worker in (first, second):
        worker.add("catalog", letters(3))
    await first._step(100)
    await second._step(100)
    assert there(broker) == {}, "it has not been the one for long enough, and dies"
    second.leads = lambda: True
    await second._step(130)
    await second._step(134)
    assert there(broker) == {3: 1}
    assert counted(second) == 1


async def test_what_comes_while_it_writes_is_written_next(broker: Topics) -> None:
    worker = a_worker(broker, leads=True, settled_s=0)
    worker.add("catalog", letters(1))
    broker.acknowledges.clear()
    writing = asyncio.create_task(worker._step(1))
    await asyncio.sleep(0.01)
    worker.add("catalog", letters(2))
    broker.acknowledges.set()
    await writing
    await worker._step(2)
    assert there(broker) == {1: 1, 2: 1}


async def test_while_brokers_are_away_letters_wait(broker: Topics, caplog: pytest.LogCaptureFixture) -> None:
    worker = a_worker(broker, leads=True, settled_s=0.001)
    worker.add("catalog", letters(1))
    assert "catalog: 1 records cannot be used: malformed" in caplog.text
    broker.errors = [AWAY, KafkaTimeoutError()]
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0.1)
    running.cancel()
    assert there(broker) == {1: 1}


async def test_a_letter_that_can_never_be_written_ends_nothing(broker: Topics) -> None:
    worker = a_worker(broker, leads=True, settled_s=0)
    worker.add("catalog", letters(1))
    broker.errors = [TOO_LARGE]
    await worker._step(1)
    assert worker.pending == {"catalog": []}
