"""`marquee bench slates`: how many slates a worker on one core publishes, and how long an event waits for its slate.

The worker runs as `marquee worker` with default settings on a learned snapshot; people have full histories. First it
works off a backlog. Then events come at a steady rate, once at 500 a second and once at half of the slates a second
that it made of the backlog, and the time from sending one to receiving its slate is taken, beside the yardsticks of
`streams.bench_yardsticks` on the same core and the same broker, in turns.
"""

import asyncio
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from itertools import islice
from typing import Any

import numpy as np
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from numpy.typing import NDArray

from deploy.processes import Child, free_port
from embeddings import snapshots
from embeddings.events import Source
from embeddings.store import UserStore
from streams import bench_yardsticks, records
from streams.app import user_store
from streams.bench_yardsticks import YARDSTICKS, ready, topics_of
from streams.benching import Say, Site, publish, sources, stored
from streams.cloudevents import INPUT, header, place_of
from streams.configuration import load_settings
from streams.manifests import announced
from streams.settings import Settings
from streams.synthetic import World
from streams.teaching import SNAPSHOT

STEADY_EPS = 500
_WARM = 2_000
_TURN_S = 2.0
"""So long each is measured before the next one's turn: a shared machine's speed drifts within seconds."""


def run_slates(
    world: World, *, events: int = 20_000, seconds: float = 10.0, say: Say = lambda text: None
) -> dict[str, Any]:
    """Measure throughput on `events` events of the Zipf mix, then latency for `seconds` at each of two rates.

    Raises:
        StartFailed, TimeoutError: a server or a contender did not get there; its log's end is in the message.
    """
    with Site() as site, ExitStack() as exit_:
        port = free_port()
        environment = site.environment("bench-slates", MARQUEE_HTTP__PORT=str(port))
        settings = load_settings(environ=environment)
        site.create_topics(settings)
        for name in YARDSTICKS:
            for topic in topics_of(name, settings):
                site.broker.create_topic(topic, settings.topics.partitions)
        say("learning a snapshot")
        _announce(site, world, settings)
        store = exit_.enter_context(closing(user_store(settings)))
        world.settle(store, sources(settings))
        yardsticks = [
            exit_.enter_context(site.child(name, [bench_yardsticks.__name__, name, str(site.folder)], environment))
            for name in YARDSTICKS
        ]
        for name, child in zip(YARDSTICKS, yardsticks, strict=True):
            child.wait_until(ready(site.folder, name).exists, 120.0)
        worker = exit_.enter_context(site.child("worker", ["streams", "worker"], environment))
        _wait_until_serving(worker, port, world.items)
        echo = psutil.Process(yardsticks[0].pid)
        echo.suspend()  # an idle one asks the broker 100 times a second, on the worker's core
        exit_.callback(echo.resume)
        return asyncio.run(_measure(site, world, settings, store, worker, echo, events, seconds, say))


def _announce(site: Site, world: World, settings: Settings) -> None:
    """Publish what a running installation would hold: catalogue, counters and the snapshot's manifest."""
    topics, snapshot = settings.topics, world.snapshot()
    written = snapshots.write(snapshot, site.folder)
    manifest = announced(written)
    for topic, rows in (
        (topics.name("catalog"), world.catalogue()),
        (topics.name("counters"), world.counters(snapshot.counts_N)),
        (topics.name("models"), iter([(SNAPSHOT.encode(), records.encode(manifest))])),
    ):
        asyncio.run(publish(site.broker.bootstrap, topic, rows))


def _wait_until_serving(worker: Child, port: int, items: int) -> None:
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
    worker: Child,
    echo: psutil.Process,
    events: int,
    seconds: float,
    say: Say,
) -> dict[str, Any]:
    topic, slates = settings.topics.name("events"), settings.topics.name("slates")
    log = world.log("zipf", _WARM + events + int(seconds * 20_000))
    async with (
        AIOKafkaProducer(bootstrap_servers=site.broker.bootstrap, linger_ms=0, acks="all") as producer,
        AIOKafkaConsumer(
            bootstrap_servers=site.broker.bootstrap, fetch_max_wait_ms=5, max_partition_fetch_bytes=4 << 20
        ) as consumer,
    ):
        lane = _Lane(producer, consumer, worker)
        here, lanes = sources(settings), {name: topics_of(name, settings) for name in YARDSTICKS}
        lanes["worker"] = topic, slates

        async def turn(name: str, load_eps: int, turn_s: float) -> NDArray[np.float64]:
            with _awake(echo) if name == "echo" else nullcontext():
                return await lane.latencies(*lanes[name], log, load_eps, turn_s)

        await lane.work_off(topic, slates, islice(log, _WARM), store, here)
        slates_ps, events_ps, cpu_ps = await lane.work_off(topic, slates, islice(log, events), store, here)
        say(f"{slates_ps:,.0f} slates/s, {events_ps:,.0f} events/s; {cpu_ps:,.0f} slates per second of the core's time")
        for name in lanes:  # what connects or is compiled at the first event is no latency of the rest
            await turn(name, STEADY_EPS, 1.0)
        loads = []
        for load_eps in (STEADY_EPS, int(slates_ps / 2)):
            found = {name: np.empty(0) for name in lanes}
            for _ in range(turns := max(1, round(seconds / _TURN_S))):
                for name in lanes:
                    found[name] = np.append(found[name], await turn(name, load_eps, seconds / turns))
            loads.append(_latency(load_eps, found))
            say(f"at {load_eps} events/s: {loads[-1]}")
    return {
        "slates_per_s": round(slates_ps),
        "events_per_s": round(events_ps),
        "slates_per_cpu_s": round(cpu_ps),
        "items": world.items,
        "candidates": settings.slates.candidates,
        "slate_size": settings.slates.size,
        **{key: loads[0][key] for key in ("p50_ms", "p99_ms", "load_eps")},
        "loads": loads,
        "broker": site.broker_name,
    }


