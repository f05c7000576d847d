"""The whole set of series of both processes: names, labels, bounds, help, and what Prometheus' own linter says."""

import math
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from embeddings.events import Fate, Source
from ranking.ranker import State as RankerState
from streams.contract.deadletters import Code
from streams.process.input_metrics import WHOLE
from streams.process.metrics import GROUPS, STAGES, WORKER_LANES, LearnerMetrics, Metrics, WorkerMetrics
from streams.process.metrics_page import describe
from streams.settings import TOPIC_NAMES, TopicName
from streams.transport.deliveries import Lag
from streams.transport.standing import ControlStanding, Standing

NAMES: Mapping[str, TopicName] = {f"marquee.{name}.v1": name for name in TOPIC_NAMES}
PROCESSES = [WorkerMetrics, LearnerMetrics]
REMEDY = re.compile(r"\. (If|Compare|Divide) [^.]")


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize("kind", PROCESSES)
def test_names_follow_the_rules_of_prometheus(kind: type[WorkerMetrics | LearnerMetrics]) -> None:
    for family in kind(process=False).registry.collect():
        assert re.fullmatch(r"marquee_[a-z_]+", family.name)
        assert not re.search(r"_(ms|millis|micros|minutes|kb|mb|count|total|info)$", family.name)
        if family.type == "counter":
            assert all(s.name.endswith("_total") for s in family.samples)


@pytest.mark.parametrize("kind", PROCESSES)
def test_help_says_what_it_is_and_ends_with_what_to_do(kind: type[WorkerMetrics | LearnerMetrics]) -> None:
    for family in kind(process=False).registry.collect():
        assert REMEDY.search(family.documentation), family.name
        assert family.documentation.endswith("."), family.name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Debian's prometheus")
@pytest.mark.parametrize("kind", PROCESSES)
def test_prometheus_own_linter_has_nothing_to_say(kind: type[WorkerMetrics | LearnerMetrics]) -> None:
    metrics = kind()
    metrics.group.lags({Source("marquee.events.v1", 3): Lag(17, 2.5)}, NAMES)
    metrics.paused(Source("marquee.events.v1", 3), "malformed", 0.9)
    text = generate_latest(metrics.registry)
    said = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    ours = [line for line in (said.stdout + said.stderr).decode().splitlines() if line.startswith("marquee_")]
    assert ours == []
    broken = text.replace(b"marquee_slates_total", b"marquee_slates").replace(b"learner_rows_total", b"learner_rows")
    said = subprocess.run(["promtool", "check", "metrics"], input=broken, capture_output=True, timeout=30, check=False)
    assert said.returncode != 0


@pytest.mark.parametrize("kind", PROCESSES)
def test_no_label_can_grow_without_bound(kind: type[WorkerMetrics | LearnerMetrics]) -> None:
    allowed = {"stage", "lane", "fate", "topic", "code", "partition", "trigger", "mode", "kind", "result", "objective"}
    allowed |= {"le", "version", "device", "role", "state", "surface", "outcome", "reason", "billing", "standing"}
    allowed |= {"route", "publisher", "client", "place", "use", "source", "order", "what", "probe", "check", "gpu"}
    native = {"generation", "implementation", "major", "minor", "patchlevel"}
    labels = {name for f in kind().registry.collect() for s in f.samples for name in s.labels}
    assert labels <= allowed | native


def test_a_worker_with_64_partitions_has_fewer_than_1000_series() -> None:
    metrics = WorkerMetrics()
    lags = {Source(f"marquee.{topic}.v1", n): Lag(1, 1.0) for topic in WORKER_LANES for n in range(64)}
    metrics.group.lags(lags | {Source("marquee.observations.v1", WHOLE): Lag(1, 1.0)}, NAMES)
    metrics.own.probed("ready", {check: lambda: None for check in ("control", "store", "partitions", "work", "topics")})
    metrics.model.swapped(version="7", created_at_s=1, ranker="serves")
    metrics.model.indexed(items=1, kind="exact", device="cpu", built_at_s=1)
    lines = generate_latest(metrics.registry).decode().splitlines()
    assert sum(not line.startswith("#") for line in lines) < 1000


