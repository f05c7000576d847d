"""`marquee bench http`: what a worker on one core answers over HTTP, beside a bare aiohttp handler that reads a key.

The worker runs as `marquee worker` with default settings; every user it is asked for has a stored slate. First many
connections ask as fast as they are answered, then requests come at steady rates, half of what is aimed at and half of
what the worker answered, and their time is taken from when each was due. Worker and floor take turns at each, on the
same core and the same Redis. Then events and requests are posted. The events' consent allows nothing: what the worker's
events lane does with others, on the same core, is as much again, now or later.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from itertools import count
from typing import Any, NamedTuple

import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray
from redis import Redis

from deploy.processes import Child, free_port
from embeddings import snapshots
from streams.configuration import load_settings
from streams.contract import records
from streams.contract.manifests import announced
from streams.lab.bench_rig import Say, Site, publish, sources, stored
from streams.lab.bench_slates import announce, wait_until_serving
from streams.lab.synthetic import World
from streams.settings import Settings
from streams.worker.stores import user_store

CONNECTIONS, BATCH, AIMED_PER_S = 64, 100, 5_000
_TURNS, _TURN_S = 4, 2.0
Body = Callable[[int], bytes]


class Load(NamedTuple):
    """Answers a second of the clock and of the server's processor time, and seconds that each took."""

    per_s: float
    taken_s: NDArray[np.float64]
    per_cpu_s: float = 0.0

    def ms(self, percent: float) -> float:
        """A percentile of the times."""
        return round(float(np.percentile(self.taken_s, percent)) * 1000, 2)


class Client:
    """Connections to one server over which ready requests go out: a client that costs less than what it measures."""

    def __init__(self, child: Child, port: int) -> None:
        """Nothing is connected before `async with`. `child` is who answers at this port."""
        self._port, self._process = port, psutil.Process(child.pid)
        self._lines: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> "Client":
        for _ in range(CONNECTIONS):
            self._lines.append(await asyncio.open_connection("127.0.0.1", self._port))
        return self

    async def __aexit__(self, *end: object) -> None:
        for _, writer in self._lines:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in self._lines), return_exceptions=True)

    async def closed(self, ask: Body, seconds: float) -> Load:
        """As fast as it answers.

        Raises:
            ValueError: an answer was none.
        """
        numbers, taken_s, end_s = count(), list[float](), time.perf_counter() + seconds
        before_s = self._cpu_s()

        async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while (began_s := time.perf_counter()) < end_s:
                await _answered(reader, writer, ask(next(numbers)))
                taken_s.append(time.perf_counter() - began_s)

        await asyncio.gather(*(work(*line) for line in self._lines))
        return Load(len(taken_s) / seconds, np.array(taken_s), len(taken_s) / (self._cpu_s() - before_s))

    def _cpu_s(self) -> float:
        return sum(self._process.cpu_times()[:2])

    async def steady(self, ask: Body, per_s: float, seconds: float) -> Load:
        """At a steady rate, whoever waits; times count from when each request was due.

        Raises:
            ValueError: an answer was none.
        """
        due: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()
        taken_s = list[float]()

        async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while (one := await due.get()) is not None:
                await _answered(reader, writer, ask(one[0]))
                taken_s.append(time.perf_counter() - one[1])

        working = [asyncio.create_task(work(*line)) for line in self._lines]
        began_s, total = time.perf_counter(), int(per_s * seconds)
        for n in range(total):
            at_s = began_s + n / per_s
            if (wait_s := at_s - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            due.put_nowait((n, at_s))
        for _ in working:
            due.put_nowait(None)
        await asyncio.gather(*working)
        return Load(len(taken_s) / (time.perf_counter() - began_s), np.array(taken_s))


async def _answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if head[9:10] != b"2":
        raise ValueError(f"an answer that is none: {head[:60]!a}")
    at = head.lower().index(b"content-length:") + 15
    await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))


def _get(user_ids: Sequence[str]) -> Body:
    asked = [f"GET /v1/users/{user}/slate HTTP/1.1\r\nHost: x\r\n\r\n".encode() for user in user_ids]
    return lambda n: asked[n % len(asked)]


def _post(path: str, body: Body) -> Body:
    def request(n: int) -> bytes:
        content = body(n)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
        return f"{head}\r\n\r\n".encode() + content

    return request


