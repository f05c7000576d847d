"""What the learner says of its snapshots, over its lives and beside others."""

import dataclasses
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from embeddings import snapshots
from embeddings.snapshots import Manifest, Snapshot
from streams.contract.manifests import PIN_KEY, announced, key_of, pinned
from streams.contract.records import ModelManifest, decode_model, encode
from streams.learning.learner_process import Teacher
from tests.streams.builders import a_snapshot
from tests.streams.teachers import a_teacher, broker_of

NOW_MS = time.time_ns() // 1_000_000
HOUR_MS = 3_600_000


class Heard(NamedTuple):
    """A record of `models`."""

    key: bytes
    value: bytes | None


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return a_snapshot(NOW_MS)


def written(snapshot: Snapshot, folder: Path, *versions: int, age_h: float = 0, url: str = "") -> list[Manifest]:
    made_ms = NOW_MS - int(age_h * HOUR_MS)
    several = [dataclasses.replace(snapshot, version=version, created_ms=made_ms) for version in versions]
    return [snapshots.write(each, folder / "s", base_url=url) for each in several]


async def hear(teacher: Teacher, *records: tuple[bytes, ModelManifest | None]) -> None:
    """What comes back from the topic."""
    await teacher.builder.heard([Heard(key, encode(r) if r else None) for key, r in records])  # type: ignore[arg-type]


def told(teacher: Teacher) -> dict[bytes, str | None]:
    """Address by key, of what was published."""
    records = [(record.key or b"", record.value) for record in broker_of(teacher).published]
    return {key: decode_model(value).uri if value else None for key, value in records}


async def test_a_restart_on_another_port_announces_what_is_kept_again(tmp_path: Path, snapshot: Snapshot) -> None:
    before = written(snapshot, tmp_path, 7, 8, url="http://127.0.0.1:1111")
    teacher = a_teacher(tmp_path, serve=True)
    await hear(teacher, *((key_of(m.version), announced(m, items=3)) for m in before))
    teacher.server.port = 2222
    assert await teacher.builder.announce_again()
    names = {version: f"http://127.0.0.1:2222/snapshot-{version:020d}.safetensors" for version in (7, 8)}
    assert told(teacher) == {key_of(7): names[7], key_of(8): names[8]}
    records = [decode_model(record.value or b"") for record in broker_of(teacher).published]
    assert [record.items for record in records] == [3, 3], "the rest of what was said stays"
    await hear(teacher, *((key_of(int(record.version)), record) for record in records))
    assert await teacher.builder.announce_again()
    assert len(broker_of(teacher).published) == 2, "it is said once"


async def test_a_snapshot_that_was_written_and_not_announced_is_announced(tmp_path: Path, snapshot: Snapshot) -> None:
    (manifest,) = written(snapshot, tmp_path, 7)
    teacher = a_teacher(tmp_path)
    await teacher.builder.announce_again()
    assert told(teacher) == {key_of(7): manifest.uri}


async def test_what_another_learner_announced_is_left_and_stays_the_last_word(
    tmp_path: Path, snapshot: Snapshot
) -> None:
    """Releases that know no keys take whatever comes last."""
    mine = written(snapshot, tmp_path, 7, 8)
    theirs = [
        ModelManifest(version="8", uri="file:///theirs/8", sha256="0" * 64, created_ms=NOW_MS),
        ModelManifest(version="9", uri="file:///theirs/9", sha256="1" * 64, created_ms=NOW_MS),
    ]
    teacher = a_teacher(tmp_path)
    await hear(teacher, *((key_of(int(record.version)), record) for record in theirs))
    await teacher.builder.announce_again()
    assert list(told(teacher).items()) == [
        (key_of(7), mine[0].uri), (key_of(8), "file:///theirs/8"), (key_of(9), "file:///theirs/9")
    ]  # fmt: skip


async def test_old_versions_are_withdrawn_and_a_pinned_one_is_not(tmp_path: Path, snapshot: Snapshot) -> None:
    old = written(snapshot, tmp_path, 1, 2, 3, 4, 5, age_h=5)
    (newest,) = written(snapshot, tmp_path, 6)
    teacher = a_teacher(tmp_path, keep=1, keep_hours=0, keep_days=0)
    await hear(teacher, *((key_of(m.version), announced(m)) for m in old), (PIN_KEY, pinned(announced(old[1]))))
    await teacher.builder._withdraw(newest)
    assert told(teacher) == dict.fromkeys(map(key_of, (1, 3, 4, 5)))
    assert [m.version for m in snapshots.manifests(tmp_path / "s")] == [2, 6]
    broker_of(teacher).published.clear()
    await hear(teacher, *((key_of(version), None) for version in (1, 3, 4, 5)), (PIN_KEY, None))
    await teacher.builder._withdraw(newest)
    assert told(teacher) == {key_of(2): None}
    assert [m.version for m in snapshots.manifests(tmp_path / "s")] == [6]


async def test_one_of_every_hour_is_kept(tmp_path: Path, snapshot: Snapshot) -> None:
    for version, age_h in ((1, 30), (2, 3.0), (3, 2.0), (4, 1.0)):
        written(snapshot, tmp_path, version, age_h=age_h)
    (newest,) = written(snapshot, tmp_path, 5)
    teacher = a_teacher(tmp_path, keep=1, keep_hours=24, keep_days=0)
    await teacher.builder._withdraw(newest)
    assert [m.version for m in snapshots.manifests(tmp_path / "s")] == [2, 3, 4, 5]


async def test_nothing_is_withdrawn_before_the_pins_are_known(tmp_path: Path, snapshot: Snapshot) -> None:
    *_, newest = written(snapshot, tmp_path, 1, 2, 3, 4, age_h=5)
    teacher = a_teacher(tmp_path, keep=1, keep_hours=0, keep_days=0)
    teacher.control.caught_up.clear()
    await teacher.builder._withdraw(newest)
    assert told(teacher) == {}
    assert len(snapshots.manifests(tmp_path / "s")) == 4


async def test_the_next_version_is_newer_than_whatever_was_announced(tmp_path: Path) -> None:
    """A clock that went back, or another learner's that was ahead."""
    teacher = a_teacher(tmp_path)
    ahead = int(time.time()) + 1_000_000
    await hear(teacher, (key_of(ahead), ModelManifest(version=str(ahead), uri="file:///x", sha256="")))
    teacher.learner.rows = teacher.settings.learner.refresh_events
    assert teacher.builder.begins()
    assert teacher.learner.freeze(int(time.time())).version == ahead + 1


async def test_records_that_mean_nothing_are_passed_over(tmp_path: Path) -> None:
    teacher = a_teacher(tmp_path)
    for value in (b"{", b"\xff", b"[]", b'{"version":"v2","uri":"","sha256":""}', None):
        await teacher.builder.heard([Heard(b"k", value)])  # type: ignore[list-item]
    assert not teacher.builder.said.versions
