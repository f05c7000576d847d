"""What is taken where: decayed takes of items by context, and how popular that makes them there.

A context is said in up to five words: surface, country, language, device, and the hour of the day. Each word is a key,
a number of 16 bits, so that two words out of some hundred may share one: their takes are then counted together. A
context's own takes say little where there are few, so they are added to those of everybody (`shrunk`).
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from embeddings.fading import LARGEST_EXPONENT, weights
from embeddings.idtable import IdTable

WORDS = "surface", "country", "language", "device"
KEYS = len(WORDS) + 1
COUNTRY = WORDS.index("country")
"""Which of the keys of a context is its country's."""
PRIOR = 200.0
"""How many takes of everybody a context's own are added to."""
_KEY_BITS = 16
_KEY_MASK = np.uint64((1 << _KEY_BITS) - 1)


def _key(word: str, said: str) -> int:
    return 1 + xxhash.xxh32_intdigest(f"{word}\0{said}".encode()) % ((1 << _KEY_BITS) - 1)


@lru_cache(maxsize=8192)
def keys_of(*said: str | None) -> tuple[int, ...]:
    """The keys of `WORDS`, 0 where one is not said.

    >>> at_home, in_germany = keys_of("home", None, None, "tv"), keys_of("home", "DE", None, None)
    >>> at_home[1:3], at_home[0] == in_germany[0]
    ((0, 0), True)
    """
    return tuple(_key(word, text) if text else 0 for word, text in zip(WORDS, said, strict=True))


_HOURS = np.array([_key("hour", str(hour)) for hour in range(24)], np.uint16)


