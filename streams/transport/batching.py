"""The Faust transport that delivers whole fetches: one Faust message is one `Unit` of many records of one topic.

Stock Faust hands out record by record (7,000–15,000 a second on one core) and its commit can pass over what nobody
processed. Here a record costs a list slot, and what is committed is what the agent acknowledged, in delivery order
(`streams.transport.ledger`). Every topic of an app has a lane.

Leans on private names of faust-streaming 0.15.3 and aiokafka 0.14.0, both pinned; docs/transport.md lists them.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from time import monotonic, time
from typing import Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage, ack_lock
from mode import Service
from mode.utils.futures import notify

from embeddings.events import Source
from streams.transport.deliveries import Deliveries, Lag
from streams.transport.fetching import Batching, BatchThread
from streams.transport.ledger import Unit
from streams.transport.places import Places
from streams.transport.recovery import PatientTables
from streams.transport.rewinds import Rewinds
from streams.transport.topic_watch import TopicWatch
from streams.transport.watchdog import LaneJudge, Watchdog

_COMMIT_S = 3.0
UNHEARD_S = 6.0
"""Brokers that answer nothing for so long are away, or elsewhere: even an idle consumer asks them all the time."""


class BatchConsumer(driver.Consumer):
    """Delivery, acknowledgement and commit of units."""

    app: "BatchApp"
    _thread: BatchThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._news = asyncio.Event()  # records for an open lane, or a lane that opened
        super().__init__(*args, **kwargs)  # makes the thread
        self.batching: Batching = self.app.batching
        self.deliveries = Deliveries(self.batching.lanes, self._thread.ahead, self._committed)
        self.ledger = self.deliveries.ledger
        self._rewinds = Rewinds()
        self._drained = asyncio.Event()
        self._drained.set()
        self._judge = LaneJudge(
            gates=self.deliveries.gates,
            stalled_after_s=self.batching.stalled_after_s,
            give_up_after_s=self.batching.give_up_after_s,
            waits=self._records_wait,
            stands=self._stands,
            unheard_s=self._unheard_s,
            displaced=lambda: self._thread.displaced,
        )
        self._watchdog = Watchdog(self._judge)
        self._places = Places(
            batching=self.batching,
            thread=self._thread,
            deliveries=self.deliveries,
            committed=self._committed,
            waiting=self._judge.declare,
        )
        self.topics = TopicWatch(read=self.batching.lanes, counts=self.batching.counts)

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, self._news.set, self._positions_lost, loop=self.loop, beacon=self.beacon)

    # Delivery ---------------------------------------------------------------------------------------------------------

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, list[Any]]:
        """What was fetched for lanes that are open; waits for the first of it."""
        active, ready = active_partitions or set(), dict[TP, list[Any]]()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not ready and self.flow_active and self._thread.failed is None:
                    self._news.clear()
                    self._thread.heard = frozenset(filter(self._is_open, active))  # what comes after the look is told
                    if not (ready := self._ready(active)):
                        self._thread.hurry()
                        await self._news.wait()
        self._thread.heard = frozenset()
        if not ready and self._thread.failed is not None:
            raise self._thread.failed
        return ready

    def _is_open(self, tp: TP) -> bool:
        return self.deliveries.is_open(tp.topic)

    def _ready(self, active: set[TP]) -> dict[TP, list[Any]]:
        """A unit of each open lane of which something was fetched, under the name of its first partition."""
        units = [self.deliveries.cut(topic, self._of(topic, active)) for topic in self.batching.lanes]
        ready = {TP(*unit.parts[0].source): [unit] for unit in units if unit is not None}
        if any(unit.size >= self.batching.room(unit.topic) for (unit,) in ready.values()):
            self._thread.wake()
        return ready

    def _of(self, topic: str, partitions: set[TP] | None) -> set[Source]:
        """Those of some partitions that are a topic's; from any thread."""
        return {Source(*tp) for tp in list(partitions or ()) if tp.topic == topic}

    def _committed(self, source: Source) -> int:
        offset = self._committed_offset[TP(*source)]
        return -1 if offset is None else offset

    def _to_message(self, tp: TP, record: Unit) -> ConsumerMessage:
        """Called once per unit, in order, just before delivery."""
        generation = self.app.consumer_generation_id
        self.deliveries.deliver(record, generation=generation)
        record.tell_over, record.more = partial(self._tell_over, record), self._top_up
        self._read_offset[tp] = None  # the ledger knows what is stale; offsets of a topic made anew start lower
        last = record.parts[0].last if record.parts else 0
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last,
            time(),
            0,
            [],
            None,
            cast(Any, record),
            None,
            0,
            0,
            tp,
            generation_id=generation,
        )

    # Acknowledgement and commit ---------------------------------------------------------------------------------------

    def ack(self, message: Any) -> bool:
        """Mark a unit as processed and let the next one in."""
        unit: Unit = message.value
        with ack_lock:
            if message.acked:
                return False
            message.acked = True
            self._unacked_messages.discard(message)
            if message.tracked and self.ledger.ack(unit):  # untracked: skipped as stale, no agent saw it
                self._n_acked += unit.size
        if self.deliveries.let_back(unit):
            self._news.set()
        notify(self._waiting_for_ack)
        return True

    def _tell_over(self, unit: Unit) -> None:
        self._thread.hurry()
        self.loop.call_soon_threadsafe(self._over, unit)

    def _top_up(self, unit: Unit) -> None:
        here = self._of(unit.topic, self._active_partitions)
        if self.deliveries.top_up(unit, here, lambda: self.flow_active and not self.app.rebalancing):
            self._thread.wake()

    def _over(self, unit: Unit) -> None:
        """Let the next unit of the lane in."""
        unit.over.set()
        self._news.set()

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: the ledger copies offsets, and the stock gap covers the offset that was just delivered."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        for source in self.ledger.committable():
            if topics is None or source in topics or source.topic in topics:
                yield TP(*source)

    def _new_offset(self, tp: TP) -> int | None:
        return self.ledger.take(Source(*tp), generation=self.app.consumer_generation_id)

    def _should_commit(self, tp: TP, offset: int) -> bool:
        """Also where nothing but the note changed."""
        more = self._places.notes_more(Source(*tp))
        return bool(super()._should_commit(tp, offset)) or (more and offset == self._committed_offset[tp])

    async def wait_empty(self) -> None:
        """Let agents finish what they began, at most `drain_s`, and commit it; a unit that retries is not waited for.

        What stays un-acknowledged is delivered again, here or to the next owner.
        """
        self._drained.clear()
        patience_s = 0.0 if self.should_stop else self.batching.drain_s
        # A task that may be left behind: Faust's commit swallows its cancellation and waits for absent brokers.
        finishing = asyncio.ensure_future(self._finish(monotonic() + patience_s))
        try:
            await asyncio.wait({finishing}, timeout=patience_s + _COMMIT_S)
            if not finishing.done():
                self.log.error("no commit within %g s, what is not committed will be delivered again", _COMMIT_S)
            elif not finishing.cancelled():  # with the thread that commits, which is ending
                finishing.result()
        finally:
            finishing.cancel()
            self._drained.set()

    async def _finish(self, give_up_s: float) -> None:
        while not self.should_stop and monotonic() < give_up_s and self._unfinished():
            await self.commit()
            if self._unfinished():
                await self._wait_for_ack(timeout=1)
        if left := self._unfinished():
            self.log.error("gave up on %d un-acknowledged messages, they will be delivered again", left)
        await self.maybe_wait_for_commit_to_finish()  # it may have begun before the last acknowledgement
        await self.commit_and_end_transactions()

    def _unfinished(self) -> int:
        now_s = monotonic()
        return sum(not (m.acked or cast(Unit, m.value).is_waiting(now_s)) for m in self._unacked_messages)

    def lags(self) -> dict[Source, Lag]:
        """The lag of each assigned partition whose end is known."""
        ends = {source: self._thread.written(source) for source in self._assigned()}
        return {s: self.deliveries.lag(s, end, self._thread.read(s)) for s, end in ends.items() if end is not None}

    def _assigned(self) -> set[Source]:
        return {Source(*tp) for tp in self.assignment()}

    # Positions --------------------------------------------------------------------------------------------------------

    async def perform_seek(self) -> None:
        """Send every partition back to its committed offset, or to where `positions` says; waits for a drain."""
        await self._drained.wait()
        async with self._thread.still():
            await super().perform_seek()
            await self._send_back(self._assigned())

    async def rewind(self, unit: Unit) -> None:
        """Send the partitions of a unit's lane back to their committed offsets, or to where `positions` says.

        Nothing where the unit was sent back already, by another of its lane or by a rebalance.

        Raises:
            Contested: it was not the group that took the partitions, and it happens all the time.
        """
        if self.ledger.refresh(unit):
            await self.send_back(unit.topic)

    async def send_back(self, topic: str) -> None:
        """Send the partitions of a lane back, whatever is out of it; see `rewind`."""
        self._rewinds.count(topic, self.app.consumer_generation_id)
        await self._send_back(self._of(topic, self.assignment()))

    async def send_to(self, positions: Mapping[Source, int]) -> None:
        """Continue some partitions elsewhere, those that are assigned still."""
        async with self._thread.still(list(positions)):
            await self._thread.reposition(positions)
            self.deliveries.forget(positions)

    async def seek(self, partition: TP, offset: int) -> None:
        """Send one partition elsewhere."""
        await self.send_to({Source(*partition): offset})

    async def _send_back(self, sources: set[Source]) -> None:
        """What was fetched or delivered so far is void from here on, and nothing is delivered until it comes again.

        Both before `positions` is asked: what was delivered later would be folded without what came before it.
        """
        try:
            with self.deliveries.void(sources):
                await self.send_to(await self._places.choose(sources))
        finally:
            self._news.set()

    def _positions_lost(self, sources: set[Source]) -> None:
        """The positions of partitions are in their logs no longer: send their lanes back to where they can go on."""
        assigned = self.assignment()
        lanes = {each for topic in {source.topic for source in sources} for each in self._of(topic, assigned)}
        self.add_future(self._send_back(lanes))

    # Not for batches --------------------------------------------------------------------------------------------------

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: the gate limits lanes; pausing their partitions one by one would make Faust sleep a second."""

    def on_buffer_drop(self, tp: TP) -> None:
        """See `on_buffer_full`."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust complains about partitions whose messages it does not see one by one; the watchdog judges."""

    # Watching ---------------------------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Start the watchdog with the consumer."""
        await super().on_start()
        self._watchdog.start()

    async def on_stop(self) -> None:
        """Stop both."""
        await super().on_stop()
        self._watchdog.stop()

    @Service.task
    async def _beat(self) -> None:
        while not self.should_stop:
            self._judge.beat()
            await self.sleep(0.5)

    @Service.task
    async def _listen(self) -> None:
        while not self.should_stop:
            await self.sleep(UNHEARD_S / 2)
            if self._unheard_s(monotonic()) > UNHEARD_S:
                self._judge.declare("brokers do not answer")
                self._thread.look_for_brokers()

    @Service.task
    async def _watch_topics(self) -> None:
        while not self.should_stop:
            await self.sleep(self.batching.look_every_s)
            with suppress(KafkaError, OSError, TimeoutError):  # `_listen` says so
                self.topics.look(await self._thread.logs(self.topics.names))

    def _unheard_s(self, now_s: float) -> float:
        return now_s - self._thread.heard_s

    def _stands(self) -> str | None:
        """Why nothing can be delivered of what is assigned, whatever may be there; from any thread."""
        if not self.assignment():
            return None
        if shut := [topic for topic, gate in self.deliveries.gates.items() if gate.closed]:
            return f"{', '.join(shut)}: positions are not known yet"
        flows = self.flow_active and not self.app.rebalancing
        return None if flows else "partitions are assigned, and their flow has not begun"

    def holdup(self) -> str | None:
        """Why units of what is assigned do not move at this moment; None where they do, or there is nothing to do."""
        if (unheard_s := self._unheard_s(monotonic())) > UNHEARD_S:
            return f"no broker was heard for {unheard_s:.0f} s"
        return self._judge.holdup(monotonic())

    def _records_wait(self, topic: str) -> bool:
        """Whether records of a lane are there and nothing here keeps them from being delivered; from any thread."""
        if not self.flow_active or self.app.rebalancing:
            return False
        here = self._of(topic, self._active_partitions)
        return any(self._thread.waiting(source) for source in here if source not in self.batching.paused)


