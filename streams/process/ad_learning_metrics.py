"""Whether the chances of ads come true, for Prometheus: by outcome, for no campaign or advertiser has a label.

>>> metrics = AdLearningMetrics(CollectorRegistry())
>>> metrics.came_true("click", ratio=1.02, error=0.001, entropy=0.8)
>>> metrics.registry.get_sample_value("marquee_ad_calibration_ratio", {"objective": "click"})
1.02
"""

from typing import Literal, get_args

from prometheus_client import CollectorRegistry

from streams.process.series import Series, unset

AdOutcome = Literal["click", "complete", "conversion"]


class AdLearningMetrics:
    """Calibration of the chances that decisions were told with, and of how many advertisers it drifted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Create every series."""
        self.registry = registry
        series = Series(registry)
        outcomes = get_args(AdOutcome)
        self._ratio = series.gauge(
            "ad_calibration_ratio",
            "Sum of the chances over the sum of what came.",
            "If it stays outside of 0.8 to 1.25, bids are too high or too low by as much: see the drifted advertisers.",
            objective=outcomes,
        )
        self._error = series.gauge(
            "ad_calibration_error",
            "Expected calibration error, 15 bins of equal mass.",
            "If it grows while the ratio stays near 1, some are told too high and others too low.",
            objective=outcomes,
        )
        self._entropy = series.gauge(
            "ad_normalised_entropy",
            "Log loss over that of always saying the mean.",
            "If it is above 1 the chances are worse than none: look for a change in what is told.",
            objective=outcomes,
        )
        self._drifted = series.gauge(
            "ad_drifted_advertisers",
            "Advertisers whose chances are wrong beyond chance, and whose bids are damped.",
            "If it is above 0, look at what these changed: creatives, landing pages, how they report.",
            objective=outcomes,
        )

    def came_true(self, outcome: AdOutcome, *, ratio: float, error: float, entropy: float) -> None:
        """How true the chances of an outcome came; NaN where nothing came or everything did."""
        self._ratio.labels(outcome).set(ratio)
        self._error.labels(outcome).set(error)
        self._entropy.labels(outcome).set(entropy)

    def drifted(self, outcome: AdOutcome, advertisers: int) -> None:
        """Of so many advertisers the chances of an outcome are wrong beyond what chance explains."""
        self._drifted.labels(outcome).set(advertisers)

    def resigned(self) -> None:
        """Another learner leads, and tells from now on."""
        for gauge in (self._ratio, self._error, self._entropy, self._drifted):
            unset(gauge)
