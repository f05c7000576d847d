"""How series are made: one registry, every label value there from the start, help that ends with what to do.

>>> series = Series(CollectorRegistry())
>>> served = series.counter("served", "Slates served.", "If it stops, look at /readyz.", trigger=("event", "request"))
>>> series.registry.get_sample_value("marquee_served_total", {"trigger": "event"})
0.0
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a third more series, which nobody asks for: when each counter began

PREFIX = "marquee_"


class Series:
    """Makes series in a registry. A gauge that nobody has set is NaN, which fires no alert."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        """`clock` is in epoch seconds, for ages."""
        self.registry, self.clock = registry, clock

    def counter(self, name: str, what: str, do: str, /, **labels: Iterable[str]) -> Counter:
        """What only rises; `what` it counts, and what to `do` about it."""
        made = Counter(PREFIX + name, f"{what} {do}", tuple(labels), registry=self.registry)
        for values in _products(labels):
            made.labels(*values)
        return made

    def gauge(self, name: str, what: str, do: str, /, *, start: float = math.nan, **labels: Iterable[str]) -> Gauge:
        """What rises and falls. Without values for its labels it has no series before it is set."""
        made = Gauge(PREFIX + name, f"{what} {do}", tuple(labels), registry=self.registry)
        if not labels:
            made.set(start)
        for values in _products(labels):
            made.labels(*values).set(start)
        return made

    def histogram(
        self, name: str, what: str, do: str, buckets: tuple[float, ...], /, **labels: Iterable[str]
    ) -> Histogram:
        """How something is distributed."""
        made = Histogram(PREFIX + name, f"{what} {do}", tuple(labels), buckets=buckets, registry=self.registry)
        for values in _products(labels):
            made.labels(*values)
        return made

    def info(self, name: str, what: str, do: str) -> Info:
        """Words that describe what runs, as labels of a 1."""
        return Info(PREFIX + name, f"{what} {do}", registry=self.registry)

    def reads(self, name: str, what: str, do: str, value: Callable[[], float]) -> None:
        """A gauge that is taken when it is read; it must not block."""
        Gauge(PREFIX + name, f"{what} {do}", registry=self.registry).set_function(value)

    def age(self, name: str, what: str, do: str, since_s: Callable[[], float]) -> None:
        """A gauge of the seconds since an epoch second."""
        self.reads(name, what, do, lambda: self.clock() - since_s())


def unset(gauge: Gauge) -> None:
    """What a gauge said is not known any more: all of its series are NaN."""
    for series in [gauge.labels(*values) for values in gauge._metrics] if gauge._labelnames else [gauge]:
        series.set(math.nan)


def _products(labels: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, ...]]:
    """All combinations of label values; none where there are no labels."""
    return iter(product(*labels.values())) if labels else iter(())
