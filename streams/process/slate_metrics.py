"""Slates and what they are worth: rate, latency, what they lack, who proposed what they hold, what was taken."""

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embeddings.candidates import Proposed
from embeddings.events import CONSENT_ADS, CONSENT_CONTENT, CONSENT_PROFILE, CONSENT_STORE, Fate
from streams.contract.records import Degraded
from streams.process.series import Series

Trigger = Literal["event", "request"]
Place = Literal["first_3", "first_10", "later", "not_shown", "unknown"]
"""Where what somebody took stood in the slate before: within three, ten, further, not at all; no slate is known."""

EVENT_TO_SLATE_SLO_S = 0.2
"""Of events and requests, 99 % are to have their slate within so long: a bound of the buckets."""
LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, EVENT_TO_SLATE_SLO_S, 0.5, 1, 2.5, 5, 15, 60)
COVERED_S = 3_600
"""Items are covered that were shown within so long."""
_USES = {"store": CONSENT_STORE, "profile": CONSENT_PROFILE, "content": CONSENT_CONTENT, "ads": CONSENT_ADS}
_OF_SOURCE_SM = (np.arange(256) & np.array([int(bit) for bit in Proposed])[:, None] != 0).astype(np.int64)
"""By source and mask: is it one of those who proposed?"""
_TRIGGERS: tuple[Trigger, ...] = get_args(Trigger)


class SlateMetrics:
    """What was published; of any thread, for each lane and HTTP have one of their own."""

    def __init__(self, series: Series) -> None:
        """Create every series."""
        self._series = series
        self.slates = series.counter(
            "slates",
            "Slates published.",
            "If it stops while events come, look at marquee_lag_seconds and /readyz.",
            trigger=_TRIGGERS,
        )
        self.seconds = series.histogram(
            "event_to_slate_seconds",
            "From the publish time of an event or request to the acknowledgement of its slate.",
            f"If less than 99 % are within {EVENT_TO_SLATE_SLO_S:g} s, marquee_stage_seconds says where the time goes.",
            LATENCY_SECONDS,
            trigger=_TRIGGERS,
        )
        self.degraded = series.counter(
            "slates_degraded",
            "Slates published on less than everything.",
            "If `popular` rises Redis is away, a deadline passed, or there is no snapshot; `contextual` is consent.",
            mode=get_args(Degraded),
        )
        self.untaught = series.counter(
            "slates_untaught",
            "Slates in the order of retrieval, because the ranker's does not serve.",
            "If its share stays 1, marquee_ranker_state says why.",
        )
        self.cold = series.counter(
            "slates_cold",
            "Slates for people of whom no usable history is known.",
            "If its share jumps, ids of users changed at a producer, consent was withdrawn, or Redis lost states.",
        )
        self.short = series.counter(
            "slates_short",
            "Slates with fewer items than were asked for.",
            "If its share grows, the catalogue is too small or too restricted for its viewers.",
        )
        self._decided(series)
        self._judged(series)

    def _decided(self, series: Series) -> None:
        self.items = series.counter(
            "slate_items",
            "Items in published slates.",
            "Divide by it what marquee_slate_items_by_source_total and _explored_total say.",
        )
        self.by_source = series.counter(
            "slate_items_by_source",
            "Items in published slates by who proposed them; one that two proposed counts for both.",
            "If a source falls to 0, what it is made of is missing: a snapshot, counters, fresh items.",
            source=[str(bit.name) for bit in Proposed],
        )
        self._sources = [self.by_source.labels(str(bit.name)) for bit in Proposed]
        self.explored = series.counter(
            "slate_items_explored",
            "Items that chance put in their place.",
            "Compare its share with the policy's `exploration`.",
        )
        self._shown_s_N, self._growing = np.zeros(0, np.int32), Lock()
        series.reads(
            "items_shown",
            "Distinct items in slates of this worker within the last hour.",
            "Divide by marquee_index_items for coverage; if that falls, few items crowd out the others.",
            self._items_shown,
        )

    def _judged(self, series: Series) -> None:
        self.takes = series.counter(
            "takes",
            "What people took, by where it stood in the slate that this worker had published for them before.",
            "Divide first_3 and first_10 by all but `unknown` for the hit rate; if it falls, see what changed.",
            place=get_args(Place),
        )
        self.fates = series.counter(
            "events",
            "Events by what became of them; every one has one fate.",
            "If late, misrouted, duplicate or dead_lettered rise, a producer changed: see docs/contract.md.",
            fate=[fate.name for fate in Fate],
        )
        self._fates = [self.fates.labels(fate.name) for fate in Fate]
        self.refused = series.counter(
            "consent_refused",
            "Events whose person did not agree to a use.",
            "If it jumps, a producer lost its consent string; nothing is used without.",
            use=_USES,
        )
        self.misdated = series.counter(
            "events_misdated",
            "Events with no publish time, or one far ahead.",
            "If it rises, the clock of a producer or broker is wrong.",
        )

    def published(
        self,
        trigger: Trigger,
        latencies_s: Iterable[float],
        degraded: Degraded | None = None,
        traces: Iterable[str | None] = (),
    ) -> None:
        """Slates were acknowledged by the broker, each so many seconds after what triggered it was published.

        `traces` are the ids of the traces that they belong to; the slowest that has one is told as an exemplar.
        """
        waited = [max(seconds, 0.0) for seconds in latencies_s]
        traced = [(seconds, trace) for seconds, trace in zip(waited, traces, strict=False) if trace]
        slowest, exemplar = max(traced, default=(-1.0, None))
        seconds_of = self.seconds.labels(trigger)
        for seconds in waited:
            if exemplar is not None and seconds == slowest:
                seconds_of.observe(seconds, {"trace_id": exemplar})
                exemplar = None
            else:
                seconds_of.observe(seconds)
        self.slates.labels(trigger).inc(len(waited))
        if degraded is not None:
            self.degraded.labels(degraded).inc(len(waited))

    def held(self, row_X: NDArray[np.int32], source_X: NDArray[np.uint8], explored: int) -> None:
        """Published slates held X items, so many of them put there by chance; rows of the item table, source bits."""
        self.items.inc(len(row_X))
        self.explored.inc(explored)
        many_S = _OF_SOURCE_SM @ np.bincount(source_X, minlength=256)
        for source, many in zip(self._sources, many_S.tolist(), strict=True):
            source.inc(many)
        if len(row_X):
            with self._growing:
                self._grow(int(row_X.max()) + 1)
                self._shown_s_N[row_X] = int(self._series.clock())

    def _grow(self, rows: int) -> None:
        if rows > len(self._shown_s_N):
            self._shown_s_N = np.pad(self._shown_s_N, (0, max(rows, 2 * len(self._shown_s_N)) - len(self._shown_s_N)))

    def _items_shown(self) -> float:
        return float(np.count_nonzero(self._shown_s_N > self._series.clock() - COVERED_S))

    def events(self, fate_B: NDArray[np.uint8]) -> None:
        """B events have met their fates (codes of `Fate`)."""
        for fate, count in zip(self._fates, np.bincount(fate_B, minlength=len(Fate)).tolist(), strict=True):
            if count:
                fate.inc(count)

    def consented(self, consent_B: NDArray[np.uint8]) -> None:
        """B events came with these consent bits."""
        for use, bit in _USES.items():
            if missing := len(consent_B) - int(np.count_nonzero(consent_B & bit)):
                self.refused.labels(use).inc(missing)

    def taken(self, many: Mapping[str, int]) -> None:
        """So much was taken, by `Place`."""
        for place, count in many.items():
            self.takes.labels(place).inc(count)
