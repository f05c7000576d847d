import math
import re

import numpy as np
import pytest
from prometheus_client import generate_latest

from embeddings.events import Fate, Source
from streams.contract.deadletters import Code
from streams.process.metrics import LearnerMetrics, Metrics, WorkerMetrics

PROCESSES = [WorkerMetrics, LearnerMetrics]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize("kind", PROCESSES)
def test_names_follow_the_rules_of_prometheus(kind: type[WorkerMetrics | LearnerMetrics]) -> None:
    for family in kind(process=False).registry.collect():
        assert re.fullmatch(r"marquee_[a-z_]+", family.name)
        assert not re.search(r"_(ms|millis|micros|minutes|kb|mb|count|total|info)$", family.name)
        assert family.documentation.endswith(".")
        if family.type == "counter":
            assert all(s.name.endswith(("_total", "_created")) for s in family.samples)


@pytest.mark.parametrize("kind", PROCESSES)
def test_no_label_can_grow_without_bound(kind: type[WorkerMetrics | LearnerMetrics]) -> None:
    allowed = {"stage", "fate", "topic", "code", "partition", "trigger", "mode", "kind", "result", "objective"}
    allowed |= {"le", "version", "device", "role", "state", "surface", "outcome", "reason", "billing", "standing"}
    labels = {name for f in kind().registry.collect() for s in f.samples for name in s.labels}
    assert labels <= allowed


def test_a_worker_with_64_partitions_has_fewer_than_1000_series() -> None:
    metrics = WorkerMetrics()
    for topic in ("marquee.events.v1", "marquee.requests.v1"):
        for partition in range(64):
            metrics.lag(Source(topic, partition), 1, 1.0)
    lines = generate_latest(metrics.registry).decode().splitlines()
    assert sum(not line.startswith("#") for line in lines) < 1000


def test_everything_countable_is_there_at_0() -> None:
    metrics = WorkerMetrics()
    assert {value(metrics, "marquee_events_total", fate=fate.name) for fate in Fate} == {0}
    assert {value(metrics, "marquee_dead_letters_total", topic="events", code=code) for code in Code} == {0}
    assert value(metrics, "marquee_redis_errors_total", kind="fenced") == 0
    for stage in ("decode", "fold", "retrieve", "rank", "compose", "publish", "observe", "store"):
        assert value(metrics, "marquee_stage_seconds_count", stage=stage) == 0


def test_what_nobody_knows_yet_is_not_a_number() -> None:
    learner = LearnerMetrics()
    assert math.isnan(value(learner, "marquee_learner_loss", objective="engage") or 0)
    assert math.isnan(value(learner, "marquee_checkpoint_age_seconds") or 0)
    assert math.isnan(value(WorkerMetrics(), "marquee_snapshot_age_seconds") or 0)


def test_a_stage_is_timed_even_when_it_raises() -> None:
    metrics = WorkerMetrics()
    with pytest.raises(ValueError, match="Redis is away"), metrics.stage("fold"):
        raise ValueError("Redis is away")
    assert value(metrics, "marquee_stage_seconds_count", stage="fold") == 1


def test_fates_add_up_to_the_batch() -> None:
    metrics = WorkerMetrics()
    metrics.events(np.array([0, 0, 2, 9, 3, 0], np.uint8))
    counts = {fate.name: value(metrics, "marquee_events_total", fate=fate.name) for fate in Fate}
    assert counts["applied"] == 3
    assert counts["duplicate"] == counts["late"] == counts["dead_lettered"] == 1
    assert sum(count or 0 for count in counts.values()) == 6


def test_a_batch_counts_its_records_and_its_size() -> None:
    metrics = WorkerMetrics()
    metrics.batch("events", 12)
    metrics.batch("events", 300)
    assert value(metrics, "marquee_records_consumed_total", topic="events") == 312
    assert value(metrics, "marquee_batch_records_bucket", topic="events", le="16.0") == 1


