"""A worker process of the transport's scenarios: `python batching_worker.py SCENARIO.json`, see `Scenario` there.

Every unit handed to the agent, and its end, is a JSON line in the scenario's log, so that the test knows what was
processed whatever then happens to the process. Styles: `units` is the product; `chunks` is the obvious way to deliver
whole fetches, Faust's own bookkeeping with one message per chunk; `take` is Faust's own batching.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, time
from typing import Any

import faust
import msgspec
from faust.transport.drivers import aiokafka as driver
from mode.supervisors import OneForOneSupervisor

from embeddings.events import Source
from streams.contract.messages import Part
from streams.process.host import run_apps
from streams.process.member import Membership, Rewind, make_app, serve
from streams.transport.batching import BatchApp, BatchConsumer
from streams.transport.fetching import Batching, BatchThread
from streams.transport.gates import Lane
from streams.transport.ledger import Unit


class Behaviour(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the agent of a topic does: unit n is never acknowledged, raises, or takes so many seconds."""

    max_batch: int = 100
    depth: int = 1
    stuck_after_s: float = 60.0
    skip: int | None = None
    raise_at: int | None = None
    sleep_at: int | None = None
    sleep_s: float = 3600.0
    retrying: bool = False
    block_loop: bool = False
    each_s: float = 0.0
    rewind_at: int | None = None
    rewind_to: int = 0
    rewind_always: bool = False