def test_everything_countable_is_there_at_0() -> None:
    metrics = WorkerMetrics()
    assert {value(metrics, "marquee_events_total", fate=fate.name) for fate in Fate} == {0}
    assert {value(metrics, "marquee_dead_letters_total", topic="events", code=code) for code in Code} == {0}
    assert value(metrics, "marquee_redis_errors_total", kind="fenced") == 0
    for lane, stages in STAGES.items():
        for stage in stages:
            assert value(metrics, "marquee_stage_seconds_count", lane=lane, stage=stage) == 0
            assert value(metrics, "marquee_stage_errors_total", lane=lane, stage=stage) == 0


def test_what_nobody_knows_yet_is_not_a_number() -> None:
    learner = LearnerMetrics()
    assert math.isnan(value(learner, "marquee_learner_loss", objective="engage") or 0)
    assert math.isnan(value(learner, "marquee_checkpoint_age_seconds") or 0)
    assert math.isnan(value(WorkerMetrics(), "marquee_snapshot_age_seconds") or 0)


def test_a_stage_is_timed_and_counted_when_it_raises() -> None:
    metrics, labels = WorkerMetrics(), {"lane": "events", "stage": "fold"}
    with pytest.raises(ValueError, match="Redis is away"), metrics.stage("fold"):
        raise ValueError("Redis is away")
    with metrics.stage("fold"):
        pass
    assert value(metrics, "marquee_stage_seconds_count", **labels) == 2
    assert value(metrics, "marquee_stage_errors_total", **labels) == 1


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


def test_lag_of_a_partition_that_went_to_another_worker_is_gone() -> None:
    metrics, topic = WorkerMetrics(), "marquee.events.v1"

    def lag(kind: str, partition: str) -> float | None:
        return value(metrics, f"marquee_lag_{kind}", lane="events", topic=topic, partition=partition)

    metrics.group.lags({Source(topic, 3): Lag(17, 2.5), Source(topic, 4): Lag(0, 0.0)}, NAMES)
    assert (lag("records", "3"), lag("seconds", "3")) == (17, 2.5)
    metrics.group.lags({Source(topic, 4): Lag(1, 0.5)}, NAMES)
    assert lag("records", "3") is None
    assert lag("records", "4") == 1


def test_how_the_membership_stands_is_told_and_rebalances_are_counted() -> None:
    metrics, names = WorkerMetrics(), {"e": "events", "r": "requests"}

    def stand(generation: int, holdup: str | None = None) -> None:
        standing = Standing(
            generation=generation, assigned={"e": 8, "r": 0}, oldest_s={"e": 1.5}, silent_s=0.1, holdup=holdup
        )
        metrics.group.stand(standing, names)  # type: ignore[arg-type]

    for generation in (3, 3, 5):
        stand(generation)
    assert value(metrics, "marquee_rebalances_total") == 2
    assert value(metrics, "marquee_partitions_assigned", topic="events") == 8
    assert value(metrics, "marquee_oldest_unit_seconds", topic="events") == 1.5
    assert value(metrics, "marquee_work_held_up") == 0
    stand(5, "no broker was heard for 9 s")
    assert value(metrics, "marquee_work_held_up") == 1
    metrics.group.nobodys({"events": 3})
    assert [value(metrics, "marquee_partitions_unowned", topic=topic) for topic in GROUPS] == [3, 0, 0]
    metrics.group.nobodys(None)
    assert math.isnan(value(metrics, "marquee_partitions_unowned", topic="events") or 0)


def test_how_far_control_topics_are_read_is_told() -> None:
    metrics = WorkerMetrics()
    metrics.control.stand(
        {"c": ControlStanding(True, 0, 0.2), "m": ControlStanding(False, 7, 3)}, {"c": "catalog", "m": "models"}
    )
    assert [value(metrics, "marquee_control_read", topic=topic) for topic in ("catalog", "models")] == [1, 0]
    assert value(metrics, "marquee_control_unread_records", topic="models") == 7
    assert value(metrics, "marquee_control_age_seconds", topic="models") == 3


def test_ages_grow_with_the_clock() -> None:
    now = [1_000.0]
    metrics = WorkerMetrics(clock=lambda: now[0])
    metrics.model.indexed(items=100, kind="ivf", device="cpu", built_at_s=990, recall=0.98)
    metrics.model.swapped(version="7", created_at_s=980, ranker="few_examples", seconds=0.7)
    now[0] += 5
    assert value(metrics, "marquee_index_age_seconds") == 15
    assert value(metrics, "marquee_snapshot_age_seconds") == 25
    assert value(metrics, "marquee_index_recall") == 0.98
    assert value(metrics, "marquee_snapshot_swap_seconds_count") == 1
    assert value(metrics, "marquee_index_info", kind="ivf", device="cpu") == 1


