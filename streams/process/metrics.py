"""What a process counts and measures, for Prometheus: one registry per process, base units, bounded labels.

No label holds a user, an item or the text of an error. Every label value that can occur is there from the start at 0,
so that a rate over the first occurrence is not lost; a gauge nobody has set yet is NaN, which fires no alert. Help ends
with what to do. What a series is of says where it is made: `work_metrics`, `input_metrics`, `slate_metrics`,
`model_metrics`, `ad_metrics`, `learning_metrics`, `own_metrics`. All of them: docs/metrics.md.

>>> metrics = WorkerMetrics()
>>> with metrics.stage("fold"):
...     pass
>>> metrics.registry.get_sample_value("marquee_stage_seconds_count", {"stage": "fold", "lane": "events"})
1.0
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Literal

from prometheus_client import CollectorRegistry

from embeddings.events import Source
from streams.contract.deadletters import Code
from streams.contract.unread import KINDS
from streams.process.ad_learning_metrics import AdLearningMetrics
from streams.process.ad_metrics import AdMetrics
from streams.process.http_metrics import HttpMetrics
from streams.process.input_metrics import ControlMetrics, InputMetrics, LagMetrics, UnreadMetrics
from streams.process.learning_metrics import LearningMetrics, Objective
from streams.process.model_metrics import ModelMetrics
from streams.process.own_metrics import OwnMetrics
from streams.process.series import Series
from streams.process.slate_metrics import LATENCY_SECONDS, SlateMetrics, Trigger
from streams.process.tracing import UNTRACED, both
from streams.process.work_metrics import STAGE_SECONDS, PublishMetrics, RedisMetrics, StageMetrics
from streams.settings import TopicName
from streams.transport.publishing import Told

__all__ = ["LATENCY_SECONDS", "STAGE_SECONDS", "LearnerMetrics", "Metrics", "Objective", "Trigger", "WorkerMetrics"]

WORKER_LANES: tuple[TopicName, ...] = ("events", "requests")
WORKER_CONTROL: tuple[TopicName, ...] = ("catalog", "campaigns", "counters", "models")
LEARNER_LANES: tuple[TopicName, ...] = ("observations",)
LEARNER_CONTROL: tuple[TopicName, ...] = ("models", "catalog")
GROUPS: tuple[TopicName, ...] = (*WORKER_LANES, *LEARNER_LANES)
"""What groups read: whoever leads one of them tells of all that nobody reads."""
_SCORING, _ADS = ("retrieve", "rank", "compose"), ("ads_decide", "ads_reserve")
STAGES: Mapping[str, tuple[str, ...]] = {
    "events": (*("decode", "fold", *_SCORING), *_ADS, "publish", "observe", "store"),
    "requests": ("read", *_SCORING, *_ADS, "publish"),
}
LEARNING: Mapping[str, tuple[str, ...]] = {"observations": ("read", "learn", "freeze", "checkpoint")}


class Metrics:
    """What workers and learners have in common: records in and out, lag, stages, what the process is."""

    def __init__(
        self,
        *,
        role: Literal["worker", "learner"],
        lanes: tuple[TopicName, ...],
        control: tuple[TopicName, ...],
        stages: Mapping[str, tuple[str, ...]],
        publishers: tuple[str, ...],
        clock: Callable[[], float] = time.time,
        process: bool = True,
    ) -> None:
        """Create every series.

        Args:
            role: In `marquee_build_info`.
            lanes: The topics that this process consumes in batches.
            control: Those that it reads whole.
            stages: What a batch passes, by lane.
            publishers: Who hands records to the brokers.
            clock: Epoch seconds, for ages.
            process: Also measure this process: CPU, memory, open files.
        """
        self.registry = CollectorRegistry()
        self.series = series = Series(self.registry, clock)
        self.own = OwnMetrics(series, role, process=process)
        self.input = InputMetrics(series, lanes, control)
        self.group = LagMetrics(series, lanes, GROUPS)
        self.control = ControlMetrics(series, control)
        self.stages = StageMetrics(series, stages)
        self.http = HttpMetrics(self.registry)
        self.publish = PublishMetrics(series, publishers)
        self.expired = self.input.expired
        self.spans = UNTRACED
        self._first_lane = lanes[0]

    def stage(self, name: str, lane: str = "") -> AbstractContextManager[object]:
        """Time and trace a stage, of the first lane where none is named; also when it raises, which is counted."""
        lane = lane or self._first_lane
        timed, span = self.stages(name, lane), self.spans.stage(name, lane)
        return timed if span is None else both(timed, span)

    def told(self, publisher: str) -> Told:
        """What a publisher of that name tells of its publications."""
        return lambda seconds, records, error: self.publish.told(publisher, seconds, records, error)

    def batch(self, topic: TopicName, records: int) -> None:
        """A batch of `records` was delivered."""
        self.input.consumed.labels(topic).inc(records)
        self.input.batch_records.labels(topic).observe(records)

    def dead_letter(self, topic: TopicName, code: Code) -> None:
        """A record of `topic` was acknowledged by its topic for dead letters."""
        self.input.dead_letters.labels(topic, code).inc()

    def paused(self, source: Source, code: str, share: float) -> None:
        """An owned partition is paused: this share of its last records became dead letters, most with this code."""
        self.input.paused.labels(source.topic, str(source.partition), code).set(share)

    def goes_on(self, source: Source, code: str) -> None:
        """A partition is not paused any more, or not this process'."""
        self.input.paused.remove(source.topic, str(source.partition), code)


class WorkerMetrics(Metrics):
    """What a worker does: stages, fates, slates, Redis, its index and snapshot, ads."""

    def __init__(self, *, clock: Callable[[], float] = time.time, process: bool = True) -> None:
        """See `Metrics`."""
        super().__init__(
            role="worker",
            lanes=WORKER_LANES,
            control=WORKER_CONTROL,
            stages=STAGES,
            publishers=("events", "observations", "requests", "http", "ad_stats", "control"),
            clock=clock,
            process=process,
        )
        self.redis = RedisMetrics(self.series, ("events", "requests", "http", "pages", "ads"))
        self.slates = SlateMetrics(self.series)
        self.unread = UnreadMetrics(self.series, KINDS)
        self.model = ModelMetrics(self.series)
        self.ads = AdMetrics(self.registry, clock)


class LearnerMetrics(Metrics):
    """What a learner does: rows learned, refreshes, losses and calibration, snapshots and checkpoints."""

    def __init__(
        self,
        *,
        surfaces: Iterable[str] = ("other",),
        clock: Callable[[], float] = time.time,
        process: bool = True,
    ) -> None:
        """See `Metrics`; `surfaces` are told apart."""
        super().__init__(
            role="learner",
            lanes=LEARNER_LANES,
            control=LEARNER_CONTROL,
            stages=LEARNING,
            publishers=("learner",),
            clock=clock,
            process=process,
        )
        self.learning = LearningMetrics(self.series, tuple(surfaces))
        self.ads = AdLearningMetrics(self.registry)

    def resigned(self) -> None:
        """Another learner leads: this one does not know how well it learns."""
        self.learning.resigned()
        self.ads.resigned()
