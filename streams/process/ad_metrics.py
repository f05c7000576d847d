"""What is measured of ads, for Prometheus: no label holds a campaign, a line item or an advertiser.

Those are on the topic `ad-stats`, where they cost one record each; here they would be series without end.

>>> metrics = AdMetrics(CollectorRegistry())
>>> metrics.decided("filled", 3)
>>> metrics.registry.get_sample_value("marquee_ad_decisions_total", {"outcome": "filled"})
3.0
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from embeddings.spend import KINDS, OWN, TOLD, Billing

Outcome = Literal["filled", "unfilled", "again", "refused", "failed"]
"""What became of a slot: sold; not; decided before; nothing may be shown there at all; the ledger did not answer."""
Standing = Literal["behind", "on_plan", "ahead"]
BEHIND, AHEAD = 0.9, 1.1
"""Delivered over expected: outside of these somebody should know."""


class AdMetrics:
    """Decisions, events, money, and how fresh the published figures are."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        """Create every series.

        Args:
            registry: of the process.
            clock: epoch seconds, for ages.
        """
        self.registry, self._clock = registry, clock
        self.decisions = self._counter("decisions", "Ad slots by what became of them.", "outcome", get_args(Outcome))
        self.reasons = self._counter(
            "funnel",
            "Line items at each step of a decision, by how far they came and why no further.",
            "reason",
            (*TOLD, *OWN),
        )
        self.events = self._counter("events", "Events of ads.", "kind", KINDS)
        self.billings = self._counter(
            "billings", "Events of ads by what the ledger made of them.", "billing", [one.name for one in Billing]
        )
        self.spend = Counter(
            "marquee_ad_spend", "Spent by events that this worker read, units of any currency.", registry=registry
        )
        self.swept = Counter(
            "marquee_ad_swept", "Reservations released and leases returned at their end.", registry=registry
        )
        self.rebuilds = self._counter(
            "rebuilds", "Rebuilds of the spend ledger after a loss.", "result", ("reopened", "failed")
        )
        self.closed = self._gauge("ledger_closed", "Whether the spend ledger is closed, as the leader saw it last.")
        self.delivery = Gauge(
            "marquee_ad_line_items",
            "Line items with a plan, by how they stand against it.",
            ("standing",),
            registry=registry,
        )
        for standing in get_args(Standing):
            self.delivery.labels(standing).set(math.nan)
        self._totals_at = self._published_at = math.nan
        self._age("ledger_age_seconds", "Since the ledger's totals were read by the leader.", lambda: self._totals_at)
        self._age("stats_age_seconds", "Since figures were published by the leader.", lambda: self._published_at)

    def decided(self, outcome: Outcome, many: int = 1) -> None:
        """So many slots came to this."""
        self.decisions.labels(outcome).inc(many)

    def funnel(self, counts: Mapping[str, int]) -> None:
        """Line items came so far; names of the spend ledger's counts."""
        for name, many in counts.items():
            self.reasons.labels(name).inc(many)

    def heard(self, kind: str, billing: Billing, micros: int) -> None:
        """An event of an ad was confirmed, and spent so much."""
        self.events.labels(kind).inc()
        self.billings.labels(billing.name).inc()
        self.spend.inc(micros / 1e6)

    def read(self) -> None:
        """The leader has the ledger's totals: it is open."""
        self._totals_at = self._clock()
        self.closed.set(0)

    def published(self) -> None:
        """The broker has the leader's figures."""
        self._published_at = self._clock()

    def rebuilt(self, result: Literal["reopened", "failed"]) -> None:
        """The leader came to the end of a rebuild, or not."""
        self.rebuilds.labels(result).inc()

    def standing(self, indicators: Iterable[float]) -> None:
        """How all line items with a plan stand: delivered over expected of each."""
        many = dict.fromkeys(get_args(Standing), 0)
        for indicator in indicators:
            many["behind" if indicator < BEHIND else "ahead" if indicator > AHEAD else "on_plan"] += 1
        for standing, count in many.items():
            self.delivery.labels(standing).set(count)

    def resigned(self) -> None:
        """Another worker leads, and tells from now on how old its figures are."""
        self._totals_at = self._published_at = math.nan
        self.closed.set(math.nan)
        for standing in get_args(Standing):
            self.delivery.labels(standing).set(math.nan)

    def _counter(self, name: str, text: str, label: str, values: Iterable[str]) -> Counter:
        counter = Counter(f"marquee_ad_{name}", text, (label,), registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter

    def _gauge(self, name: str, text: str) -> Gauge:
        gauge = Gauge(f"marquee_ad_{name}", text, registry=self.registry)
        gauge.set(math.nan)
        return gauge

    def _age(self, name: str, text: str, since: Callable[[], float]) -> None:
        Gauge(f"marquee_ad_{name}", text, registry=self.registry).set_function(lambda: self._clock() - since())
