"""`marquee bench ingest`: decode, fold and state in Redis through the Faust agent, beside two yardsticks in one run.

*Stock* is what a Faust user writes first: an agent over single events that decodes JSON, loads the person's state,
adds the event to it and saves it. *Ceiling* is what the same traffic costs with no service around it: aiokafka's
`getmany`, msgspec, and per batch one MGET and one fenced MSETEX of the same keys, written back as they came.

Marquee runs as `marquee worker`, set up as one that ranks nothing: slates on request only, observations off, the same
large batches as the ceiling. Each contender has a core to itself, servers share another, and all start on the same
backlog.
"""

import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import faust
import msgspec
import numpy as np
import redis.asyncio
from aiokafka import AIOKafkaConsumer

from embeddings.events import Source
from embeddings.redis_connection import Command, RedisLine
from embeddings.redis_keys import RedisKeys
from embeddings.state_columns import HISTORY
from embeddings.store import MARK_TTL_S, PartitionMark
from streams.configuration import load_settings
from streams.contract.records import decode_event
from streams.lab.bench_rig import Row, Say, Site, pace_of, publish, rotated, sources, stored
from streams.lab.synthetic import Mix, World
from streams.process.host import spare_what_stays
from streams.settings import Settings
from streams.worker.stores import user_store

BATCH = 4096
MIXES: tuple[Mix, ...] = ("zipf", "uniform")
STOCK_SHARE = 20
"""Stock gets one in so many of the events: it would take minutes otherwise."""
_STOCK = "stock"
_PATH = {
    "MARQUEE_SLATES__PER_EVENT": "requests",
    "MARQUEE_OBSERVE__ENABLED": "false",
    "MARQUEE_BATCHING__MAX_BATCH": str(BATCH),
}


@dataclass(frozen=True, kw_only=True)
class Runner:
    """What works a backlog off, started for that.

    Attributes:
        module: of Python, and its arguments.
        share: one in so many of the events is for it.
        more: settings of its own.
        beside: what goes on meanwhile.
    """

    module: Sequence[str] = ("streams", "worker")
    share: int = 1
    more: Mapping[str, str] = field(default_factory=dict)
    beside: Callable[[], AbstractContextManager[object]] = nullcontext


_RUNNERS = {
    "ceiling": Runner(module=(__name__, "ceiling")),
    "marquee": Runner(),
    "stock": Runner(module=(__name__, "stock"), share=STOCK_SHARE),
}


