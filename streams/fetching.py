"""The thread with aiokafka's consumer: how it is configured, and what it is asked beside fetching."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic, time
from typing import Any

import aiokafka
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from embeddings.events import Source
from streams.ledger import Lane

Positions = Callable[[Mapping[Source, int]], Awaitable[Mapping[Source, int]]]
"""Called with the group's committed offset of each assigned partition (-1: none) before anything is delivered from it,
once or more per assignment; answers with the offsets to start from instead, for the partitions where that differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """What the transport is told.

    `client_options` are aiokafka's (address, name, encryption, authentication). `drain_s` bounds the wait for
    un-acknowledged units when partitions are taken away or the process stops; it must be below the rebalance timeout.
    By default partition n of every topic goes to the same worker: a user's events and requests meet.
    """

    client_options: Mapping[str, Any]
    lanes: Mapping[str, Lane]
    positions: Positions | None = None
    fetch_wait_ms: int = 10
    fetch_min_bytes: int = 1
    drain_s: float = 10.0
    stalled_after_s: float = 120.0
    assignor: type[AbstractPartitionAssignor] = RangePartitionAssignor


class BatchThread(driver.AIOKafkaConsumerThread):
    """The thread with aiokafka's consumer: heartbeats and fetches go on while agents work."""

    app: Any

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf, batching = self.app.conf, self.app.batching
        return aiokafka.AIOKafkaConsumer(
            **batching.client_options,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            partition_assignment_strategy=[batching.assignor],
            enable_auto_commit=False,
            auto_offset_reset=conf.consumer_auto_offset_reset,
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=batching.fetch_wait_ms,
            fetch_min_bytes=batching.fetch_min_bytes,
            isolation_level="read_committed",
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
        )

    async def on_start(self) -> None:
        """Start the consumer; buffered records of a gated lane must not keep aiokafka from fetching the others."""
        await super().on_start()
        self._ensure_consumer()._fetcher._prefetch_backoff = 0.0

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Any:
        fetched = await super()._fetch_records(consumer, *args, **kwargs)
        buffered = consumer._fetcher._records
        for tp in fetched:
            if tp in buffered:  # it has more than fitted: the other partitions come first next time
                buffered.move_to_end(tp)
        return fetched

    def assignment(self) -> set[TP]:
        """What is assigned now: nothing before the consumer has started."""
        return super().assignment() if self._consumer is not None else set()

    def wake(self) -> None:
        """Let a fetch in flight look again at the set of partitions it was given."""
        self.thread_loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        fetcher = self._ensure_consumer()._fetcher
        for waiter in list(fetcher._fetch_waiters):
            fetcher._notify(waiter)

    def touch(self) -> None:
        """Count as polling: aiokafka leaves the group of a consumer that does not poll, and never comes back."""
        self._ensure_consumer()._subscription._last_fetch_ended = monotonic()

    async def reposition(self, positions: Mapping[Source, int]) -> None:
        """Continue each partition at its offset, or at the earliest there is where that is below 1."""
        await self.call_thread(self._reposition, positions)

    async def _reposition(self, positions: Mapping[Source, int]) -> None:
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        wanted = {aiokafka.TopicPartition(*s): offset for s, offset in positions.items() if s in assigned}
        for tp, offset in wanted.items():
            if offset > 0:
                consumer.seek(tp, offset)
        if earliest := [tp for tp, offset in wanted.items() if offset <= 0]:
            await consumer.seek_to_beginning(*earliest)

    def waiting(self, source: Source) -> bool:
        """Whether records of the partition are known to be there, and the broker still answers."""
        consumer = self._ensure_consumer()
        if source in consumer._fetcher._records:
            return True
        state = self._state(source)
        end, position = self.end(source), state.position if state is not None and state.has_valid_position else None
        if state is None or end is None or position is None or not state.timestamp:
            return False
        return bool(position < end and time() - state.timestamp / 1000 < 10.0)

    def end(self, source: Source) -> int | None:
        """Offset after the last record that may be read, as of the last fetch; None before it."""
        state = self._state(source)
        known = [n for n in (state.highwater, state.lso) if n is not None and n >= 0] if state is not None else []
        return min(known, default=None)

    def _state(self, source: Source) -> Any:
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        return assignment.state_value(aiokafka.TopicPartition(*source)) if assignment is not None else None
