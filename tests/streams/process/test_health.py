import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from streams.process.health import HealthServer, Page
from streams.process.http_metrics import TURNED_AWAY, HttpMetrics
from streams.process.metrics import WorkerMetrics
from streams.settings import Settings

Get = Callable[[str], Awaitable[tuple[int, Any, dict[str, str]]]]


class Worker:
    """What the pages look at, to be changed by a test."""

    redis: str | None = None
    index: str | None = None
    loop: str | None = None

    def broken(self) -> str | None:
        raise KeyError("user-17")


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
async def server(worker: Worker) -> AsyncIterator[HealthServer]:
    async with HealthServer(
        host=Settings().http.host,
        port=0,
        registry=WorkerMetrics().registry,
        live={"loop": lambda: worker.loop},
        ready={"redis": lambda: worker.redis},
        started={"index": lambda: worker.index},
    ) as server:
        yield server


@pytest.fixture
async def get(server: HealthServer) -> AsyncIterator[Get]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:

        async def get(path: str) -> tuple[int, Any, dict[str, str]]:
            async with session.get(path) as reply:
                body = await (reply.json() if reply.content_type == "application/json" else reply.text())
                return reply.status, body, dict(reply.headers)

        yield get


async def test_everything_is_well(get: Get) -> None:
    assert (await get("/livez"))[:2] == (200, {"ok": True, "checks": {"loop": "ok"}})
    assert (await get("/startupz"))[:2] == (200, {"ok": True, "checks": {"index": "ok"}})
    assert (await get("/readyz"))[:2] == (200, {"ok": True, "checks": {"index": "ok", "redis": "ok"}})


async def test_not_ready_says_what_and_why(get: Get, worker: Worker) -> None:
    worker.redis = "no answer for 3 s"
    status, body, _ = await get("/readyz")
    assert status == 503
    assert body == {"ok": False, "checks": {"index": "ok", "redis": "no answer for 3 s"}}
    assert (await get("/livez"))[0] == 200, "Redis being away is no reason for a restart"


async def test_nothing_is_ready_before_it_has_started(get: Get, worker: Worker) -> None:
    worker.index = "no snapshot yet"
    assert (await get("/startupz"))[0] == 503
    assert (await get("/readyz"))[0] == 503


async def test_check_that_raises_has_failed_without_telling_more_than_its_kind(worker: Worker) -> None:
    checks = {"odd": worker.broken}
    async with (
        HealthServer(host="127.0.0.1", port=0, registry=WorkerMetrics().registry, live=checks) as server,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.port}/livez") as reply,
    ):
        assert reply.status == 503
        assert (await reply.json())["checks"] == {"odd": "the check raised KeyError"}


async def test_metrics_can_be_scraped(get: Get) -> None:
    status, text, headers = await get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {"marquee_stage_seconds", "marquee_events", "process_cpu_seconds"} <= families


async def test_further_pages_are_found_and_everything_is_counted_by_its_route(worker: Worker) -> None:
    told: list[tuple[str, int]] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.query_string:
            raise KeyError("ann")
        return web.Response(text="hello")

    page = Page("/hello/{name}", ("GET",), answer)
    async with (
        HealthServer(
            host="127.0.0.1",
            port=0,
            registry=WorkerMetrics().registry,
            beyond=lambda path: page if path == "/hello/ann" else None,
            observe=lambda route, status, seconds: told.append((route, status)),
        ) as server,
        aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session,
    ):
        for path in ("/hello/ann", "/hello/bob", "/livez"):
            await session.get(path)
        await session.put("/hello/ann")
        assert (await session.get("/hello/ann?fail")).status == 500
    route = "/hello/{name}"
    assert told == [(route, 200), ("other", 404), ("/livez", 200), (route, 405), (route, 500)]


async def test_no_answer_tells_versions_and_every_error_is_json(server: HealthServer) -> None:
    asked = {
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n": 200,
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n": 404,
        b"GET /\xff\x00 what\r\n\r\n": 400,
        b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nContent-Encoding: br\r\n\r\n": 415,
    }
    for request, status in asked.items():
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        head, name = await reader.readuntil(b"\r\n\r\n"), b"\r\nServer: "
        body = await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
        writer.close()
        assert int(head.split()[1]) == status, head
        assert head.partition(name)[2].split(b"\r\n")[0] == b"marquee"
        assert json.loads(body)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_no_page_changes_anything(server: HealthServer, method: str) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/livez", "/metrics"):
            async with session.request(method, f"http://127.0.0.1:{server.port}{path}") as reply:
                assert reply.status == 405


async def test_it_listens_on_loopback_unless_told(server: HealthServer) -> None:
    assert Settings().http.host == server.host == "127.0.0.1"


async def test_taken_port_stops_the_start(server: HealthServer) -> None:
    second = HealthServer(host="127.0.0.1", port=server.port, registry=WorkerMetrics().registry)
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    await second.stop()


async def test_nothing_listens_afterwards(worker: Worker) -> None:
    async with HealthServer(host="127.0.0.1", port=0, registry=WorkerMetrics().registry) as server:
        port = server.port
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    ("host", "reached_at"),
    [("0.0.0.0", ["127.0.0.1"]), ("::", ["127.0.0.1", "[::1]"]), ("::1", ["[::1]"]), ("localhost", ["localhost"])],
)
async def test_it_is_reached_where_it_says_that_it_listens(
    host: str, reached_at: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "streams.process.health")
    async with (
        HealthServer(host=host, port=0, registry=WorkerMetrics().registry) as server,
        aiohttp.ClientSession() as session,
    ):
        for name in reached_at:
            async with session.get(f"http://{name}:{server.port}/livez") as reply:
                assert reply.status == 200
    written = f"[{host}]" if ":" in host else host
    assert f"http://{written}:{server.port} answers" in caplog.messages


async def test_connections_beyond_the_bound_are_told_apart_from_pages_that_are_not_there() -> None:
    told: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    metrics, going = HttpMetrics(CollectorRegistry()), asyncio.Event()

    async def slow(_request: web.BaseRequest) -> web.Response:
        told.put_nowait(("asked", 0))
        await going.wait()
        return web.Response()

    def observe(route: str, code: int, seconds: float) -> None:
        metrics.observed(route, code, seconds)
        told.put_nowait((route, code))

    page = Page("POST /v1/slates", {"GET"}, slow)
    async with HealthServer(
        "127.0.0.1", 0, CollectorRegistry(), beyond=lambda path: page, observe=observe, connections=1
    ) as server:
        _, busy = await asyncio.open_connection("127.0.0.1", server.port)
        busy.write(b"GET /v1/slates HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await told.get() == ("asked", 0)
        reader, one_more = await asyncio.open_connection("127.0.0.1", server.port)
        assert (await reader.readline()).startswith(b"HTTP/1.1 503")
        assert await told.get() == (TURNED_AWAY, 503)
        going.set()
        busy.close()
        one_more.close()
    requests = metrics.requests.labels(TURNED_AWAY, "5xx")._value.get()
    assert requests == 1, "it is a route of its own, which an alert counts"