class Group(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One app: its consumer group and its topics."""

    group: str
    topics: dict[str, Behaviour]
    style: str = "units"
    restarting_supervisor: bool = False
    wait_empty: bool = True
    poll_interval_s: float | None = None
    keep_polling: bool = True
    drain_s: float = 5.0
    stalled_after_s: float = 60.0
    give_up_after_s: float = 60.0
    deaf: bool = False
    request_timeout_s: float | None = None
    positions_after_s: float = 0.0
    positions_declared: bool = True
    instance_id: str | None = None
    bootstrap: str | None = None
    paused: int | None = None


class Scenario(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A process: apps side by side."""

    bootstrap: str
    log: str
    groups: list[Group]


class Log:
    """JSON lines, each written at once."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("a", buffering=1)  # noqa: SIM115 - as long as the process

    def write(self, what: str, group: str, **values: Any) -> None:
        self._file.write(json.dumps({"what": what, "group": group, "at": time(), **values}) + "\n")


class ChunkConsumer(driver.Consumer):
    """The negative control: a chunk of one partition is one message at its last offset; the rest is stock Faust."""

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        fetched = await super()._getmany(active_partitions=active_partitions, timeout=timeout)
        size = {topic: lane.max_batch for topic, lane in self.app.batching.lanes.items()}
        return {tp: list(_chunks(tp, records, size[tp.topic])) for tp, records in (fetched or {}).items()}


class Chunk(Unit):
    """Looks like a record to Faust."""

    headers, key, checksum, serialized_key_size, serialized_value_size = (), None, None, 0, 0

    @property
    def value(self) -> Unit:
        return self


def _chunks(tp: Any, records: list[Any], size: int) -> Iterator[Chunk]:
    for start in range(0, len(records), size):
        some = records[start : start + size]
        last = some[-1]
        chunk = Chunk([Part(Source(*tp), some, last.offset, -1)], len(some), tp.topic)
        chunk.partition, chunk.offset, chunk.timestamp, chunk.timestamp_type = tp.partition, last.offset, 0, 0
        yield chunk


class ChunkTransport(driver.Transport):
    Consumer = ChunkConsumer


class ChunkApp(BatchApp):
    def _new_transport(self) -> Any:
        return ChunkTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Any:
        return driver.Transport(self.conf.broker_producer, self)


def build(group: Group, bootstrap: str, log: Log) -> faust.App:
    """The app of a group."""

    async def assigned(stretches: Any, waiting: Any) -> dict[Source, int]:
        until = monotonic() + group.positions_after_s
        while monotonic() < until:
            if group.positions_declared:
                waiting("the scenario says so")
            await asyncio.sleep(0.2)
        log.write("assigned", group.group, sources=sorted(map(list, stretches)))
        return {source: group.topics[source.topic].rewind_to for source in stretches if source.topic in rewinding}

    rewinding: set[str] = set()

    lanes = {
        topic: Lane(max_batch=b.max_batch, depth=b.depth, stuck_after_s=b.stuck_after_s)
        for topic, b in group.topics.items()
    }
    app = make_app(
        Membership(group=group.group, commit_interval_s=0.3, instance_id=group.instance_id),
        Batching(
            client_options={"bootstrap_servers": group.bootstrap or bootstrap, "client_id": group.group},
            lanes=lanes,
            positions=assigned,
            drain_s=group.drain_s,
            stalled_after_s=group.stalled_after_s,
            give_up_after_s=group.give_up_after_s,
            paused={Source(topic, group.paused) for topic in group.topics if group.paused is not None},
        ),
    )
    if group.style != "units":
        app.__class__ = ChunkApp if group.style == "chunks" else faust.App
    if group.restarting_supervisor:
        app.conf.agent_supervisor = OneForOneSupervisor
    if group.poll_interval_s is not None:
        app.conf.broker_max_poll_interval = group.poll_interval_s
    if group.request_timeout_s is not None:
        app.conf.broker_request_timeout = group.request_timeout_s
    app.conf.stream_wait_empty = group.wait_empty
    if group.style == "units":

        @app.timer(0.5)
        async def say_lag() -> None:
            log.write("lag", group.group, records=sum(lag.records for lag in app.lags().values()))

    for topic, behaviour in group.topics.items():
        _add_agent(app, group, topic, behaviour, log, rewinding)
    return app


def _add_agent(app: Any, group: Group, topic: str, behaviour: Behaviour, log: Log, rewinding: set[str]) -> None:
    count = iter(range(1_000_000_000))

    def say(what: str, number: int, records: list[Any], **more: Any) -> None:
        offsets = [[r.partition, r.offset] for r in records]
        log.write(what, group.group, topic=topic, number=number, offsets=offsets, **more)

    async def process(records: list[Any], unit: Unit | None = None) -> int:
        number = next(count)
        below = sum(r.offset < p.committed for p in unit.parts for r in p.records) if unit is not None else 0
        lag = sum(lag.records for lag in app.lags().values()) if group.style == "units" else None
        say("begin", number, records, publish_ms=[r.timestamp for r in records], below_committed=below, lag=lag)
        if behaviour.rewind_always:
            raise Rewind("the scenario says so")
        if number == behaviour.rewind_at:
            rewinding.add(topic)
            raise Rewind("the scenario says so")
        if number == behaviour.raise_at:
            raise RuntimeError(f"unit {number}")
        if number == behaviour.sleep_at:
            await _sleep(behaviour, unit)
        await asyncio.sleep(behaviour.each_s)
        if number != behaviour.skip:
            say("end", number, records)
        return number

    async def handle(unit: Unit) -> None:
        await process([r for part in unit.parts for r in part.records], unit)

    async def skipping(stream: Any) -> None:
        manual = stream.noack()
        async for event in manual.events():
            records = [r for part in event.value.parts for r in part.records]
            if await process(records, event.value) != behaviour.skip:
                await manual.ack(event)

    async def taking(stream: Any) -> None:
        async for events in stream.take_events(behaviour.max_batch, within=0.2):
            await process([_Taken(e.message) for e in events])

    if group.style == "units" and behaviour.skip is None:
        return serve(app, topic, handle)
    source = app.topic(topic, key_serializer="raw", value_serializer="raw")
    app.agent(source, name=f"{group.style}.{topic}")(taking if group.style == "take" else skipping)
    return None


class _Taken:
    def __init__(self, message: Any) -> None:
        self.partition, self.offset, self.timestamp = message.partition, message.offset, message.timestamp * 1000


async def _sleep(behaviour: Behaviour, unit: Unit | None) -> None:
    until = monotonic() + behaviour.sleep_s
    if behaviour.block_loop:
        while monotonic() < until:
            pass
    while monotonic() < until:
        if behaviour.retrying and unit is not None:
            unit.retrying("the scenario says so")
        await asyncio.sleep(min(0.2, behaviour.sleep_s))


async def _hear_nothing(self: Any, active_partitions: Any, timeout: float) -> Any:
    await asyncio.sleep(3600)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    scenario = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Scenario)
    log = Log(scenario.log)
    if any(group.deaf for group in scenario.groups):
        BatchConsumer._getmany = _hear_nothing  # type: ignore[method-assign]
    if not all(group.keep_polling for group in scenario.groups):
        BatchThread.touch = lambda self: None  # type: ignore[method-assign]
    return run_apps([build(group, scenario.bootstrap, log) for group in scenario.groups])


if __name__ == "__main__":
    sys.exit(main())
