import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embeddings import snapshots
from embeddings.ids import item_ids
from embeddings.snapshots import Manifest, Snapshot
from streams.contract.messages import Outgoing
from streams.contract.records import Counter, ModelManifest, encode
from streams.worker.worker import Worker
from tests.streams.builders import NOW_MS, Service, a_log
from tests.streams.controlled import AN_ITEM, Read, a_controlled_worker, catalogue, handle

ITEMS = [f"i{n:03d}" for n in range(40)]


@pytest.fixture
async def worker() -> Worker:
    return a_controlled_worker()


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
    await worker.control_topics.swapped()


def metric(worker: Worker, name: str, **labels: str) -> float | None:
    return worker.metrics.registry.get_sample_value(f"marquee_{name}", labels)


def dead(worker: Worker) -> list[tuple[str, bytes | None, bytes]]:
    """Topic, key and code of what was put aside."""
    letters: list[Outgoing] = worker.control_topics.letters.topics["catalog"].publisher.published  # type: ignore[attr-defined]
    return [(letter.topic, letter.key, dict(letter.headers)["marquee.code"]) for letter in letters]


async def test_catalogue_records_come_and_go(worker: Worker) -> None:
    await catalogue(worker, a=b'{"title":"A"}', b=AN_ITEM)
    assert worker.serving.live.index.size == 2
    assert metric(worker, "index_items") == 2
    await catalogue(worker, a=None)
    assert worker.serving.live.index.size == 1
    assert dead(worker) == []


async def test_removals_that_name_nothing_are_counted(worker: Worker) -> None:
    await catalogue(worker, a=AN_ITEM, b=AN_ITEM)
    await catalogue(worker, a=None, B=None, c=None)
    assert metric(worker, "catalogue_removals_total", result="removed") == 1
    assert metric(worker, "catalogue_removals_total", result="unknown") == 2


async def test_a_key_that_a_connector_wrapped_removes_nothing_and_is_told(worker: Worker) -> None:
    await catalogue(worker, m1=AN_ITEM, m2=AN_ITEM)
    keys = (b'"m1"', b'{"id":"m2"}', b"Struct{id=m2}", b"\0\0\0\0*m1")
    await handle(worker, "catalog", *(Read("marquee.catalog.v1", key, None, n) for n, key in enumerate(keys)))
    assert dead(worker) == [("marquee.catalog.v1.dlq", key, b"malformed") for key in keys]
    assert worker.serving.live.index.size == 2
    assert worker.serving.items.names == ["m1", "m2"]


async def test_an_item_goes_with_the_key_that_brought_it(worker: Worker) -> None:
    named = (b'{"item_id":"m1"}', None)
    for value in named:
        await handle(worker, "catalog", Read("marquee.catalog.v1", b"row-7", value))
    assert dead(worker) == []
    assert worker.serving.live.index.size == 0


async def test_an_item_whose_id_is_taken_is_put_aside_and_the_others_come_and_go(worker: Worker) -> None:
    await catalogue(worker, old=AN_ITEM)
    worker.serving.items.ensure(item_ids(["late", "foe"]), ["squatter-1", "squatter-2"])
    await catalogue(worker, foe=None, new=AN_ITEM, old=None, late=AN_ITEM, newer=AN_ITEM)
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
    await catalogue(worker, a=AN_ITEM, b=AN_ITEM)
    counter = Counter(item_id="b", popularity=(3.0, 3.0, 3.0), events=10)
    gone = Read("marquee.counters.v1", b"x", None)
    await handle(worker, "counters", Read("marquee.counters.v1", b"b", encode(counter)), gone)
    with worker.serving.items.lock:
        trending_T = worker.serving.current().trending_T
    assert worker.serving.items.names[trending_T[0]] == "b"


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
    worker = a_controlled_worker(model={"pinned_version": "7"})
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
