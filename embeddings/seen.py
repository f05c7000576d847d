"""What a person has seen beyond the history: exact ids up to 1,024, then Bloom filters. Kept beside the state.

A stored value is a version byte, a kind byte and a payload: five bytes per id in order of eviction, or filters one
after the other, of 8, 16, 32 KiB and so on (scalable Bloom filters; Almeida, Baquero, Preguiça, Hutchison, 2007). Each
id sets four bits of the last one, which is followed by another once a quarter of its bits are set: after 4,700
evictions, 14,000, 33,000, 71,000. An unseen item is called seen for 1 in 5,000 after 2,000 evictions, 1 in 256 for
every filter that is full, so 1 in 65 after 71,000; one that was seen is never forgotten.

Shapes: U users, E evictions, P positions, K candidates, H entries of history, N bytes.

>>> none = SeenSets.decode([None])
>>> grown = none.add(np.zeros(2, np.int32), np.array([7, 9], np.uint64))
>>> history, candidates = np.array([[5]], np.uint64), np.array([[5, 7, 8]], np.uint64)
>>> SeenSets.decode(grown.values).hits(np.zeros(1, np.int32), history, candidates)
array([[ True,  True, False]])
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.errors import UnreadableState
from embeddings.jit import kernel
from embeddings.state_columns import Evictions

#: Ids kept exactly; one more turns the set into a filter.
EXACT = 1024
#: The first filter; each that follows is twice as large as the one before.
BLOOM_BYTES = 8192
_MOST_FILTERS = 12
_QUARTER = 2 * BLOOM_BYTES
_VERSION, _LIST, _BLOOM = 1, 0, 1
_HEADER = 2
_ID_BYTES = 5
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
#: Bytes of so many filters.
_BLOOM_SIZES = BLOOM_BYTES * (2 ** np.arange(_MOST_FILTERS + 1, dtype=np.int64) - 1)
_NONE = Evictions(np.empty(0, np.int32), np.empty(0, np.uint64), np.empty(0, np.int32))


class SeenUpdate(NamedTuple):
    """The sets that grew: index of the user in the batch, and the value to store."""

    user_N: NDArray[np.int32]
    values: list[bytes]


class SeenSets(NamedTuple):
    """The stored sets of U users, left as bytes.

    Attributes:
        data_N: all values, one after the other.
        start_U: where a user's payload begins.
        count_U: ids in it; below 0 = so many filters.
    """

    data_N: NDArray[np.uint8]
    start_U: NDArray[np.int64]
    count_U: NDArray[np.int32]

    @classmethod
    def decode(cls, values: Sequence[bytes | None]) -> "SeenSets":
        """The sets of U users; None is an empty one.

        Raises:
            UnreadableState: a value's version, kind or length is not known. Nothing was changed.
        """
        chunks = [value or b"" for value in values]
        data_N = np.frombuffer(bytearray().join([*chunks, b"\0"]), np.uint8)  # a torn value ends before its kind
        size_U = np.fromiter(map(len, chunks), np.int64, len(chunks))
        begin_U = size_U.cumsum() - size_U
        count_U = np.maximum(size_U - _HEADER, 0) // _ID_BYTES
        held = np.flatnonzero(size_U)
        kind_N = data_N[begin_U[held] + 1]
        filters_N = np.searchsorted(_BLOOM_SIZES[:-1], size_U[held] - _HEADER)
        whole_N = (filters_N > 0) & (_BLOOM_SIZES[filters_N] == size_U[held] - _HEADER)
        sound_N = np.where(kind_N == _BLOOM, whole_N, size_U[held] % _ID_BYTES == _HEADER)
        if not (sound_N & (kind_N <= _BLOOM) & (data_N[begin_U[held]] == _VERSION)).all():
            raise UnreadableState(f"a seen set of unknown layout: this release reads version {_VERSION}")
        count_U[held[kind_N == _BLOOM]] = -filters_N[kind_N == _BLOOM]
        return cls(data_N, begin_U + _HEADER, count_U.astype(np.int32))

    def hits(
        self,
        user_P: NDArray[np.int32],
        item_PH: NDArray[np.uint64],
        item_PK: NDArray[np.uint64],
        evicted: Evictions = _NONE,
        position_P: NDArray[np.int32] | None = None,
    ) -> NDArray[np.bool_]:
        """Which candidates had each position's user seen by then? Shape (P, K).

        Seen is what is stored, what the position's history holds, and what earlier events of the same batch pushed
        out of it. A filter may say yes to an unseen item, see above.

        Args:
            user_P: whose set it is, an index of this batch.
            item_PH: the history at the position; 0 = empty.
            item_PK: candidate ids.
            evicted: what the batch evicted so far, in position order.
            position_P: the positions, as `Folded` numbers them; needed where `evicted` is given.
        """
        first_P, last_P = _evictions(user_P, evicted, position_P)
        return _hits(*self, user_P, item_PH, item_PK, evicted.item_E, first_P, last_P)

    def sizes(
        self, user_P: NDArray[np.int32], evicted: Evictions = _NONE, position_P: NDArray[np.int32] | None = None
    ) -> NDArray[np.int64]:
        """How much each position's user had seen by then beyond the history; for a filter, what it begins with.

        An item that the batch evicts once more counts once more. Arguments as for `hits`.
        """
        first_P, last_P = _evictions(user_P, evicted, position_P)
        stored_U = np.where(self.count_U < 0, EXACT + 1, self.count_U)
        size_P: NDArray[np.int64] = stored_U[user_P] + np.maximum(last_P - first_P, 0)
        return size_P

    def add(self, user_E: NDArray[np.int32], item_E: NDArray[np.uint64]) -> SeenUpdate:
        """The values of the sets that grow by these evictions, which come user by user. Does not mutate."""
        user_N, out_N, end_N = _add(*self, user_E, item_E)
        data, begin = out_N.tobytes(), 0
        values = []
        for end in end_N.tolist():
            values.append(data[begin:end])
            begin = end
        return SeenUpdate(user_N, values)

    def stored(self, user_N: NDArray[np.integer]) -> SeenUpdate:
        """The values of some users as they are, of those who have one; to be stored again, so that they live on."""
        user_M = user_N[self.count_U[user_N] != 0]
        count_M = self.count_U[user_M]
        size_M = np.where(count_M < 0, _BLOOM_SIZES[-np.minimum(count_M, 0)], _ID_BYTES * count_M)
        ends = zip(self.start_U[user_M].tolist(), size_M.tolist(), strict=True)
        values = [self.data_N[start - _HEADER : start + size].tobytes() for start, size in ends]
        return SeenUpdate(user_M.astype(np.int32), values)


def _evictions(
    user_P: NDArray[np.int32], evicted: Evictions, position_P: NDArray[np.int32] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the evictions of each position's user begin, and where those up to the position end."""
    if position_P is None:
        nothing_P = np.zeros(len(user_P), np.int64)
        return nothing_P, nothing_P
    first_P = np.searchsorted(evicted.user_E, user_P, side="left")
    return first_P, np.searchsorted(evicted.position_E, position_P, side="right")


