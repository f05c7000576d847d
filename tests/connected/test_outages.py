"""Redis or the brokers away: at start, at an assignment, under load. Nothing is lost, nobody has to restart anything.

`OUTAGE_S` is how long; `make prove` takes two minutes, beyond every time-out that is not shortened here.
"""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.embedded import Server, Valkey
from deploy.kafka import KafkaServer
from embeddings.events import Fate
from tests.connected.cluster import Cluster, Node

OUTAGE_S = float(os.environ.get("OUTAGE_S", "10"))
"""Longer than a request may take (7 s here), which Faust gives to a change of positions."""
PERSONS, PER_S = 20, 40

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(240 + 8 * OUTAGE_S)]


class Site(NamedTuple):
    """An installation, and the servers that may be away."""

    cluster: Cluster
    servers: dict[str, Server]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    with KafkaServer() as kafka, Valkey(folder=tmp_path) as valkey:
        short = {"kafka__session_timeout_s": 6, "kafka__request_timeout_s": min(7.0, OUTAGE_S)}
        prefix = f"x{uuid.uuid4().hex[:10]}"
        with Cluster(kafka, valkey, prefix, tmp_path, topics__partitions=4, **short) as cluster:
            await cluster.create_topics()
            yield Site(cluster, {"brokers": kafka, "store": valkey})


async def publish(cluster: Cluster, stopped: asyncio.Event) -> int:
    """Plays at an even pace until told to stop; returns how many the brokers have."""
    async with cluster.producer(request_timeout_ms=int(1000 * (OUTAGE_S + 60))) as producer:  # it waits as well
        sent: list[Awaitable[object]] = []
        while not stopped.is_set():
            time_ms = int(time.time() * 1000)
            body = b'{"type": "play", "item_id": "i%d", "event_time": %d}' % (len(sent) % 30, time_ms)
            headers = [("ce_id", b"%d" % len(sent)), ("ce_source", b"test")]
            person = b"u%d" % (len(sent) % PERSONS)
            sent.append(await producer.send(cluster.name("events"), body, key=person, headers=headers))
            await asyncio.sleep(1 / PER_S)
        await asyncio.gather(*sent)
        return len(sent)


async def away(server: Server) -> None:
    """The server is away for a while, and nobody in this process waits for it meanwhile."""
    server.kill()
    await asyncio.sleep(OUTAGE_S)
    await asyncio.to_thread(server.start)


async def supervised(node: Node, until: Callable[[], bool]) -> list[int]:
    """Start a node again whenever it ends, as a supervisor does; its exit codes."""
    codes, give_up = [], time.monotonic() + 90 + OUTAGE_S
    while not await asyncio.to_thread(until):
        assert time.monotonic() < give_up, f"ended with {codes}\n{node.child and node.child.tail(25)}"
        assert node.child is not None
        if (code := node.child.returncode) is not None:
            codes.append(code)
            await asyncio.sleep(1.0)
            node.start()
        await asyncio.sleep(0.2)
    return codes


async def settled(cluster: Cluster, events: int) -> float:
    """Wait until every event is applied once, and say how long that took."""
    began, store = time.monotonic(), cluster.store()
    sources = list(await cluster.ends(cluster.name("events")))

    def considered() -> int:
        return sum(sum(mark.totals) for mark in store.marks(sources).values())

    await cluster.until(lambda: considered() >= events, 60 + OUTAGE_S, f"{events} events are considered")
    fates = {fate.name: sum(mark.totals[fate] for mark in store.marks(sources).values()) for fate in Fate}
    assert fates == dict.fromkeys(fates, 0) | {"applied": events}
    return time.monotonic() - began


@pytest.mark.parametrize("what", ["store", "brokers"])
async def test_what_is_away_at_the_start_is_waited_for(site: Site, what: str) -> None:
    cluster = site.cluster
    gone = asyncio.create_task(away(site.servers[what]))
    await asyncio.sleep(0.5)
    (worker,) = cluster.start("worker")
    codes = await supervised(worker, lambda: gone.done() and worker.is_ready)
    assert set(codes) <= ({1} if what == "brokers" else set()), cluster.logs()
    await gone
    stopped = asyncio.Event()
    publishing = asyncio.create_task(publish(cluster, stopped))
    await asyncio.sleep(2.0)
    stopped.set()
    print(f"{what} away {OUTAGE_S:g} s at start: settled after {await settled(cluster, await publishing):.1f} s")
    assert "Traceback" not in worker.child.log.read_text(), cluster.logs()


@pytest.mark.parametrize("what", ["store", "brokers"])
async def test_what_is_away_at_an_assignment_is_waited_for(site: Site, what: str) -> None:
    cluster = site.cluster
    (first,) = cluster.start("worker")
    await cluster.until(lambda: first.is_ready, 60, "ready")
    stopped = asyncio.Event()
    publishing = asyncio.create_task(publish(cluster, stopped))
    (second,) = cluster.start("worker")
    if what == "brokers":  # in the middle of it
        await cluster.until(lambda: "rebalancing" in first.child.log.read_text(), 60, "the group is changing")
    gone = asyncio.create_task(away(site.servers[what]))
    await asyncio.sleep(OUTAGE_S - 2)
    assert first.lacks
    assert second.lacks
    if what == "store":  # of brokers that went later it may have seen enough to be ready once
        assert not second.is_ready, "it was never ready"
    codes = await supervised(second, gone.done)
    assert set(codes) <= ({1} if what == "brokers" else set()), cluster.logs()
    await gone
    await cluster.until(lambda: not first.lacks and not second.lacks, 60, "both lack nothing again")
    stopped.set()
    print(
        f"{what} away {OUTAGE_S:g} s at an assignment: settled after {await settled(cluster, await publishing):.1f} s"
    )


@pytest.mark.parametrize("what", ["store", "brokers"])
async def test_what_is_away_under_load_is_waited_for(site: Site, what: str) -> None:
    cluster = site.cluster
    (worker,) = cluster.start("worker")
    await cluster.until(lambda: worker.is_ready, 60, "ready")
    stopped = asyncio.Event()
    publishing = asyncio.create_task(publish(cluster, stopped))
    await asyncio.sleep(2.0)
    gone = asyncio.create_task(away(site.servers[what]))
    await asyncio.sleep(OUTAGE_S - 1)
    assert {"store": "store", "brokers": "work"}[what] in worker.lacks
    assert worker.is_ready, "it says so, and answers with what it has"
    await gone
    back = time.monotonic()
    await cluster.until(lambda: not worker.lacks, 60, "it lacks nothing again")
    print(f"{what} away {OUTAGE_S:g} s under load: well {time.monotonic() - back:.1f} s after it was back")
    stopped.set()
    print(f"settled after {await settled(cluster, await publishing):.1f} s")
    assert "Traceback" not in worker.child.log.read_text(), cluster.logs()
