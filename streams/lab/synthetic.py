"""A made-up world for the benchmarks: items in genres, people who like three of them, a log of what they do next.

The same sizes and seed give the same world. Its snapshot is learned from it by the learner's own code, so that vectors,
neighbour lists and histories belong together and search and features cost what they cost on a real log.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embeddings.cooccurrence import CountSettings, PairCounts
from embeddings.events import CONSENT_ALL, Action, Source
from embeddings.ids import item_ids
from embeddings.snapshots import Snapshot
from embeddings.state_columns import HISTORY, UserStates, no_states
from embeddings.store import UserStore
from ranking import features as ranking
from ranking.trainer import Trainer, TrainerSettings
from streams.contract import records

Mix = Literal["zipf", "uniform"]
_GENRES = 200
_STEPS = 40


@dataclass(kw_only=True)
class World:
    """N items, D embedding width, M neighbours each; U people with full histories."""

    items: int = 100_000
    users: int = 20_000
    width: int = 64
    neighbours: int = 100
    seed: int = 0
    now_s: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self._draw = np.random.default_rng(self.seed)
        self.item_names = [f"item-{n:06d}" for n in range(self.items)]
        self.user_ids = [f"user-{u:06d}" for u in range(self.users)]
        genres = min(_GENRES, self.items // 100 + 1)
        self._genre_N = self._draw.permutation(np.arange(self.items) % genres)
        self._members = [np.flatnonzero(self._genre_N == genre) for genre in range(genres)]
        self._liked_U3 = self._draw.integers(0, genres, (self.users, 3))

    def takes(self, user_B: NDArray[np.integer]) -> NDArray[np.int32]:
        """An item for each of B people, of a genre they like, popular ones more often. Shape (B,)."""
        genre_B = self._liked_U3[user_B, self._draw.integers(0, 3, len(user_B))]
        item_B = np.empty(len(user_B), np.int32)
        for genre, members in enumerate(self._members):
            wanted = np.flatnonzero(genre_B == genre)
            share = (1.0 + members) ** -0.8
            item_B[wanted] = self._draw.choice(members, len(wanted), p=share / share.sum())
        return item_B

    def people(self, mix: Mix, events: int) -> NDArray[np.int64]:
        """Who acts in each of B events: everybody alike, or the n-th of them in proportion to 1/n."""
        if mix == "uniform":
            return self._draw.integers(0, self.users, events)
        share_U = 1.0 / np.arange(1, self.users + 1)
        return self._draw.choice(self.users, events, p=share_U / share_U.sum())

    @cached_property
    def past_UT(self) -> NDArray[np.int32]:
        """What everybody took so far, oldest first; some of it twice. Shape (U, T)."""
        everybody = np.repeat(np.arange(self.users), HISTORY + HISTORY // 2)
        return self.takes(everybody).reshape(self.users, -1)

    def log(self, mix: Mix, events: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of as many events; they happen now, in order."""
        user_B = self.people(mix, events)
        rows = zip(user_B.tolist(), self.takes(user_B).tolist(), strict=True)
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

    def catalogue(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of every item's catalogue record; a genre is a category."""
        for n, name in enumerate(self.item_names):
            categories = f"genre-{self._genre_N[n]}", f"shelf-{n % 12}"
            item = records.Item(item_id=name, title=name, categories=categories, year=1970 + n % 50)
            yield name.encode(), records.encode(item)

    def counters(self, counts_N: NDArray[np.float32], most: int = 2_000) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of the counters of the items taken most."""
        for n in np.argsort(-counts_N)[:most].tolist():
            takes = float(counts_N[n])
            counter = records.Counter(
                item_id=self.item_names[n],
                popularity=(takes, takes, takes, takes),
                likes=takes / 2,
                last_taken_s=self.now_s - 60,
                first_seen_s=self.now_s - 86_400,
                clock_s=self.now_s,
                events=float(counts_N.sum()),
            )
            yield counter.item_id.encode(), records.encode(counter)

    @cached_property
    def states(self) -> UserStates:
        """Everybody's history, the latest item an hour old."""
        states, ids_N = no_states(self.users), item_ids(self.item_names)
        for u, past_T in enumerate(self.past_UT):
            items, age = np.unique(past_T[::-1], return_index=True)
            held = items[np.argsort(age)][:HISTORY]
            states.item_UH[u, : len(held)], states.count_U[u] = ids_N[held], len(held)
        used_UH = np.arange(HISTORY) < states.count_U[:, None]
        states.action_UH[used_UH] = Action.play
        states.time_UH[:] = np.where(used_UH, self.now_s - 3_600 - 600 * np.arange(HISTORY), 0)
        states.last_s_U[:] = self.now_s - 3_600
        states.events_U[:] = states.count_U
        states.consent_U[:] = CONSENT_ALL
        return states

    @cached_property
    def _forgotten(self) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
        """People and items that left their histories, person by person."""
        ids_UT = item_ids(self.item_names)[self.past_UT]
        gone_UT = ~(ids_UT[:, :, None] == self.states.item_UH[:, None, :]).any(2)
        return np.nonzero(gone_UT)[0].astype(np.int32), ids_UT[gone_UT]

    def settle(self, store: UserStore, sources: Sequence[Source]) -> None:
        """Write everybody's state. `sources` are the input partitions, claimed here and left to the worker."""
        user_E, item_E = self._forgotten
        marks = store.claim(sources)
        for at in range(0, self.users, 2_000):
            some = np.arange(at, min(at + 2_000, self.users))
            ids = [self.user_ids[u] for u in some.tolist()]
            loaded, mine = store.load(ids, sources), slice(*np.searchsorted(user_E, (at, at + len(some))))
            store.flush(
                store.keep(
                    ids,
                    self.states.take(some),
                    changed_U=np.ones(len(some), np.bool_),
                    taste_UD=np.zeros((len(some), self.width), np.float32),
                    taste_version=0,
                    unanswered=loaded.unanswered,
                    exposures=loaded.exposures,
                    seen=loaded.seen.add(user_E[mine] - np.int32(at), item_E[mine]),
                    marks=marks,
                )
            )

    def snapshot(self, version: int = 1) -> Snapshot:
        """What the learner makes of the past, with a ranker that has learned a little, as one version."""
        pairs, takes = PairCounts(CountSettings(slots=256)), self.past_UT.shape[1]
        pairs.update(np.arange(self.items, dtype=np.int32), np.full((self.items, HISTORY), -1, np.int32))
        for at in range(1, takes):
            held_UH = np.full((self.users, HISTORY), -1, np.int32)
            held_UH[:, : min(at, HISTORY)] = self.past_UT[:, max(at - HISTORY, 0) : at][:, ::-1]
            pairs.update(np.ascontiguousarray(self.past_UT[:, at]), held_UH)
        factors, (rows_NM, weights_NM) = pairs.factors(self.width, seed=self.seed), pairs.neighbours(self.neighbours)
        return Snapshot(
            version=version,
            ids_N=item_ids(self.item_names),
            names=self.item_names,
            source_ND=factors.source_ND,
            target_ND=factors.target_ND,
            neighbours_NK=rows_NM,
            weights_NK=weights_NM,
            counts_N=pairs.counts_N,
            ranker=taught(self.seed).tensors(),
            created_ms=self.now_s * 1000,
        )


def taught(seed: int) -> Trainer:
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
