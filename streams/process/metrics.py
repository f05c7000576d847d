"""What a process counts and measures, for Prometheus: one registry per process, base units, bounded labels.

No label holds a user, an item or the text of an error. Every label value that can occur is there from the start at 0,
so that a rate over the first occurrence is not lost; a gauge nobody has set yet is NaN, which fires no alert.

>>> metrics = WorkerMetrics()
>>> with metrics.stage("fold"):
...     pass
>>> metrics.registry.get_sample_value("marquee_stage_seconds_count", {"stage": "fold"})
1.0
"""

import importlib.metadata
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.process_collector import ProcessCollector

from embeddings.events import Fate, Source
from ranking.ranker import State as RankerState
from streams.contract.deadletters import Code
from streams.contract.records import Degraded
from streams.process.ad_learning_metrics import AdLearningMetrics
from streams.process.ad_metrics import AdMetrics
from streams.settings import TopicName
from streams.transport.deliveries import Lag

Stage = Literal[
    "decode",
    "fold",
    "retrieve",
    "rank",
    "compose",
    "publish",
    "observe",
    "store",
    "ads_decide",
    "ads_reserve",
]
Trigger = Literal["event", "request"]
RedisError = Literal["unavailable", "fenced"]
Objective = Literal["next_item", "engage", "complete"]

STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 15, 60)
BATCH_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 4_096, 16_384)
WORKER_READS: tuple[TopicName, ...] = (
    "events",
    "requests",
    "catalog",
    "campaigns",
    "counters",
    "models",
    "privacy",
)
LEARNER_READS: tuple[TopicName, ...] = ("observations", "catalog")


class Metrics:
    """What workers and learners have in common: records in, batch sizes, lag, dead letters."""

    def __init__(
        self,
        *,
        role: Literal["worker", "learner"],
        reads: Iterable[TopicName],
        clock: Callable[[], float] = time.time,
        process: bool = True,
    ) -> None:
        """Create every series.

        Args:
            role: In `marquee_build_info`.
            reads: The topics that this process consumes.
            clock: Epoch seconds, for ages.
            process: Also measure this process: CPU, memory, open files.
        """
        self.registry = CollectorRegistry()
        self._clock = clock
        self._lagging = set[Source]()
        reads = tuple(reads)
        self.build = Info("marquee_build", "What is running.", registry=self.registry)
        self.build.info({"version": _version(), "role": role})
        self.consumed = self._counter("marquee_records_consumed", "Records delivered to an agent.", "topic", reads)
        self.batch_records = self._histogram(
            "marquee_batch_records", "Records in a batch.", BATCH_RECORDS, "topic", reads
        )
        self.dead_letters = Counter(
            "marquee_dead_letters",
            "Records written to a topic for dead letters.",
            ("topic", "code"),
            registry=self.registry,
        )
        for topic in reads:
            for code in Code:
                self.dead_letters.labels(topic, code)
        self.expired = self._counter(
            "marquee_records_expired", "Records that retention removed before they were read.", "topic", reads
        )
        partition = ("topic", "partition")
        self.lag_records = Gauge(
            "marquee_lag_records", "Records that wait in an owned partition.", partition, registry=self.registry
        )
        self.lag_seconds = Gauge(
            "marquee_lag_seconds",
            "Age of the last event applied while others wait, else 0.",
            partition,
            registry=self.registry,
        )
        self.paused_share = Gauge(
            "marquee_partition_paused",
            "Share of dead letters for which an owned partition is paused; no series where it is not.",
            (*partition, "code"),
            registry=self.registry,
        )
        if process:
            ProcessCollector(registry=self.registry)

    def batch(self, topic: TopicName, records: int) -> None:
        """A batch of `records` was delivered."""
        self.consumed.labels(topic).inc(records)
        self.batch_records.labels(topic).observe(records)

    def dead_letter(self, topic: TopicName, code: Code) -> None:
        """A record of `topic` was acknowledged by its topic for dead letters."""
        self.dead_letters.labels(topic, code).inc()

    def lag(self, source: Source, records: int, seconds: float) -> None:
        """How far behind an owned partition is; the event time behind is `seconds`, 0 when nothing waits."""
        self.lag_records.labels(source.topic, str(source.partition)).set(records)
        self.lag_seconds.labels(source.topic, str(source.partition)).set(seconds)

    def lags(self, lags: Mapping[Source, Lag]) -> None:
        """How far behind all owned partitions are; those of before are reported by their new owners."""
        for source in self._lagging - lags.keys():
            self.released(source)
        for source, lag in lags.items():
            self.lag(source, lag.records, lag.seconds)
        self._lagging = set(lags)

    def released(self, source: Source) -> None:
        """A partition went to another worker, which reports its lag from now on."""
        for gauge in (self.lag_records, self.lag_seconds):
            gauge.remove(source.topic, str(source.partition))

    def paused(self, source: Source, code: str, share: float) -> None:
        """An owned partition is paused: this share of its last records became dead letters, most with this code."""
        self.paused_share.labels(source.topic, str(source.partition), code).set(share)

    def goes_on(self, source: Source, code: str) -> None:
        """A partition is not paused any more, or not this process'."""
        self.paused_share.remove(source.topic, str(source.partition), code)

    def _counter(self, name: str, text: str, label: str, values: Iterable[str]) -> Counter:
        counter = Counter(name, text, (label,), registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter

    def _gauge(self, name: str, text: str, label: str, values: Iterable[str]) -> Gauge:
        gauge = Gauge(name, text, (label,), registry=self.registry)
        for value in values:
            gauge.labels(value).set(math.nan)
        return gauge

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], label: str, values: Iterable[str]
    ) -> Histogram:
        histogram = Histogram(name, text, (label,), buckets=buckets, registry=self.registry)
        for value in values:
            histogram.labels(value)
        return histogram

    def _age(self, name: str, text: str, since: Callable[[], float]) -> None:
        """A gauge of the seconds since an epoch second, taken when it is read."""
        Gauge(name, text, registry=self.registry).set_function(lambda: self._clock() - since())


