"""What is wrong with what a worker and a learner that did some work say of themselves."""

import shutil
import subprocess
import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from streams.process.metrics import STAGES

BOTH = (
    *("publish_seconds_count", "published_records_total", "records_consumed_total", "event_loop_lag_seconds_count"),
    *("threads", "partitions_assigned", "check_ok", "control_read"),
)
WORKER = (
    *("redis_round_trip_seconds_count", "redis_connections_total", "redis_memory_bytes", "slates_total"),
    *("event_to_slate_seconds_count", "slate_items_total", "slate_items_by_source_total", "items_shown", "takes_total"),
    *("index_items", "index_recall", "snapshot_version", "snapshot_swap_seconds_count"),
)
LEARNER = ("learner_rows_total", "learner_leads", "learner_hit_ratio", "learner_snapshots_total", "learner_items")
NONE = ("redis_errors_total", "publish_errors_total", "stage_errors_total", "work_held_up")
"""What does not happen to a worker whose stores and brokers are there."""


def faults(worker_port: int, learner_port: int, *, patience_s: float = 60.0) -> list[str]:
    """What Prometheus' linter says of both, what they did and did not measure, and what went wrong.

    What is looked at once a second is waited for.
    """
    give_up_s = time.monotonic() + patience_s
    while (found := _faults(worker_port, learner_port)) and time.monotonic() < give_up_s:
        time.sleep(0.3)
    return found


def _faults(worker_port: int, learner_port: int) -> list[str]:
    worker, learner = _scraped(worker_port), _scraped(learner_port)
    found = [*_lint(worker), *_lint(learner)]
    sums, stages = _sums(worker)
    found += [f"worker: no {name}" for name in (*BOTH, *WORKER) if not sums.get(name, 0) > 0]
    found += [f"worker: {name} is {sums[name]}" for name in NONE if sums[name] != 0]
    found += [
        f"worker: no stage {stage}" for stage in STAGES["events"] if "ads" not in stage and not stages["events", stage]
    ]
    found += [f"worker: no stage {stage} of requests" for stage in ("read", "publish") if not stages["requests", stage]]
    sums, stages = _sums(learner)
    found += [f"learner: no {name}" for name in (*BOTH, *LEARNER) if not sums.get(name, 0) > 0]
    return found + [f"learner: no stage {stage}" for stage in ("read", "learn") if not stages["observations", stage]]


def _scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
        return bytes(page.read()).decode()


def _lint(text: str) -> list[str]:
    if shutil.which("promtool") is None:
        return []
    said = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False)
    lines = (said.stdout + said.stderr).decode().splitlines()
    return [line for line in lines if line.startswith(("marquee_", "error"))]


def _sums(text: str) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
    """What the series of each name sum up to, and how often each stage of each lane ran."""
    sums: dict[str, float] = {}
    stages: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix("marquee_")
            sums[name] = sums.get(name, 0.0) + sample.value
            if name == "stage_seconds_count":
                stages[sample.labels["lane"], sample.labels["stage"]] = sample.value
    return sums, stages
