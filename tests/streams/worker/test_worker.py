import dataclasses
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from embeddings import snapshots
from embeddings.errors import StoreUnavailable
from embeddings.ids import item_ids
from embeddings.memory import MemoryUserStore
from embeddings.snapshots import Manifest, Snapshot
from streams.contract.messages import Outgoing
from streams.contract.records import Counter, ModelManifest, Slate, SlateItem, decode_slate, encode
from streams.serving.stages import epoch_ms
from streams.settings import Settings
from streams.worker.worker import Worker, user_store
from tests.embeddings.saving import save_slates
from tests.streams.builders import EVENTS, NOW_MS, Service, a_log, an_event, small

ITEMS = [f"i{n:03d}" for n in range(40)]


class Read(NamedTuple):
    """A record as the control reader hands it over."""

    topic: str
    key: bytes | None
    value: bytes | None
    offset: int = 0
    partition: int = 0
    timestamp: int = NOW_MS
    headers: Sequence[tuple[str, bytes]] = ()


class Broker:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.published: list[Outgoing] = []

    async def send_all(self, records: Iterable[Outgoing]) -> None:
        self.published += records


@pytest.fixture
def worker() -> Worker:
    """A worker that reached neither Kafka nor Redis yet; nothing of it connects by itself."""
    worker = Worker(small())
    worker.publisher = Broker()  # type: ignore[assignment]
    return worker


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    service = Service()
    service.catalogue(*ITEMS)
    service.live_through(a_log(200, items=40))
    return service.learner.freeze().build(NOW_MS)[0]


async def announce(worker: Worker, manifest: Manifest, **fields: Any) -> None:
    whole: dict[str, Any] = {
        "version": str(manifest.version), "uri": manifest.uri, "sha256": manifest.sha256, "bytes": manifest.bytes,
        "shapes": manifest.shapes, "created_ms": manifest.created_ms,
    }  # fmt: skip
    record = ModelManifest(**(whole | fields))
    await handle(worker, "models", Read("marquee.models.v1", b"snapshot", encode(record)))
    if worker._swap is not None:
        await worker._swap


async def handle(worker: Worker, topic: Any, *records: Read) -> None:
    await worker.control.handlers[worker.settings.topics.name(topic)](records)  # type: ignore[arg-type]


async def catalogue(worker: Worker, **items: bytes | None) -> None:
    records = [Read("marquee.catalog.v1", k.encode(), v, n) for n, (k, v) in enumerate(items.items())]
    await handle(worker, "catalog", *records)


def metric(worker: Worker, name: str, **labels: str) -> float | None:
    return worker.metrics.registry.get_sample_value(f"marquee_{name}", labels)


def dead(worker: Worker) -> list[tuple[str, bytes | None, bytes]]:
    """Topic, key and code of what was put aside."""
    letters: list[Outgoing] = worker.publisher.published  # type: ignore[attr-defined]
    return [(letter.topic, letter.key, dict(letter.headers)["marquee.code"]) for letter in letters]


async def test_catalogue_records_come_and_go(worker: Worker) -> None:
    await catalogue(worker, a=b'{"title":"A"}', b=b"{}")
    assert worker.serving.live.index.size == 2
    assert metric(worker, "index_items") == 2
    await catalogue(worker, a=None)
    assert worker.serving.live.index.size == 1
    assert dead(worker) == []


