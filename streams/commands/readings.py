"""What a process said on `/metrics`, and what it did between two such readings.

>>> before = Reading.of('marquee_slates_total{trigger="event"} 10.0', at_s=100.0)
>>> after = Reading.of('marquee_slates_total{trigger="event"} 30.0', at_s=110.0)
>>> Interval(before, after).rate("marquee_slates_total")
2.0
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]
Buckets = Mapping[float, float]
"""How many observations were at most each bound; the last bound is infinite."""
STARTED = "process_start_time_seconds"


@dataclass(frozen=True, slots=True)
class Reading:
    """Every sample of one answer, by name and labels, and when it came (epoch seconds)."""

    at_s: float
    samples: Mapping[str, Mapping[Labels, float]]

    @classmethod
    def of(cls, text: str, at_s: float) -> Self:
        """Read Prometheus' text format.

        Raises:
            ValueError: it is something else.
        """
        samples: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return cls(at_s, samples)

    def each(self, name: str, **wanted: str) -> Iterator[tuple[dict[str, str], float]]:
        """Labels and value of every series of that name with these labels among its own."""
        for labels, value in self.samples.get(name, {}).items():
            if wanted.items() <= (found := dict(labels)).items():
                yield found, value

    def value(self, name: str, **wanted: str) -> float:
        """The largest value of these series that is one; NaN where none is."""
        return max((value for _, value in self.each(name, **wanted) if not math.isnan(value)), default=math.nan)

    def label(self, name: str, label: str) -> str | None:
        """A label of the first series of that name that is 1, as an info or a state says it; None where none is."""
        return next((labels.get(label) for labels, value in self.each(name) if value == 1), None)


@dataclass(frozen=True, slots=True)
class Interval:
    """What a process did between two readings; where it was started anew between them, what it did since."""

    before: Reading | None
    after: Reading

    @property
    def restarted(self) -> bool:
        """Whether the second reading is of another life."""
        return self.before is not None and self.after.value(STARTED) > self.before.value(STARTED)

    @property
    def seconds(self) -> float:
        """How long it is; NaN where there is no first reading."""
        if self.before is None:
            return math.nan
        began_s = max(self.before.at_s, self.after.value(STARTED)) if self.restarted else self.before.at_s
        return max(self.after.at_s - began_s, 0.0) or math.nan

    def increases(self, name: str, **wanted: str) -> Iterator[tuple[dict[str, str], float]]:
        """By how much each counter of that name grew, by its labels; one that fell was set back to 0 between."""
        old = {} if self.before is None or self.restarted else self.before.samples.get(name, {})
        for labels, value in self.after.each(name, **wanted):
            before = old.get(tuple(sorted(labels.items())), 0.0)
            yield labels, value - before if value >= before else value

    def rate(self, name: str, **wanted: str) -> float:
        """Growth per second of all these counters together; NaN where there is none or no interval."""
        grown = [growth for _, growth in self.increases(name, **wanted)]
        return sum(grown) / self.seconds if grown else math.nan

    def buckets(self, name: str, **wanted: str) -> Buckets:
        """Observations of a histogram (its name without `_bucket`) at most each bound; none without an interval."""
        if self.before is None:
            return {}
        counts: dict[float, float] = defaultdict(float)
        for labels, growth in self.increases(f"{name}_bucket", **wanted):
            counts[float(labels["le"])] += growth
        return counts


def together(parts: Iterable[Buckets]) -> Buckets:
    """The observations of several processes as those of one; their bounds are the same."""
    counts: dict[float, float] = defaultdict(float)
    for part in parts:
        for bound, count in part.items():
            counts[bound] += count
    return counts


def quantile(buckets: Buckets, share: float) -> float:
    """The value that this share of the observations does not exceed, linear within a bucket, as `histogram_quantile`.

    NaN without observations; the largest finite bound for what lies beyond it.

    >>> quantile({1.0: 0.0, 2.0: 10.0, math.inf: 10.0}, 0.5)
    1.5
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return math.nan
    wanted, below, count = share * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted and buckets[bound] > count:
            if math.isinf(bound):
                return below
            return below + (bound - below) * (wanted - count) / (buckets[bound] - count)
        below, count = bound, buckets[bound]
    return below
