import asyncio
import dataclasses
from types import SimpleNamespace

import aiohttp
import pytest

from deploy.processes import free_port
from embeddings.errors import StoreUnavailable
from embeddings.memory import MemoryUserStore
from embeddings.store import UserStore
from streams.http_settings import Http
from streams.process.health import Page
from streams.worker.pages import Pages
from streams.worker.worker import Worker
from tests.streams.controlled import a_controlled_worker


@pytest.fixture
async def worker() -> Worker:
    return a_controlled_worker()


def pages_of(worker: Worker, reads: UserStore, *assigned: str) -> Pages:
    return Pages(
        settings=worker.settings,
        metrics=worker.metrics,
        reads=reads,
        control=worker.control,
        rehearsed=lambda: True,
        assigned=lambda: assigned,
        holdup=lambda: None,
        misfit_topics=lambda: None,
        lags=dict,
        paused=lambda: None,
        api=worker.api(),
        loop=worker._http_loop,
    )


async def test_the_pages_say_what_is_missing(worker: Worker) -> None:
    pages = pages_of(worker, MemoryUserStore())
    assert (
        pages.checks()["started"]["control"]()
        == "marquee.catalog.v1 is not read yet: the brokers have not named its partitions"
    )
    events, requests = map(worker.settings.topics.name, ("events", "requests"))
    assert pages._partitions() == f"no partition is assigned of {events}, {requests}"
    assert pages_of(worker, MemoryUserStore(), requests)._partitions() == f"no partition is assigned of {events}"
    assert pages_of(worker, MemoryUserStore(), events, requests)._partitions() is None
    assert pages._pinged == "the store was not asked yet"
    assert pages._ping() is None

    class Away(MemoryUserStore):
        def ping(self) -> None:
            raise StoreUnavailable("timeout")

    assert pages_of(worker, Away())._ping() == "timeout"


async def test_a_store_that_goes_away_before_it_says_its_memory_ends_nothing(worker: Worker) -> None:
    pages, answers = pages_of(worker, MemoryUserStore()), [(8.0, 16.0)]

    def memory() -> tuple[float, float]:
        if not answers:
            raise StoreUnavailable("timeout")
        return answers.pop()

    pages._pinged, pages.memory = pages._ping(), memory
    for _ in range(2):
        pages._look_at_memory()
    told = worker.metrics.registry.get_sample_value
    assert [told("marquee_redis_memory_bytes", {"state": state}) for state in ("used", "max")] == [8, 16]


async def test_they_are_served_from_a_loop_of_their_own_and_asked_in_the_one_that_works(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_in, loop = list[asyncio.AbstractEventLoop](), asyncio.get_running_loop()
    served = asyncio.Event()

    def note() -> None:
        asked_in.append(asyncio.get_running_loop())

    served_in = list[asyncio.AbstractEventLoop]()
    settings = worker.settings.model_copy(update={"http": Http(port=(port := free_port()))})
    pages = dataclasses.replace(pages_of(worker, MemoryUserStore()), settings=settings, holdup=note)
    find = pages.api.page

    def noting(path: str) -> Page | None:
        served_in.append(asyncio.get_running_loop())
        return find(path)

    pages.api = SimpleNamespace(page=noting, stop=pages.api.stop)  # type: ignore[assignment]
    monkeypatch.setattr(worker.metrics.group, "lags", lambda lags, names: served.set())
    running = asyncio.create_task(pages.run())
    await served.wait()
    async with aiohttp.ClientSession() as session:
        for page, status in (("/readyz", 503), ("/openapi.json", 200), ("/v1/users/a%2Fb/slate/", 404)):
            async with session.get(f"http://127.0.0.1:{port}{page}") as reply:
                assert reply.status == status
    assert set(asked_in) == {loop}
    assert set(served_in) == {worker._http_loop._loop}
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
