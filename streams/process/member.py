"""From a handler of batches to a process: app, agents, and one event loop that ends cleanly on SIGTERM.

app = make_app("marquee.serving", settings.kafka.client_options(), {"marquee.events.v1": Lane()})
serve(app, "marquee.events.v1", respond)        # async def respond(unit: Unit) -> None
raise SystemExit(run_apps([app]))
"""

import asyncio
import gc
import logging
import signal
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from mode import Service, Worker
from mode.supervisors import CrashingSupervisor

from streams.settings import Settings
from streams.transport.batching import BatchApp, BatchConsumer
from streams.transport.fetching import Batching, Positions
from streams.transport.ledger import Lane, Unit
from streams.transport.watchdog import deadline

Handler = Callable[[Unit], Awaitable[None]]

log = logging.getLogger(__name__)


class Rewind(Exception):
    """Raised by a handler: drop the unit un-acknowledged and fetch its lane again from where `positions` says."""


class AutoAck(Exception):
    """The stream would acknowledge by itself. A fault of this code: the process ends, nothing is committed."""


def make_app(
    group: str,
    client_options: Mapping[str, Any],
    lanes: Mapping[str, Lane],
    *,
    positions: Positions | None = None,
    instance_id: str | None = None,
    session_timeout_s: float = 6.0,
    rebalance_timeout_s: float = 20.0,
    commit_interval_s: float = 0.5,
    fetch_wait_ms: int = 50,
    drain_s: float = 10.0,
    stalled_after_s: float = 120.0,
    assignor: type[AbstractPartitionAssignor] = RangePartitionAssignor,
) -> BatchApp:
    """A consumer group member that reads the topics of `lanes` in batches. Nothing connects before `run_apps`.

    `client_options` are those of every aiokafka client (`bootstrap_servers`, TLS, SASL). `positions` may choose other
    offsets than the committed ones on assignment. `instance_id` makes the membership static: distinct per worker and
    kept over its restarts. `assignor` says who gets which partition. Further Faust agents on other topics may be added
    to the app.

    Raises:
        ValueError: the time to drain is not below the rebalance timeout.
    """
    if drain_s >= rebalance_timeout_s:
        raise ValueError(f"drain_s {drain_s} must be below rebalance_timeout_s {rebalance_timeout_s}")
    max_poll_records = max((lane.max_batch for lane in lanes.values()), default=512)
    return BatchApp(
        group,
        Batching(
            client_options=client_options,
            lanes=lanes,
            positions=positions,
            fetch_wait_ms=fetch_wait_ms,
            drain_s=drain_s,
            stalled_after_s=stalled_after_s,
            assignor=assignor,
        ),
        broker=[f"kafka://{address.strip()}" for address in str(client_options["bootstrap_servers"]).split(",")],
        agent_supervisor=CrashingSupervisor,
        broker_session_timeout=session_timeout_s,
        broker_heartbeat_interval=session_timeout_s / 3,
        broker_rebalance_timeout=rebalance_timeout_s,
        broker_request_timeout=max(40.0, session_timeout_s + 1),
        broker_commit_interval=commit_interval_s,
        broker_max_poll_records=max_poll_records,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=instance_id,
        cython_optimizations=True,
        producer_acks=-1,
        producer_request_timeout=30.0,
        stream_buffer_maxsize=8,
        stream_wait_empty=True,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        datadir=Path(tempfile.gettempdir()) / "marquee-faust",
        web_enabled=False,
        worker_redirect_stdouts=False,
    )


def make_member(settings: Settings, role: str, lanes: Mapping[str, Lane], **more: Any) -> BatchApp:
    """`make_app` for a role of an installation: its group, its clients and how long they wait are in the settings."""
    k = settings.kafka
    return make_app(
        f"{k.group_prefix}.{role}",
        k.client_options(),
        lanes,
        session_timeout_s=k.session_timeout_s,
        rebalance_timeout_s=k.rebalance_timeout_s,
        drain_s=k.rebalance_timeout_s / 2,
        commit_interval_s=k.commit_interval_s,
        stalled_after_s=settings.batching.stuck_after_s,
        **more,
    )


