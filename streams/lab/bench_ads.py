"""`marquee bench ads`: decisions per second on one core, how fast a campaign stops, what ads add to slates.

First a requests lane on a core of its own decides about ads in batches, in turns with a floor of library calls
(`bench_ad_lane`). Then a worker sells the same campaigns on a broker (`bench_ad_stack`): events before there are any
campaigns and after; slates with and without places for ads, in turns; campaigns stopped while they are asked for;
impressions, until `ad-stats` counts them.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from deploy.processes import free_port
from embeddings import snapshots
from embeddings.store import UserStore
from streams.configuration import load_settings
from streams.contract.manifests import announced
from streams.lab import bench_ad_lane
from streams.lab.ad_crowd import AdCrowd, with_heads
from streams.lab.bench_ad_stack import AdStack
from streams.lab.bench_rig import Say, Site, sources, stored
from streams.lab.bench_slates import WORKER, announce, wait_until_serving
from streams.lab.bench_traffic import Contender, Traffic
from streams.lab.synthetic import World
from streams.settings import Settings
from streams.worker.stores import user_store

_TRIALS, _EVENTS_PS, _WARM, _BACKLOG = 20, 50, 1_000, 2_000


def run_ads(
    world: World, *, lines: int = 10_000, batch: int = 64, seconds: float = 20.0, say: Say = lambda text: None
) -> dict[str, Any]:
    """Measure all of it; `seconds` for each figure that is taken over time.

    Raises:
        StartFailed, TimeoutError: a server or the worker did not get there; its log's end is in the message.
    """
    with Site() as site:
        say(f"a lane of {lines:,} line items on one core, batches of {batch}")
        result = _lane(site, lines, world.users, batch, seconds)
        say(f"{result['requests_per_s']:,} requests/s; the floor: {result['floor_requests_per_s']:,}")
        return result | _stack(site, world, lines, seconds, say) | {"broker": site.broker_name}


def _lane(site: Site, lines: int, people: int, batch: int, seconds: float) -> dict[str, Any]:
    environment = site.environment("bench-lane", MARQUEE_ADS__SECRET="a house without people")
    told = str(site.folder), str(lines), str(people), str(batch), str(seconds)
    with site.child("lane", (bench_ad_lane.__name__, *told), environment) as child:
        found = site.folder / bench_ad_lane.RESULT
        child.wait_until(found.exists, 300.0 + 6 * seconds)
    figures: dict[str, Any] = msgspec.json.decode(found.read_bytes())
    return figures


def _stack(site: Site, world: World, lines: int, seconds: float, say: Say) -> dict[str, Any]:
    with ExitStack() as exit_:
        say("learning a snapshot")
        environment = site.environment(
            "bench-ads", MARQUEE_HTTP__PORT=str(free_port()), MARQUEE_ADS__SECRET="a house without people"
        )
        settings = load_settings(environ=environment)
        snapshot = with_heads(world.snapshot(), settings)
        manifest = announced(snapshots.write(snapshot, site.folder))
        site.create_topics(settings)
        asyncio.run(announce(site, world, settings, snapshot, manifest))
        with closing(user_store(settings)) as store:
            world.settle(store, sources(settings))
        worker = exit_.enter_context(site.child(WORKER, ("streams", "worker"), environment))
        wait_until_serving(worker, settings.http.port, world.items)
        name = settings.topics.name
        asking = Contender(worker, name("requests"), name("slates"))
        acting = Contender(worker, name("events"), name("slates"))
        store = exit_.enter_context(closing(user_store(settings)))
        return asyncio.run(_measure(site, world, settings, store, asking, acting, lines, seconds, say))


async def _measure(
    site: Site,
    world: World,
    settings: Settings,
    store: UserStore,
    asking: Contender,
    acting: Contender,
    lines: int,
    seconds: float,
    say: Say,
) -> dict[str, Any]:
    ads, log = AdCrowd(lines=lines), world.log("zipf", 1_000_000)
    async with (
        AIOKafkaProducer(bootstrap_servers=site.broker.bootstrap, linger_ms=0, acks="all") as producer,
        AIOKafkaConsumer(
            bootstrap_servers=site.broker.bootstrap, fetch_max_wait_ms=5, max_partition_fetch_bytes=4 << 20
        ) as consumer,
    ):
        traffic, here = Traffic(producer, consumer), sources(settings)

        def folded() -> int:
            return stored(store, here)

        stack = AdStack(asking, settings, site.broker.bootstrap, world, ads, producer, say)
        events: dict[str, Any] = {"off": await _events(traffic, acting, log, seconds, folded)}
        say(f"events before there are campaigns: {events['off']}")
        watching = asyncio.create_task(stack.watch())
        try:
            await stack.publish(list(ads.campaigns()))
            events["on"] = await _events(traffic, acting, log, seconds, folded)
            say(f"events with {lines:,} line items: {events['on']}")
            slates = await stack.beside_slates(traffic, seconds, _EVENTS_PS, _BACKLOG)
            say(f"slates with and without ads: {slates}")
            killed_s = await stack.kill_switch(_TRIALS)
            say(f"stopped within {np.round(np.sort(killed_s)[-3:], 3).tolist()} s, the slowest")
            age_s = await stack.stats_age(seconds, _EVENTS_PS)
            say(f"ad-stats: p50 {np.percentile(age_s, 50):.2f} s, p99 {np.percentile(age_s, 99):.2f} s")
        finally:
            watching.cancel()
    return {
        "kill_switch_p99_s": round(float(np.percentile(killed_s, 99)), 3),
        "kill_switch_p50_s": round(float(np.percentile(killed_s, 50)), 3),
        "stats_age_p99_s": round(float(np.percentile(age_s, 99)), 3),
        "stats_age_p50_s": round(float(np.percentile(age_s, 50)), 3),
        "slates": slates,
        "events": events,
    }


async def _events(
    traffic: Traffic, acting: Contender, log: Iterator[tuple[bytes, bytes]], seconds: float, folded: Callable[[], int]
) -> dict[str, float]:
    """Events per second of a backlog, and how long one waits for its slate at a steady rate."""

    def since(before: int) -> Callable[[int], int]:
        return lambda answers: folded() - before

    paces = [await traffic.work_off(acting, islice(log, many), since(folded())) for many in (_WARM, *[_BACKLOG] * 3)]
    took_s = await traffic.latencies(acting, log, _EVENTS_PS, seconds)
    return {
        "per_s": round(float(np.median([pace[1] for pace in paces[1:]]))),
        "slates_per_cpu_s": round(float(np.median([pace[2] for pace in paces[1:]]))),
        **{f"p{q}_ms": round(1000 * float(np.percentile(took_s, q)), 2) for q in (50, 99)},
    }
