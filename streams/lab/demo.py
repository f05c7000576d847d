"""`marquee demo`: the main job on real data, end to end through Kafka's protocol, and a report of what happened.

Every event of MovieLens 100K is published in its order; with `slates_per_event=all` the worker answers each with a
slate, and the slate before an event is judged by that event: did its first ten items hold what the person took next?
Events are kept in flight within a window, so that latency is that of a busy service and not of a backlog. Beside it a
house of campaigns sells ads to the people of the log (`streams.lab.ad_showing`).
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from numpy.typing import NDArray

from streams.contract import records
from streams.contract.ad_records import AdDecision
from streams.lab.ad_showing import AdRun, Showing
from streams.lab.baselines import BASELINES, NOT_SCORED, Quality
from streams.lab.datasets import Log
from streams.lab.local_stack import BROKER_NAME, Stack
from streams.lab.replay import catalogue_records, event_records

Progress = Callable[["DemoRun"], None]
_STAMPS = ("received_ms", "decoded_ms", "folded_ms", "retrieved_ms", "ranked_ms", "published_ms")
_STAGES = ("decode", "fold", "retrieve", "rank", "compose")
_OF_AD, _SETTLES_S = -1, 8.0


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
    ads: AdRun | None = None
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

    def sent_of_ad(self, partition: int, offset: int) -> None:
        """An event of an ad was written there: the slate that answers it is judged by nothing."""
        self.index[partition, offset] = _OF_AD

    def judge(self, slate: records.Slate, arrived_s: float) -> bool:
        """Take one slate; False when it repeats an answer or answers nothing of ours."""
        run, r = self.run, self.index.get((slate.partition, slate.offset))
        if r is None or r == _OF_AD or not np.isnan(run.answered_s_R[r]):
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


@dataclass(slots=True)
class Replay:
    """A demo under way: the log is published, slates are judged, ads are asked for and reacted to."""

    stack: Stack
    judge: Judge
    showing: Showing
    producer: AIOKafkaProducer
    consumer: AIOKafkaConsumer
    room: asyncio.Semaphore
    progress: Progress
    silence_s: float
    ads: bool
    _early: list[records.Slate] = field(init=False, default_factory=list)

    @property
    def run(self) -> DemoRun:
        """What is known of it."""
        return self.judge.run

    async def prepare(self) -> None:
        """Publish the catalogue."""
        catalogue = self.stack.settings.topics.name("catalog")
        for key, value, headers in catalogue_records(self.run.log):
            await self.producer.send(catalogue, value, key=key, headers=headers)
        await self.producer.flush()

    async def publish(self) -> None:
        """Publish the log, a window ahead of its slates, and campaigns and requests for ads on the way."""
        run, judge, topics = self.run, self.judge, self.stack.settings.topics
        events = topics.name("events")
        for r, (key, value, headers) in enumerate(event_records(run.log)):
            await self.room.acquire()
            judge.sent_s_R[r] = time.monotonic() - run.began
            sending = await self.producer.send(events, value, key=key, headers=headers)
            sending.add_done_callback(lambda sent, r=r: _written(sent, lambda *place: judge.sent(r, *place)))
            run.published += 1
            if self.ads:
                for topic, key_, record in self.showing.passed(r, time.time_ns() // 1_000_000):
                    await self.producer.send(topics.name(topic), record, key=key_)

    async def collect(self) -> None:
        """Judge slates until every event has its own.

        Raises:
            TimeoutError: none came for `silence_s`.
            StartFailed: a child ended.
        """
        run, heard = self.run, time.monotonic()
        while run.slates < len(run.log):
            if await self._take():
                heard = time.monotonic()
            self.progress(run)
            self.stack.check()
            if time.monotonic() - heard > self.silence_s:
                raise TimeoutError(f"no slate for {self.silence_s:g} s after {run.slates} of {len(run.log)}")

    async def settle(self) -> None:
        """Wait until the figures hold what was told of ads; not for long."""
        give_up = time.monotonic() + _SETTLES_S
        while not self.showing.run.settled and time.monotonic() < give_up:
            await self._take()
            self.stack.check()

    async def _take(self) -> int:
        """Take what came; how many slates were judged."""
        judged, topics = 0, self.stack.settings.topics
        fetched = await self.consumer.getmany(timeout_ms=200)
        arrived_s = time.monotonic() - self.run.began
        slates, self._early = self._early, []
        for place, part in fetched.items():
            if place.topic == topics.name("ads"):
                for record in part:
                    await self._react(records.decode_ad(record.value))
            elif place.topic == topics.name("ad_stats"):
                for record in part:
                    self.showing.run.stand(records.decode_ad_stats(record.value), arrived_s)
            else:
                slates += [records.decode_slate(r.value) for r in part]
        for slate in slates:
            if slate.request_id is not None:
                continue  # its ads come on a topic of their own, with all that is known of them
            if self.judge.judge(slate, arrived_s):
                self.room.release()
                judged += 1
            elif (slate.partition, slate.offset) not in self.judge.index:
                self._early.append(slate)  # its event's own acknowledgement is still under way
        return judged

    async def _react(self, ad: AdDecision) -> None:
        topic = self.stack.settings.topics.name("events")
        for user, event in self.showing.decided(ad):
            sending = await self.producer.send(topic, event, key=user)
            sending.add_done_callback(lambda sent: _written(sent, self.judge.sent_of_ad))


async def run_demo(
    stack: Stack, log: Log, progress: Progress, *, window: int = 128, silence_s: float = 60, ads: bool = True
) -> DemoRun:
    """Publish the log, judge the slates, show ads unless there are to be none. The stack must be ready.

    Raises:
        TimeoutError: no slate came for `silence_s`. The stack's logs say why.
        StartFailed: a child ended.
    """
    settings, run = stack.settings, DemoRun(log)
    topics, showing = settings.topics, Showing(log, settings)
    run.ads = showing.run if ads else None
    replay = Replay(
        stack=stack,
        judge=Judge(run),
        showing=showing,
        producer=AIOKafkaProducer(bootstrap_servers=stack.broker.bootstrap, linger_ms=1, acks="all"),
        consumer=AIOKafkaConsumer(
            *(topics.name("slates"), topics.name("ads"), topics.name("ad_stats")),
            bootstrap_servers=stack.broker.bootstrap,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=10,
            max_partition_fetch_bytes=8 << 20,
        ),
        room=asyncio.Semaphore(window),
        progress=progress,
        silence_s=silence_s,
        ads=ads,
    )
    tasks: list[asyncio.Task[None]] = []
    await replay.producer.start()
    await replay.consumer.start()
    try:
        await replay.prepare()
        run.began = time.monotonic()
        tasks = [asyncio.create_task(replay.publish()), asyncio.create_task(replay.collect())]
        for done in (await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION))[0]:
            done.result()
        run.seconds = time.monotonic() - run.began
        await replay.settle()
    finally:
        for task in tasks:
            task.cancel()
        await replay.consumer.stop()
        await replay.producer.stop()
    return run


def _written(sent: "asyncio.Future[object]", at: Callable[[int, int], None]) -> None:
    if not sent.cancelled() and sent.exception() is None:
        place = sent.result()
        at(place.partition, place.offset)  # type: ignore[attr-defined]
