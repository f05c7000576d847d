import dataclasses
import hashlib
import http.server
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as write_tensors

from embeddings import snapshots
from embeddings.errors import SnapshotRefused, SnapshotUnreachable
from embeddings.snapshots import Manifest, Snapshot

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def a_snapshot(version: int = 7, items: int = 5, **changes: Any) -> Snapshot:
    random = np.random.default_rng(version)
    fields: dict[str, Any] = {
        "version": version,
        "ids_N": random.integers(1, 2**40, items).astype(np.uint64),
        "names": [f"Ämne {i}" for i in range(items)],
        "source_ND": random.standard_normal((items, 4)).astype(np.float32),
        "target_ND": random.standard_normal((items, 4)).astype(np.float32),
        "neighbours_NK": random.integers(-1, items, (items, 3)).astype(np.int32),
        "weights_NK": random.random((items, 3)).astype(np.float32),
        "counts_N": random.random(items).astype(np.float32),
        "ranker": {"layer.weight": random.standard_normal((2, 3)).astype(np.float32), "steps": np.array([3])},
        "created_ms": 1_700_000_000_000,
        "meta": {"events": 12, "note": "first"},
    }
    return Snapshot(**(fields | changes))


def same(one: Snapshot, other: Snapshot) -> None:
    for mine, theirs in zip(one.contexts, other.contexts, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for field in dataclasses.fields(Snapshot):
        if field.name not in ("ranker", "contexts"):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)
    assert one.ranker.keys() == other.ranker.keys()
    for name, array in one.ranker.items():
        np.testing.assert_array_equal(array, other.ranker[name])


def rewritten(manifest: Manifest, folder: Path, **arrays: np.ndarray[Any, Any]) -> Manifest:
    """A manifest of the same file with some arrays replaced, its hash and shapes right."""
    old = read_tensors((folder / manifest.uri.rsplit("/", 1)[1]).read_bytes())
    data = write_tensors(old | arrays)
    path = folder / "changed.safetensors"
    path.write_bytes(data)
    shapes = {name: array.shape for name, array in (old | arrays).items()}
    digest = hashlib.sha256(data).hexdigest()
    return dataclasses.replace(manifest, uri=path.as_uri(), sha256=digest, bytes=len(data), shapes=shapes)


@contextmanager
def serving(folder: Path, before: Callable[[], bool] = lambda: True) -> Iterator[str]:
    """An HTTP server of a folder; where `before` says no, it answers that something went wrong."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def do_GET(self) -> None:
            fine = before()
            with suppress(BrokenPipeError):  # whoever asked may be gone
                super().do_GET() if fine else self.send_error(503)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """An HTTP server of the test's folder."""
    with serving(tmp_path) as url:
        yield url


@pytest.mark.parametrize("items", [0, 5])
def test_a_snapshot_comes_back_from_its_file(tmp_path: Path, items: int) -> None:
    snapshot = a_snapshot(items=items)
    if not items:
        snapshot = dataclasses.replace(snapshot, neighbours_NK=np.empty((0, 3), np.int32))
    same(snapshots.load(snapshots.write(snapshot, tmp_path)), snapshot)


def test_a_snapshot_comes_back_over_http(tmp_path: Path, served: str) -> None:
    snapshot = a_snapshot()
    manifest = snapshots.write(snapshot, tmp_path, base_url=served)
    assert manifest.uri.startswith(served)
    same(snapshots.load(manifest), snapshot)


@pytest.mark.parametrize("folder", ["", "with space", "Ämnen 100%"])
def test_a_snapshot_comes_back_from_a_path_whatever_its_letters(tmp_path: Path, folder: str) -> None:
    manifest = snapshots.write(a_snapshot(), tmp_path / folder)
    same(snapshots.load(manifest), a_snapshot())
    path = tmp_path / folder / manifest.uri.rsplit("/", 1)[1]
    same(snapshots.load(dataclasses.replace(manifest, uri=str(path))), a_snapshot())


def test_a_snapshot_comes_back_from_any_file_system_that_fsspec_knows(tmp_path: Path) -> None:
    manifest = snapshots.write(a_snapshot(), tmp_path)
    [path] = tmp_path.glob("*.safetensors")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/models/snapshot", path.read_bytes())
    same(snapshots.load(dataclasses.replace(manifest, uri="memory://models/snapshot")), a_snapshot())
    memory.rm("/models/snapshot")


