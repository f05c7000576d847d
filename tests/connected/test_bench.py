"""A benchmark runs and prints what scripts rely on; how fast it was decides nothing."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.timeout(300)]


def test_slates_measures_a_worker_and_its_yardsticks_on_a_small_backlog() -> None:
    options = ["--items", "2000", "--users", "300", "--events", "1000", "--seconds", "1", "--json"]
    command = [sys.executable, "-m", "streams", "bench", "slates", *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert (found["items"], found["candidates"], found["slate_size"], found["load_eps"]) == (2_000, 200, 20, 500)
    assert found["events_per_s"] >= found["slates_per_s"] > 0
    assert found["floor_per_s"] > 0
    assert [load["load_eps"] for load in found["loads"]] == [500, pytest.approx(found["slates_per_s"] / 2, abs=1)]
    for load in found["loads"]:
        assert load["answered"] > 0
        assert 0 < load["p50_ms"] <= load["p99_ms"]
        assert all(load[f"{yardstick}_p50_ms"] > 0 for yardstick in ("echo", "transport", "floor"))
    assert (found["p50_ms"], found["p99_ms"]) == (found["loads"][0]["p50_ms"], found["loads"][0]["p99_ms"])
    assert found["broker"]


def test_growth_measures_each_size_it_is_asked_for() -> None:
    from streams.lab.bench_growth import run_growth

    found = run_growth([(600, 50), (600, 100)], seconds=1)
    assert [(row["items"], row["users"]) for row in found["rows"]] == [(600, 50), (600, 100)]
    for row in found["rows"]:
        assert row["us_per_event"] > 0
        assert row["us_per_slate"] > 0
        assert 400 < row["bytes_per_user"] < 2_000
        assert row["load_s"] > 0
        assert row["build_s"] > 0
    assert found["worst_pause_p999_ms"] == max(row["pause_p999_ms"] for row in found["rows"]) > 0


def test_ads_measures_a_lane_beside_its_floor_and_a_worker_that_sells() -> None:
    options = ["--lines", "300", "--items", "1000", "--users", "200", "--batch", "16", "--seconds", "2", "--json"]
    command = [sys.executable, "-m", "streams", "bench", "ads", *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert (found["line_items"], found["slots"], found["batch"]) == (300, 4, 16)
    assert found["decisions_per_s"] == pytest.approx(4 * found["requests_per_s"], rel=0.01)
    assert found["floor_requests_per_s"] > 0
    assert 0 <= found["kill_switch_p50_s"] <= found["kill_switch_p99_s"] < 30
    assert 0 < found["stats_age_p50_s"] <= found["stats_age_p99_s"] < 30
    for measured in (found["slates"]["off_p50_ms"], found["slates"]["on_p50_ms"], found["events"]["on"]["per_s"]):
        assert measured > 0


def test_observing_measures_workers_without_metrics_with_them_and_with_spans() -> None:
    sizes = ["--rounds", "1", "--events", "100000", "--backlog", "1500", "--seconds", "1"]
    world = ["--items", "1000", "--users", "200"]
    command = [sys.executable, "-m", "streams", "bench", "observing", *sizes, *world, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["spans"] > 0
    for load, beside in (("events", "per_s"), ("slates", "per_s"), ("steady", "p50_ms")):
        sides = found[load]
        assert list(sides) == ["off", "off again", "metrics", "metrics and spans"]
        for key in ("cpu_us", beside):
            assert sides["off"][f"{key}_to_off"] == [1, 1, 1]
            assert all(side[key] > 0 for side in sides.values())
