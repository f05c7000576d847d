"""Announcements come as records of `models`; what serves afterwards, what was said, what was counted."""

import asyncio
import dataclasses
import http.server
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from embeddings import snapshots
from embeddings.snapshots import Manifest, Snapshot
from streams.contract.manifests import PIN_KEY, announced, key_of, pinned
from streams.contract.records import ModelManifest, encode
from streams.worker.worker import Worker
from tests.streams.builders import NOW_MS, Service, a_log
from tests.streams.controlled import Read, a_controlled_worker, handle

ITEMS = [f"i{n:03d}" for n in range(40)]


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    async with following(a_controlled_worker()) as worker:
        yield worker


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    service = Service()
    service.catalogue(*ITEMS)
    service.live_through(a_log(200, items=40))
    return service.learner.freeze().build(NOW_MS)[0]


@asynccontextmanager
async def following(worker: Worker) -> AsyncIterator[Worker]:
    """A worker that has read what there was, nothing; it tries again at once."""
    worker.snapshots.first_pause_s = worker.snapshots.longest_pause_s = 0.05
    worker.control.caught_up.set()
    task = asyncio.create_task(worker.run_snapshots())
    yield worker
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


def version(snapshot: Snapshot, number: int, folder: Path) -> Manifest:
    """The same snapshot as another version."""
    return snapshots.write(dataclasses.replace(snapshot, version=number), folder)


async def announce(worker: Worker, *manifests: Manifest, **fields: Any) -> None:
    records = [structs.replace(announced(manifest), **fields) for manifest in manifests]
    await tell(
        worker, *((key_of(manifest.version), record) for manifest, record in zip(manifests, records, strict=True))
    )


async def tell(worker: Worker, *records: tuple[bytes, ModelManifest | None]) -> None:
    read = [Read("marquee.models.v1", key, record and encode(record)) for key, record in records]
    await handle(worker, "models", *read)
    await asyncio.wait_for(worker.snapshots.settled(), 60)


def metric(worker: Worker, name: str, **labels: str) -> float | None:
    return worker.metrics.registry.get_sample_value(f"marquee_{name}", labels)


def swaps(worker: Worker) -> dict[str, float | None]:
    results = ("swapped", "refused", "unreachable")
    return {result: metric(worker, "snapshot_swaps_total", result=result) for result in results}


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_an_announced_snapshot_serves(worker: Worker, snapshot: Snapshot, tmp_path: Path) -> None:
    await asyncio.wait_for(worker.is_warm(), 60)  # with nothing, where nothing was announced
    await announce(worker, snapshots.write(snapshot, tmp_path))
    assert worker.serving.live.version == snapshot.version
    assert swaps(worker) == {"swapped": 1, "refused": 0, "unreachable": 0}
    assert metric(worker, "snapshot_version") == snapshot.version


async def test_a_damaged_snapshot_is_refused_and_the_one_before_serves_on(
    worker: Worker, snapshot: Snapshot, tmp_path: Path
) -> None:
    await announce(worker, snapshots.write(snapshot, tmp_path))
    manifest = version(snapshot, 9, tmp_path)
    await announce(worker, manifest, sha256="0" * 64)
    weights = {name: np.full_like(array, 7) if name == "platt" else array for name, array in snapshot.ranker.items()}
    del weights["model.next.item.weight"]
    await announce(worker, snapshots.write(dataclasses.replace(snapshot, version=10, ranker=weights), tmp_path))
    await announce(worker, dataclasses.replace(manifest, version=11))
    assert worker.serving.live.version == snapshot.version
    assert swaps(worker) == {"swapped": 1, "refused": 3, "unreachable": 0}


async def test_a_worker_that_starts_takes_the_newest_that_can_be_had(
    worker: Worker, snapshot: Snapshot, tmp_path: Path
) -> None:
    """As one that ran all the while would have kept it."""
    old, damaged, gone = (version(snapshot, number, tmp_path) for number in (6, 7, 8))
    (tmp_path / damaged.uri.rsplit("/")[-1]).write_bytes(b"half")
    (tmp_path / gone.uri.rsplit("/")[-1]).unlink()
    await announce(worker, old, damaged, gone)
    assert worker.serving.live.version == 6
    assert swaps(worker) == {"swapped": 1, "refused": 0, "unreachable": 2}, "half a file may be one that still grows"


async def test_vectors_of_another_width_are_refused(worker: Worker, snapshot: Snapshot, tmp_path: Path) -> None:
    """They could be neither compared with what is stored nor stored themselves."""
    narrow = dataclasses.replace(
        snapshot, source_ND=snapshot.source_ND[:, :4].copy(), target_ND=snapshot.target_ND[:, :4].copy()
    )
    await announce(worker, snapshots.write(narrow, tmp_path))
    assert worker.serving.live.version == 0
    assert swaps(worker) == {"swapped": 0, "refused": 1, "unreachable": 0}


@pytest.mark.parametrize("fields", [{"version": "v2"}, {"version": "9" * 5000}, {"version": "٣"}, {"kind": "another"}])
async def test_announcements_that_mean_nothing_here_are_passed_over(
    worker: Worker, snapshot: Snapshot, tmp_path: Path, fields: dict[str, str]
) -> None:
    await announce(worker, snapshots.write(snapshot, tmp_path), **fields)
    assert worker.serving.live.version == 0


