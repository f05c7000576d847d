"""Stores to hold to the contract of `UserStore`, and what is done with all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import redis

from embeddings.events import CONSENT_ALL, Action, EventBatch, Source
from embeddings.exposures import AdSeen, fold_exposures
from embeddings.fatigue import fold_impressions
from embeddings.fold import Folded, fold
from embeddings.memory import MemoryUserStore, Shelf
from embeddings.redis_store import RedisUserStore
from embeddings.store import Loaded, PartitionMark, UserStore, advance
from tests.embeddings import saving

WIDTH = 8
HALF_LIFE_S = 86_400.0
SERVERS = [
    "memory",
    pytest.param("valkey", marks=pytest.mark.embedded),
    pytest.param("redis7", marks=pytest.mark.redis),
]
EVENTS, OTHER = Source("events", 0), Source("events", 1)


@dataclass
class Backend:
    """Where stores keep things: `open` gives one more worker's store, `wipe` loses everything."""

    open: Callable[[], UserStore]
    wipe: Callable[[], None]
    set_mark: Callable[[Source, PartitionMark], None]
    wait: Callable[[float], None]


def in_memory() -> Backend:
    now = [1_000.0]
    shelf = Shelf(clock=lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return Backend(
        open=lambda: MemoryUserStore(shelf, width=WIDTH),
        wipe=shelf.held.clear,
        set_mark=lambda source, mark: shelf.put(("mark", source), mark.to_bytes(), 100),
        wait=wait,
    )


def on_server(url: str, prefix: str, opened: list[RedisUserStore]) -> Backend:
    client = redis.Redis.from_url(url)

    def another() -> UserStore:
        opened.append(RedisUserStore(url, width=WIDTH, prefix=prefix))
        return opened[-1]

    def wipe() -> None:
        client.delete(*client.keys(f"{prefix}:*"))

    def set_mark(source: Source, mark: PartitionMark) -> None:
        client.set(f"{prefix}:mark:{source.topic}:{source.partition}", mark.to_bytes(), ex=100)

    return Backend(open=another, wipe=wipe, set_mark=set_mark, wait=time.sleep)


def a_batch(user_ids: Sequence[str], first_offset: int = 0, rows: int = 200, source: Source = EVENTS) -> EventBatch:
    draw = np.random.default_rng(first_offset)
    return EventBatch(
        user_ids=tuple(user_ids),
        sources=(source,),
        user_B=draw.integers(0, len(user_ids), rows).astype(np.int32),
        item_B=draw.integers(1, 2**40, rows).astype(np.uint64),
        action_B=np.full(rows, Action.play, np.uint8),
        value_B=np.zeros(rows, np.float32),
        time_s_B=1_000_000 + first_offset + np.arange(rows, dtype=np.int64),
        source_B=np.zeros(rows, np.int32),
        offset_B=first_offset + np.arange(rows, dtype=np.int64),
        dedupe_B=draw.integers(1, 2**32, rows).astype(np.uint32),
        consent_B=np.full(rows, CONSENT_ALL, np.uint8),
        refused_B=np.zeros(rows, np.uint8),
    )


def folded(loaded: Loaded, batch: EventBatch) -> Folded:
    codes, floors = loaded.source_code_S, loaded.floor_offset_S
    return fold(loaded.states, batch, lateness_s=600, source_code_S=codes, floor_offset_S=floors)


def ads_of(batch: EventBatch) -> AdSeen:
    """Impressions of ads are of one that is called as their item is."""
    key_B = np.where(batch.action_B == Action.ad_impression, batch.item_B % np.uint64(2**20), 0).astype(np.uint32)
    return AdSeen(key_B[:, None] * np.arange(1, 5, dtype=np.uint32))


def effect(batch: EventBatch, loaded: Loaded, life: Folded) -> dict[str, Any]:
    """What `keep` is told of a batch."""
    return {
        "user_ids": batch.user_ids,
        "states": life.states,
        "changed_U": life.changed_U,
        "taste_UD": np.ones((len(batch.user_ids), WIDTH), np.float32),
        "taste_version": 3,
        "unanswered": fold_impressions(loaded.unanswered, loaded.states, batch, life, HALF_LIFE_S).after,
        "exposures": fold_exposures(loaded.exposures, loaded.states, batch, life, ads_of(batch)),
        "seen": loaded.seen.add(life.evicted.user_E, life.evicted.item_E),
        "marks": advance(loaded.marks, batch.sources, batch.source_B, batch.offset_B, life.fate_B),
    }


def save(store: UserStore, batch: EventBatch, loaded: Loaded, life: Folded) -> None:
    saving.save(store, **effect(batch, loaded, life))


def keep(store: UserStore, batch: EventBatch) -> int:
    """Fold a batch onto what is there and what was kept, and keep what comes of it."""
    loaded = store.load(batch.user_ids, batch.sources)
    return store.keep(**effect(batch, loaded, folded(loaded, batch)))


def apply(store: UserStore, batch: EventBatch) -> Folded:
    loaded = store.load(batch.user_ids, batch.sources)
    life = folded(loaded, batch)
    save(store, batch, loaded, life)
    return life


def everything(store: UserStore, user_ids: Sequence[str], source: Source = EVENTS) -> list[object]:
    """All that is stored, comparable with `==`."""
    profiles = store.read(user_ids)
    columns = [*profiles.states, *profiles.tastes, *profiles.unanswered, *profiles.exposures, *profiles.seen]
    return [*(column.tolist() for column in columns), store.marks([source])]


def an_owner(backend: Backend) -> UserStore:
    store = backend.open()
    store.claim([EVENTS])
    return store


def a_slice(batch: EventBatch, begin: int, end: int) -> EventBatch:
    columns = {name: getattr(batch, name) for name in EventBatch.__slots__}
    return EventBatch(**{name: part[begin:end] if name.endswith("_B") else part for name, part in columns.items()})