@kernel
def _read_id(data_N: NDArray[np.uint8], at: int) -> np.uint64:
    out = np.uint64(0)
    for b in range(_ID_BYTES):
        out |= np.uint64(data_N[at + b]) << np.uint64(8 * b)
    return out


@kernel
def _write_id(data_N: NDArray[np.uint8], at: int, item: np.uint64) -> None:
    for b in range(_ID_BYTES):
        data_N[at + b] = np.uint8((item >> np.uint64(8 * b)) & np.uint64(255))


@kernel
def _mixed(item: np.uint64) -> np.uint64:
    """The finaliser of splitmix64 (Steele, Lea, Flood, 2014): 64 well mixed bits."""
    x = (item ^ (item >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return np.uint64(x ^ (x >> np.uint64(31)))


@kernel
def _bit(bits: np.uint64, number: int, k: int) -> np.int64:
    """The k-th bit of an id in the filter of this number, by double hashing (Kirsch, Mitzenmacher, 2006).

    In the first it is one of four slices of 16 bits.
    """
    if number == 0:
        return np.int64((bits >> np.uint64(16 * k)) & np.uint64(0xFFFF))
    step = (bits >> np.uint64(32)) | np.uint64(1)
    return np.int64((bits + np.uint64(k) * step) & np.uint64(8 * (BLOOM_BYTES << number) - 1))


@kernel
def _bloom_has(data_N: NDArray[np.uint8], at: int, filters: int, item: np.uint64) -> bool:
    bits = _mixed(item)
    for number in range(filters):
        has = True
        for k in range(4):
            bit = _bit(bits, number, k)
            has &= (data_N[at + (bit >> 3)] >> (bit & 7)) & 1 == 1
        if has:
            return True
        at += BLOOM_BYTES << number
    return False


@kernel
def _bloom_put(data_N: NDArray[np.uint8], at: int, filters: int, item: np.uint64) -> int:
    """Set the bits of an id in the last filter; return how many were not."""
    bits, number, new = _mixed(item), filters - 1, 0
    at += BLOOM_BYTES * ((1 << number) - 1)
    for k in range(4):
        bit = _bit(bits, number, k)
        mask = np.uint8(1 << (bit & 7))
        new += data_N[at + (bit >> 3)] & mask == 0
        data_N[at + (bit >> 3)] |= mask
    return new


@kernel
def _ones(data_N: NDArray[np.uint8], at: int, filters: int) -> int:
    """How many bits of the last filter are set."""
    ones, at = 0, at + BLOOM_BYTES * ((1 << (filters - 1)) - 1)
    for n in range(at, at + (BLOOM_BYTES << (filters - 1))):
        byte = int(data_N[n])
        while byte:
            byte &= byte - 1
            ones += 1
    return ones


@kernel
def _find(key_T: NDArray[np.uint64], stamp_T: NDArray[np.int64], stamp: int, item: np.uint64) -> np.int64:
    """The slot of an item in an open-addressed table, or the free one where it belongs; other stamps are free."""
    mask = np.int64(len(key_T) - 1)
    at = np.int64(_mixed(item) & np.uint64(mask))
    while stamp_T[at] == stamp and key_T[at] != item:
        at = (at + 1) & mask
    return at


@kernel
def _hits(
    data_N: NDArray[np.uint8],
    start_U: NDArray[np.int64],
    count_U: NDArray[np.int32],
    user_P: NDArray[np.int32],
    item_PH: NDArray[np.uint64],
    item_PK: NDArray[np.uint64],
    item_E: NDArray[np.uint64],
    first_P: NDArray[np.int64],
    last_P: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """A small hash table per position, reused by stamp: its size is that of the largest set, not of the catalogue."""
    most = 0
    for p in range(len(user_P)):
        most = max(most, count_U[user_P[p]] + last_P[p] - first_P[p])
    size = 64
    while size < 2 * (most + item_PH.shape[1]):
        size *= 2
    key_T, stamp_T = np.empty(size, np.uint64), np.full(size, -1, np.int64)
    hit_PK = np.zeros(item_PK.shape, np.bool_)
    for p in range(len(user_P)):
        start, count = start_U[user_P[p]], count_U[user_P[p]]
        for n in range(count):
            item = _read_id(data_N, start + _ID_BYTES * n)
            at = _find(key_T, stamp_T, p, item)
            key_T[at], stamp_T[at] = item, p
        for h in range(item_PH.shape[1]):
            at = _find(key_T, stamp_T, p, item_PH[p, h])
            if item_PH[p, h] != 0:
                key_T[at], stamp_T[at] = item_PH[p, h], p
        for e in range(first_P[p], last_P[p]):
            at = _find(key_T, stamp_T, p, item_E[e])
            key_T[at], stamp_T[at] = item_E[e], p
        for k in range(item_PK.shape[1]):
            seen = stamp_T[_find(key_T, stamp_T, p, item_PK[p, k])] == p
            hit_PK[p, k] = seen or (count < 0 and _bloom_has(data_N, start, -count, item_PK[p, k]))
    return hit_PK


@kernel
def _room(count_U: NDArray[np.int32], user_E: NDArray[np.int32]) -> int:
    """Bytes that suffice for every set that these evictions may touch."""
    room, e = 0, 0
    while e < len(user_E):
        first, count = e, count_U[user_E[e]]
        while e < len(user_E) and user_E[e] == user_E[first]:
            e += 1
        filters = max(-count, 0) + 1 + (e - first) * 4 // _QUARTER
        room += _HEADER + _ID_BYTES * (max(count, 0) + e - first)
        room += BLOOM_BYTES * ((1 << min(filters, _MOST_FILTERS)) - 1)
    return room


@kernel
def _to_bloom(out_N: NDArray[np.uint8], begin: int, count: int) -> None:
    """Turn the list of ids at `begin` into a filter, in place."""
    item_M = np.empty(count, np.uint64)
    for n in range(count):
        item_M[n] = _read_id(out_N, begin + _HEADER + _ID_BYTES * n)
    out_N[begin + 1] = _BLOOM
    out_N[begin + _HEADER : begin + _HEADER + BLOOM_BYTES] = 0
    for n in range(count):
        _bloom_put(out_N, begin + _HEADER, 1, item_M[n])


@kernel
def _listed(out_N: NDArray[np.uint8], begin: int, count: int, item: np.uint64) -> int:
    """Add one item to the list at `begin`; return its new count, -1 = a filter. The same count means it was there."""
    payload = begin + _HEADER
    for n in range(count):
        if _read_id(out_N, payload + _ID_BYTES * n) == item:
            return count
    _write_id(out_N, payload + _ID_BYTES * count, item)
    if count < EXACT:
        return count + 1
    _to_bloom(out_N, begin, count + 1)
    return -1


@kernel
def _grown(out_N: NDArray[np.uint8], begin: int, count: int, item_M: NDArray[np.uint64]) -> tuple[int, bool]:
    """Add items to the set at `begin`; return its new count and whether it is another set now."""
    payload, before, grown = begin + _HEADER, count, False
    ones = _ones(out_N, payload, -count) if count < 0 else 0
    for item in item_M:
        if count >= 0:
            count = _listed(out_N, begin, count, item)
            ones = _ones(out_N, payload, 1) if count < 0 else 0
        elif not _bloom_has(out_N, payload, -count, item):
            if ones >= _QUARTER << (-count - 1) and -count < _MOST_FILTERS:
                count, ones = count - 1, 0
            ones += _bloom_put(out_N, payload, -count, item)
            grown = True
    return count, grown or count != before


@kernel
def _add(
    data_N: NDArray[np.uint8],
    start_U: NDArray[np.int64],
    count_U: NDArray[np.int32],
    user_E: NDArray[np.int32],
    item_E: NDArray[np.uint64],
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64]]:
    out_N = np.zeros(_room(count_U, user_E), np.uint8)
    user_M, end_M = np.empty(len(user_E), np.int32), np.empty(len(user_E), np.int64)
    sets, begin, e = 0, 0, 0
    while e < len(user_E):
        u = user_E[e]
        start, count = start_U[u], int(count_U[u])
        size = BLOOM_BYTES * ((1 << -count) - 1) if count < 0 else _ID_BYTES * count
        out_N[begin] = _VERSION
        out_N[begin + 1] = _BLOOM if count < 0 else _LIST
        out_N[begin + _HEADER : begin + _HEADER + size] = data_N[start : start + size]
        first = e
        while e < len(user_E) and user_E[e] == u:
            e += 1
        count, grown = _grown(out_N, begin, count, item_E[first:e])
        if grown:
            begin += _HEADER + (BLOOM_BYTES * ((1 << -count) - 1) if count < 0 else _ID_BYTES * count)
            user_M[sets], end_M[sets] = u, begin
            sets += 1
    return user_M[:sets], out_N[:begin], end_M[:sets]