class BatchProducer(driver.Producer):
    """Faust's own producer connects as the consumer does."""

    app: "BatchApp"

    def _settings_auth(self) -> Mapping[str, Any]:
        return dict(self.app.batching.client_options)


class BatchTransport(driver.Transport):
    """aiokafka's, with units."""

    app: "BatchApp"

    Consumer = BatchConsumer
    Producer = BatchProducer


class BatchApp(faust.App):
    """A Faust app whose lanes are delivered in batches."""

    def __init__(self, name: str, batching: Batching, **options: Any) -> None:
        self.batching = batching
        super().__init__(name, TableManager=PatientTables, **options)

    def holdup(self) -> str | None:
        """Why units do not move although partitions are assigned; None where they do."""
        return cast(BatchConsumer, self.consumer).holdup()

    def misfit_topics(self) -> str | None:
        """Which topics are not as they should be, as of the last look."""
        return cast(BatchConsumer, self.consumer).topics.why()

    def _create_directories(self) -> None:
        """None: they are for tables, and not every machine has a folder to write to."""

    def lags(self) -> dict[Source, Lag]:
        """The lag of each assigned partition of a lane."""
        return cast(BatchConsumer, self.consumer).lags()

    def owned(self) -> set[Source]:
        """The partitions that are assigned now."""
        return cast(BatchConsumer, self.consumer)._assigned()

    def look(self) -> None:
        """Deliver what may be delivered now of partitions that were paused; from any thread."""
        cast(BatchConsumer, self.consumer)._thread.wake()

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_producer, self)
