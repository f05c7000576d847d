"""`marquee bench slates`: how many slates a worker on one core publishes, and how long an event waits for its slate.

The worker runs as `marquee worker` with default settings on a learned snapshot; people have full histories. First it
works off backlogs, in turns with the floor of `bench_yardsticks`. Then events come at a steady rate, once at
500 a second and once at half of the slates a second that it made of the backlogs, and the time from sending one to
receiving its slate is taken, beside all of those yardsticks, on the same core and the same broker, in turns.
"""

import asyncio
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from deploy.processes import Child, free_port
from embeddings import snapshots
from embeddings.snapshots import Snapshot
from embeddings.store import UserStore
from streams.configuration import load_settings
from streams.contract import records
from streams.contract.manifests import announced, key_of
from streams.lab import bench_yardsticks
from streams.lab.bench_rig import Say, Site, publish, sources, stored
from streams.lab.bench_traffic import Contender, Traffic, connected
from streams.lab.bench_yardsticks import YARDSTICKS, ready, topics_of
from streams.lab.synthetic import World
from streams.settings import Settings
from streams.worker.stores import user_store

STEADY_EPS = 500
WORKER = "worker"
_WARM, _BACKLOGS = 2_000, 4
_TURN_S = 2.0
"""So long each is measured before the next one's turn: a shared machine's speed drifts within seconds."""


def run_slates(
    world: World,
    *,
    events: int = 20_000,
    seconds: float = 10.0,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Measure throughput on `events` events of the Zipf mix, then latency for `seconds` at each of two rates.

    Throughput is the median of a few backlogs, which share the events.

    Raises:
        StartFailed, TimeoutError: a server or a contender did not get there; its log's end is in the message.
    """
    with Site() as site, ExitStack() as exit_:
        say("learning a snapshot")
        snapshot = world.snapshot()
        manifest = announced(snapshots.write(snapshot, site.folder))
        environment = site.environment("bench-worker", MARQUEE_HTTP__PORT=str(free_port()))
        settings = load_settings(environ=environment)
        install(site, world, settings, snapshot, manifest)
        contenders = _yardsticks(site, exit_, settings, environment)
        worker = exit_.enter_context(site.child(WORKER, ("streams", "worker"), environment))
        wait_until_serving(worker, settings.http.port, world.items)
        name = settings.topics.name
        contenders[WORKER] = Contender(worker, name("events"), name("slates"))
        store = exit_.enter_context(closing(user_store(settings)))
        return asyncio.run(_measure(site, world, settings, store, contenders, events, seconds, say))


def _yardsticks(site: Site, exit_: ExitStack, settings: Settings, environment: dict[str, str]) -> dict[str, Contender]:
    """Start them, each on topics of its own, until `exit_` ends; the echo sleeps, see `_awake`."""
    contenders = {}
    for name in YARDSTICKS:
        pair = topics_of(name, settings)
        for topic in pair:
            site.broker.create_topic(topic, settings.topics.partitions)
        yardstick = bench_yardsticks.__name__, name, str(site.folder)
        child = exit_.enter_context(site.child(name, yardstick, environment))
        contenders[name] = Contender(child, *pair, *([partial(_awake, child)] if name == "echo" else []))
    for name, contender in contenders.items():
        contender.child.wait_until(ready(site.folder, name).exists, 120.0)
    echo = psutil.Process(contenders["echo"].child.pid)
    echo.suspend()  # an idle one asks the broker 100 times a second, on the worker's core
    exit_.callback(echo.resume)
    return contenders


def install(site: Site, world: World, settings: Settings, snapshot: Snapshot, manifest: records.ModelManifest) -> None:
    """Create what a running installation would have: topics, what is announced in them, and everybody's state."""
    site.create_topics(settings)
    asyncio.run(announce(site, world, settings, snapshot, manifest))
    with closing(user_store(settings)) as store:
        world.settle(store, sources(settings))


async def announce(
    site: Site, world: World, settings: Settings, snapshot: Snapshot, manifest: records.ModelManifest
) -> None:
    """Publish what a running installation would hold: catalogue, counters and the snapshot's manifest."""
    name = settings.topics.name
    for topic, rows in (
        (name("catalog"), world.catalogue()),
        (name("counters"), world.counters(snapshot.counts_N)),
        (name("models"), iter([(key_of(snapshot.version), records.encode(manifest))])),
    ):
        await publish(site.broker.bootstrap, topic, rows)


def wait_until_serving(worker: Child, port: int, items: int) -> None:
    """Wait until a worker has the snapshot, and most of the catalogue.

    Raises:
        StartFailed: it does not come to that.
    """

    def serves() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1) as page:
            found = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line[:1] != "#")
            swapped = float(found['marquee_snapshot_swaps_total{result="swapped"}'])
            return swapped >= 1 and float(found["marquee_index_items"]) > items // 2
        return False

    worker.wait_until(serves, 120.0)


