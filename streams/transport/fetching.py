"""The thread with aiokafka's consumer: how it is configured, how it fetches ahead, and what else it is asked.

aiokafka leaves a partition out of its requests as long as it holds records of it, and has one request per broker under
way: what arrives meanwhile waits for that request to end. So its records are taken over just before it decides what to
ask for, and what arrives while a batch is processed is here when the batch ends.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Container, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

import aiokafka
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import UnknownMemberIdError
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from embeddings.events import Source
from streams.transport.ahead import Ahead
from streams.transport.brokers import answer
from streams.transport.gates import Lane
from streams.transport.logs import Log, Stretch, logs_of, stretches_of

Positions = Callable[[Mapping[Source, Stretch], Callable[[str], object]], Awaitable[Mapping[Source, int]]]
"""Called with what is known of each assigned partition before anything is delivered from it, once or more per
assignment; answers with the offsets to start from where that is not the committed one. It may take as long as what it
waits for is away, if it tells so every few seconds. Where it raises `ForeignLog` it is asked a few times more."""


_ENDS_S = 5.0
_NOT_A_MEMBER = frozenset({UnknownMemberIdError.errno, 82})
"""UNKNOWN_MEMBER_ID and FENCED_INSTANCE_ID."""


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
    paused: Container[Source] = ()
    """Partitions of which nothing is delivered, as it is at any moment; their lag is still known."""
    fetch_wait_ms: int = 50
    fetch_min_bytes: int = 1
    fetch_pause_ms: float = 10.0
    """While batches are in the works, fetches are so far apart: each costs a broker and this process the time of an
    event, and what the next batch will hold may come in one."""
    drain_s: float = 10.0
    stalled_after_s: float = 120.0
    """After this long without a delivery, although records or positions wait, the process ends."""
    give_up_after_s: float = 1_800.0
    """So it does after this long, whatever was seen to be away meanwhile."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """The partitions that topics must have, of those that are read and of others."""
    look_every_s: float = 5.0
    """How often topics are looked at."""
    note: Callable[[Source], str] = lambda _source: ""
    """What is committed with a partition's offset, for `Stretch.note`; at most some hundred bytes."""
    assignor: type[AbstractPartitionAssignor] = RangePartitionAssignor

    def room(self, topic: str) -> int:
        """How many records of a topic are fetched ahead: a unit's."""
        return self.lanes[topic].max_batch


