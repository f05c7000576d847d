"""From a handler of batches to a member of a consumer group.

lanes = {"marquee.events.v1": Lane()}
app = make_app(Membership(group="marquee.serving"), Batching(client_options=client_options, lanes=lanes))
serve(app, "marquee.events.v1", respond)        # async def respond(unit: Unit) -> None
raise SystemExit(run_apps([app]))
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, cast

from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from mode.supervisors import CrashingSupervisor

from embeddings.events import Source
from streams.settings import Settings, TopicName
from streams.transport.batching import BatchApp, BatchConsumer
from streams.transport.fetching import Batching, Positions
from streams.transport.gates import Lane
from streams.transport.ledger import Unit
from streams.transport.topics import BY_USER

GROUPS: Mapping[str, tuple[TopicName, ...]] = {"serving": ("events", "requests"), "learner": ("observations",)}
"""What the group of each role reads in batches."""
Handler = Callable[[Unit], Awaitable[None]]

log = logging.getLogger(__name__)


class Rewind(Exception):
    """Raised by a handler: drop the unit un-acknowledged and fetch its lane again from where `positions` says."""


class Pause(Exception):
    """Raised by a handler: all is done but for some partitions, each of which is not delivered beyond an offset.

    `Batching.paused` holds them; what was fetched of them comes again from there when it no longer does.
    """

    def __init__(self, positions: Mapping[Source, int]) -> None:
        super().__init__(", ".join(f"{topic}/{partition}" for topic, partition in positions))
        self.positions = positions


class AutoAck(Exception):
    """The stream would acknowledge by itself. A fault of this code: the process ends, nothing is committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """How a process belongs to its consumer group.

    `instance_id` makes the membership static: distinct per process and kept over its restarts. A member that is silent
    for the session timeout is out; one that does not come back for the next assignment in the rebalance timeout, too.
    """

    group: str
    instance_id: str | None = None
    session_timeout_s: float = 6.0
    rebalance_timeout_s: float = 20.0
    request_timeout_s: float = 40.0
    commit_interval_s: float = 0.5


def make_app(membership: Membership, batching: Batching) -> BatchApp:
    """A consumer group member that reads the topics with lanes in batches. Nothing connects before `run_apps`.

    Raises:
        ValueError: the time to drain is not below the rebalance timeout.
    """
    m, lanes = membership, batching.lanes.values()
    if batching.drain_s >= m.rebalance_timeout_s:
        raise ValueError(f"drain_s {batching.drain_s} must be below rebalance_timeout_s {m.rebalance_timeout_s}")
    servers = str(batching.client_options["bootstrap_servers"])
    return BatchApp(
        m.group,
        batching,
        broker=[f"kafka://{address.strip()}" for address in servers.split(",")],
        agent_supervisor=CrashingSupervisor,
        broker_session_timeout=m.session_timeout_s,
        broker_heartbeat_interval=m.session_timeout_s / 3,
        broker_rebalance_timeout=m.rebalance_timeout_s,
        broker_request_timeout=max(m.request_timeout_s, m.session_timeout_s + 1),
        broker_commit_interval=m.commit_interval_s,
        broker_max_poll_records=max((lane.max_batch for lane in lanes), default=512),
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=m.instance_id,
        cython_optimizations=True,
        producer_acks=-1,
        producer_request_timeout=30.0,
        stream_buffer_maxsize=8,
        stream_wait_empty=True,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )


def groups_of(settings: Settings) -> dict[str, list[str]]:
    """The groups of an installation, and the full names of the topics that each reads in batches."""
    k, name = settings.kafka, settings.topics.name
    return {f"{k.group_prefix}.{role}": [name(topic) for topic in topics] for role, topics in GROUPS.items()}


def make_member(
    settings: Settings,
    role: str,
    lanes: Mapping[str, Lane],
    positions: Positions,
    *,
    paused: Container[Source] = (),
    instance_id: str | None = None,
    assignor: type[AbstractPartitionAssignor] = RangePartitionAssignor,
    note: Callable[[Source], str] = lambda _source: "",
) -> BatchApp:
    """`make_app` for a role of an installation: its group, its clients and how long they wait are in the settings."""
    k, b = settings.kafka, settings.batching
    return make_app(
        Membership(
            group=f"{k.group_prefix}.{role}",
            instance_id=instance_id,
            session_timeout_s=k.session_timeout_s,
            rebalance_timeout_s=k.rebalance_timeout_s,
            request_timeout_s=k.request_timeout_s,
            commit_interval_s=k.commit_interval_s,
        ),
        Batching(
            client_options=k.client_options(),
            lanes=lanes,
            positions=positions,
            paused=paused,
            fetch_wait_ms=b.fetch_wait_ms,
            drain_s=k.rebalance_timeout_s / 2,
            stalled_after_s=b.stuck_after_s,
            give_up_after_s=b.give_up_after_s,
            assignor=assignor,
            counts={settings.topics.name(topic): settings.topics.partitions for topic in BY_USER},
            look_every_s=k.metadata_max_age_s,
            note=note,
        ),
    )


def serve(app: BatchApp, topic: str, handle: Handler) -> None:
    """Have `handle` called with every unit of `topic`, in order.

    The next one comes when the one before was handled, or called its `answered`. `handle` returns when all effects are
    durable.

    Then the unit is acknowledged. An exception ends the process with exit code 1, or, under another supervisor, once
    the unit has been un-acknowledged for `stuck_after_s`; either way it is delivered again.

    Raises:
        ValueError: the topic has no lane.
    """
    if topic not in app.batching.lanes:
        raise ValueError(f"{topic} has no lane")

    async def agent(stream: Any) -> None:
        manual = stream.noack()
        if manual.enable_acks:
            raise AutoAck(topic)
        before: asyncio.Event | None = None

        async def take(event: Any, turn: asyncio.Event | None) -> None:
            unit, consumer = cast(Unit, event.value), cast(BatchConsumer, app.consumer)
            if turn is not None:
                await turn.wait()
            try:
                if consumer.ledger.refresh(unit):  # nothing is left when the lane was sent back after the fetch
                    await handle(unit)
            except Rewind as why:
                log.warning("%s: fetching again, %s", topic, why)
                await consumer.rewind(unit)
            except Pause as why:
                await consumer.send_to(why.positions)
            await manual.ack(event)

        try:
            async with asyncio.TaskGroup() as side_by_side:
                async for event in manual.events():
                    unit: Unit = event.value
                    side_by_side.create_task(take(event, before))
                    before = unit.over
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from failed

    source = app.topic(topic, key_serializer="raw", value_serializer="raw")
    app.agent(source, name=f"serve.{topic}", concurrency=1)(agent)
