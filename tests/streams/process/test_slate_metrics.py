"""What is told of slates: latency with exemplars, what they lack, who proposed what they hold, what was taken."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.openmetrics.exposition import generate_latest

from embeddings.events import CONSENT_ALL, CONSENT_STORE, Fate
from streams.process.metrics import WorkerMetrics
from streams.process.slate_metrics import COVERED_S, EVENT_TO_SLATE_SLO_S, LATENCY_SECONDS

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"marquee_{name}", labels)


def test_slates_are_counted_with_their_latency_and_degradation() -> None:
    metrics = WorkerMetrics(process=False)
    metrics.slates.published("event", [0.02, 0.3, -0.001])
    metrics.slates.published("request", [0.1], degraded="popular")
    assert value(metrics, "slates_total", trigger="event") == 3
    assert value(metrics, "slates_degraded_total", mode="popular") == 1
    assert value(metrics, "event_to_slate_seconds_bucket", trigger="event", le="0.2") == 2
    assert value(metrics, "event_to_slate_seconds_bucket", trigger="request", le="0.2") == 1
    assert EVENT_TO_SLATE_SLO_S in LATENCY_SECONDS


def test_the_slowest_slate_of_a_batch_that_belongs_to_a_trace_is_an_exemplar() -> None:
    metrics = WorkerMetrics(process=False)
    metrics.slates.published("event", [0.5, 0.04, 0.03], traces=[None, TRACE, "0" * 32])
    lines = [line for line in generate_latest(metrics.registry).decode().splitlines() if " # {" in line]
    assert len(lines) == 1
    assert f'# {{trace_id="{TRACE}"}} 0.04' in lines[0]
    assert 'le="0.05"' in lines[0]
    assert value(metrics, "event_to_slate_seconds_count", trigger="event") == 3


def test_lanes_that_tell_at_a_time_take_no_room_from_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, grown, pad = WorkerMetrics(process=False), threading.Event(), np.pad

    def slowly(*args: Any) -> NDArray[np.int32]:
        padded = pad(*args)
        if len(padded) < 100:
            grown.wait(0.2)  # the other lane would grow it meanwhile
        return padded

    monkeypatch.setattr(np, "pad", slowly)
    with ThreadPoolExecutor(2) as lanes:
        small = lanes.submit(metrics.slates.held, np.array([5], np.int32), np.zeros(1, np.uint8), 0)
        large = lanes.submit(metrics.slates.held, np.array([900], np.int32), np.zeros(1, np.uint8), 0)
        large.add_done_callback(lambda done: grown.set())
        small.result()
        large.result()
    assert value(metrics, "items_shown") == 2


def test_items_count_for_everyone_who_proposed_them_and_cover_the_catalogue_for_an_hour() -> None:
    now = [10_000.0]
    metrics = WorkerMetrics(process=False, clock=lambda: now[0])
    metrics.slates.held(np.array([3, 70, 3], np.int32), np.array([1, 3, 4], np.uint8), explored=1)
    found = {s: value(metrics, "slate_items_by_source_total", source=s) for s in ("vector", "neighbours", "trending")}
    assert found == {"vector": 2, "neighbours": 1, "trending": 1}
    assert (value(metrics, "slate_items_total"), value(metrics, "slate_items_explored_total")) == (3, 1)
    assert value(metrics, "items_shown") == 2
    now[0] += COVERED_S - 1
    metrics.slates.held(np.array([500], np.int32), np.array([16], np.uint8), explored=0)
    assert value(metrics, "items_shown") == 3
    now[0] += 2
    assert value(metrics, "items_shown") == 1


def test_fates_add_up_to_the_batch() -> None:
    metrics = WorkerMetrics(process=False)
    metrics.slates.events(np.array([0, 0, 2, 9, 3, 0], np.uint8))
    counts = {fate.name: value(metrics, "events_total", fate=fate.name) for fate in Fate}
    assert counts["applied"] == 3
    assert counts["duplicate"] == counts["late"] == counts["dead_lettered"] == 1
    assert sum(count or 0 for count in counts.values()) == 6


def test_uses_that_were_not_agreed_to_are_counted_each() -> None:
    metrics = WorkerMetrics(process=False)
    metrics.slates.consented(np.array([CONSENT_ALL, CONSENT_STORE, 0], np.uint8))
    found = {use: value(metrics, "consent_refused_total", use=use) for use in ("store", "profile", "content", "ads")}
    assert found == {"store": 1, "profile": 2, "content": 2, "ads": 2}
