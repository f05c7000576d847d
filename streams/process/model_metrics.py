"""What a worker serves with: snapshot, index, ranker, catalogue."""

import math
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ranking.ranker import State as RankerState
from streams.process.series import Series

SWAP_SECONDS = (0.1, 0.5, 1, 2.5, 10, 60, 300)


class ModelMetrics:
    """Versions, ages and sizes of what serves."""

    def __init__(self, series: Series) -> None:
        """Create every series."""
        self._created_at = self._built_at = math.nan
        self._snapshots(series)
        self._index(series)
        self.removals = series.counter(
            "catalogue_removals",
            "Removals on the catalogue's topic.",
            "If `unknown` rises, a producer removes items by another name than it added them.",
            result=("removed", "unknown"),
        )

    def _snapshots(self, series: Series) -> None:
        self.version = series.gauge(
            "snapshot_version",
            "Number of the snapshot that serves, 0 before the first.",
            "Compare between workers: one that stays behind cannot fetch it, as its log says.",
            start=0,
        )
        self.swaps = series.counter(
            "snapshot_swaps",
            "Announced snapshots, by whether they serve.",
            "If `unreachable` rises, look at the learner's address and folder, which the log names; if `refused`"
            " does, at releases. The one before serves on.",
            result=("swapped", "refused", "unreachable"),
        )
        self.swap_seconds = series.histogram(
            "snapshot_swap_seconds",
            "Time to fetch a snapshot, check it, build its index and swap.",
            "If it comes near to the time between snapshots, raise learner.refresh_min_s.",
            SWAP_SECONDS,
        )
        self.ranker = series.gauge(
            "ranker_state",
            "Whether the ranker's order serves, and why not (1 for the state it is in).",
            "If `few_examples` stays, raise observe.examples_per_s; if `behind_retrieval`, see the learner's gain.",
            start=0,
            state=get_args(RankerState),
        )
        self.ranker.labels("no_snapshot").set(1)
        series.age(
            "snapshot_age_seconds",
            "Since the snapshot that serves was made.",
            "If it grows beyond minutes while events come, look at the learner.",
            lambda: self._created_at,
        )

    def _index(self, series: Series) -> None:
        self.index = series.info(
            "index",
            "The index that serves.",
            "If `device` is cpu where a GPU is, FAISS does not see it: marquee doctor.",
        )
        self.index_items = series.gauge(
            "index_items",
            "Items that can be found.",
            "If it falls, the catalogue was emptied or the learner lost its counts.",
        )
        self.recall = series.gauge(
            "index_recall",
            "Share of the nearest that the index finds: 1 where it looks at everything, else as measured at its build.",
            "If it is below what you bear, raise index.nprobe.",
        )
        series.age(
            "index_age_seconds",
            "Since the index was built.",
            "If it is far above marquee_snapshot_age_seconds, builds fail: see the log.",
            lambda: self._built_at,
        )

    def indexed(self, *, items: int, kind: str, device: str, built_at_s: float, recall: float = math.nan) -> None:
        """An index serves now; `built_at_s` is epoch seconds, `recall` NaN where it was not measured."""
        self.index_items.set(items)
        self.index.info({"kind": kind, "device": device})
        self.recall.set(recall)
        self._built_at = built_at_s

    def swapped(self, *, version: str, created_at_s: float, ranker: RankerState, seconds: float | None = None) -> None:
        """A snapshot serves now; `created_at_s` is epoch seconds; taking it lasted so long."""
        self.swaps.labels("swapped").inc()
        if seconds is not None:
            self.swap_seconds.observe(seconds)
        for state in get_args(RankerState):
            self.ranker.labels(state).set(state == ranker)
        self.version.set(int(version) if version.isdigit() else math.nan)
        self._created_at = created_at_s

    def refused(self) -> None:
        """An announced snapshot was refused for good; the one before it serves on."""
        self.swaps.labels("refused").inc()

    def unreachable(self) -> None:
        """An announced snapshot cannot be fetched, and is tried again; the one before it serves on."""
        self.swaps.labels("unreachable").inc()

    def removed(self, known_N: NDArray[np.bool_]) -> None:
        """N removals were read; those of names that are no item's removed nothing."""
        known = int(known_N.sum())
        self.removals.labels("removed").inc(known)
        self.removals.labels("unknown").inc(len(known_N) - known)
