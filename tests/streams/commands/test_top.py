"""What `marquee top` makes of workers' own answers, over HTTP."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rich.console import Console

from deploy.processes import free_port
from streams.commands.cli import main
from streams.commands.overview import Overview, ProcessView, StageView
from streams.commands.overview_table import table
from streams.commands.readings import Reading
from streams.commands.scraping import address, between, look
from streams.commands.top import _here
from streams.http_settings import Http
from streams.process.health import HealthServer
from streams.process.metrics import LearnerMetrics, Metrics, WorkerMetrics

Serve = Callable[..., Awaitable[HealthServer]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as running:

        async def run(metrics: Metrics, port: int = 0) -> HealthServer:
            server = HealthServer(host="127.0.0.1", port=port, registry=metrics.registry)
            return await running.enter_async_context(server)

        yield run


def series(metrics: Metrics, name: str, **labels: str) -> Any:
    """A series by the name that it has outside; the lane of one that has lanes is events."""
    collector = metrics.registry._names_to_collectors[name]
    labels = {label: labels.get(label, "events") for label in collector._labelnames}
    return collector.labels(**labels) if labels else collector


def applied(metrics: WorkerMetrics, count: int) -> None:
    series(metrics, "marquee_events_total", fate="applied").inc(count)


def behind(metrics: Metrics, partition: str, records: int, seconds: float, lane: str = "events") -> None:
    place = {"lane": lane, "topic": "marquee.events.v1", "partition": partition}
    series(metrics, "marquee_lag_records", **place).set(records)
    series(metrics, "marquee_lag_seconds", **place).set(seconds)


def place(server: HealthServer) -> str:
    return address(f"127.0.0.1:{server.port}")


async def seen(*servers: str, meanwhile: Callable[[], Awaitable[None]]) -> Overview:
    async with aiohttp.ClientSession() as session:
        before = await look(session, servers)
        await meanwhile()
        return between(before, await look(session, servers))


async def test_workers_and_learner_are_added_up(serve: Serve) -> None:
    one, other, learner = WorkerMetrics(), WorkerMetrics(), LearnerMetrics()
    applied(one, 1_000)
    behind(one, "0", 5, 1.5)
    behind(other, "1", 7, 0.25)
    behind(other, "0", 4, 1.25)  # it had that one before
    behind(other, "all", 900, 7_200, "observations")  # it tells of what nobody learns
    behind(learner, "2", 8, 30, "observations")
    series(one, "marquee_snapshot_version").set(1_764_311_304)
    series(one, "marquee_ranker_state", state="no_snapshot").set(0)
    series(one, "marquee_ranker_state", state="serves").set(1)

    async def meanwhile() -> None:
        applied(one, 3_000)
        applied(other, 10)
        series(other, "marquee_stage_seconds_bucket", stage="fold").observe(0.003)
        series(learner, "marquee_learner_rows_total").inc(20)

    urls = [place(await serve(metrics)) for metrics in (one, other, learner)]
    found = await seen(*urls, meanwhile=meanwhile)
    first, second, third = found.processes
    assert first.events_per_s > second.events_per_s > 0
    assert found.events_per_s == first.events_per_s + second.events_per_s > 0
    assert (found.lag_s, found.lag_records, found.learning_lag_s) == (1.5, 12, 7_200)
    assert (second.lag_s, third.lag_s) == (1.25, 30), "a worker's lag is not the learner's"
    assert (first.snapshot_version, first.ranker, second.ranker) == (1_764_311_304, "serves", "no_snapshot")
    assert (first.role, third.role) == ("worker", "learner")
    assert third.rows_per_s > 0
    assert [stage.stage for stage in found.stages] == ["fold"]
    assert found.stages[0].p50_s == pytest.approx(0.00375)  # the middle of its bucket


async def test_a_worker_that_starts_anew_does_not_count_backwards(serve: Serve) -> None:
    port = free_port()
    metrics = WorkerMetrics()
    applied(metrics, 1_000_000)
    server = await serve(metrics, port)

    async def meanwhile() -> None:
        await server.stop()
        again = WorkerMetrics()
        applied(again, 10)
        await serve(again, port)

    found = await seen(place(server), meanwhile=meanwhile)
    assert 0 < found.events_per_s < 1_000_000


async def test_who_is_away_is_told_and_left_out(serve: Serve) -> None:
    metrics = WorkerMetrics()
    here, away = place(await serve(metrics)), address(f"127.0.0.1:{free_port()}")

    async def meanwhile() -> None:
        applied(metrics, 10)

    found = await seen(away, here, meanwhile=meanwhile)
    assert found.processes[0].away == "Connection refused"
    assert found.events_per_s == found.processes[1].events_per_s > 0
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table(found, console.width))
    assert "1 of 2 answer" in capture.get()
    assert "away: Connection refused" in capture.get()
    assert json.loads(json.dumps(found.plain(), allow_nan=False))["processes"][0]["events_per_s"] is None


def said(*processes: ProcessView, width: int, height: int = 100) -> list[str]:
    """What a terminal of that size shows of them."""
    stage = StageView("events", "fold", 3.0, 0.001, 0.002)
    rates = {"events_per_s": 1.0, "slates_per_s": 1.0, "degraded_per_s": 0.0, "ads_per_s": 0.0}
    lags = {"lag_s": 0.0, "lag_records": 0.0, "learning_lag_s": 0.0, "p50_s": 0.1, "p99_s": 0.2}
    seen = Overview(**rates, **lags, processes=processes, stages=[stage])
    console = Console(width=width, height=height, color_system=None)
    with console.capture() as capture:
        console.print(table(seen, width))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_narrow_terminal_shows_fewer_columns_and_no_number_cut_off(width: int) -> None:
    pods = [f"http://marquee-worker-6c9f7d8b5-{end}.recommendation.svc:6066/metrics" for end in ("x2x9k", "q8w7e")]
    busy = [
        ProcessView(pod, role="worker", events_per_s=17_573, slates_per_s=17_715, lag_s=3_700 * n, p99_s=0.0498)
        for n, pod in enumerate(pods)
    ]
    lines = said(*busy, width=width)
    assert all(len(line) <= width for line in lines)
    first, second = (line for line in lines if "17,573" in line)
    assert "x2x9k" in first
    assert "q8w7e" in second
    assert all(":6066" in line for line in (first, second))
    assert "61.7 min" in second
    (columns,) = (line.split() for line in lines if line.startswith("process"))
    assert ("MiB" in columns) == (width == 160)
    assert {"events/s", "p99", "lag", "ranker"} <= set(columns)
    assert not [line for line in (first, second) if "…" in line.split(maxsplit=1)[1]]


def test_who_is_away_comes_before_the_many_who_are_there() -> None:
    here = [ProcessView(f"http://worker-{n}:6066/metrics", role="worker") for n in range(99)]
    lines = said(*here, ProcessView("http://worker-x:6066/metrics", away="no such host"), width=120)
    assert (
        [n for n, line in enumerate(lines) if "events fold" in line]
        < [n for n, line in enumerate(lines) if line.startswith("worker-x:6066") and "away: no such host" in line]
        < [n for n, line in enumerate(lines) if line.startswith("worker-0:6066")]
    )


async def test_a_name_that_nobody_knows_is_told() -> None:
    url = address("nobody.invalid")
    async with aiohttp.ClientSession() as session:
        assert await look(session, [url]) == {url: "no such host"}


async def test_what_is_no_worker_is_told(serve: Serve) -> None:
    server = await serve(WorkerMetrics())

    async def nothing() -> None:
        return

    found = await seen(f"http://127.0.0.1:{server.port}/nowhere", meanwhile=nothing)
    assert found.processes[0].away == "answers 404"


async def test_a_process_that_speaks_tls_is_asked_so(public_certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = public_certificate
    config = tmp_path / "marquee.toml"
    config.write_text(f'[http]\nport = 0\ntls_cert = "{cert}"\ntls_key = "{key}"\n')
    assert _here(config) == "https://127.0.0.1:0"
    tls = Http(tls_cert=str(cert), tls_key=str(key)).tls()
    server = HealthServer("127.0.0.1", 0, WorkerMetrics().registry, tls=tls)
    async with server, aiohttp.ClientSession() as session:
        url = address(f"https://127.0.0.1:{server.port}")
        assert isinstance((await look(session, [url]))[url], Reading)


def test_nobody_there_is_exit_code_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["top", f"127.0.0.1:{free_port()}", "--interval", "0.1", "--json"])
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["processes"][0]["away"] == "Connection refused"
    assert said.err.startswith("failed: nobody answers at http://127.0.0.1:")
    assert said.err.count("\n") == 1
