"""Going back to an earlier snapshot while workers and a learner run: nobody is restarted."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.embedded import Broker
from embeddings import snapshots
from embeddings.snapshots import Snapshot
from streams.commands import control_topics
from streams.commands.cli import main
from streams.learning.learner_process import Teacher
from streams.settings import Settings
from streams.transport import topics
from streams.worker.worker import Worker
from tests.streams.builders import a_snapshot, small

NOW_MS = time.time_ns() // 1_000_000
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return a_snapshot(NOW_MS)


@pytest.fixture
def settings(embedded_broker: Broker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = small(
        kafka={"bootstrap": embedded_broker.bootstrap, "idempotent": False},
        topics={"prefix": topic_prefix},
        learner={"snapshot_dir": tmp_path / "s", "checkpoint_dir": tmp_path / "c", "keep": 1, "keep_hours": 0},
    )
    for name, value in (("KAFKA__BOOTSTRAP", embedded_broker.bootstrap), ("TOPICS__PREFIX", topic_prefix)):
        monkeypatch.setenv(f"MARQUEE_{name}", value)
    monkeypatch.setenv("MARQUEE_KAFKA__IDEMPOTENT", "false")
    return settings


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[Worker]:
    """The part of a worker that reads control topics and takes snapshots."""
    worker = Worker(settings)
    tasks = [asyncio.create_task(work) for work in (worker.control.run(), worker.run_snapshots())]
    await asyncio.wait_for(worker.is_warm(), 30)
    try:
        yield worker
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@asynccontextmanager
async def teaching(settings: Settings) -> AsyncIterator[Teacher]:
    """A learner that knows what was announced."""
    teacher = Teacher(settings)
    task = asyncio.create_task(teacher.control.run())
    await asyncio.wait_for(teacher.control.caught_up.wait(), 30)
    try:
        yield teacher
    finally:
        task.cancel()
        await asyncio.wait([task])
        await teacher.publisher.stop()


async def announce(teacher: Teacher, snapshot: Snapshot, version: int, *, days_ago: int) -> None:
    made = dataclasses.replace(snapshot, version=version, created_ms=NOW_MS - days_ago * DAY_MS)
    manifest = snapshots.write(made, teacher.settings.learner.snapshot_dir)
    await teacher.builder._announce(manifest)
    await teacher.builder._withdraw(manifest)
    await until(lambda: version in teacher.builder.said.versions)


async def marquee(*arguments: str) -> int:
    def run() -> int:
        with pytest.raises(SystemExit) as ended:
            main(["snapshot", *arguments])
        return int(str(ended.value.code))

    return await asyncio.to_thread(run)


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_pin_holds_for_all_workers_and_keeps_its_file(
    settings: Settings, snapshot: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    await topics.apply(settings)
    folder = settings.learner.snapshot_dir
    async with teaching(settings) as teacher, working(settings) as worker:
        for version in (5, 6, 7, 8):
            await announce(teacher, snapshot, version, days_ago=10 - version)
        await until(lambda: worker.serving.live.version == 8)
        assert await marquee("rollback") == 0
        await until(lambda: worker.serving.live.version == 7)
        assert await marquee("rollback") == 0
        await until(lambda: worker.serving.live.version == 6)
        assert await marquee("pin", "5") == 0
        await until(lambda: worker.serving.live.version == 5)
        teacher.builder.settings = settings.model_copy(
            update={"learner": settings.learner.model_copy(update={"keep_days": 0})}
        )
        for version in range(9, 20):
            await announce(teacher, snapshot, version, days_ago=0)
        assert [manifest.version for manifest in snapshots.manifests(folder)] == [5, 19]
        assert worker.serving.live.version == 5
        async with working(settings) as later:
            assert later.serving.live.version == 5
            capsys.readouterr()
            assert await marquee("list", "--json") == 0
            said = capsys.readouterr()
            assert '"pinned": 5' in said.out
            assert "5 is pinned" in said.err
            assert await marquee("unpin") == 0
            await until(lambda: (worker.serving.live.version, later.serving.live.version) == (19, 19))
        await announce(teacher, snapshot, 20, days_ago=0)
        assert [manifest.version for manifest in snapshots.manifests(folder)] == [20]


async def test_what_cannot_be_done_is_said(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert await marquee(*arguments) == 1
        return " ".join(capsys.readouterr().err.split())

    await topics.apply(settings)
    assert "no snapshot is announced" in await refused("rollback")
    assert "snapshot 7 is not announced; those that are: none" in await refused("pin", "7")
    assert "no snapshot is pinned" in await refused("unpin")
    monkeypatch.setattr(control_topics, "READ_S", 1.0)
    monkeypatch.setenv("MARQUEE_KAFKA__BOOTSTRAP", "127.0.0.1:1")
    assert "no broker answers at 127.0.0.1:1; is it running" in await refused("list")