async def _measure(
    site: Site,
    world: World,
    settings: Settings,
    store: UserStore,
    contenders: Mapping[str, Contender],
    events: int,
    seconds: float,
    say: Say,
) -> dict[str, Any]:
    log, here = world.log("zipf", 2 * (_WARM + events) + int(seconds * 20_000)), sources(settings)
    async with connected(site.broker.bootstrap) as traffic:

        def stored_since(before: int) -> Callable[[int], int]:
            return lambda answers: stored(store, here) - before

        found_RS = []
        for count in (_WARM, *[events // _BACKLOGS] * _BACKLOGS):
            backlog = islice(log, count)
            paces = await traffic.work_off(contenders[WORKER], backlog, stored_since(stored(store, here)))
            floor_ps, _, _ = await traffic.work_off(contenders["floor"], islice(log, count))
            found_RS.append((*paces, floor_ps))
        slates_ps, events_ps, cpu_ps, floor_ps = np.median(found_RS[1:], axis=0).tolist()
        say(f"{slates_ps:,.0f} slates/s, {events_ps:,.0f} events/s; {cpu_ps:,.0f} slates per second of the core's time")
        say(f"the floor: {floor_ps:,.0f} answers/s")
        await _in_turns(traffic, contenders, log, STEADY_EPS, 1.0)  # what connects or is compiled at the first event
        loads = []
        for load_eps in (STEADY_EPS, int(slates_ps / 2)):
            loads.append(_latency(load_eps, await _in_turns(traffic, contenders, log, load_eps, seconds)))
            say(f"at {load_eps} events/s: {loads[-1]}")
    return {
        "slates_per_s": round(slates_ps),
        "events_per_s": round(events_ps),
        "slates_per_cpu_s": round(cpu_ps),
        "floor_per_s": round(floor_ps),
        "items": world.items,
        "candidates": settings.slates.candidates,
        "slate_size": settings.slates.size,
        **{key: loads[0][key] for key in ("p50_ms", "p99_ms", "load_eps")},
        "loads": loads,
        "broker": site.broker_name,
    }


async def _in_turns(
    traffic: Traffic,
    contenders: Mapping[str, Contender],
    log: Iterator[tuple[bytes, bytes]],
    load_eps: int,
    seconds: float,
) -> dict[str, NDArray[np.float64]]:
    """Latencies of each contender at a steady rate, seconds; a shared machine's speed drifts, so they take turns."""
    found = {name: np.empty(0) for name in contenders}
    for _ in range(turns := max(1, round(seconds / _TURN_S))):
        for name, contender in contenders.items():
            with contender.beside():
                taken_s = await traffic.latencies(contender, log, load_eps, seconds / turns)
            found[name] = np.append(found[name], taken_s)
    return found


@contextmanager
def _awake(child: Child) -> Iterator[None]:
    """Let a suspended yardstick run."""
    process = psutil.Process(child.pid)
    process.resume()
    try:
        yield
    finally:
        process.suspend()


def _latency(load_eps: int, found: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    p50_ms, p99_ms = (
        {name: round(float(np.percentile(taken_s, q)) * 1000, 2) for name, taken_s in found.items()} for q in (50, 99)
    )
    return {
        "load_eps": load_eps,
        "p50_ms": p50_ms[WORKER],
        "p99_ms": p99_ms[WORKER],
        **{f"{name}_p50_ms": taken_ms for name, taken_ms in p50_ms.items() if name != WORKER},
        "echo_p99_ms": p99_ms["echo"],
        "ratio_p50": round(p50_ms[WORKER] / p50_ms["echo"], 2),
        "answered": len(found[WORKER]),
    }
