"""`marquee demo`: the main job on real data, end to end through Kafka's protocol, and a report of what happened.

Every event of MovieLens 100K is published in its order; with `slates_per_event=all` the worker answers each with a
slate, and the slate before an event is judged by that event: did its first ten items hold what the person took next?
Events are kept in flight within a window, so that latency is that of a busy service and not of a backlog.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from numpy.typing import NDArray

from streams.contract import records
from streams.lab.baselines import BASELINES, NOT_SCORED, Quality
from streams.lab.datasets import Log
from streams.lab.local_stack import BROKER_NAME, Stack
from streams.lab.replay import catalogue_records, event_records

Progress = Callable[["DemoRun"], None]
_STAMPS = ("received_ms", "decoded_ms", "folded_ms", "retrieved_ms", "ranked_ms", "published_ms")
_STAGES = ("decode", "fold", "retrieve", "rank", "compose")


@dataclass(slots=True)
class DemoRun:
    """What is known of a running demo; R events, in the order of the log."""

    log: Log
    users: list[str] = field(default_factory=list)
    rank_R: NDArray[np.float64] = field(init=False)
    latency_s_R: NDArray[np.float64] = field(init=False)
    answered_s_R: NDArray[np.float64] = field(init=False)
    published: int = 0
    slates: int = 0
    scored: int = 0
    hits: int = 0
    began: float = 0.0
    seconds: float = 0.0
    last: dict[str, records.Slate] = field(default_factory=dict)
    ready_s: float = 0.0
    broker: str = BROKER_NAME
    ranked: int = 0
    stamped_ms: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_STAGES, 0))

    def __post_init__(self) -> None:
        events = len(self.log)
        self.rank_R = np.full(events, np.nan)
        self.latency_s_R = np.full(events, np.nan)
        self.answered_s_R = np.full(events, np.nan)

    @property
    def quality(self) -> Quality:
        """Of the published slates, over the events answered so far."""
        return Quality.of(self.rank_R[~np.isnan(self.rank_R)])

    @property
    def stage_ms(self) -> dict[str, float]:
        """Mean time that a slate's batch spent in each stage, in milliseconds."""
        return {name: total / max(self.slates, 1) for name, total in self.stamped_ms.items()}

    def latency_ms(self, percentile: float) -> float:
        """A percentile of the time from an event's publication to its slate's arrival, in milliseconds."""
        return float(np.nanpercentile(self.latency_s_R, percentile) * 1000) if self.slates else float("nan")

    def popularity(self) -> NDArray[np.float64]:
        """Rank of each event under plain popularity, the yardstick on the same events."""
        user_R = np.unique(np.array(self.log.user_R), return_inverse=True)[1].astype(np.int32)
        item_R = np.unique(np.array(self.log.item_R), return_inverse=True)[1].astype(np.int32)
        return BASELINES["popularity"](user_R, item_R, 0)


class Judge:
    """Holds each event against the slate that was published just before it for the same person."""

    def __init__(self, run: DemoRun) -> None:
        """Find, for every event, the same person's event before it."""
        self.run = run
        self.index: dict[tuple[int, int], int] = {}
        latest: dict[str, int] = {}
        taken: set[tuple[str, str]] = set()
        self.next_R = np.full(len(run.log), -1, np.int64)
        for r, (user, item) in enumerate(zip(run.log.user_R, run.log.item_R, strict=True)):
            if user in latest:
                self.next_R[latest[user]] = r
            else:
                run.rank_R[r] = 1e9
            if (user, item) in taken:
                run.rank_R[r] = NOT_SCORED
            taken.add((user, item))
            latest[user] = r
        self.sent_s_R = np.zeros(len(run.log))

    def sent(self, r: int, partition: int, offset: int) -> None:
        """Event r was written there."""
        self.index[partition, offset] = r

    def judge(self, slate: records.Slate, arrived_s: float) -> bool:
        """Take one slate; False when it repeats an answer or answers nothing of ours."""
        run, r = self.run, self.index.get((slate.partition, slate.offset))
        if r is None or not np.isnan(run.answered_s_R[r]):
            return False
        run.answered_s_R[r] = arrived_s
        run.latency_s_R[r] = arrived_s - self.sent_s_R[r]
        run.slates += 1
        run.ranked += slate.ranked
        run.last[slate.user_id] = slate
        stamps = [getattr(slate, name) for name in _STAMPS]
        for name, begun, ended in zip(_STAGES, stamps, stamps[1:], strict=False):
            run.stamped_ms[name] += ended - begun
        after = self.next_R[r]
        if after >= 0 and run.rank_R[after] != NOT_SCORED:
            wanted = run.log.item_R[after]
            places = [i for i, item in enumerate(slate.items) if item.item_id == wanted]
            run.rank_R[after] = places[0] if places else 1e9
            run.scored += 1
            run.hits += bool(places) and places[0] < 10
        return True


