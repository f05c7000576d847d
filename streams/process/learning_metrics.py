"""What a learner learns and hands on: rows, losses, calibration, hits, snapshots, checkpoints."""

import math
from typing import Literal, get_args

from streams.process.series import Series, unset

Objective = Literal["next_item", "engage", "complete"]
Order = Literal["ranker", "retrieval"]
Failure = Literal["snapshot", "checkpoint", "counters"]
BUILD_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class LearningMetrics:
    """What was learned, how well, and how old what was handed on is."""

    def __init__(self, series: Series, surfaces: tuple[str, ...]) -> None:
        """`surfaces` are told apart in calibration."""
        self._clock = series.clock
        self._snapshot_at = self._checkpoint_at = math.nan
        self._rows(series)
        self._quality(series, surfaces)
        self._handed_on(series)

    def _rows(self, series: Series) -> None:
        self.rows = series.counter(
            "learner_rows",
            "Rows of observations learned.",
            "If it stops while events come, see marquee_learner_leads and observe.enabled.",
        )
        self.skipped = series.counter(
            "learner_rows_skipped",
            "Rows that had been learned before, or whose person did not agree.",
            "If its share stays high long after a restart, consent was lost at a producer.",
        )
        self.dropped = series.counter(
            "learner_dropped",
            "Slates, ads and impressions that were not kept until an outcome could be known.",
            "If it rises, lower observe.shown: fewer are told, and those are kept.",
            kind=("slates", "impressions", "ads"),
        )
        self.impressions = series.counter(
            "learner_impressions",
            "Impressions whose window closed, by what came of them.",
            "Divide `engaged` and `completed` by the sum for the rates that people answer with.",
            outcome=("none", "engaged", "completed"),
        )
        self.items = series.gauge(
            "learner_items",
            "Items with counts of their own.",
            "If it comes near to learner.max_items, raise that: items crowd each other out.",
        )
        self.leads = series.gauge(
            "learner_leads",
            "Whether this learner has the partitions (1), or stands by.",
            "If the sum over learners is 0 for minutes nobody learns: start one.",
            start=0,
        )

    def _quality(self, series: Series, surfaces: tuple[str, ...]) -> None:
        self.loss = series.gauge(
            "learner_loss",
            "Loss before learning, decayed mean.",
            "If it rises for hours, behaviour or a producer changed.",
            objective=get_args(Objective),
        )
        self.examples = series.gauge(
            "learner_ranker_examples",
            "Examples that the ranker has learned of.",
            "If it stays below what marquee_ranker_state wants, raise observe.examples_per_s.",
        )
        self.gain = series.gauge(
            "learner_ranker_gain",
            "How much better the ranker's order is than retrieval's, mean of log ranks.",
            "If it is below 0 the ranker does not serve, and need not be looked after.",
        )
        self.hits = series.gauge(
            "learner_hit_ratio",
            "Share of what people took that stood among the first ten of the candidates, by the order.",
            "If `retrieval` falls, look at what changed in the catalogue; if only `ranker` does, at features.",
            order=get_args(Order),
        )
        self.calibration_ratio = series.gauge(
            "learner_calibration_ratio",
            "Sum of what was predicted over the sum of what came, of the latest impressions.",
            "If it stays outside of 0.8 to 1.25, impressions are told wrongly, or behaviour just changed.",
            objective=("engage", "complete"),
            surface=surfaces,
        )

    def _handed_on(self, series: Series) -> None:
        self.refresh_seconds = series.histogram(
            "learner_refresh_seconds",
            "Time to build a snapshot.",
            "If it comes near to learner.refresh_min_s, raise that or lower learner.max_items.",
            BUILD_SECONDS,
        )
        self.snapshots = series.counter(
            "learner_snapshots",
            "Snapshots announced.",
            "If it stops while rows are learned, see marquee_learner_failures_total.",
        )
        self.failures = series.counter(
            "learner_failures",
            "What could not be handed on, and is tried again.",
            "If it rises, the log names the disk or the broker that refuses.",
            what=get_args(Failure),
        )
        series.age(
            "snapshot_age_seconds",
            "Since a snapshot was announced.",
            "If it grows while events come, see marquee_learner_failures_total and marquee_learner_leads.",
            lambda: self._snapshot_at,
        )
        series.age(
            "checkpoint_age_seconds",
            "Since a checkpoint was written.",
            "If it grows while rows are learned, learner.checkpoint_dir cannot be written: restarts go back so far.",
            lambda: self._checkpoint_at,
        )

    def learned(self, rows: int, skipped: int = 0) -> None:
        """A batch of observations was learned; rows at or below the mark were skipped."""
        self.rows.inc(rows)
        self.skipped.inc(skipped)

    def closed(self, impressions: int, engaged: int, completed: int) -> None:
        """Windows of so many impressions closed, so many of them answered, and of these so many through to the end."""
        self.impressions.labels("none").inc(impressions - engaged)
        self.impressions.labels("engaged").inc(engaged - completed)
        self.impressions.labels("completed").inc(completed)

    def scored(self, objective: Objective, *, loss: float) -> None:
        """How well an objective was predicted before it was learned."""
        self.loss.labels(objective).set(loss)

    def ranked(self, *, examples: int, gain: float, hits: float, retrieval_hits: float) -> None:
        """So many examples taught the ranker, its order is so much better, and so much is among the first ten."""
        self.examples.set(examples)
        self.gain.set(gain)
        self.hits.labels("ranker").set(hits)
        self.hits.labels("retrieval").set(retrieval_hits)

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

    def failed(self, what: Failure) -> None:
        """Something could not be handed on."""
        self.failures.labels(what).inc()

    def checkpointed(self) -> None:
        """Counts, weights and offsets are on disk."""
        self._checkpoint_at = self._clock()

    def resigned(self) -> None:
        """Another learner leads, and tells from now on how well it learns and how old that is."""
        self._snapshot_at = self._checkpoint_at = math.nan
        for gauge in (self.loss, self.items, self.examples, self.gain, self.hits, self.calibration_ratio):
            unset(gauge)
