import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from streams.commands.readings import Interval, Reading, quantile, together

BOUNDS = (0.1, 0.5, 1.0, 2.0)


def counted(total: float, at_s: float, started_s: float = 0.0) -> Reading:
    text = f'marquee_events_total{{fate="applied"}} {total}\nprocess_start_time_seconds {started_s}\n'
    return Reading.of(text, at_s)


def test_a_rate_is_growth_by_time() -> None:
    interval = Interval(counted(10, 100), counted(40, 110))
    assert interval.rate("marquee_events_total", fate="applied") == 3
    assert math.isnan(interval.rate("marquee_events_total", fate="late"))
    assert math.isnan(Interval(None, counted(40, 110)).rate("marquee_events_total"))


def test_who_was_started_anew_is_counted_since_then() -> None:
    """Also where it has counted more by now than before: 50 in the two seconds that it lives."""
    interval = Interval(counted(10, 100, started_s=1), counted(50, 110, started_s=108))
    assert interval.restarted
    assert interval.rate("marquee_events_total") == 25


def test_a_counter_that_fell_was_set_back() -> None:
    interval = Interval(counted(1_000, 100), counted(40, 110))
    assert interval.rate("marquee_events_total") == 4


def test_what_is_no_number_is_nothing() -> None:
    reading = Reading.of('lag{partition="0"} NaN\nlag{partition="1"} 3\nage NaN\n', 0)
    assert reading.value("lag") == 3
    assert math.isnan(reading.value("age"))
    assert math.isnan(reading.value("unknown"))
    with pytest.raises(ValueError, match=r"\w"):
        Reading.of("<html>not metrics</html>", 0)


@given(st.lists(st.floats(0.001, 1.9), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_is_in_the_bucket_of_the_value_that_it_stands_for(values: list[float], share: float) -> None:
    registry = CollectorRegistry()
    seconds = Histogram("seconds", "s", buckets=BOUNDS, registry=registry)
    before = Reading.of(generate_latest(registry).decode(), 0)
    for value in values:
        seconds.observe(value)
    interval = Interval(before, Reading.of(generate_latest(registry).decode(), 1))
    found = quantile(together([interval.buckets("seconds")]), share)
    exact = sorted(values)[max(math.ceil(share * len(values) - 1e-9), 1) - 1]
    bucket = next(number for number, bound in enumerate(BOUNDS) if exact <= bound)
    assert (0, *BOUNDS)[bucket] <= found <= BOUNDS[bucket]


def test_what_is_beyond_the_last_bound_is_at_least_that() -> None:
    assert quantile({1.0: 0.0, 2.0: 1.0, math.inf: 100.0}, 0.99) == 2
    assert math.isnan(quantile({1.0: 0.0, math.inf: 0.0}, 0.5))
    assert math.isnan(quantile({}, 0.5))