def serve(app: BatchApp, topic: str, handle: Handler) -> None:
    """Have `handle` called with every unit of `topic`, in order inside each shard of its lane.

    The next one of a shard comes when the one before was handled, or called its `answered`. `handle` returns when all
    effects are durable.

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
        before: dict[int, asyncio.Event] = {}

        async def take(event: Any, turn: asyncio.Event | None) -> None:
            unit, consumer = cast(Unit, event.value), cast(BatchConsumer, app.consumer)
            if turn is not None:
                await turn.wait()
            try:
                if consumer.ledger.refresh(unit):  # nothing is left when the shard was sent back after the fetch
                    await handle(unit)
            except Rewind as why:
                log.warning("%s: fetching again, %s", topic, why)
                await consumer.rewind(unit)
            await manual.ack(event)

        try:
            async with asyncio.TaskGroup() as side_by_side:
                async for event in manual.events():
                    unit: Unit = event.value
                    side_by_side.create_task(take(event, before.get(unit.shard)))
                    before[unit.shard] = unit.over
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from failed

    source = app.topic(topic, key_serializer="raw", value_serializer="raw")
    app.agent(source, name=f"serve.{topic}", concurrency=1)(agent)


class _Beside(Service):
    """Coroutines that run as long as the apps do; one that raises ends the process. It has started when `ready` has."""

    def __init__(
        self,
        mains: Sequence[Callable[[], Coroutine[Any, Any, None]]],
        ready: Callable[[], Coroutine[Any, Any, None]] | None,
    ) -> None:
        super().__init__()
        self._mains, self._ready = mains, ready

    async def on_start(self) -> None:
        for main in self._mains:
            self.add_future(main())
        if self._ready is not None:
            await self.wait(self._ready())
        spare_what_stays()


class _Host(Worker):
    """Starts what is beside the apps, then the apps one by one; ends the apps together, then what is beside them."""

    def __init__(self, beside: Service, apps: Sequence[Any], stop_s: float, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(beside, *apps, override_logging=False, redirect_stdouts=False, loop=loop)
        self._beside, self._apps, self._stop_s = beside, apps, stop_s

    def _schedule_shutdown(self, number: signal.Signals) -> None:
        if not self._signal_stop_time:
            deadline(self._stop_s, f"not stopped {self._stop_s:g} s after {number.name}")
        super()._schedule_shutdown(number)

    async def _stop_children(self) -> None:
        for outcome in await asyncio.gather(*(app.stop() for app in self._apps), return_exceptions=True):
            if isinstance(outcome, BaseException):
                log.error("an app did not stop cleanly: %r", outcome)
        await self._beside.stop()


def spare_what_stays() -> None:
    """Keep the garbage collector off what was built to stay; batches are freed by their reference counts.

    Records come and go by the thousand, and each thousand made it look for cycles among all objects of the process: a
    fifth of the time of a worker that only folds, and pauses of 200 ms where a catalogue is in memory.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run_apps(
    apps: Sequence[BatchApp],
    *,
    beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    ready: Callable[[], Coroutine[Any, Any, None]] | None = None,
    stop_s: float = 20.0,
) -> int:
    """Run until a signal or a crash and return the exit code: 0 after SIGTERM or SIGINT, 1 after a crash.

    On a signal every app stops fetching, lets its agents finish what they began, commits it and leaves its group; the
    coroutines `beside` (health pages, control topics) are cancelled last. Whatever still runs `stop_s` after the
    signal is ended with its stacks and exit code 77. No app starts, and takes partitions, before `ready` returns.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    for app in apps:
        app.in_worker = True
    try:
        _Host(_Beside(beside, ready), apps, stop_s, loop).execute_from_commandline()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
