"""User states in Redis: one round trip to load a batch, one atomic and fenced one to store some.

Keys, every one with a TTL:

    mq:{b<bucket>}:u:<user>   state      mq:fence:<topic>:<partition>  the owner's token
    mq:{b<bucket>}:s:<user>   seen set   mq:mark:<topic>:<partition>   how far it is, and its fate totals
    mq:{b<bucket>}:l:<user>   slate      mq:topics                     the topics' numbers in the states' marks
                                         mq:ping                       written to see that it can be

Whatever is written goes through one script, which compares what guards it first: a flush states, seen sets, slates and
marks under its partitions' fences, together or not at all, so that a worker that lost a partition is refused; a claim
new fences under those it found. Users of one bucket share a hash slot; fences and marks are those of a single node.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import NoScriptError

from embeddings.codec import StateCodec
from embeddings.errors import Fenced, StoreRefused, StoreUnavailable
from embeddings.events import Source
from embeddings.exposures import Exposures
from embeddings.fatigue import Unanswered
from embeddings.patience import Patience
from embeddings.redis_connection import UNWATCHED, RedisLine, Watch
from embeddings.redis_keys import RedisKeys
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
    topics_anew,
)
from embeddings.write_behind import Group, Kept, WriteBehind

COMMANDS = ("get", "mget", "set", "msetex", "unlink", "evalsha", "script|load", "select", "info")
"""What a store asks of Redis, also inside its script. Without `msetex` (Redis before 8.4, Valkey before 9) `set` does;
`select` is for a database other than 0, `info` for `rehearse`."""
_CLAIM_TRIES, _PING_TTL_S, _MOST_PARTITIONS = 8, 60, 1024
#: KEYS: guards, then keys in groups. ARGV: number of guards, number of groups, size and TTL of each, what the guards
#: must hold (nothing: an empty string), values.
_SCRIPT = b"""
local guards, groups = tonumber(ARGV[1]), tonumber(ARGV[2])
local head, key = 2 + 2 * groups, guards
for i = 1, guards do
  if (redis.call('GET', KEYS[i]) or '') ~= ARGV[head + i] then return 0 end
end
for g = 1, groups do
  local last, ttl = key + tonumber(ARGV[1 + 2 * g]), ARGV[2 + 2 * g]
  while key < last do
    local set, n = {}, math.min(1000, last - key)  -- unpack has a limit
    for k = 1, n do
      set[2 * k - 1], set[2 * k] = KEYS[key + k], ARGV[head + key + k]
    end
    set[2 * n + 1], set[2 * n + 2] = 'EX', ttl
    if redis.pcall('MSETEX', n, unpack(set)) ~= 1 then  -- Valkey 9 and Redis 8.4 know it
      for k = 1, n do
        redis.call('SET', set[2 * k - 1], set[2 * k], 'EX', ttl)
      end
    end
    key = key + n
  end