async def run_demo(stack: Stack, log: Log, progress: Progress, *, window: int = 128, silence_s: float = 60) -> DemoRun:
    """Publish the log, judge the slates. The stack must be ready.

    Raises:
        TimeoutError: no slate came for `silence_s`. The stack's logs say why.
        StartFailed: a child ended.
    """
    run = DemoRun(log)
    judge = Judge(run)
    topics = stack.settings.topics
    producer = AIOKafkaProducer(bootstrap_servers=stack.broker.bootstrap, linger_ms=1, acks="all")
    consumer = AIOKafkaConsumer(
        topics.name("slates"),
        bootstrap_servers=stack.broker.bootstrap,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=10,
        max_partition_fetch_bytes=8 << 20,
    )
    tasks: list[asyncio.Task[None]] = []
    await producer.start()
    await consumer.start()
    try:
        for key, value, headers in catalogue_records(log):
            await producer.send(topics.name("catalog"), value, key=key, headers=headers)
        await producer.flush()
        run.began = time.monotonic()
        room = asyncio.Semaphore(window)
        tasks = [
            asyncio.create_task(_publish(producer, topics.name("events"), judge, room)),
            asyncio.create_task(_collect(consumer, stack, judge, room, progress, silence_s)),
        ]
        for done in (await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION))[0]:
            done.result()
    finally:
        for task in tasks:
            task.cancel()
        await consumer.stop()
        await producer.stop()
    run.seconds = time.monotonic() - run.began
    return run


async def _publish(producer: AIOKafkaProducer, topic: str, judge: Judge, room: asyncio.Semaphore) -> None:
    run = judge.run
    for r, (key, value, headers) in enumerate(event_records(run.log)):
        await room.acquire()
        judge.sent_s_R[r] = time.monotonic() - run.began
        sending = await producer.send(topic, value, key=key, headers=headers)
        sending.add_done_callback(lambda sent, r=r: _written(judge, r, sent))
        run.published += 1


def _written(judge: Judge, r: int, sent: "asyncio.Future[object]") -> None:
    if not sent.cancelled() and sent.exception() is None:
        place = sent.result()
        judge.sent(r, place.partition, place.offset)  # type: ignore[attr-defined]


async def _collect(
    consumer: AIOKafkaConsumer,
    stack: Stack,
    judge: Judge,
    room: asyncio.Semaphore,
    progress: Progress,
    silence_s: float,
) -> None:
    run, heard = judge.run, time.monotonic()
    early: list[records.Slate] = []
    while run.slates < len(run.log):
        fetched = await consumer.getmany(timeout_ms=200)
        arrived_s = time.monotonic() - run.began
        slates = early + [records.decode_slate(r.value) for part in fetched.values() for r in part]
        early = []
        for slate in slates:
            if judge.judge(slate, arrived_s):
                room.release()
                heard = time.monotonic()
            elif (slate.partition, slate.offset) not in judge.index:
                early.append(slate)  # its event's own acknowledgement is still under way
        progress(run)
        stack.check()
        if time.monotonic() - heard > silence_s:
            raise TimeoutError(f"no slate for {silence_s:g} s after {run.slates} of {len(run.log)}")