def test_a_server_that_fails_once_is_asked_again(tmp_path: Path) -> None:
    asked = []
    with serving(tmp_path, lambda: bool(asked.append(1)) or len(asked) > 1) as url:
        same(snapshots.load(snapshots.write(a_snapshot(), tmp_path, base_url=url)), a_snapshot())
    assert len(asked) == 2


@pytest.mark.slow
def test_a_server_that_always_fails_is_asked_three_times(tmp_path: Path) -> None:
    asked = []
    with serving(tmp_path, lambda: bool(asked.append(1))) as url:
        manifest = snapshots.write(a_snapshot(), tmp_path, base_url=url)
        with pytest.raises(SnapshotUnreachable, match="503"):
            snapshots.load(manifest)
    assert len(asked) == 3


def test_a_server_that_does_not_answer_in_time_is_given_up(tmp_path: Path) -> None:
    over = threading.Event()
    with serving(tmp_path, lambda: over.wait(30)) as url:
        manifest = snapshots.write(a_snapshot(), tmp_path, base_url=url)
        with pytest.raises(SnapshotUnreachable, match="Timeout"):
            snapshots.load(manifest, timeout_s=0.3)
        over.set()


def test_what_is_kept_stays(tmp_path: Path) -> None:
    for version in (9, 10, 11, 100):
        snapshots.write(a_snapshot(version), tmp_path)
    snapshots.prune(tmp_path, {10, 100, 7})
    assert [manifest.version for manifest in snapshots.manifests(tmp_path)] == [10, 100]
    assert len(list(tmp_path.iterdir())) == 4
    same(snapshots.load(snapshots.manifests(tmp_path)[0]), a_snapshot(10))