def run_ingest(world: World, *, events: int = 200_000, rounds: int = 3, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure all contenders on both mixes of users, one after the other.

    Returns:
        The figures of the mix where Marquee does worst against the ceiling, and those of both under `mixes`.

    Raises:
        StartFailed, TimeoutError: a server or a contender did not get there; its log's end is in the message.
    """
    with Site() as site:
        mixes = {}
        for mix in MIXES:
            log = world.log(mix, events)
            mixes[mix] = _figures(work_off(site, world, mix, log, events, _RUNNERS, rounds=rounds, say=say))
        worst = min(mixes.values(), key=lambda figures: figures["ratio_ceiling"])
        keys = ("marquee_eps", "stock_eps", "ceiling_eps")
        return {
            **{key: worst[key] for key in keys},
            "ratio_stock": min(figures["ratio_stock"] for figures in mixes.values()),
            "ratio_ceiling": worst["ratio_ceiling"],
            "mixes": mixes,
            "events": events,
            "users": world.users,
            "batch": BATCH,
            "broker": site.broker_name,
        }


def work_off(
    site: Site,
    world: World,
    mix: Mix,
    log: Iterable[Row],
    events: int,
    runners: Mapping[str, Runner],
    *,
    rounds: int,
    say: Say,
) -> dict[str, list[tuple[float, float]]]:
    """Have every runner work off the same log of a mix, once a round, each time from its beginning.

    Returns:
        Of each, by round: events per second of the wall clock and of CPU time.

    Raises:
        StartFailed, TimeoutError: one did not get there; its log's end is in the message.
    """
    settings = load_settings(environ=site.environment(f"bench-{mix}", **_PATH))
    site.create_topics(settings)
    asyncio.run(publish(site.broker.bootstrap, settings.topics.name("events"), log))
    rounds_of: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
    for turn in range(rounds):
        for name in rotated(runners, turn):
            runner = runners[name]
            group = f"bench-{mix}-{turn}-{list(runners).index(name)}"
            environment = site.environment(f"bench-{mix}", **_PATH, MARQUEE_KAFKA__GROUP_PREFIX=group)
            with (
                _settled(site, world, settings) as done,
                site.child(f"{mix}-{name}", runner.module, {**environment, **runner.more}) as child,
                runner.beside(),
            ):
                eps, cpu_eps = pace_of(child, done, events // runner.share)
            rounds_of[name].append((eps, cpu_eps))
            say(f"{mix}: {name} {eps:,.0f} events/s, {1e6 / cpu_eps:.1f} µs of its core per event")
    return rounds_of


def _figures(rounds_of: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """The medians of several rounds. Contenders are compared within a round: neighbours in time."""
    eps_of = {name: np.array(found)[:, 0] for name, found in rounds_of.items()}
    figures: dict[str, Any] = {f"{name}_eps": round(float(np.median(eps_R))) for name, eps_R in eps_of.items()}
    for name, found in rounds_of.items():
        figures[f"{name}_cpu_us"] = round(1e6 / float(np.median([cpu_eps for _, cpu_eps in found])), 2)
    for yardstick in ("stock", "ceiling"):
        figures[f"ratio_{yardstick}"] = round(float(np.median(eps_of["marquee"] / eps_of[yardstick])), 3)
    figures["rounds"] = {name: eps_R.round().tolist() for name, eps_R in eps_of.items()}
    return figures


@contextmanager
def _settled(site: Site, world: World, settings: Settings) -> Iterator[Callable[[], int]]:
    """A Redis that holds everybody's state and nothing else; yields how to ask how many events are in it."""
    here = sources(settings)
    with closing(user_store(settings)) as store, redis.Redis.from_url(site.valkey.url) as plain:
        plain.flushall()
        world.settle(store, here)
        yield lambda: stored(store, here) + int(plain.get(_STOCK) or 0)


# The yardsticks -------------------------------------------------------------------------------------------------------


def stock(settings: Settings) -> None:
    """Run an ordinary Faust agent until it is stopped. Its states are msgpack: a dozen times faster than JSON."""
    app = faust.App(
        f"{settings.kafka.group_prefix}.stock",
        broker=f"kafka://{settings.kafka.bootstrap}",
        consumer_auto_offset_reset="earliest",
        topic_disable_leader=True,
        topic_allow_declare=False,
        cython_optimizations=True,
        web_enabled=False,
        datadir=Path(tempfile.mkdtemp(prefix="marquee-stock-")),
    )
    client = redis.asyncio.Redis.from_url(settings.redis.url)
    prefix, ttl_s = f"{settings.redis.prefix}:stock:", settings.redis.state_ttl_s

    @app.agent(app.topic(settings.topics.name("events"), value_serializer="json"))
    async def agent(events: Any) -> None:
        done = 0
        async for event in events:
            key = prefix + event["user_id"]
            held: Any = await client.get(key)
            state: Any = msgspec.msgpack.decode(held) if held else {"events": 0, "items": []}
            item = event["item_id"]
            latest = [item, event["type"], event["event_time"] // 1000]
            state["items"] = [latest, *(entry for entry in state["items"] if entry[0] != item)][:HISTORY]
            state["events"] += 1
            await client.set(key, msgspec.msgpack.encode(state), ex=ttl_s)
            done += 1
            if done % 100 == 0:
                await client.set(_STOCK, done)

    faust.Worker(app, loglevel="WARNING", redirect_stdouts=False).execute_from_commandline()


async def ceiling(settings: Settings) -> None:
    """Fetch, decode, read and write back in batches until stopped: nothing is folded."""
    here = sources(settings)
    line, keys = RedisLine(settings.redis.url, timeout_s=10.0), RedisKeys(settings.redis.prefix, settings.redis.buckets)
    fences, ttl_s = keys.fences(here), settings.redis.state_ttl_s
    consumer = AIOKafkaConsumer(
        settings.topics.name("events"),
        bootstrap_servers=settings.kafka.bootstrap,
        group_id=f"{settings.kafka.group_prefix}.ceiling",
        auto_offset_reset="earliest",
        enable_auto_commit=True,
        isolation_level="read_committed",
        fetch_max_wait_ms=10,
    )
    await consumer.start()
    spare_what_stays()  # it gains from it as the worker does
    while True:
        fetched = await consumer.getmany(timeout_ms=100, max_records=BATCH)
        users = list({(decode_event(record.value).user_id or ""): None for part in fetched.values() for record in part})
        if not users:
            continue
        states, seen = keys.profiles(users)
        marks = [PartitionMark(part[-1].offset).to_bytes() for part in fetched.values()]
        mark_keys = keys.marks(Source(*tp) for tp in fetched)
        get = ("MGET", *fences, *mark_keys, *states, *seen)
        reply: Any = line.exchange(("UNWATCH",), ("WATCH", *fences), get)[2]
        values = reply[len(fences) + len(mark_keys) :]
        held = [(key, value) for key, value in zip(states + seen, values, strict=True) if value is not None]
        line.exchange(
            ("MULTI",),
            _msetex(list(zip(mark_keys, marks, strict=True)), MARK_TTL_S),
            _msetex(held, ttl_s),
            ("EXEC",),
        )


def _msetex(pairs: Sequence[tuple[bytes, bytes]], ttl_s: int) -> Command:
    return ("MSETEX", len(pairs), *chain.from_iterable(pairs), "EX", ttl_s)


if __name__ == "__main__":
    if sys.argv[1] == "stock":
        sys.argv[1:] = ["worker"]
        stock(load_settings())
    else:
        asyncio.run(ceiling(load_settings()))
