"""Whether the chances of ads come true, for Prometheus: by outcome, for no campaign or advertiser has a label.

>>> metrics = AdLearningMetrics(CollectorRegistry())
>>> metrics.came_true("click", ratio=1.02, error=0.001, entropy=0.8)
>>> metrics.registry.get_sample_value("marquee_ad_calibration_ratio", {"objective": "click"})
1.02
"""

import math
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Gauge

AdOutcome = Literal["click", "complete", "conversion"]


class AdLearningMetrics:
    """Calibration of the chances that decisions were told with, and of how many advertisers it drifted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Create every series."""
        self.registry = registry
        self._ratio = self._gauge("calibration_ratio", "Sum of the chances over the sum of what came.")
        self._error = self._gauge("calibration_error", "Expected calibration error, 15 bins of equal mass.")
        self._entropy = self._gauge("normalised_entropy", "Log loss over that of always saying the mean.")
        self._drifted = self._gauge("drifted_advertisers", "Advertisers whose chances are wrong beyond chance.")

    def _gauge(self, name: str, text: str) -> Gauge:
        gauge = Gauge(f"marquee_ad_{name}", text, ("objective",), registry=self.registry)
        for outcome in get_args(AdOutcome):
            gauge.labels(outcome).set(math.nan)
        return gauge

    def came_true(self, outcome: AdOutcome, *, ratio: float, error: float, entropy: float) -> None:
        """How true the chances of an outcome came; NaN where nothing came or everything did."""
        self._ratio.labels(outcome).set(ratio)
        self._error.labels(outcome).set(error)
        self._entropy.labels(outcome).set(entropy)

    def drifted(self, outcome: AdOutcome, advertisers: int) -> None:
        """Of so many advertisers the chances of an outcome are wrong beyond what chance explains."""
        self._drifted.labels(outcome).set(advertisers)