def run_http(world: World, *, seconds: float = 8.0, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure on a world's people; each figure takes `seconds`.

    Raises:
        StartFailed, TimeoutError: a server did not get there; its log's end is in the message.
        ValueError: it gave an answer that is none.
    """
    with Site() as site, ExitStack() as exit_:
        say("learning a snapshot")
        snapshot, port, floor_port = world.snapshot(), free_port(), free_port()
        manifest = announced(snapshots.write(snapshot, site.folder))
        environment = site.environment("bench-http", MARQUEE_HTTP__PORT=str(port))
        settings = load_settings(environ=environment)
        site.create_topics(settings)
        asyncio.run(announce(site, world, settings, snapshot, manifest))
        store, here = exit_.enter_context(closing(user_store(settings))), sources(settings)
        world.settle(store, here)
        worker = exit_.enter_context(site.child("worker", ("streams", "worker"), environment))
        wait_until_serving(worker, port, world.items)
        asyncio.run(publish(site.broker.bootstrap, settings.topics.name("events"), _an_event_each(world)))
        worker.wait_until(lambda: stored(store, here) >= world.users, 300.0)
        key = f"{settings.redis.prefix}:floor"
        floor = "streams.lab.bench_http_floor", site.valkey.url, key, str(floor_port)
        _leave(site, key, store.latest_slate(world.user_ids[0]) or b"")
        waiting = exit_.enter_context(site.child("floor", floor, environment))
        waiting.wait_until(lambda: _listens(floor_port), 60.0)
        clients = Client(worker, port), Client(waiting, floor_port)
        return asyncio.run(_measure(site, world, settings, clients, seconds, say))


def _an_event_each(world: World) -> Iterator[tuple[bytes, bytes]]:
    """Everybody does something, and gets a slate for it."""
    for n, user in enumerate(world.user_ids[: world.users]):
        item = world.item_names[n % world.items]
        event = records.Event(type="play", event_time=world.now_s * 1000, user_id=user, item_id=item)
        yield user.encode(), records.encode(event)


def _leave(site: Site, key: str, value: bytes) -> None:
    with closing(Redis.from_url(site.valkey.url)) as redis:
        redis.set(key, value)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


async def _measure(
    site: Site, world: World, settings: Settings, clients: tuple[Client, Client], seconds: float, say: Say
) -> dict[str, Any]:
    ask = _get(world.user_ids[: world.users])
    async with clients[0] as worker, clients[1] as floor:
        await worker.closed(ask, 1.0)
        await floor.closed(ask, 1.0)
        fast = [(await worker.closed(ask, _TURN_S), await floor.closed(ask, _TURN_S)) for _ in range(_TURNS)]
        ours_ps, floor_ps = (float(np.median([pair[n].per_s for pair in fast])) for n in (0, 1))
        ours_cpu, floor_cpu = (float(np.median([pair[n].per_cpu_s for pair in fast])) for n in (0, 1))
        say(f"{ours_ps:,.0f} answers/s, {ours_cpu:,.0f} a CPU second; the floor {floor_ps:,.0f}, {floor_cpu:,.0f}")
        loads = [await _steadily(worker, floor, ask, per_s, seconds) for per_s in (AIMED_PER_S / 2, ours_ps / 2)]
        for pace in loads:
            say(f"{pace}")
        posted = {}
        for name, path, body, each in _posts(world, settings):
            await worker.closed(_post(path, body), 1.0)
            load = await worker.closed(_post(path, body), seconds)
            rates = {"per_s": round(load.per_s * each), "per_cpu_s": round(load.per_cpu_s * each)}
            posted[name] = {**rates, "p50_ms": load.ms(50), "p99_ms": load.ms(99)}
            say(f"{name}: {posted[name]}")
    return {
        "answers_per_s": round(ours_ps),
        "floor_per_s": round(floor_ps),
        "ratio": round(ours_ps / floor_ps, 2),
        "answers_per_cpu_s": round(ours_cpu),
        "floor_per_cpu_s": round(floor_cpu),
        **loads[0],
        "loads": loads,
        "posted": posted,
        "connections": CONNECTIONS,
        "items": world.items,
        "users": world.users,
        "broker": site.broker_name,
    }


async def _steadily(worker: Client, floor: Client, ask: Body, per_s: float, seconds: float) -> dict[str, float]:
    """Both at one rate, in turns; who goes first changes."""
    taken_s: dict[Client, list[NDArray[np.float64]]] = {worker: [], floor: []}
    for turn in range(_TURNS):
        for client in (worker, floor) if turn % 2 == 0 else (floor, worker):
            taken_s[client].append((await client.steady(ask, per_s, seconds / _TURNS)).taken_s)
    ours, floors = (Load(per_s, np.concatenate(taken_s[client])) for client in (worker, floor))
    return {
        "load_per_s": round(per_s),
        "p50_ms": ours.ms(50),
        "p99_ms": ours.ms(99),
        "floor_p50_ms": floors.ms(50),
        "floor_p99_ms": floors.ms(99),
    }


def _posts(world: World, settings: Settings) -> Iterator[tuple[str, str, Body, int]]:
    """What is posted: a name, the page, the bodies, and how many of the name are in one."""
    draw = np.random.default_rng(0)
    users, items = (draw.integers(0, most, 10_000).tolist() for most in (world.users, world.items))

    def event(n: int) -> records.Event:
        user, item = world.user_ids[users[n % 10_000]], world.item_names[items[n % 10_000]]
        none = records.Consent(gdpr=1)
        return records.Event(type="view", event_time=world.now_s * 1000, user_id=user, item_id=item, consent=none)

    def request(n: int) -> bytes:
        return records.encode(records.Request(request_id=f"r{n}", user_id=world.user_ids[users[n % 10_000]]))

    yield "slates", "/v1/slates", request, 1
    yield "events, one by one", "/v1/events", lambda n: records.encode(event(n)), 1
    yield (
        f"events, {BATCH} a body",
        "/v1/events",
        lambda n: msgspec.json.encode([event(n + i) for i in range(BATCH)]),
        BATCH,
    )