@contextmanager
def _awake(process: psutil.Process) -> Iterator[None]:
    """Let a suspended yardstick run."""
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
        "p50_ms": p50_ms["worker"],
        "p99_ms": p99_ms["worker"],
        "echo_p50_ms": p50_ms["echo"],
        "echo_p99_ms": p99_ms["echo"],
        "transport_p50_ms": p50_ms["transport"],
        "floor_p50_ms": p50_ms["floor"],
        "ratio_p50": round(p50_ms["worker"] / p50_ms["echo"], 2),
        "answered": len(found["worker"]),
    }


class _Lane:
    """Sends events, and watches the topic where their answers appear; an answer names its event in a header."""

    def __init__(self, producer: AIOKafkaProducer, consumer: AIOKafkaConsumer, worker: Child) -> None:
        self._producer, self._consumer, self._process = producer, consumer, psutil.Process(worker.pid)

    async def work_off(
        self, topic: str, answers: str, rows: Iterator[tuple[bytes, bytes]], store: UserStore, here: list[Source]
    ) -> tuple[float, float, float]:
        """Publish a backlog and follow the worker to its end.

        Returns:
            Slates and events per second of the wall clock and slates per second of the worker's CPU time, over all
            slates but the first fifth.
        """
        partitions = [TopicPartition(answers, source.partition) for source in here]
        before = stored(store, here)
        sending = [await self._producer.send(topic, value, key=key) for key, value in rows]
        published = asyncio.gather(*sending)
        looks, done = [], 0
        while done < len(sending):
            slates = sum((await self._consumer.end_offsets(partitions)).values())
            looks.append((slates, time.monotonic(), sum(self._process.cpu_times()[:2])))
            await asyncio.sleep(0.02)
            if published.done():
                published.result()  # what failed is never done
            done = stored(store, here) - before
        await published
        look_L3 = np.array(looks)
        first, last = looks[0][0], looks[-1][0]
        begin, end = np.searchsorted(look_L3[:, 0], (first + (last - first) / 5, last))
        slates, wall_s, cpu_s = look_L3[end] - look_L3[begin]
        return slates / wall_s, slates / wall_s * len(sending) / (last - first), slates / max(cpu_s, 1e-9)

    async def latencies(
        self, topic: str, answers: str, rows: Iterator[tuple[bytes, bytes]], load_eps: int, seconds: float
    ) -> NDArray[np.float64]:
        """Seconds from sending an event to receiving its answer, for all that were answered."""
        partitions = await self._producer.partitions_for(topic)
        self._consumer.assign([TopicPartition(answers, partition) for partition in sorted(partitions)])
        await self._consumer.seek_to_end()
        for partition in self._consumer.assignment():
            await self._consumer.position(partition)
        sent_s: dict[bytes, float] = {}
        sending = asyncio.create_task(self._send(topic, rows, load_eps, seconds, sent_s))
        arrived_s: dict[bytes, float] = {}
        quiet = 0
        while not sending.done() or quiet < 5:
            fetched = await self._consumer.getmany(timeout_ms=100)
            now_s = time.monotonic()
            quiet = 0 if fetched else quiet + 1
            arrived_s |= {header(r.headers, INPUT) or b"": now_s for part in fetched.values() for r in part}
        await sending
        return np.array([arrived_s[place] - at_s for place, at_s in sent_s.items() if place in arrived_s])

    async def _send(
        self, topic: str, rows: Iterator[tuple[bytes, bytes]], load_eps: int, seconds: float, sent_s: dict[bytes, float]
    ) -> None:
        began, acks = time.monotonic(), []
        for n in range(int(load_eps * seconds)):
            await asyncio.sleep(max(0.0, began + n / load_eps - time.monotonic()))
            key, value = next(rows)
            acks.append((time.monotonic(), await self._producer.send(topic, value, key=key)))
        for at_s, ack in acks:
            place = await ack
            sent_s[place_of(place.topic, place.partition, place.offset)] = at_s