async def test_an_item_whose_id_is_taken_is_put_aside_and_the_others_come_and_go(worker: Worker) -> None:
    await catalogue(worker, old=b"{}")
    worker.serving.items.ensure(item_ids(["late", "foe"]), ["squatter-1", "squatter-2"])
    await catalogue(worker, foe=None, new=b"{}", old=None, late=b"{}", newer=b"{}")
    assert dead(worker) == [("marquee.catalog.v1.dlq", b"late", b"id_collision")]
    items = worker.serving.items
    rows = items.ids.rows(item_ids(["new", "newer", "old", "late"]))
    assert items.blocked(NOW_MS // 1000)[rows].tolist() == [False, False, True, False]
    assert items.columns.catalogued_N[rows].tolist() == [True, True, True, False]
    assert metric(worker, "dead_letters_total", topic="catalog", code="id_collision") == 1


@pytest.mark.parametrize("topic", ["catalog", "counters", "models"])
async def test_garbage_on_a_control_topic_is_put_aside(worker: Worker, topic: Any) -> None:
    await handle(worker, topic, Read(f"marquee.{topic}.v1", b"k", b"{"))
    assert dead(worker) == [(f"marquee.{topic}.v1.dlq", b"k", b"malformed")]


async def test_counters_make_popularity(worker: Worker) -> None:
    await catalogue(worker, a=b"{}", b=b"{}")
    counter = Counter(item_id="b", popularity=(3.0, 3.0, 3.0), events=10)
    gone = Read("marquee.counters.v1", b"x", None)
    await handle(worker, "counters", Read("marquee.counters.v1", b"b", encode(counter)), gone)
    with worker.serving.items.lock:
        worker.serving.current()
    assert worker.serving.items.names[worker.serving.trending[0]] == "b"


async def test_an_announced_snapshot_serves(worker: Worker, snapshot: Snapshot, tmp_path: Path) -> None:
    await announce(worker, snapshots.write(snapshot, tmp_path))
    assert worker.serving.live.version == snapshot.version
    assert metric(worker, "snapshot_swaps_total", result="swapped") == 1
    assert metric(worker, "snapshot_info", version=str(snapshot.version)) == 1
    worker.control.caught_up.set()
    await worker.is_warm()


async def test_a_damaged_snapshot_is_refused_and_the_one_before_serves_on(
    worker: Worker, snapshot: Snapshot, tmp_path: Path
) -> None:
    await announce(worker, snapshots.write(snapshot, tmp_path))
    manifest = snapshots.write(dataclasses.replace(snapshot, version=9), tmp_path)
    await announce(worker, manifest, sha256="0" * 64)
    await announce(worker, dataclasses.replace(manifest, uri=(tmp_path / "gone").as_uri()))
    weights = {name: np.full_like(array, 7) if name == "platt" else array for name, array in snapshot.ranker.items()}
    del weights["model.next.item.weight"]
    await announce(worker, snapshots.write(dataclasses.replace(snapshot, version=10, ranker=weights), tmp_path))
    assert worker.serving.live.version == snapshot.version
    assert metric(worker, "snapshot_swaps_total", result="refused") == 3


async def test_vectors_of_another_width_are_refused(worker: Worker, snapshot: Snapshot, tmp_path: Path) -> None:
    """They could be neither compared with what is stored nor stored themselves."""
    narrow = dataclasses.replace(
        snapshot, source_ND=snapshot.source_ND[:, :4].copy(), target_ND=snapshot.target_ND[:, :4].copy()
    )
    await announce(worker, snapshots.write(narrow, tmp_path))
    assert worker.serving.live.version == 0
    assert metric(worker, "snapshot_swaps_total", result="refused") == 1


@pytest.mark.parametrize("fields", [{"version": "v2"}, {"kind": "another"}])
async def test_announcements_that_mean_nothing_here_are_passed_over(
    worker: Worker, snapshot: Snapshot, tmp_path: Path, fields: dict[str, str]
) -> None:
    await announce(worker, snapshots.write(snapshot, tmp_path), **fields)
    assert worker.serving.live.version == 0


async def test_a_pinned_version_serves_whatever_is_announced_later(snapshot: Snapshot, tmp_path: Path) -> None:
    worker = Worker(small(model={"pinned_version": "7"}))
    worker.publisher = Broker()  # type: ignore[assignment]
    for version in (6, 7, 8):
        await announce(worker, snapshots.write(dataclasses.replace(snapshot, version=version), tmp_path))
    assert worker.serving.live.version == 7


async def test_a_name_that_shares_an_id_does_not_keep_a_snapshot_from_serving(
    worker: Worker, snapshot: Snapshot, tmp_path: Path
) -> None:
    worker.serving.items.ensure(snapshot.ids_N[:1], ["came first"])
    await announce(worker, snapshots.write(snapshot, tmp_path))
    assert worker.serving.live.version == snapshot.version
    assert worker.serving.items.names[0] == "came first"


def a_slate(*items: str, expires_ms: int) -> bytes:
    places = tuple(SlateItem(item_id=item, position=n) for n, item in enumerate(items))
    return encode(Slate(slate_id="s", user_id="ann", items=places, expires_at=expires_ms))


def keep_slate(service: Service, value: bytes) -> None:
    loaded, width = service.users.load(["ann"], [EVENTS]), service.settings.learner.dimensions
    save_slates(service.users, loaded, {"ann": value}, 60, width=width)


async def test_the_stored_slate_is_served_without_what_was_seen_or_removed_since() -> None:
    worker, service = Worker(small()), Service()
    worker.reads = service.users  # type: ignore[assignment]
    worker.serving.catalogue([], [])
    await catalogue(worker, a=b"{}", b=b"{}", c=b"{}")
    service.deliver([an_event(0, "ann", "b")])
    keep_slate(service, a_slate("a", "b", "c", "nameless", expires_ms=epoch_ms() + 60_000))
    await catalogue(worker, c=None)
    served = await worker._latest_slate("ann")
    assert served is not None
    assert [item.item_id for item in decode_slate(served).items] == ["a"]
    assert await worker._latest_slate("bob") is None
    keep_slate(service, a_slate("a", expires_ms=epoch_ms() - 1))
    assert await worker._latest_slate("ann") is None


def test_the_pages_say_what_is_missing(worker: Worker) -> None:
    assert worker._control_read() == "control topics are still being read"
    worker.control.caught_up.set()
    assert worker._control_read() is None
    assert worker._has_partitions() == "no partition is assigned yet"
    assert worker._store_answers() == "the store was not asked yet"

    class Away(MemoryUserStore):
        def latest_slate(self, user_id: str) -> bytes | None:
            raise StoreUnavailable("timeout")

    worker.reads = Away()  # type: ignore[assignment]
    assert worker._ping() == "timeout"
    worker.reads = MemoryUserStore()  # type: ignore[assignment]
    assert worker._ping() is None


def test_credentials_reach_the_store_and_nothing_that_is_printed() -> None:
    redis = {"url": "rediss://example.test:7000/2", "username": "mar quee", "password": "p@ss/word"}
    settings = Settings.model_validate({"redis": redis})
    assert "p@ss" not in repr(settings)
    store = user_store(settings)
    assert "p@ss" not in repr(store)


def test_a_worker_serves_without_torch() -> None:
    """It takes as long to import as everything else together, and twice the memory."""
    served = (
        "import streams.worker.worker, sys; from ranking.ranker import Ranker; Ranker.untaught(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", served], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()
