"""What `/livez`, `/startupz` and `/readyz` of a worker say in each state that docs/hosts.md describes."""

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from embeddings.errors import StoreUnavailable
from embeddings.memory import MemoryUserStore
from streams.process.health import HealthServer
from streams.transport.control import _Reading
from streams.transport.logs import Log
from streams.transport.topic_watch import TopicWatch
from streams.worker.pages import Pages
from streams.worker.worker import Worker
from tests.streams.controlled import a_controlled_worker
from tests.streams.transport.test_control import a_state
from tests.streams.worker.test_pages import pages_of

Change = Callable[[Pages, Worker], object]


class Away(MemoryUserStore):
    """A store that does not answer."""

    def ping(self) -> None:
        raise StoreUnavailable("Redis at cache:6379: timeout")


@pytest.fixture
async def worker() -> Worker:
    return a_controlled_worker()


def well(worker: Worker, reads: MemoryUserStore | None = None) -> Pages:
    """Everything is as it should be."""
    for topic in worker.control.handlers:
        read(worker, topic, 9, 9)
    pages = pages_of(worker, reads or MemoryUserStore(), *map(worker.settings.topics.name, ("events", "requests")))
    pages._pinged = pages._ping()
    return pages


def read(worker: Worker, topic: str, position: int, end: int, answered_ms: int = 4_000_000_000_000) -> None:
    reading = _Reading()
    reading.follow(a_state(position, end, answered_ms=answered_ms), quiet=False)
    worker.control._readings[TopicPartition(topic, 0)] = reading


async def said(pages: Pages, path: str) -> tuple[int, dict[str, Any]]:
    """The status of a probe's page, and what it says beside `ok`."""
    checks = pages.checks()
    server = HealthServer(
        host="127.0.0.1",
        port=0,
        registry=CollectorRegistry(),
        started=checks["started"],
        ready=checks["ready"],
        notes={"dead_letters": pages.paused},
    )
    async with server, aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}{path}") as page:
        told = (await page.json())["checks"]
        return page.status, {name: why for name, why in told.items() if why != "ok"}


@pytest.mark.parametrize("path", ["/livez", "/startupz", "/readyz"])
async def test_all_is_well(worker: Worker, path: str) -> None:
    assert await said(well(worker), path) == (200, {})


async def test_before_control_topics_are_read_it_has_not_started_and_is_not_ready_but_lives(worker: Worker) -> None:
    pages, topic = well(worker), worker.settings.topics.name("models")
    read(worker, topic, 3, 9)
    why = {"control": f"{topic}/0 is still being read: 3 of 9"}
    assert [await said(pages, path) for path in ("/startupz", "/readyz", "/livez")] == [
        (503, why),
        (503, why),
        (200, {}),
    ]


async def test_before_it_rehearsed_it_has_not_started_and_is_not_ready_but_lives(worker: Worker) -> None:
    pages, why = well(worker), {"loops": "compiled loops are being loaded, or made"}
    pages.rehearsed = lambda: False
    assert [await said(pages, path) for path in ("/startupz", "/readyz", "/livez")] == [
        (503, why),
        (503, why),
        (200, {}),
    ]


async def test_a_control_topic_whose_leader_is_silent_is_not_read_any_more(worker: Worker) -> None:
    pages, topic = well(worker), worker.settings.topics.name("catalog")
    read(worker, topic, 9, 9, answered_ms=1)
    status, why = await said(pages, "/readyz")
    assert status == 503
    assert "its leader has not answered" in why["control"]


def no_store(pages: Pages, _worker: Worker) -> None:
    pages.reads = Away()
    pages._pinged = pages._ping()


def no_partition(pages: Pages, worker: Worker) -> None:
    pages.assigned = lambda: {worker.settings.topics.name("requests")}


def stuck(pages: Pages, _worker: Worker) -> None:
    pages.holdup = lambda: "marquee.events.v1: a unit is un-acknowledged for 20 s"


def gone(pages: Pages, _worker: Worker) -> None:
    watch = TopicWatch(read=("events",), counts={"slates": 8})
    watch.look({"events": Log("c/1", 8)})
    pages.misfit_topics = watch.why


@pytest.mark.parametrize(
    ("change", "check", "why"),
    [
        (no_store, "store", "Redis at cache:6379: timeout"),
        (no_partition, "partitions", "no partition is assigned of marquee.events.v1"),
        (stuck, "work", "marquee.events.v1: a unit is un-acknowledged for 20 s"),
        (gone, "topics", "slates is gone"),
    ],
)
async def test_what_keeps_it_from_its_work_makes_it_unready_and_no_more(
    worker: Worker, change: Change, check: str, why: str
) -> None:
    pages = well(worker)
    change(pages, worker)
    assert await said(pages, "/readyz") == (503, {check: why})
    assert await said(pages, "/startupz") == (200, {})
    assert await said(pages, "/livez") == (200, {})


async def test_before_the_store_was_asked_it_is_not_ready(worker: Worker) -> None:
    pages = well(worker)
    pages._pinged = "the store was not asked yet"
    assert await said(pages, "/readyz") == (503, {"store": "the store was not asked yet"})


async def test_a_paused_partition_is_said_and_no_reason_to_be_unready(worker: Worker) -> None:
    pages = well(worker)
    pages.paused = lambda: "marquee.events.v1/3 is paused at offset 17"
    assert await said(pages, "/readyz") == (200, {"dead_letters": "marquee.events.v1/3 is paused at offset 17"})