class BatchThread(driver.AIOKafkaConsumerThread):
    """The thread with aiokafka's consumer: heartbeats and fetches go on while agents work.

    Attributes:
        ahead: what was fetched and not delivered.
        heard: partitions whose records somebody waits for; told by a call of `news` in the parent's loop.
        failed: what ended the fetching.
        heard_s: monotonic time of the last answer of a broker.
        displaced: whether another process took this member's place in the group.
        lost: partitions whose position is not in their log any more; nothing of them is taken before `reposition`.
    """

    app: Any

    def __init__(
        self, consumer: Any, news: Callable[[], object], lost: Callable[[set[Source]], object], **kwargs: Any
    ) -> None:
        super().__init__(consumer, **kwargs)
        self.ahead = Ahead()
        self.heard: frozenset[TP] = frozenset()
        self.failed: Exception | None = None
        self.heard_s = monotonic()
        self.displaced = False
        self.lost: set[TP] = set()
        self._news, self._tell_lost = news, lost
        self._ask_at_s = 0.0  # monotonic time of the next fetch; 0 = none is put off
        self._looks_at_s = 0.0
        self._still = 0  # blocks in which positions change

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf, batching = self.app.conf, self.app.batching
        return aiokafka.AIOKafkaConsumer(
            **{"metadata_max_age_ms": conf.consumer_metadata_max_age_ms, **batching.client_options},
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
        )

    async def on_start(self) -> None:
        """Start the consumer; buffered records of a full lane must not keep aiokafka from fetching the others."""
        await super().on_start()
        self._overhear(self._ensure_consumer()._client)
        self._add_notes(self._ensure_consumer())
        fetcher = self._ensure_consumer()._fetcher
        fetcher._prefetch_backoff = 0.0
        ask = fetcher._get_actions_per_node

        def take_over_and_ask(assignment: Any) -> Any:
            if self._may_take(fetcher):
                self._notice_lost(assignment)
                self._take_over(fetcher)
            pause_s = self._ask_at_s - monotonic()
            return ask(assignment) if pause_s <= 0 else ((), {}, pause_s, False, ())  # nothing to do, and until when

        fetcher._get_actions_per_node = take_over_and_ask

    async def _shutdown_thread(self) -> None:
        """Mode waits for ever for a thread that a cancellation ended: aiokafka's tasks raise it where calls are cut."""
        try:
            await super()._shutdown_thread()
        finally:
            self.set_shutdown()

    def _overhear(self, client: Any) -> None:
        """Note when brokers answer, and whether they still know this member."""
        send, session_s = client.send, self.app.conf.broker_session_timeout
        static, member_s = self.app.conf.consumer_group_instance_id is not None, 0.0

        async def send_and_note(node: Any, request: Any, **options: Any) -> Any:
            nonlocal member_s
            sent_s = monotonic()
            answer = await send(node, request, **options)
            self.heard_s = monotonic()
            if (errors := _errors(request, answer)) == {0}:
                member_s = max(member_s, sent_s)  # the answer may have lain here while this process was suspended
            elif not _NOT_A_MEMBER.isdisjoint(errors):
                # A silent member is put out; one that was heard all the time has lost its place to a namesake.
                self.displaced = self.displaced or (static and self.heard_s - member_s < session_s)
            if self.displaced:
                await _for_ever()  # or aiokafka joins again and displaces the namesake, before the watchdog ends us
            return answer

        client.send = send_and_note

    def _add_notes(self, consumer: Any) -> None:
        """Have every commit carry the notes of its partitions."""
        commit, note = consumer.commit, self.app.batching.note

        async def commit_with_notes(offsets: Mapping[TP, Any]) -> None:
            await commit({tp: OffsetAndMetadata(given.offset, note(Source(*tp))) for tp, given in offsets.items()})

        consumer.commit = commit_with_notes

    def look_for_brokers(self) -> None:
        """Ask at the configured address where the brokers are: they may have moved."""
        client, options = self._ensure_consumer()._client, self.app.batching.client_options
        asyncio.run_coroutine_threadsafe(answer(client, options), self.thread_loop)

    def _may_take(self, fetcher: Any) -> bool:
        still = self._still or fetcher._subscriptions.reassignment_in_progress
        return self.consumer.flow_active and not still

    def _notice_lost(self, assignment: Any) -> None:
        """Aiokafka would go on at the earliest record there is, whatever was between, and whichever log that is."""
        lost = {TP(*tp) for tp in assignment.tps if assignment.state_value(tp).awaiting_reset} - self.lost
        if lost:
            self.lost |= lost
            self.parent_loop.call_soon_threadsafe(self._tell_lost, {Source(*tp) for tp in lost})

    def _take_over(self, fetcher: Any) -> None:
        """Take what aiokafka holds of topics that have room."""
        self.touch()
        self._look_again(fetcher)
        if not fetcher._records or not (wanted := self._wanted()):
            return
        try:
            fetched = _now(fetcher.fetched_records(wanted, 0, self._ensure_consumer()._max_poll_records))
        except Exception as error:
            self.failed, fetched = error, {}
        for tp in fetched:
            if tp in fetcher._records:  # it has more than fitted: the other partitions come first next time
                fetcher._records.move_to_end(tp)
        self.ahead.add(fetched)
        if self.failed is not None or not self.heard.isdisjoint(fetched):
            self.parent_loop.call_soon_threadsafe(self._news)
        elif fetched:
            self._ask_at_s = monotonic() + self.app.batching.fetch_pause_ms / 1000

    def _wanted(self) -> set[TP]:
        """Partitions of topics that have room."""
        held: Counter[str] = Counter()
        for source, count in self.ahead.counts().items():
            held[source.topic] += count
        batching, active = self.app.batching, list(self.consumer._active_partitions or ())
        open_ = (tp for tp in active if Source(*tp) not in batching.paused and tp not in self.lost)
        return {tp for tp in open_ if held[tp.topic] < batching.room(tp.topic)}

    def _look_again(self, fetcher: Any) -> None:
        """Have paused partitions fetched again, to no effect but that their ends are known."""
        if (now_s := monotonic()) >= self._looks_at_s:
            self._looks_at_s = now_s + _ENDS_S
            for tp in [tp for tp in fetcher._records if Source(*tp) in self.app.batching.paused]:
                del fetcher._records[tp]

    def wake(self) -> None:
        """There is room again, or a reason to look."""
        self.thread_loop.call_soon_threadsafe(self._wake)

    def hurry(self) -> None:
        """Somebody waits: end the pause."""
        if self._ask_at_s:
            self.wake()

    def _wake(self) -> None:
        self._ask_at_s = 0.0
        fetcher = self._ensure_consumer()._fetcher
        fetcher._notify(fetcher._wait_consume_future)

    @asynccontextmanager
    async def still(self, sources: Collection[Source] | None = None) -> AsyncIterator[None]:
        """Nothing is fetched inside the block; what was fetched before of the partitions, or of all, is dropped."""
        await self.call_thread(self._hold)
        try:
            self.ahead.drop(sources)
            yield
        finally:
            self.thread_loop.call_soon_threadsafe(self._go_on)

    async def _hold(self) -> None:
        self._still += 1

    def _go_on(self) -> None:
        self._still -= 1
        self._wake()

    def assignment(self) -> set[TP]:
        """What is assigned now: nothing before the consumer has started."""
        return super().assignment() if self._consumer is not None else set()

    def touch(self) -> None:
        """Count as polling: aiokafka leaves the group of a consumer that does not poll, and never comes back."""
        self._ensure_consumer()._subscription._last_fetch_ended = monotonic()

    async def logs(self, names: Collection[str]) -> dict[str, Log]:
        """The topics of these names that exist; see `logs_of`."""
        found: dict[str, Log] = await self.call_thread(logs_of, self._ensure_consumer()._client, names)
        return found

    async def look(self, sources: Collection[Source]) -> dict[Source, Stretch]:
        """What the brokers say of assigned partitions; see `stretches_of`."""
        found: dict[Source, Stretch] = await self.call_thread(stretches_of, self._ensure_consumer(), sources)
        return found

    async def reposition(self, positions: Mapping[Source, int]) -> None:
        """Continue each partition at its offset, or at the earliest there is where that is below 1."""
        await self.call_thread(self._reposition, positions)

    async def _reposition(self, positions: Mapping[Source, int]) -> None:
        consumer = self._ensure_consumer()
        self.lost -= {TP(*source) for source in positions}
        assigned = consumer.assignment()
        wanted = {aiokafka.TopicPartition(*s): offset for s, offset in positions.items() if s in assigned}
        for tp, offset in wanted.items():
            if offset > 0:
                consumer.seek(tp, offset)
        if earliest := [tp for tp, offset in wanted.items() if offset <= 0]:
            await consumer.seek_to_beginning(*earliest)

    def waiting(self, source: Source) -> bool:
        """Whether records of the partition are known to be there, and the broker still answers."""
        if source in self.ahead or source in self._ensure_consumer()._fetcher._records:
            return True
        state = self._state(source)
        end, position = self.end(source), state.position if state is not None and state.has_valid_position else None
        if state is None or end is None or position is None or not state.timestamp:
            return False
        return bool(position < end and time() - state.timestamp / 1000 < 10.0)

    def end(self, source: Source) -> int | None:
        """Offset after the last record that may be read, as of the last fetch; None before it."""
        return min(self._ends(source), default=None)

    def written(self, source: Source) -> int | None:
        """Offset after the last record, also of a transaction that is open, as of the last fetch; None before it."""
        return max(self._ends(source), default=None)

    def read(self, source: Source) -> int:
        """Offset up to where all that may be read was taken over, -1 where some was not; markers count as read."""
        state, end = self._state(source), self.end(source)
        if end is None or source in self.ahead or source in self._ensure_consumer()._fetcher._records:
            return -1
        return end if state.has_valid_position and state.position >= end else -1

    def _ends(self, source: Source) -> list[int]:
        state = self._state(source)
        return [n for n in (state.highwater, state.lso) if n is not None and n >= 0] if state is not None else []

    def _state(self, source: Source) -> Any:
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        return assignment.state_value(aiokafka.TopicPartition(*source)) if assignment is not None else None


def _errors(request: Any, answer: Any) -> set[int]:
    """What the group's coordinator says is wrong."""
    if isinstance(request, OffsetCommitRequest):
        return {code for _topic, partitions in answer.topics for _partition, code in partitions}
    return {answer.error_code} if isinstance(request, HeartbeatRequest | JoinGroupRequest | SyncGroupRequest) else set()


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def _now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("aiokafka waits where it did not")
