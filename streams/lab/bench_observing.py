"""`marquee bench observing`: what metrics and spans add to an event and to a slate, beside a worker that has neither.

Four workers that differ in nothing else take turns on one core, in another order every round; who looks at them is on
the other. *off* counts, times and judges nothing. *metrics* is `marquee worker`, asked for them once a second.
*metrics and spans* also traces every batch, with its links, to a collector; it sends twice a second instead of every
five, so that sending falls into its own turns. *off again* says how far two figures of the same thing are apart.

First they work off the backlog of `marquee bench ingest`, then, as in `marquee bench slates`, backlogs and a steady
rate. Every event comes with a `traceparent`. A figure is compared with that of *off* in the same round.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from deploy.processes import free_port, serves
from embeddings import snapshots
from embeddings.events import Source
from embeddings.store import UserStore
from streams.configuration import load_settings
from streams.contract.cloudevents import TRACEPARENT
from streams.contract.manifests import announced
from streams.lab.bench_ingest import Runner, work_off
from streams.lab.bench_rig import Looks, Row, Say, Site, rotated, sources, stored
from streams.lab.bench_slates import STEADY_EPS, install
from streams.lab.bench_traffic import Contender, Traffic, connected
from streams.lab.observers import Collector, scraped, traced
from streams.lab.synthetic import World
from streams.settings import Settings
from streams.worker.stores import user_store

OFF = "off"
_WARM, _TOGETHER = 2_000, 3
"""Events before any that are measured; rounds of slates with the same processes: no two processes are quite alike."""
_SEND_MS = 500
Rounds = dict[str, list[tuple[float, float]]]
"""By side and round: a figure, and how many a second of CPU time."""


class Sizes(NamedTuple):
    """How much a turn takes: events that are only folded, events of a backlog of slates, seconds at a steady rate.

    Fewer events are folded within a second: then the first page and the first spans of a process count for too much.
    """

    ingest: int = 400_000
    slates: int = 4_000
    seconds: float = 3.0


def run_observing(
    world: World, *, rounds: int = 6, sizes: Sizes | None = None, say: Say = lambda text: None
) -> dict[str, Any]:
    """Measure all sides, `rounds` times.

    Returns:
        Under `events`, `slates` and `steady`, by side: `cpu_us` of each event or slate and `per_s` or `p50_ms`, medians
        of the rounds; under `…_to_off` the median, lowest and highest of its ratios to *off* in the same round.

    Raises:
        StartFailed: a server or a worker did not get there; its log's end is in the message.
        TimeoutError: so too, or a worker that is to tell metrics or send spans did not.
    """
    sizes = sizes or Sizes()
    with Site() as site, Collector() as collector:
        sides = sides_of(collector)
        log = with_traces(world.log("zipf", sizes.ingest))
        events = work_off(site, world, "zipf", log, sizes.ingest, sides, rounds=rounds, say=say)
        backlogs, steady = _answer(site, world, sides, rounds, sizes, say)
        return {
            "events": compared(events, "per_s"),
            "slates": compared(backlogs, "per_s"),
            "steady": compared(steady, "p50_ms"),
            "steady_eps": STEADY_EPS,
            "rounds": rounds,
            "spans": collector.spans,
            "items": world.items,
            "broker": site.broker_name,
        }


def sides_of(collector: Collector) -> dict[str, Runner]:
    """The workers that are compared, by name."""
    mute, ports = ("streams.lab.unobserved",), [str(free_port()) for _ in range(4)]
    off, again, told, sent = ({"MARQUEE_HTTP__PORT": port} for port in ports)
    sent |= {"MARQUEE_TRACING__ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": str(_SEND_MS)}
    return {
        OFF: Runner(module=mute, more=off),
        "off again": Runner(module=mute, more=again),
        "metrics": Runner(more=told, beside=partial(scraped, int(ports[2]))),
        "metrics and spans": Runner(more=sent, beside=partial(traced, int(ports[3]), collector)),
    }


def with_traces(rows: Iterable[tuple[bytes, bytes]]) -> Iterator[Row]:
    """Events that come with a trace each."""
    for n, (key, value) in enumerate(rows, 1):
        yield key, value, (TRACEPARENT, b"00-%032x-%016x-01" % (n, n))


def compared(rounds_of: Rounds, what: str) -> dict[str, dict[str, Any]]:
    """Medians by side, and how they compare with *off* of the same round; `what` names the figure beside CPU time.

    >>> compared({"off": [(50.0, 1e5), (40.0, 5e4)], "on": [(45.0, 8e4), (44.0, 4e4)]}, "per_s")["on"]["cpu_us_to_off"]
    [1.25, 1.25, 1.25]
    """
    figures_of = {
        name: {what: np.array([one for one, _ in rounds]), "cpu_us": np.array([1e6 / cpu_ps for _, cpu_ps in rounds])}
        for name, rounds in rounds_of.items()
    }
    found: dict[str, dict[str, Any]] = {name: {} for name in rounds_of}
    for name, figures in figures_of.items():
        for key, one_R in figures.items():
            ratio_R = one_R / figures_of[OFF][key]
            found[name][key] = round(float(np.median(one_R)), 2)
            found[name][f"{key}_to_off"] = [round(float(of(ratio_R)), 3) for of in (np.median, np.min, np.max)]
    return found


# Slates ---------------------------------------------------------------------------------------------------------------


class _Live(NamedTuple):
    """A worker that answers with slates, on topics and with states of its own."""

    contender: Contender
    store: UserStore
    here: Sequence[Source]

    async def backlog(self, traffic: Traffic, rows: Iterator[Row]) -> tuple[float, float]:
        """Slates a second of the clock and of CPU time."""
        before = stored(self.store, self.here)
        per_s, _, per_cpu_s = await traffic.work_off(
            self.contender, rows, lambda _answers: stored(self.store, self.here) - before
        )
        return per_s, per_cpu_s

    async def steady(self, traffic: Traffic, rows: Iterator[Row], seconds: float) -> tuple[float, float]:
        """Milliseconds from an event to its slate, p50, and slates a second of CPU time."""
        looks = Looks(self.contender.child)
        looks.add(0)
        taken_s = await traffic.latencies(self.contender, rows, STEADY_EPS, seconds)
        looks.add(len(taken_s))
        return float(np.median(taken_s)) * 1000, looks.pace()[1]


def _answer(
    site: Site, world: World, sides: Mapping[str, Runner], rounds: int, sizes: Sizes, say: Say
) -> tuple[Rounds, Rounds]:
    """Backlogs and steady rates of slates."""
    say("learning a snapshot")
    snapshot = world.snapshot()
    manifest = announced(snapshots.write(snapshot, site.folder))
    environments = {name: {**site.environment(f"slates-{n}"), **sides[name].more} for n, name in enumerate(sides)}
    settings = {name: load_settings(environ=environment) for name, environment in environments.items()}
    for one in settings.values():
        install(site, world, one, snapshot, manifest)
    each = sizes.slates + int(STEADY_EPS * sizes.seconds)
    log = with_traces(world.log("zipf", len(sides) * (rounds * each + (rounds // _TOGETHER + 1) * _WARM)))
    backlogs: Rounds = {name: [] for name in sides}
    steady: Rounds = {name: [] for name in sides}
    for first in range(0, rounds, _TOGETHER):
        with ExitStack() as exit_:
            live = {
                name: _started(site, exit_, name, sides[name], environments[name], one)
                for name, one in settings.items()
            }
            for name, one in settings.items():
                address = f"http://127.0.0.1:{one.http.port}/readyz"
                live[name].contender.child.wait_until(partial(serves, address), 180.0)
            turns = range(first, min(first + _TOGETHER, rounds))
            asyncio.run(_turns(site, live, log, turns, sizes, (backlogs, steady), say))
    return backlogs, steady


def _started(
    site: Site, exit_: ExitStack, name: str, side: Runner, environment: Mapping[str, str], settings: Settings
) -> _Live:
    child = exit_.enter_context(site.child(name, side.module, environment))
    store = exit_.enter_context(closing(user_store(settings)))
    topic = settings.topics.name
    return _Live(Contender(child, topic("events"), topic("slates"), side.beside), store, sources(settings))


async def _turns(
    site: Site,
    live: Mapping[str, _Live],
    log: Iterator[Row],
    turns: Iterable[int],
    sizes: Sizes,
    found: tuple[Rounds, Rounds],
    say: Say,
) -> None:
    """Measure everybody who lives, once a turn, and add to what was `found`."""
    backlogs, steady = found
    async with connected(site.broker.bootstrap) as traffic:
        for one in live.values():
            await one.backlog(traffic, islice(log, _WARM))
        for turn in turns:
            for name in rotated(live, turn):
                one = live[name]
                with one.contender.beside():
                    backlogs[name].append(await one.backlog(traffic, islice(log, sizes.slates)))
                    steady[name].append(await one.steady(traffic, log, sizes.seconds))
                per_s, cpu_us = backlogs[name][-1][0], 1e6 / backlogs[name][-1][1]
                say(f"slates: {name} {per_s:,.0f} slates/s, {cpu_us:.0f} µs of its core each")