def test_a_dead_letter_is_counted_by_topic_and_code() -> None:
    metrics = WorkerMetrics()
    metrics.dead_letter("events", Code.malformed)
    assert value(metrics, "marquee_dead_letters_total", topic="events", code="malformed") == 1
    assert value(metrics, "marquee_dead_letters_total", topic="requests", code="malformed") == 0


def test_slates_are_counted_with_their_latency_and_degradation() -> None:
    metrics = WorkerMetrics()
    metrics.published("event", [0.02, 0.3, -0.001])
    metrics.published("request", [0.1], degraded="popular")
    assert value(metrics, "marquee_slates_total", trigger="event") == 3
    assert value(metrics, "marquee_slates_degraded_total", mode="popular") == 1
    assert value(metrics, "marquee_event_to_slate_seconds_bucket", le="0.2") == 3


def test_lag_of_a_partition_that_went_to_another_worker_is_gone() -> None:
    metrics, source = WorkerMetrics(), Source("marquee.events.v1", 3)
    metrics.lag(source, 17, 2.5)
    assert value(metrics, "marquee_lag_records", topic="marquee.events.v1", partition="3") == 17
    assert value(metrics, "marquee_lag_seconds", topic="marquee.events.v1", partition="3") == 2.5
    metrics.released(source)
    metrics.released(source)
    assert value(metrics, "marquee_lag_records", topic="marquee.events.v1", partition="3") is None


def test_ages_grow_with_the_clock() -> None:
    now = [1_000.0]
    metrics = WorkerMetrics(clock=lambda: now[0])
    metrics.indexed(items=100, kind="ivf", device="cpu", version="v7", built_at_s=990)
    metrics.swapped(version="v7", created_at_s=980, ranker="few_examples")
    now[0] += 5
    assert value(metrics, "marquee_index_age_seconds") == 15
    assert value(metrics, "marquee_snapshot_age_seconds") == 25
    assert value(metrics, "marquee_index_info", kind="ivf", device="cpu", version="v7") == 1


def test_a_new_snapshot_leaves_no_series_of_the_one_before() -> None:
    metrics = WorkerMetrics()
    metrics.swapped(version="v1", created_at_s=1, ranker="serves")
    metrics.swapped(version="v2", created_at_s=2, ranker="behind_retrieval")
    metrics.refused()
    assert value(metrics, "marquee_snapshot_info", version="v1") is None
    assert value(metrics, "marquee_snapshot_info", version="v2") == 1
    assert value(metrics, "marquee_ranker_state", state="behind_retrieval") == 1
    assert value(metrics, "marquee_ranker_state", state="serves") == 0
    assert value(metrics, "marquee_snapshot_swaps_total", result="refused") == 1


def test_the_learner_reports_loss_calibration_and_its_age() -> None:
    now = [50.0]
    metrics = LearnerMetrics(surfaces=("home", "other"), clock=lambda: now[0])
    metrics.learned(rows=40, skipped=2)
    metrics.scored("engage", loss=0.5)
    metrics.calibrated("engage", "home", ratio=1.1)
    metrics.dropping("impressions", 3)
    metrics.announced(seconds=0.4, items=9)
    metrics.checkpointed()
    now[0] += 3
    assert value(metrics, "marquee_learner_rows_total") == 40
    assert value(metrics, "marquee_learner_rows_skipped_total") == 2
    assert value(metrics, "marquee_learner_loss", objective="engage") == 0.5
    assert value(metrics, "marquee_learner_calibration_ratio", objective="engage", surface="home") == 1.1
    assert np.isnan(value(metrics, "marquee_learner_calibration_ratio", objective="engage", surface="other"))
    assert value(metrics, "marquee_learner_dropped_total", kind="impressions") == 3
    assert value(metrics, "marquee_learner_dropped_total", kind="slates") == 0
    assert value(metrics, "marquee_snapshot_age_seconds") == 3
    assert value(metrics, "marquee_checkpoint_age_seconds") == 3