end
return 1
"""
_SHA = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest()


class RedisUserStore(UserStore):
    """`UserStore` on Redis or Valkey, one node."""

    def __init__(
        self,
        url: str,
        *,
        width: int = 64,
        buckets: int = 256,
        prefix: str = "mq",
        state_ttl_s: int = STATE_TTL_S,
        timeout_s: float = 2.0,
        watch: Watch = UNWATCHED,
        patience: Patience | None = None,
    ) -> None:
        """Nothing connects before the first call.

        Args:
            url: where the server is.
            width: components of a taste vector.
            buckets: a power of two, fixed for the life of the data.
            prefix: first part of every key.
            state_ttl_s: a user unheard of for so long is forgotten; marks live twice as long.
            timeout_s: for each read and write.
            watch: hears of exchanges.
            patience: says instead how long each exchange may take.
        """
        self._keys = RedisKeys(prefix, buckets)
        self._codec = StateCodec(width)
        self._state_ttl_s, self._mark_ttl_s = state_ttl_s, max(MARK_TTL_S, 2 * state_ttl_s)
        self._seen_ttl_s = state_ttl_s + renewed_every_s(state_ttl_s)
        self._fenced, self._plain = (
            RedisLine(url, timeout_s=timeout_s, watch=watch, patience=patience) for _ in range(2)
        )
        self._tokens: dict[Source, bytes] = {}
        self._saved: dict[Source, int] = {}
        self._topics: list[str] = []
        self._behind = WriteBehind()
        self._last = _Last([], [], [])

    def claim(self, sources: Sequence[Source]) -> dict[Source, PartitionMark]:
        """See `UserStore.claim`. A batch that was loaded before has to be loaded again."""
        self.discard()
        guards, marks = [self._keys.topics, *self._keys.fences(sources)], self._keys.marks(sources)
        for _ in range(_CLAIM_TRIES if sources else 0):
            found = _values(self._fenced.exchange(("MGET", *guards, *marks))[0])
            held, values = found[: len(guards)], found[len(guards) :]
            topics = known_topics(held[0], sources)
            for source in sources:
                source_code(topics, source)
            tokens = [next_token(token) for token in held[1:]]
            claims = Group(guards, [json.dumps(topics).encode(), *tokens], self._mark_ttl_s)
            if self._written(guards, held, [claims]):
                return self._own(sources, tokens, topics, values)
        if sources:
            raise StoreUnavailable("several workers claim the same partitions at once")
        return {}

    def verify(self, sources: Sequence[Source]) -> None:
        """See `UserStore.verify`."""
        if sources:
            self._found(sources, [])

    def release(self, sources: Sequence[Source]) -> None:
        """See `UserStore.release`."""
        for source in sources:
            self._tokens.pop(source, None)
            self._saved.pop(source, None)

    def load(self, user_ids: Sequence[str], sources: Sequence[Source]) -> Loaded:
        """See `UserStore.load`."""
        self._behind.loaded(None)
        state_keys, seen_keys = self._keys.profiles(user_ids)
        marks, values = self._found(sources, [*state_keys, *seen_keys])
        marks = self._behind.marks_over(marks)
        profiles = self._profiles(self._behind.over([*state_keys, *seen_keys], values), len(user_ids))
        self._last = _Last(user_ids, state_keys, seen_keys)
        self._behind.loaded(sources)
        return loaded(profiles, sources, marks, self._topics)

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
        last = self._last
        state_keys, seen_keys = last[1:] if last.user_ids is user_ids else self._keys.profiles(user_ids)
        changed_N = np.flatnonzero(changed_U)
        shown = unanswered.take(changed_N), exposures.take(changed_N)
        values = self._codec.encode(states.take(changed_N), taste_UD[changed_N], taste_version, *shown)
        groups = [Group([state_keys[n] for n in changed_N.tolist()], values, self._state_ttl_s)]
        if seen is not None:
            groups.append(Group([seen_keys[n] for n in seen.user_N.tolist()], seen.values, self._seen_ttl_s))
        if slates is not None:
            slate_keys = self._keys.of("l", [user_ids[n] for n in slates.user_N])
            groups.append(Group(slate_keys, slates.values, slates.ttl_s))
        return self._behind.keep(groups, marks)

    def flush(self, number: int) -> None:
        """See `UserStore.flush`."""
        kept = self._behind.upto(number)
        if kept.sources:
            self._write(kept)
            self._saved.update((source, mark.offset) for source, mark in kept.marks.items())
            self._behind.stored(kept.number)

    def discard(self) -> None:
        """See `UserStore.discard`."""
        self._behind.drop()

    def read(self, user_ids: Sequence[str]) -> Profiles:
        """See `UserStore.read`."""
        state_keys, seen_keys = self._keys.profiles(user_ids)
        if not user_ids:
            return self._profiles([], 0)
        return self._profiles(_values(self._plain.exchange(("MGET", *state_keys, *seen_keys))[0]), len(user_ids))

    def marks(self, sources: Sequence[Source]) -> dict[Source, PartitionMark]:
        """See `UserStore.marks`."""
        if not sources:
            return {}
        reply = _values(self._plain.exchange(("MGET", *self._keys.marks(sources)))[0])
        return {source: PartitionMark.from_bytes(value) for source, value in zip(sources, reply, strict=True)}

    def go_on(self, sources: Sequence[Source]) -> dict[Source, PartitionMark]:
        """See `UserStore.go_on`. Each mark is its own guard: its owner does not write it while it is paused."""
        if not sources:
            return {}
        keys = self._keys.marks(sources)
        reply = _values(self._plain.exchange(("MGET", *keys))[0])
        released = {}
        for source, key, value in zip(sources, keys, reply, strict=True):
            mark = PartitionMark.from_bytes(value)
            change = Group([key], [mark.go_on().to_bytes()], self._mark_ttl_s)
            if mark.run.paused and self._written([key], [value], [change]):
                released[source] = mark
        return released

    def latest_slate(self, user_id: str) -> bytes | None:
        """See `UserStore.latest_slate`."""
        return cast(bytes | None, self._plain.exchange(("GET", *self._keys.of("l", [user_id])))[0])

    def read_slates(self, user_ids: Sequence[str]) -> tuple[list[bytes | None], Profiles]:
        """See `UserStore.read_slates`."""
        (state_keys, seen_keys), users = self._keys.profiles(user_ids), len(user_ids)
        keys = *self._keys.of("l", user_ids), *state_keys, *seen_keys
        values = _values(self._plain.exchange(("MGET", *keys))[0]) if keys else []
        return values[:users], self._profiles(values[users:], users)

    def ping(self) -> None:
        """See `UserStore.ping`."""
        self._plain.exchange(("SET", self._keys.ping, b"1", "EX", _PING_TTL_S), ("GET", self._keys.ping))

    def forget(self, user_id: str) -> int:
        """See `UserStore.forget`."""
        keys = [key for kind in ("u", "s", "l") for key in self._keys.of(kind, [user_id])]
        self._behind.drop(keys)
        return cast(int, self._plain.exchange(("UNLINK", *keys))[0])

    def start_over(self, topic: str) -> int:
        """Forget how far so many partitions of a topic are, for its log was made anew; owners claim them again.

        Raises:
            StoreUnavailable: it may or may not be done. Repeat it.
            ValueError: it was done too often; nothing was changed.
        """
        sources, empty = [Source(topic, partition) for partition in range(_MOST_PARTITIONS)], PartitionMark().to_bytes()
        keys = [self._keys.topics, *self._keys.marks(sources), *self._keys.fences(sources)]
        for _ in range(_CLAIM_TRIES):
            found = _values(self._plain.exchange(("MGET", *keys))[0])
            marks = sum(PartitionMark.from_bytes(value).offset >= 0 for value in found[1 : 1 + len(sources)])
            there = [0, *(n for n, value in enumerate(found) if n and value)]
            anew = [empty if n <= len(sources) else next_token(found[n]) for n in there[1:]]
            values, guards = [json.dumps(topics_anew(found[0], topic)).encode(), *anew], [keys[n] for n in there]
            if not marks or self._written(guards, [found[n] for n in there], [Group(guards, values, self._mark_ttl_s)]):
                return marks
        raise StoreUnavailable("the partitions are claimed all the time")

    def rehearse(self) -> dict[str, str]:
        """Do once what a worker does, on values that go at once: read, write by the script, remove; INFO, if granted.

        Raises:
            StoreUnavailable, StoreRefused: a worker could not do its work; the message says what is needed.
        """
        nobody, nowhere = [f"rehearsal-{secrets.token_hex(6)}"], [Source("rehearsal", 0)]
        keys = [key for kind in ("u", "s", "l") for key in self._keys.of(kind, nobody)]
        keys += self._keys.fences(nowhere) + self._keys.marks(nowhere)
        topics = _values(self._plain.exchange(("MGET", self._keys.topics, *keys))[0])[0]
        self._fenced.exchange(("SCRIPT", "LOAD", _SCRIPT))
        same = [Group([self._keys.topics], [topics], self._mark_ttl_s)] if topics else []
        self._written([self._keys.topics], [topics], [Group(keys, [b""] * len(keys), 1), *same])
        self.latest_slate(nobody[0])
        self._plain.exchange(("UNLINK", *keys))
        return self.said()

    def said(self) -> dict[str, str]:
        """What INFO says of the server; nothing where that is not granted."""
        try:
            info = cast(bytes, self._plain.exchange(("INFO",))[0]).decode()
        except StoreRefused:
            return {}
        return dict(line.split(":", 1) for line in info.splitlines() if ":" in line)

    def close(self) -> None:
        """See `UserStore.close`."""
        self._fenced.close()
        self._plain.close()

    def _own(
        self, sources: Sequence[Source], tokens: list[bytes], topics: list[str], found: list[bytes | None]
    ) -> dict[Source, PartitionMark]:
        marks = {source: PartitionMark.from_bytes(value) for source, value in zip(sources, found, strict=True)}
        self._tokens.update(zip(sources, tokens, strict=True))
        self._saved.update((source, mark.offset) for source, mark in marks.items())
        self._topics = topics
        return marks

    def _found(
        self, sources: Sequence[Source], keys: Sequence[bytes]
    ) -> tuple[dict[Source, PartitionMark], list[bytes | None]]:
        """The marks of partitions whose fences are ours, and some values."""
        fences, held = self._keys.fences(sources), len(sources)
        reply = _values(self._fenced.exchange(("MGET", *fences, *self._keys.marks(sources), *keys))[0])
        marks = {}
        for source, token, value in zip(sources, reply[:held], reply[held : 2 * held], strict=True):
            check_fence(source, self._tokens.get(source), token)
            marks[source] = PartitionMark.from_bytes(value)
            check_mark(source, self._saved[source], marks[source])
        return marks, reply[2 * held :]

    def _profiles(self, reply: list[bytes | None], users: int) -> Profiles:
        return Profiles(*self._codec.decode(reply[:users]), SeenSets.decode(reply[users:]))

    def _write(self, kept: Kept) -> None:
        """Write marks and groups together; fences are written back for their TTL."""
        sources = list(kept.sources)
        fences, mark_keys = self._keys.fences(sources), self._keys.marks(kept.marks)
        try:
            tokens = [self._tokens[source] for source in sources]
        except KeyError:
            raise Fenced("a partition of the batch was released since it was loaded") from None
        marks = [mark.to_bytes() for mark in kept.marks.values()]
        groups = [Group(fences + mark_keys, tokens + marks, self._mark_ttl_s), *kept.groups]
        if not self._written(fences, tokens, groups):
            self._explain_refusal(sources)

    def _explain_refusal(self, sources: Sequence[Source]) -> None:
        """Raise why a flush was refused: the fences changed, by another claim or because the store lost its data."""
        found = _values(self._fenced.exchange(("MGET", *self._keys.fences(sources)))[0])
        for source, token in zip(sources, found, strict=True):
            check_fence(source, self._tokens.get(source), token)
        raise StoreUnavailable("the fences changed and changed back since the load: write again")

    def _written(self, guards: Sequence[bytes], held: Sequence[bytes | None], groups: Sequence[Group]) -> bool:
        """Write groups if the guards hold what they held; False, and nothing is written, where they do not."""
        keys = [key for group in groups for key in group.keys]
        values = [value for group in groups for value in group.values]
        sizes = [number for group in groups for number in (len(group.keys), group.ttl_s)]
        arguments = (len(guards), len(groups), *sizes, *(value or b"" for value in held), *values)
        command = ("EVALSHA", _SHA, len(guards) + len(keys), *guards, *keys, *arguments)
        try:
            return self._fenced.exchange(command)[0] == 1
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, NoScriptError):
                raise
        return self._fenced.exchange(("SCRIPT", "LOAD", _SCRIPT), command)[1] == 1


class _Last(NamedTuple):
    """The users that were loaded last, and their keys."""

    user_ids: Sequence[str]
    state_keys: list[bytes]
    seen_keys: list[bytes]


def _values(reply: object) -> list[bytes | None]:
    return cast(list[bytes | None], reply)
