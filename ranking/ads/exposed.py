"""What caps count: which ads people saw, by their states, and what is reserved for them and not in those yet.

Shapes: P people, X impressions and Y keys of the person with the most, N things in flight.

>>> level_name(Level.campaign, level_key(Level.campaign, "spring"))
'2:e75e70'
>>> Out.of([{"2:00000a": 3}, None]).many_N.tolist()
[3]
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from ranking.ads.campaigns import Level
from ranking.ads.inventory import starts
from ranking.jit import kernel

FOR_GOOD = 1
"""Lowest bit of a key that is to be counted for good: some cap of more than a week counts it."""
SESSION_S = 1_800
"""A session ends with so long a silence."""
NEVER_S = 1 << 62
_NAME_BITS = 24
BUCKETS = 1 << 10
"""Keys are told apart by ten of their bits before they are looked for."""


@lru_cache(1 << 18)
def level_key(level: Level, name: str) -> int:
    """What is counted, in 24 bits of which the lowest is 0; never 0 itself. One pair in 8 million shares a key.

    Names are those of `Creative.key`, `LineItem.key`, `LineItem.campaign_id` and `LineItem.advertiser`.
    """
    return (xxhash.xxh32_intdigest(f"{int(level)}\0{name}".encode()) >> 9 or 1) << 1


def level_name(level: int, key: int) -> str:
    """What a key is called among what is in flight; the same whether it is counted for good or not."""
    return f"{int(level)}:{key & ~FOR_GOOD:06x}"


class Exposures(NamedTuple):
    """What the states of P people count, as they are stored: `Exposures._make(profiles.exposures)`.

    Attributes:
        key_PX4, time_s_PX, seen_P: keys by level of each impression in the log, its time, and how many there are.
        old_key_PY, old_count_PY, old_last_s_PY: what rolled out of the log: key, how often, when last.
        lost_P3: how often a key that is not held may have been seen: one counted for good; any, and when last.
        session_s_P: when the session began.
    """

    key_PX4: NDArray[np.uint32]
    time_s_PX: NDArray[np.int64]
    seen_P: NDArray[np.int64]
    old_key_PY: NDArray[np.uint32]
    old_count_PY: NDArray[np.int64]
    old_last_s_PY: NDArray[np.int64]
    lost_P3: NDArray[np.int64]
    session_s_P: NDArray[np.int64]


class Out(NamedTuple):
    """What is in flight for P people: level and key of each thing counted, and how many of it are out."""

    start_P1: NDArray[np.int64]
    name_N: NDArray[np.int64]
    many_N: NDArray[np.int64]

    @classmethod
    def of(cls, flights: Sequence[Mapping[str, int] | None]) -> "Out":
        """Of what the spend ledger says by `level_name`, None where it said nothing."""
        named = [list((flight or {}).items()) for flight in flights]
        flat = [(_named(name), many) for some in named for name, many in some]
        names, counts = zip(*flat, strict=True) if flat else ((), ())
        return cls(starts(named), np.array(names, np.int64), np.array(counts, np.int64))


class People(NamedTuple):
    """P people about to see ads.

    Attributes:
        exposures: what their states count.
        out: what is in flight for them, read before their states were.
        last_s_P: when each was heard of last.
        now_s_P: the moment.
        known_P: may their impressions be counted, and could all of the above be read?
    """

    exposures: Exposures
    out: Out
    last_s_P: NDArray[np.int64]
    now_s_P: NDArray[np.int64]
    known_P: NDArray[np.bool_]


class Person(NamedTuple):
    """One of the people, as compiled loops look at them: reading `People` for each cap costs several times more."""

    key_X4: NDArray[np.uint32]
    time_s_X: NDArray[np.int64]
    old_key_Y: NDArray[np.uint32]
    old_count_Y: NDArray[np.int64]
    old_last_s_Y: NDArray[np.int64]
    lost_3: NDArray[np.int64]
    name_N: NDArray[np.int64]
    many_N: NDArray[np.int64]
    session_s: int
    now_s: int
    known: bool


def _named(name: str) -> int:
    level, _, key = name.partition(":")
    return int(level) << _NAME_BITS | int(key, 16)


@kernel
def person_of(people: People, p: int) -> Person:
    """The p-th of the people; a session that is over begins after what they did last."""
    exposures, out, last_s_P, now_s_P, known_P = people
    key_PX4, time_s_PX, seen_P, old_key_PY, old_count_PY, old_last_s_PY, lost_P3, session_s_P = exposures
    seen, first, last = seen_P[p], out.start_P1[p], out.start_P1[p + 1]
    old = old_key_PY.shape[1]
    while old > 0 and old_key_PY[p, old - 1] == 0:  # no key is 0
        old -= 1
    begun_s = last_s_P[p] + 1 if now_s_P[p] - last_s_P[p] >= SESSION_S else session_s_P[p]
    return Person(
        key_PX4[p, :seen],
        time_s_PX[p, :seen],
        old_key_PY[p, :old],
        old_count_PY[p, :old],
        old_last_s_PY[p, :old],
        lost_P3[p],
        out.name_N[first:last],
        out.many_N[first:last],
        begun_s,
        now_s_P[p],
        known_P[p],
    )


@kernel
def bucket_of(key: int) -> int:
    """One of `BUCKETS` for a key, the same whether it is counted for good or not."""
    return int(np.int64(key) >> 1 & BUCKETS - 1)


@kernel
def mark_met(person: Person, met_B: NDArray[np.bool_]) -> None:
    """Mark the buckets of all that was seen or is out; what lies in another was not, and nothing of it is out."""
    lost_for_good, lost, _ = person.lost_3
    met_B[:] = bool(lost_for_good or lost)
    for x in range(len(person.time_s_X)):
        for level in range(person.key_X4.shape[1]):
            met_B[bucket_of(person.key_X4[x, level])] = True
    for key in person.old_key_Y:
        met_B[bucket_of(key)] = True
    for name in person.name_N:
        met_B[bucket_of(name)] = True


@kernel
def counted(person: Person, level: int, key: np.uint32, since_s: int, for_good: bool) -> tuple[int, int]:
    """How often a key was seen since a moment, and when last; what is not known exactly counts in full."""
    many, last_s, held = 0, -NEVER_S, False
    for x in range(len(person.time_s_X)):
        if person.key_X4[x, level] >> 1 == key >> 1:
            many += int(person.time_s_X[x] >= since_s)
            last_s = max(last_s, person.time_s_X[x])
    for y in range(len(person.old_key_Y)):
        if person.old_key_Y[y] >> 1 == key >> 1:
            held = True
            many += person.old_count_Y[y] * int(person.old_last_s_Y[y] >= since_s)
            last_s = max(last_s, person.old_last_s_Y[y])
    lost_for_good, lost, lost_s = person.lost_3
    if not held and (lost_for_good or lost):
        last_s = max(last_s, lost_s)
        many += max(lost * int(lost_s >= since_s), lost_for_good * int(for_good))
    return many, last_s


@kernel
def out_of(person: Person, level: int, key: np.uint32) -> int:
    """How many are out for a person under a key."""
    name = np.int64(level) << _NAME_BITS | (np.int64(key) & ~FOR_GOOD)
    for n in range(len(person.name_N)):
        if person.name_N[n] == name:
            return int(person.many_N[n])
    return 0
