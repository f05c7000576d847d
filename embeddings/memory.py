"""A user store in this process' memory, for tests, `evaluate` and trying things out.

It keeps every promise of the contract, by the same bytes, but nothing survives the process.

>>> from embeddings.events import Source
>>> store = MemoryUserStore()
>>> store.claim([Source("events", 0)])[Source("events", 0)].offset
-1
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from embeddings.codec import StateCodec
from embeddings.events import Source
from embeddings.exposures import Exposures
from embeddings.fatigue import Unanswered
from embeddings.seen import SeenSets, SeenUpdate
from embeddings.state_columns import UserStates, source_code
from embeddings.store import (
    MARK_TTL_S,
    STATE_TTL_S,
    Loaded,
    PartitionMark,
    Profiles,
    SlateUpdate,
    UserStore,
    check_fence,
    check_mark,
    known_topics,
    loaded,
    next_token,
    renewed_every_s,
)
from embeddings.write_behind import Group, WriteBehind

Key = tuple[str, str | Source]


class Shelf:
    """Values with an expiry, by kind and name; several stores share one as several workers share a Redis."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Args: clock: seconds, to expire by."""
        self.clock = clock
        self.held: dict[Key, tuple[bytes, float]] = {}

    def get(self, key: Key) -> bytes | None:
        """The value, None where there is none or it expired."""
        value, expires = self.held.get(key, (None, 0.0))
        return value if self.clock() < expires else None

    def put(self, key: Key, value: bytes, ttl_s: float) -> None:
        """Keep a value for `ttl_s` seconds."""
        self.held[key] = (value, self.clock() + ttl_s)


class MemoryUserStore(UserStore):
    """`UserStore` on a `Shelf`."""

    def __init__(self, shelf: Shelf | None = None, *, width: int = 64, state_ttl_s: int = STATE_TTL_S) -> None:
        """Args: shelf: shared with other stores, or None. width: components of a taste vector."""
        self._shelf = shelf or Shelf()
        self._codec = StateCodec(width)
        self._state_ttl_s = state_ttl_s
        self._tokens: dict[Source, bytes] = {}
        self._saved: dict[Source, int] = {}
        self._topics: list[str] = []
        self._behind = WriteBehind()

    def claim(self, sources: Sequence[Source]) -> dict[Source, PartitionMark]:
        """See `UserStore.claim`."""
        self.discard()
        topics = known_topics(self._shelf.get(("topics", "")), sources)
        for source in sources:
            source_code(topics, source)
        marks = self.marks(sources)
        for source in sources:
            self._tokens[source] = next_token(self._shelf.get(("fence", source)))
            self._saved[source] = marks[source].offset
            self._shelf.put(("fence", source), self._tokens[source], MARK_TTL_S)
        self._shelf.put(("topics", ""), json.dumps(topics).encode(), MARK_TTL_S)
        self._topics = topics
        return marks

    def verify(self, sources: Sequence[Source]) -> None:
        """See `UserStore.verify`."""
        self._verified(sources)

    def release(self, sources: Sequence[Source]) -> None:
        """See `UserStore.release`."""
        for source in sources:
            self._tokens.pop(source, None)
            self._saved.pop(source, None)

    def load(self, user_ids: Sequence[str], sources: Sequence[Source]) -> Loaded:
        """See `UserStore.load`."""
        self._behind.loaded(None)
        marks = self._verified(sources)
        profiles = self._profiles(user_ids, self._behind)
        self._behind.loaded(sources)
        return loaded(profiles, sources, self._behind.marks_over(marks), self._topics)

    def keep(
        self,
        user_ids: Sequence[str],
        states: UserStates,
        *,
        changed_U: NDArray[np.bool_],
        taste_UD: NDArray[np.float32],
        taste_version: int,
        unanswered: Unanswered,
        exposures: Exposures,
        seen: SeenUpdate | None = None,
        slates: SlateUpdate | None = None,
        marks: Mapping[Source, PartitionMark],
    ) -> int:
        """See `UserStore.keep`."""
        changed_N = np.flatnonzero(changed_U)
        shown = unanswered.take(changed_N), exposures.take(changed_N)
        values = self._codec.encode(states.take(changed_N), taste_UD[changed_N], taste_version, *shown)
        groups = [Group([("u", user_ids[n]) for n in changed_N.tolist()], values, self._state_ttl_s)]
        if seen is not None:
            seen_keys = [("s", user_ids[n]) for n in seen.user_N.tolist()]
            groups.append(Group(seen_keys, seen.values, self._state_ttl_s + renewed_every_s(self._state_ttl_s)))
        if slates is not None:
            groups.append(Group([("l", user_ids[n]) for n in slates.user_N], slates.values, slates.ttl_s))
        return self._behind.keep(groups, marks)

    def flush(self, number: int) -> None:
        """See `UserStore.flush`."""
        kept = self._behind.upto(number)
        self._check_fences(kept.sources)
        for group in kept.groups:
            for key, value in zip(group.keys, group.values, strict=True):
                self._shelf.put(key, value, group.ttl_s)
        for source, mark in kept.marks.items():
            self._shelf.put(("mark", source), mark.to_bytes(), MARK_TTL_S)
            self._saved[source] = mark.offset
        self._behind.stored(kept.number)

    def discard(self) -> None:
        """See `UserStore.discard`."""
        self._behind.drop()

    def read(self, user_ids: Sequence[str]) -> Profiles:
        """See `UserStore.read`."""
        return self._profiles(user_ids, WriteBehind())

    def _profiles(self, user_ids: Sequence[str], behind: WriteBehind) -> Profiles:
        keys = [[(kind, user_id) for user_id in user_ids] for kind in ("u", "s")]
        state_values, seen_values = (behind.over(some, [self._shelf.get(key) for key in some]) for some in keys)
        return Profiles(*self._codec.decode(state_values), SeenSets.decode(seen_values))

    def marks(self, sources: Sequence[Source]) -> dict[Source, PartitionMark]:
        """See `UserStore.marks`."""
        return {source: PartitionMark.from_bytes(self._shelf.get(("mark", source))) for source in sources}

    def go_on(self, sources: Sequence[Source]) -> dict[Source, PartitionMark]:
        """See `UserStore.go_on`."""
        paused = {source: mark for source, mark in self.marks(sources).items() if mark.run.paused}
        for source, mark in paused.items():
            self._shelf.put(("mark", source), mark.go_on().to_bytes(), MARK_TTL_S)
        return paused

    def latest_slate(self, user_id: str) -> bytes | None:
        """See `UserStore.latest_slate`."""
        return self._shelf.get(("l", user_id))

    def read_slates(self, user_ids: Sequence[str]) -> tuple[list[bytes | None], Profiles]:
        """See `UserStore.read_slates`."""
        return list(map(self.latest_slate, user_ids)), self.read(user_ids)

    def ping(self) -> None:
        """See `UserStore.ping`."""

    def forget(self, user_id: str) -> int:
        """See `UserStore.forget`."""
        self._behind.drop([(kind, user_id) for kind in ("u", "s", "l")])
        return sum(self._shelf.held.pop((kind, user_id), None) is not None for kind in ("u", "s", "l"))

    def close(self) -> None:
        """See `UserStore.close`."""

    def _verified(self, sources: Sequence[Source]) -> dict[Source, PartitionMark]:
        marks = self.marks(sources)
        self._check_fences(sources)
        for source in sources:
            check_mark(source, self._saved[source], marks[source])
        return marks

    def _check_fences(self, sources: Iterable[Source]) -> None:
        for source in sources:
            check_fence(source, self._tokens.get(source), self._shelf.get(("fence", source)))