class WorkerMetrics(Metrics):
    """What a worker does: stages, fates, slates, Redis, its index and snapshot."""

    def __init__(self, *, clock: Callable[[], float] = time.time, process: bool = True) -> None:
        """See `Metrics`."""
        super().__init__(role="worker", reads=WORKER_READS, clock=clock, process=process)
        self.ads = AdMetrics(self.registry, clock)
        stages: tuple[Stage, ...] = get_args(Stage)
        self.stage_seconds = self._histogram(
            "marquee_stage_seconds", "Time of a stage for a whole batch.", STAGE_SECONDS, "stage", stages
        )
        self._stages = {stage: self.stage_seconds.labels(stage) for stage in stages}
        self.fates = self._counter(
            "marquee_events", "Events by what became of them; every one has one fate.", "fate", [f.name for f in Fate]
        )
        self.slates = self._counter("marquee_slates", "Slates published.", "trigger", get_args(Trigger))
        self.degraded = self._counter(
            "marquee_slates_degraded", "Slates published on less than everything.", "mode", get_args(Degraded)
        )
        self.event_to_slate_seconds = Histogram(
            "marquee_event_to_slate_seconds",
            "From the publish time of an event or request to the acknowledgement of its slate.",
            buckets=LATENCY_SECONDS,
            registry=self.registry,
        )
        self.redis_errors = self._counter(
            "marquee_redis_errors", "Round trips to Redis that failed.", "kind", get_args(RedisError)
        )
        self.index_items = Gauge("marquee_index_items", "Items that can be found.", registry=self.registry)
        self.index = Info("marquee_index", "The index that serves.", registry=self.registry)
        self.snapshot = Info("marquee_snapshot", "The snapshot that serves.", registry=self.registry)
        self.ranker = self._gauge(
            "marquee_ranker_state", "Whether the ranker's order serves, and why not.", "state", get_args(RankerState)
        )
        self.ranker.labels("no_snapshot").set(1)
        self.removals = self._counter(
            "marquee_catalogue_removals", "Removals on the catalogue's topic.", "result", ("removed", "unknown")
        )
        self.misdated = Counter(
            "marquee_events_misdated",
            "Events with no publish time, or one far ahead.",
            registry=self.registry,
        )
        self.swaps = self._counter("marquee_snapshot_swaps", "Announced snapshots.", "result", ("swapped", "refused"))
        self._built_at = self._created_at = math.nan
        self._age("marquee_index_age_seconds", "Since the index was built.", lambda: self._built_at)
        self._age("marquee_snapshot_age_seconds", "Since the snapshot was made.", lambda: self._created_at)

    def stage(self, name: Stage) -> AbstractContextManager[object]:
        """Time a stage; also when it raises."""
        timer: AbstractContextManager[object] = self._stages[name].time()
        return timer

    def events(self, fate_B: NDArray[np.uint8]) -> None:
        """B events have met their fates (codes of `Fate`)."""
        for fate, count in enumerate(np.bincount(fate_B, minlength=len(Fate)).tolist()):
            if count:
                self.fates.labels(Fate(fate).name).inc(count)

    def removed(self, known_N: NDArray[np.bool_]) -> None:
        """N removals were read; those of names that are no item's removed nothing."""
        known = int(known_N.sum())
        self.removals.labels("removed").inc(known)
        self.removals.labels("unknown").inc(len(known_N) - known)

    def published(self, trigger: Trigger, latencies_s: Iterable[float], degraded: Degraded | None = None) -> None:
        """Slates were acknowledged by the broker, each so many seconds after what triggered it was published."""
        count = 0
        for seconds in latencies_s:
            self.event_to_slate_seconds.observe(max(seconds, 0.0))
            count += 1
        self.slates.labels(trigger).inc(count)
        if degraded is not None:
            self.degraded.labels(degraded).inc(count)

    def redis_error(self, kind: RedisError) -> None:
        """A round trip to Redis failed."""
        self.redis_errors.labels(kind).inc()

    def indexed(self, *, items: int, kind: str, device: str, version: str, built_at_s: float) -> None:
        """An index serves now; `built_at_s` is epoch seconds."""
        self.index_items.set(items)
        self.index.info({"kind": kind, "device": device, "version": version})
        self._built_at = built_at_s

    def swapped(self, *, version: str, created_at_s: float, ranker: RankerState) -> None:
        """A snapshot serves now; `created_at_s` is epoch seconds."""
        self.swaps.labels("swapped").inc()
        for state in get_args(RankerState):
            self.ranker.labels(state).set(state == ranker)
        self.snapshot.info({"version": version})
        self._created_at = created_at_s

    def refused(self) -> None:
        """An announced snapshot was refused; the one before it serves on."""
        self.swaps.labels("refused").inc()


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
        super().__init__(role="learner", reads=LEARNER_READS, clock=clock, process=process)
        objectives: tuple[Objective, ...] = get_args(Objective)
        self.rows = Counter("marquee_learner_rows", "Rows of observations learned.", registry=self.registry)
        self.skipped = Counter(
            "marquee_learner_rows_skipped", "Rows that had been learned before.", registry=self.registry
        )
        self.loss = self._gauge("marquee_learner_loss", "Loss before learning, decayed mean.", "objective", objectives)
        self.examples = Gauge(
            "marquee_learner_ranker_examples", "Examples that the ranker has learned of.", registry=self.registry
        )
        self.gain = Gauge(
            "marquee_learner_ranker_gain",
            "How much better the ranker's order is than retrieval's, mean of log ranks; it serves above 0.",
            registry=self.registry,
        )
        self.calibration_ratio = Gauge(
            "marquee_learner_calibration_ratio",
            "Sum of what was predicted over the sum of what came, of the latest impressions.",
            ("objective", "surface"),
            registry=self.registry,
        )
        for surface in surfaces:
            for objective in ("engage", "complete"):
                self.calibration_ratio.labels(objective, surface).set(math.nan)
        self.dropped = self._counter(
            "marquee_learner_dropped",
            "Slates, ads and impressions that were not kept until an outcome could be known.",
            "kind",
            ("slates", "impressions", "ads"),
        )
        self.ads = AdLearningMetrics(self.registry)
        self.refresh_seconds = Histogram(
            "marquee_learner_refresh_seconds",
            "Time to build a snapshot.",
            buckets=LATENCY_SECONDS,
            registry=self.registry,
        )
        self.snapshots = Counter("marquee_learner_snapshots", "Snapshots announced.", registry=self.registry)
        self.items = Gauge("marquee_learner_items", "Items with counts of their own.", registry=self.registry)
        self._snapshot_at = self._checkpoint_at = math.nan
        self._age("marquee_snapshot_age_seconds", "Since a snapshot was announced.", lambda: self._snapshot_at)
        self._age("marquee_checkpoint_age_seconds", "Since a checkpoint was written.", lambda: self._checkpoint_at)

    def learned(self, rows: int, skipped: int = 0) -> None:
        """A batch of observations was learned; rows at or below the mark were skipped."""
        self.rows.inc(rows)
        self.skipped.inc(skipped)

    def scored(self, objective: Objective, *, loss: float) -> None:
        """How well an objective was predicted before it was learned."""
        self.loss.labels(objective).set(loss)

    def ranked(self, *, examples: int, gain: float) -> None:
        """So many examples taught the ranker, and its order is so much better than retrieval's."""
        self.examples.set(examples)
        self.gain.set(gain)

    def calibrated(self, objective: Objective, surface: str, *, ratio: float) -> None:
        """The sum of what was predicted of an objective on a surface, over the sum of what came."""
        self.calibration_ratio.labels(objective, surface).set(ratio)

    def dropping(self, kind: str, count: int) -> None:
        """So many slates, ads or impressions were dropped; a lower `observe.shown` has fewer of them told."""
        self.dropped.labels(kind).inc(count)

    def announced(self, *, seconds: float, items: int) -> None:
        """A snapshot of `items` items was built in `seconds` and announced."""
        self.refresh_seconds.observe(seconds)
        self.snapshots.inc()
        self.items.set(items)
        self._snapshot_at = self._clock()

    def checkpointed(self) -> None:
        """Counts, weights and offsets are on disk."""
        self._checkpoint_at = self._clock()


def _version() -> str:
    try:
        return importlib.metadata.version("marquee")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"