def test_a_disk_that_is_full_keeps_nothing_of_what_it_had_no_room_for(tmp_path: Path) -> None:
    snapshots.write(a_snapshot(9), tmp_path)
    before, limits = sorted(tmp_path.iterdir()), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            snapshots.write(a_snapshot(10), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(tmp_path.iterdir()) == before


def test_what_a_writer_left_that_was_killed_goes_after_a_while(tmp_path: Path) -> None:
    old, new = (tmp_path / f".snapshot-1.safetensors.{pid}.part" for pid in (1, 2))
    for part in (old, new):
        part.touch()
    os.utime(old, (0, time.time() - snapshots.LEFT_S - 1))
    snapshots.prune(tmp_path, set())
    assert list(tmp_path.iterdir()) == [new]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shapes": 1}', '{"shapes": {"a": 1}}', '{"shapes": {}, "x": 1}'])
def test_what_is_no_manifest_is_passed_over(tmp_path: Path, text: str) -> None:
    snapshots.write(a_snapshot(9), tmp_path)
    (tmp_path / "snapshot-00000000000000000010.json").write_text(text)
    assert [manifest.version for manifest in snapshots.manifests(tmp_path)] == [9]


@given(
    made_ms=st.lists(st.integers(0, 10 * DAY_MS), min_size=1, max_size=60, unique=True),
    last=st.integers(1, 4),
    hours=st.integers(0, 30),
    days=st.integers(0, 8),
)
def test_pruning_as_one_goes_keeps_what_is_promised(made_ms: list[int], last: int, hours: int, days: int) -> None:
    """One of every hour and day within their spans that had any, whenever it was looked at."""
    keep: dict[int, int] = {}
    times = sorted(made_ms)
    for version, now_ms in enumerate(times, 1):
        keep[version] = now_ms
        rule = {"last": last, "hours": hours, "days": days}
        left = snapshots.kept(keep, now_ms=now_ms, **rule)
        keep = {v: ms for v, ms in keep.items() if v in left}
        assert {*range(max(version - last, 0) + 1, version + 1)} <= left
        assert len(left) <= last + hours + days
        for span_ms, spans in ((HOUR_MS, hours), (DAY_MS, days)):
            oldest = now_ms // span_ms - spans
            had = {ms // span_ms for ms in times[:version] if ms // span_ms > oldest}
            assert had <= {ms // span_ms for ms in keep.values()}


def test_a_pinned_version_is_kept_however_old() -> None:
    made = dict.fromkeys(range(1, 9), 0)
    assert snapshots.kept(made, now_ms=10 * DAY_MS, last=1, pinned={2, 77}) == {2, 8}


def test_a_file_of_another_version_than_announced_is_refused(tmp_path: Path) -> None:
    manifest = dataclasses.replace(snapshots.write(a_snapshot(9), tmp_path), version=10)
    with pytest.raises(SnapshotRefused, match="the file is of version 9"):
        snapshots.load(manifest)


def test_addresses_are_absolute_whatever_the_folder_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = snapshots.write(a_snapshot(), Path("var/../snapshots"))
    assert manifest.uri.startswith((tmp_path / "snapshots").as_uri())
    monkeypatch.chdir("/")
    same(snapshots.load(manifest), a_snapshot())


def test_a_file_that_is_still_being_copied_is_no_damaged_one(tmp_path: Path) -> None:
    manifest = snapshots.write(a_snapshot(), tmp_path)
    path = tmp_path / manifest.uri.rsplit("/", 1)[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(SnapshotUnreachable, match=f"{len(whole) - 1} of {len(whole)} bytes are there"):
        snapshots.load(manifest)
    path.write_bytes(whole)
    assert snapshots.load(manifest).version == manifest.version


def test_another_hash_is_refused(tmp_path: Path) -> None:
    manifest = snapshots.write(a_snapshot(), tmp_path)
    with pytest.raises(SnapshotRefused, match="sha256"):
        snapshots.load(dataclasses.replace(manifest, sha256="0" * 64))


def test_other_shapes_than_announced_are_refused(tmp_path: Path) -> None:
    manifest = snapshots.write(a_snapshot(), tmp_path)
    with pytest.raises(SnapshotRefused, match="shapes"):
        snapshots.load(dataclasses.replace(manifest, shapes=manifest.shapes | {"counts_N": (6,)}))


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("target_ND", np.full((5, 4), np.nan, np.float32), "not finite: target_ND"),
        ("ranker.layer.weight", np.full((2, 3), np.inf, np.float32), "not finite: ranker.layer.weight"),
        ("target_ND", np.zeros((5, 3), np.float32), "target_ND is float32"),
        ("ids_N", np.zeros(4, np.uint64), "source_ND is float32"),
        ("counts_N", np.zeros(5, np.float64), "counts_N is float64"),
        ("neighbours_NK", np.full((5, 3), 5, np.int32), "neighbours do not fit"),
        ("name_ends_N", np.array([4], np.int64), "names"),
        ("json", np.frombuffer(b"[]", np.uint8), "not a snapshot"),
        ("names", np.frombuffer(b"\xff" * 30, np.uint8), "not a snapshot"),
    ],
)
def test_inconsistent_arrays_are_refused(tmp_path: Path, name: str, array: np.ndarray[Any, Any], reason: str) -> None:
    manifest = snapshots.write(a_snapshot(), tmp_path)
    with pytest.raises(SnapshotRefused, match=reason):
        snapshots.load(rewritten(manifest, tmp_path, **{name: array}))


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(b"pickle?")
    digest = hashlib.sha256(b"pickle?").hexdigest()
    with pytest.raises(SnapshotRefused):
        snapshots.load(Manifest(version=1, uri=path.as_uri(), sha256=digest, bytes=0, shapes={}))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, served: str) -> None:
    manifest = snapshots.write(a_snapshot(), tmp_path, base_url=served)
    with pytest.raises(SnapshotRefused, match="are more than 100"):
        snapshots.load(manifest, max_bytes=100)
    with pytest.raises(SnapshotRefused, match="more than 100 bytes"):
        snapshots.load(dataclasses.replace(manifest, bytes=0), max_bytes=100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("uri", "passes"),
    [("ftp://x/y", True), ("s3://x/y", False), ("what://x/y", False), ("snapshot-1", True),
     ("file:///not/there", True), ("http://127.0.0.1:1/x", True)],
)  # fmt: skip
def test_an_address_that_gives_nothing_is_refused_for_now_or_for_good(uri: str, passes: bool) -> None:
    with pytest.raises(SnapshotRefused) as refused:
        snapshots.load(Manifest(version=1, uri=uri, sha256="", bytes=0, shapes={}), timeout_s=2)
    assert isinstance(refused.value, SnapshotUnreachable) == passes


def test_one_that_no_reader_would_take_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(SnapshotRefused, match="are more than 500"):
        snapshots.write(a_snapshot(), tmp_path / "new", max_bytes=500)
    assert not (tmp_path / "new").exists()