def hour_keys(time_s_R: NDArray[np.int64]) -> NDArray[np.uint16]:
    """The key of the hour of the day (UTC) of each time."""
    keys_R: NDArray[np.uint16] = _HOURS[time_s_R // 3_600 % 24]
    return keys_R


class Popularity(NamedTuple):
    """What is popular in C contexts: `key_C`, takes of all items there, and the rows and takes of the K most taken."""

    key_C: NDArray[np.uint16]
    total_C: NDArray[np.float32]
    row_CK: NDArray[np.int32]
    takes_CK: NDArray[np.float32]

    @classmethod
    def none(cls) -> "Popularity":
        """Nowhere anything."""
        none = np.zeros((0, 1))
        return cls(
            none[:, 0].astype(np.uint16), none[:, 0].astype(np.float32), none.astype(np.int32), none.astype("f4")
        )

    def place(self, key: int) -> int:
        """Where a context is among the C; -1 where it is not."""
        at = int(np.searchsorted(self.key_C, key))
        return at if at < len(self.key_C) and self.key_C[at] == key else -1


def shrunk(
    keys: NDArray[np.uint16], there: Popularity, row_T: NDArray[np.int32], share_T: NDArray[np.float32], prior: float
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """What is popular where these keys are said: rows, most popular first, and shares of takes.

    The share of item x where key c is said is `(takes of x there + prior · share of x) / (all takes there + prior)`,
    and by how much that is above its share with everybody multiplies over a context's keys. `row_T` and `share_T` are
    what is popular with everybody; of others, the least of these shares is taken.
    """
    places = [place for key in keys.tolist() if key and (place := there.place(key)) >= 0]
    if not places:
        return row_T, share_T
    own = there.row_CK[places]
    rows = np.unique(np.concatenate([row_T, own[own >= 0]]))
    everybody = np.full(len(rows), max(float(share_T.min(initial=1.0)), 1e-9))
    everybody[np.searchsorted(rows, row_T)] = np.maximum(share_T, 1e-9)
    score = everybody.copy()
    for place in places:
        share = prior * everybody
        held_K = there.row_CK[place] >= 0
        share[np.searchsorted(rows, there.row_CK[place][held_K])] += there.takes_CK[place][held_K]
        score *= share / (there.total_C[place] + prior) / everybody
    best = np.lexsort((rows, -score))
    return rows[best].astype(np.int32), score[best].astype(np.float32)


class ContextCounts:
    """Decayed takes of items by context, of at most `most` pairs of an item and a key: the least taken ones go."""

    def __init__(self, half_life_s: float, most: int = 2_000_000) -> None:
        """Start with none."""
        self.half_life_s, self.most = half_life_s, most
        self.clock_s = 0
        self._origin_1 = np.zeros(1, np.int64)
        self._pairs = IdTable()
        self._takes_E = np.zeros(0)

    def __len__(self) -> int:
        return len(self._pairs)

    def count(self, row_R: NDArray[np.int32], key_RC: NDArray[np.uint16], time_s_R: NDArray[np.int64]) -> None:
        """Count R takes of items by row, in any order; key 0 is not said."""
        if not key_RC.size:
            return
        self.clock_s = max(self.clock_s, int(time_s_R.max()))
        self._move_origin()
        weight_R = weights(time_s_R, np.array([self.half_life_s]), self._origin_1)[:, 0]
        r_E, c_E = np.nonzero(key_RC)
        id_E = (row_R[r_E].astype(np.uint64) + np.uint64(1)) << np.uint64(_KEY_BITS) | key_RC[r_E, c_E].astype(
            np.uint64
        )
        pair_E = self._pairs.ensure(id_E)
        self._takes_E = np.append(self._takes_E, np.zeros(len(self._pairs) - len(self._takes_E)))
        np.add.at(self._takes_E, pair_E, weight_R[r_E])
        if len(self) > self.most:
            self._forget()

    def popularity(self, size: int, among_N: NDArray[np.bool_] | None = None) -> Popularity:
        """The `size` most taken items of every context, ties to the lower row, as of `clock_s`; with a mask, of it."""
        if not len(self._pairs):
            return Popularity.none()
        among_E = slice(None) if among_N is None else among_N[self._rows()]
        key_E, row_E = (self._pairs.ids_N & _KEY_MASK).astype(np.uint16)[among_E], self._rows()[among_E]
        if not len(row_E):
            return Popularity.none()
        now = weights(np.array([self.clock_s]), np.array([self.half_life_s]), self._origin_1)[0, 0]
        takes_E = self._takes_E[among_E] / now
        order = np.lexsort((row_E, -takes_E, key_E))
        key_C, begin_C, count_C = np.unique(key_E[order], return_index=True, return_counts=True)
        row_CK, takes_CK = np.full((len(key_C), size), -1, np.int32), np.zeros((len(key_C), size), np.float32)
        rank_E = np.arange(len(order)) - np.repeat(begin_C, count_C)
        best = rank_E < size
        c_E = np.repeat(np.arange(len(key_C)), count_C)[best]
        row_CK[c_E, rank_E[best]], takes_CK[c_E, rank_E[best]] = row_E[order][best], takes_E[order][best]
        return Popularity(key_C, np.add.reduceat(takes_E[order], begin_C).astype(np.float32), row_CK, takes_CK)

    def forget(self, gone_N: NDArray[np.bool_]) -> None:
        """Leave nothing of items by their rows."""
        self._keep(np.flatnonzero(~gone_N[self._rows()]))

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything needed to go on from here, as arrays: views, good until the next `count`."""
        return {
            "clock": np.array([self.clock_s, self._origin_1[0]], np.int64),
            "half_life_s": np.array([self.half_life_s]),
            "pairs": self._pairs.ids_N,
            "takes": self._takes_E,
        }

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from a `state`; of one of an earlier release, with none; of another half-life, from what it came to."""
        if "pairs" not in state:
            return
        before = np.array(state["half_life_s"], np.float64)
        self.clock_s, origin = (int(n) for n in state["clock"])
        self._origin_1 = np.array([origin])
        self._pairs = IdTable(max(len(state["pairs"]), 1))
        self._pairs.ensure(np.array(state["pairs"], np.uint64))
        self._takes_E = np.array(state["takes"], np.float64)
        if before[0] != self.half_life_s:
            now = np.array([self.clock_s])
            came_to = self._takes_E / weights(now, before, self._origin_1)[0, 0]
            self._origin_1 = np.array([int(self.clock_s // self.half_life_s)])
            self._takes_E = came_to * weights(now, np.array([self.half_life_s]), self._origin_1)[0, 0]

    def _move_origin(self) -> None:
        shift = int(self.clock_s // self.half_life_s) - int(self._origin_1[0])
        if shift > LARGEST_EXPONENT:
            self._origin_1 = self._origin_1 + shift
            self._takes_E = np.ldexp(self._takes_E, max(-shift, -10_000))

    def _rows(self) -> NDArray[np.int64]:
        """The item of each pair."""
        return (self._pairs.ids_N >> np.uint64(_KEY_BITS)).astype(np.int64) - 1

    def _forget(self) -> None:
        """Keep the half of the pairs that is taken most."""
        self._keep(np.sort(np.argsort(-self._takes_E, kind="stable")[: self.most // 2]))

    def _keep(self, kept: NDArray[np.intp]) -> None:
        ids, self._takes_E = self._pairs.ids_N[kept].copy(), self._takes_E[kept]
        self._pairs = IdTable(2 * max(len(ids), 1))
        self._pairs.ensure(ids)
