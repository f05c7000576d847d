"""docs/metrics.md, made of the series themselves: `python -m streams.process.metrics_page > docs/metrics.md`."""

import sys
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.metrics import MetricWrapperBase

from streams.process.metrics import LearnerMetrics, WorkerMetrics
from streams.process.slate_metrics import EVENT_TO_SLATE_SLO_S

_HEAD = f"""# Metrics

`/metrics` of every worker and learner, in Prometheus' text format or, where asked for, OpenMetrics with exemplars.
This page is made of the code: `python -m streams.process.metrics_page`. W is a worker, L the learner.

- Every label value is there from the start, counters at 0. A gauge that nobody has set is NaN, which fires no alert.
- No label holds a user, an item, a campaign or the text of an error; a worker has fewer than 1,000 series.
- `marquee_event_to_slate_seconds` has the objective, {EVENT_TO_SLATE_SLO_S:g} s, among its bounds. Under
  OpenMetrics its buckets carry the trace id of an event that came with a `traceparent`; Prometheus keeps these with
  `--enable-feature=exemplar-storage`.
- `marquee_lag_records` and `marquee_lag_seconds` are told by the owner of a partition; of those that are no live
  member's by the owner of the first partition of `events`, or by the learner that leads: take
  `max by (topic, partition)` before you sum. Seconds are the age of the first record that waits, by its timestamp.
  A topic may be called anything: `lane` says what it is. A worker tells of `observations` that no learner reads as
  one: `partition="all"`.
- `marquee_takes_total` is judged by the slate that the same worker published for the person before. After a
  restart, or where another worker answered, a take is `unknown`.
- What all this costs cannot be told from nothing: at 500 events/s a slate took .8 % less CPU than one of a worker that
  counts nothing, scraped once a second; two workers that count nothing differed by 1.6 % (`marquee bench observing`).
- `process_*`, `python_gc_*` and `python_info` are those of Python's own client.

| series | type | labels | who | what it is, and what to do |
|---|---|---|---|---|
"""
_SAID = {"gauge": "", "info": "_info", "counter": "_total", "histogram": "_bucket"}


def describe() -> str:
    """The whole page."""
    found: dict[str, dict[str, MetricWrapperBase]] = {}
    for who, metrics in (("W", WorkerMetrics(process=False)), ("L", LearnerMetrics(process=False))):
        for made in metrics.registry._collector_to_names:
            assert isinstance(made, MetricWrapperBase)
            found.setdefault(made._name, {})[who] = made
    return _HEAD + "".join(_row(of) for _, of in sorted(found.items()))


def _row(of: Mapping[str, MetricWrapperBase]) -> str:
    """A series, by who has it; what is said of it is the worker's where both have it."""
    made, *_ = of.values()
    name, labels = made._name + _SAID.get(str(made._type), ""), ", ".join(_labels(list(of.values())))
    return f"| `{name}` | {made._type} | {labels} | {' '.join(of)} | {made._documentation} |\n"


def _labels(of: Sequence[MetricWrapperBase]) -> Iterator[str]:
    """The labels, with their values where these are known from the start."""
    for place, label in enumerate(of[0]._labelnames):
        values = dict.fromkeys(values[place] for made in of for values in getattr(made, "_metrics", {}))
        yield f"{label} = {' '.join(values)}" if values else label


if __name__ == "__main__":
    sys.stdout.write(describe())