def test_a_new_snapshot_makes_no_new_series() -> None:
    metrics = WorkerMetrics()

    def take(version: str, ranker: RankerState) -> set[tuple[str, ...]]:
        metrics.model.swapped(version=version, created_at_s=1, ranker=ranker)
        metrics.model.indexed(items=1, kind="exact", device="cpu", built_at_s=1)
        return {(s.name, *s.labels.items()) for family in metrics.registry.collect() for s in family.samples}

    assert take("1", "serves") == take("2", "behind_retrieval")
    metrics.model.refused()
    assert value(metrics, "marquee_snapshot_version") == 2
    assert value(metrics, "marquee_ranker_state", state="behind_retrieval") == 1
    assert value(metrics, "marquee_ranker_state", state="serves") == 0
    assert value(metrics, "marquee_snapshot_swaps_total", result="refused") == 1


def test_the_learner_reports_loss_calibration_and_its_age() -> None:
    now = [50.0]
    metrics = LearnerMetrics(surfaces=("home", "other"), clock=lambda: now[0])
    learning = metrics.learning
    learning.learned(rows=40, skipped=2)
    learning.closed(10, 4, 1)
    learning.scored("engage", loss=0.5)
    learning.ranked(examples=3, gain=0.1, hits=0.4, retrieval_hits=0.3)
    learning.calibrated("engage", "home", ratio=1.1)
    learning.dropping("impressions", 3)
    learning.announced(seconds=0.4, items=9)
    learning.checkpointed()
    now[0] += 3
    assert value(metrics, "marquee_learner_rows_total") == 40
    assert value(metrics, "marquee_learner_rows_skipped_total") == 2
    outcomes = [
        value(metrics, "marquee_learner_impressions_total", outcome=o) for o in ("none", "engaged", "completed")
    ]
    assert outcomes == [6, 3, 1]
    assert value(metrics, "marquee_learner_loss", objective="engage") == 0.5
    assert value(metrics, "marquee_learner_hit_ratio", order="retrieval") == 0.3
    assert value(metrics, "marquee_learner_calibration_ratio", objective="engage", surface="home") == 1.1
    assert np.isnan(value(metrics, "marquee_learner_calibration_ratio", objective="engage", surface="other"))
    assert value(metrics, "marquee_learner_dropped_total", kind="impressions") == 3
    assert value(metrics, "marquee_learner_dropped_total", kind="slates") == 0
    assert value(metrics, "marquee_snapshot_age_seconds") == 3
    assert value(metrics, "marquee_checkpoint_age_seconds") == 3


def test_requests_over_http_are_told_by_route_and_never_by_path() -> None:
    metrics = WorkerMetrics(process=False)
    http = metrics.http
    before = len(list(metrics.registry.collect()))
    slates = "POST /v1/slates"
    for route, code in ((slates, 200), (slates, 503), ("/v1/users/ann/slate", 404), ("POST /v1/events", 413)):
        http.observed(route, code, 0.002)
    assert value(metrics, "marquee_http_requests_total", route=slates, code="5xx") == 1
    assert value(metrics, "marquee_http_requests_total", route="other", code="4xx") == 1
    assert value(metrics, "marquee_http_request_seconds_bucket", route=slates, le="0.0025") == 2
    assert len(list(metrics.registry.collect())) == before


def test_python_says_what_it_knows_of_the_process() -> None:
    metrics = WorkerMetrics()
    assert value(metrics, "process_cpu_seconds_total") is not None
    assert (value(metrics, "python_gc_collections_total", generation="0") or 0) >= 0
    assert (value(metrics, "marquee_threads") or 0) >= 1
    assert b"python_info" in openmetrics(metrics.registry)


def test_the_page_of_metrics_is_what_the_code_says() -> None:
    page = Path(__file__).parents[3] / "docs" / "metrics.md"
    assert page.read_text("utf-8") == describe(), (
        "write it anew: python -m streams.process.metrics_page > docs/metrics.md"
    )
    (published,) = (
        row for row in page.read_text("utf-8").split("\n") if row.startswith("| `marquee_published_records")
    )
    assert "events" in published  # a worker's
    assert "learner" in published
