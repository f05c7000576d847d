"""A made-up world for the benchmarks: items in clusters, people with full histories, a log of what they do next.

The same sizes and seed give the same world. Item norms span two orders of magnitude and neighbours share a cluster, as
learned factors and counts do, so that search and features cost what they cost on real data.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embeddings.events import CONSENT_ALL, Action, Source
from embeddings.ids import item_ids
from embeddings.seen import SeenUpdate
from embeddings.snapshots import Snapshot
from embeddings.states import HISTORY, UserStates, no_states
from embeddings.store import UserStore
from ranking import features as ranking
from ranking.trainer import Trainer, TrainerSettings
from streams import records

Mix = Literal["zipf", "uniform"]
_CLUSTER = 200
_STEPS = 40


@dataclass(slots=True, kw_only=True)
class World:
    """N items, D embedding width, M neighbours each; U people with full histories from a few clusters each."""

    items: int = 100_000
    users: int = 20_000
    width: int = 64
    neighbours: int = 100
    seed: int = 0
    now_s: int = field(default_factory=lambda: int(time.time()))
    item_names: list[str] = field(init=False)
    user_ids: list[str] = field(init=False)
    popularity_N: NDArray[np.float64] = field(init=False)
    cluster_N: NDArray[np.int64] = field(init=False)
    _tastes_U3: NDArray[np.int64] = field(init=False)
    _draw: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._draw = np.random.default_rng(self.seed)
        self.item_names = [f"item-{n:06d}" for n in range(self.items)]
        self.user_ids = [f"user-{u:06d}" for u in range(self.users)]
        popularity_N = 1.0 / np.arange(1, self.items + 1) ** 0.8
        self.popularity_N = self._draw.permutation(popularity_N / popularity_N.sum())
        self.cluster_N = np.arange(self.items) // self._cluster
        self._tastes_U3 = self._draw.integers(0, self.cluster_N[-1] + 1, (self.users, 3))

    @property
    def _cluster(self) -> int:
        return min(_CLUSTER, self.items)

    def likely_items(self, user_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """An item for each of B people: one in five by popularity, the others from a cluster they like."""
        B = len(user_B)
        cluster_B = self._tastes_U3[user_B, self._draw.integers(0, 3, B)]
        near_B = cluster_B * self._cluster + (self._cluster * self._draw.random(B) ** 2).astype(np.int64)
        anywhere_B = np.searchsorted(self.popularity_N.cumsum(), self._draw.random(B))
        return np.minimum(np.where(self._draw.random(B) < 0.2, anywhere_B, near_B), self.items - 1)

    def people(self, mix: Mix, events: int) -> NDArray[np.int64]:
        """Who acts in each of B events: everybody alike, or the n-th of them in proportion to 1/n."""
        if mix == "uniform":
            return self._draw.integers(0, self.users, events)
        share_U = 1.0 / np.arange(1, self.users + 1)
        return np.searchsorted((share_U / share_U.sum()).cumsum(), self._draw.random(events)).clip(0, self.users - 1)

    def log(self, mix: Mix, events: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of as many events; they happen now, in order."""
        user_B = self.people(mix, events)
        rows = zip(user_B.tolist(), self.likely_items(user_B).tolist(), strict=True)
        for n, (user, item) in enumerate(rows):
            event = records.Event(
                type="play",
                event_time=self.now_s * 1000 + n // 10,
                user_id=self.user_ids[user],
                item_id=self.item_names[item],
                value=float(n % 300),
                event_id=f"{self.seed:04d}-{n:012d}",
            )
            yield self.user_ids[user].encode(), records.encode(event)

    def states(self) -> UserStates:
        """Everybody's history, full, the latest item an hour old."""
        U, ids_N = self.users, item_ids(self.item_names)
        drawn_UH = np.stack([self.likely_items(np.arange(U)) for _ in range(2 * HISTORY)], axis=1)
        states = no_states(U)
        for u, drawn_H in enumerate(drawn_UH):
            _, first = np.unique(drawn_H, return_index=True)
            held = drawn_H[np.sort(first)][:HISTORY]
            states.item_UH[u, : len(held)] = ids_N[held]
            states.count_U[u] = len(held)
        used_UH = np.arange(HISTORY) < states.count_U[:, None]
        states.action_UH[used_UH] = Action.play
        states.time_UH[:] = np.where(used_UH, self.now_s - 3_600 - 600 * np.arange(HISTORY), 0)
        states.last_s_U[:] = self.now_s - 3_600
        states.events_U[:] = states.count_U
        states.consent_U[:] = CONSENT_ALL
        return states

    def settle(self, store: UserStore, sources: Sequence[Source]) -> None:
        """Write everybody's state. `sources` are the input partitions, claimed here and left to the worker."""
        states, nobody = self.states(), SeenUpdate(np.empty(0, np.int32), [])
        marks = store.claim(sources)
        for at in range(0, self.users, 2_000):
            some = np.arange(at, min(at + 2_000, self.users))
            ids = [self.user_ids[u] for u in some.tolist()]
            store.load(ids, sources)
            store.save(
                ids,
                states.take(some),
                changed_U=np.ones(len(some), np.bool_),
                taste_UD=np.zeros((len(some), self.width), np.float32),
                taste_version=0,
                seen=nobody,
                marks=marks,
            )

    def snapshot(self, version: int = 1) -> Snapshot:
        """Vectors, neighbours and a ranker that has learned a little, as one version."""
        target_ND = self._vectors()
        rows_NM, weights_NM = self._neighbours()
        return Snapshot(
            version=version,
            ids_N=item_ids(self.item_names),
            names=self.item_names,
            source_ND=target_ND / np.maximum(np.linalg.norm(target_ND, axis=1, keepdims=True), 1e-6),
            target_ND=target_ND,
            neighbours_NK=rows_NM,
            weights_NK=weights_NM,
            counts_N=(self.popularity_N * 1e6).astype(np.float32),
            ranker=_taught(self.seed).tensors(),
            created_ms=self.now_s * 1000,
        )

    def _vectors(self) -> NDArray[np.float32]:
        centre_CD = self._draw.normal(size=(self.cluster_N[-1] + 1, self.width))
        vector_ND = centre_CD[self.cluster_N] + 0.7 * self._draw.normal(size=(self.items, self.width))
        vector_ND /= np.linalg.norm(vector_ND, axis=1, keepdims=True)
        norm_N = (self.popularity_N / self.popularity_N.max()) ** 0.4
        return (vector_ND * norm_N[:, None]).astype(np.float32)

    def _neighbours(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Neighbours of the same cluster, nearest first, with weights that fall along the list."""
        M = min(self.neighbours, self._cluster - 1)
        step_NM = 1 + self._draw.permuted(np.tile(np.arange(self._cluster - 1), (self.items, 1)), axis=1)[:, :M]
        begin_N = self.cluster_N * self._cluster
        row_NM = begin_N[:, None] + (np.arange(self.items)[:, None] - begin_N[:, None] + step_NM) % self._cluster
        row_NM = np.where(row_NM < self.items, row_NM, -1)
        row_NM = np.take_along_axis(row_NM, np.argsort(row_NM < 0, axis=1, kind="stable"), axis=1)
        weight_NM = self._draw.exponential(size=row_NM.shape) / np.arange(1, M + 1)
        weight_NM = -np.sort(-np.where(row_NM >= 0, weight_NM, 0), axis=1)
        return row_NM.astype(np.int32), weight_NM.astype(np.float32)


def _taught(seed: int) -> Trainer:
    """A ranker that has seen enough choices to be used: the item taken is the one that co-occurs most."""
    draw = np.random.default_rng(seed)
    trainer = Trainer(settings=TrainerSettings(learned_rows=1), seed=seed)
    for _ in range(_STEPS):
        x_RSX = draw.normal(size=(64, 33, ranking.COLUMNS)).astype(np.float32)
        x_RSX[..., ranking.Feature.from_vector] = 1
        x_RSX[..., ranking.Feature.context] = 0
        x_RSX[:, 0, ranking.Feature.popularity_short] += 2
        item_RS = draw.integers(1, 1 << 40, (64, 33))
        trainer.learn_listwise(x_RSX, item_RS, np.ones((64, 33), np.bool_), np.zeros((64, 33), np.float32))
    return trainer