async def test_what_cannot_be_fetched_is_said_once_and_tried_until_it_can(
    worker: Worker, snapshot: Snapshot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = snapshots.write(snapshot, tmp_path / "learner")
    (tmp_path / "learner").rename(tmp_path / "not mounted yet")
    await announce(worker, manifest)
    await asyncio.sleep(0.3)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert manifest.uri in said
    assert "learner.snapshot_dir must be a folder" in said
    assert swaps(worker) == {"swapped": 0, "refused": 0, "unreachable": 1}
    (tmp_path / "not mounted yet").rename(tmp_path / "learner")
    await until(lambda: worker.serving.live.version == snapshot.version)
    assert swaps(worker) == {"swapped": 1, "refused": 0, "unreachable": 1}


@pytest.mark.slow
async def test_a_server_that_is_away_is_asked_again_and_another_address_is_tried_at_once(
    worker: Worker, snapshot: Snapshot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker.snapshots.first_pause_s = 3600
    manifest = snapshots.write(snapshot, tmp_path, base_url="http://127.0.0.1:1")
    await announce(worker, manifest)
    assert "learner.public_url" in caplog.text
    await announce(worker, manifest)
    assert swaps(worker) == {"swapped": 0, "refused": 0, "unreachable": 1}, "it is the same announcement"

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        await announce(worker, manifest, uri=snapshots.address(tmp_path, snapshot.version, url))
        server.shutdown()
    assert worker.serving.live.version == snapshot.version


async def test_nothing_is_taken_before_everything_was_read(snapshot: Snapshot, tmp_path: Path) -> None:
    """The pin may come last."""
    worker = a_controlled_worker()
    old, new = (version(snapshot, number, tmp_path) for number in (7, 8))
    for key, record in ((key_of(7), announced(old)), (key_of(8), announced(new)), (PIN_KEY, pinned(announced(old)))):
        await handle(worker, "models", Read("marquee.models.v1", key, encode(record)))
    async with following(worker):
        await worker.is_warm()
        assert worker.serving.live.version == 7
        assert swaps(worker) == {"swapped": 1, "refused": 0, "unreachable": 0}


async def test_a_pin_holds_until_it_is_released(worker: Worker, snapshot: Snapshot, tmp_path: Path) -> None:
    one, two, three = (version(snapshot, number, tmp_path) for number in (7, 8, 9))
    await announce(worker, one, two)
    assert worker.serving.live.version == 8
    await tell(worker, (PIN_KEY, pinned(announced(one))))
    assert worker.serving.live.version == 7
    await announce(worker, three)
    await tell(worker, (key_of(7), None))
    assert worker.serving.live.version == 7
    await tell(worker, (PIN_KEY, None))
    assert worker.serving.live.version == 9


async def test_a_pinned_version_that_cannot_be_had_is_not_replaced_by_another(
    worker: Worker, snapshot: Snapshot, tmp_path: Path
) -> None:
    one, two, three = (version(snapshot, number, tmp_path) for number in (7, 8, 9))
    await announce(worker, two)
    gone = tmp_path / one.uri.rsplit("/")[-1]
    gone.rename(tmp_path / "away")
    await tell(worker, (PIN_KEY, pinned(announced(one))))
    await announce(worker, three)
    assert worker.serving.live.version == 8
    (tmp_path / "away").rename(gone)
    await until(lambda: worker.serving.live.version == 7)


async def test_the_setting_pins_one_worker(snapshot: Snapshot, tmp_path: Path) -> None:
    async with following(a_controlled_worker(model={"pinned_version": "7"})) as worker:
        await announce(worker, *(version(snapshot, number, tmp_path) for number in (6, 7, 8)))
        assert worker.serving.live.version == 7
        await tell(worker, (PIN_KEY, pinned(announced(version(snapshot, 8, tmp_path)))))
        assert worker.serving.live.version == 7


async def test_a_name_that_shares_an_id_does_not_keep_a_snapshot_from_serving(
    worker: Worker, snapshot: Snapshot, tmp_path: Path
) -> None:
    worker.serving.items.ensure(snapshot.ids_N[:1], ["came first"])
    await announce(worker, snapshots.write(snapshot, tmp_path))
    assert worker.serving.live.version == snapshot.version
    assert worker.serving.items.names[0] == "came first"


async def test_how_large_one_may_be_is_a_setting(snapshot: Snapshot, tmp_path: Path) -> None:
    large = dataclasses.replace(snapshot, ranker={**snapshot.ranker, "more": np.zeros(1 << 18)})
    manifest = snapshots.write(large, tmp_path)
    for most, taken in ((1 << 20, 0), (64 << 20, snapshot.version)):
        learner = {"max_items": 1_000, "dimensions": 8, "neighbours": 10}
        async with following(a_controlled_worker(model={"max_bytes": 1 << 30}, learner=learner)) as worker:
            model = worker.settings.model.model_copy(update={"max_bytes": most})
            worker.snapshots.settings = worker.settings.model_copy(update={"model": model})
            await announce(worker, manifest)
            assert worker.serving.live.version == taken
