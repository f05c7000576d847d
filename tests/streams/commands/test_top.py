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
from streams.commands.overview import Overview
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


def behind(metrics: WorkerMetrics, partition: str, records: int, seconds: float) -> None:
    place = {"topic": "marquee.events.v1", "partition": partition}
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
    series(one, "marquee_snapshot_info").info({"version": "20260101T000000-0007"})
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
    assert (found.lag_s, found.lag_records) == (1.5, 12)
    assert (first.snapshot_version, first.ranker, second.ranker) == ("20260101T000000-0007", "serves", "no_snapshot")
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
        console.print(table(found))
    assert "1 of 2 answer" in capture.get()
    assert "away: Connection refused" in capture.get()
    assert json.loads(json.dumps(found.plain(), allow_nan=False))["processes"][0]["events_per_s"] is None


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
