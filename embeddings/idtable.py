"""Item ids to rows: the hash table under the item table and the learner's counts.

>>> table = IdTable()
>>> table.ensure(np.array([70, 80, 70], np.uint64)).tolist()
[0, 1, 0]
>>> table.rows(np.array([80, 5, 0], np.uint64)).tolist()
[1, -1, -1]
"""

import numpy as np
from numpy.typing import NDArray

from embeddings.ids import ITEM_MASK, NO_ITEM
from embeddings.jit import kernel

ROW_BITS = 24
MAX_ROWS = (1 << ROW_BITS) - 1
UNKNOWN = -1
_ERASED = 1
"""A word of no id: whoever looks for one goes on."""


class IdTable:
    """Gives every 40-bit id a row, 0, 1, 2 … in the order of arrival, and keeps it until it is taken back.

    One word holds id and row, so a row is one memory access and one thread may add and take back while others look up:
    a reader sees an id or does not. Room for 16.7 million rows.
    """

    def __init__(self, capacity: int = 1024) -> None:
        """Start empty, with room for `capacity` ids before the first growth."""
        self._ids_C = np.zeros(_power_of_two(capacity), np.uint64)
        self._words_S = np.zeros(2 * len(self._ids_C), np.int64)
        self._retired_C = np.zeros(len(self._ids_C), np.bool_)
        self._count, self._retired, self._erased = 0, 0, 0
        self._free_F = np.empty(0, np.int32)  # the lowest last

    def __len__(self) -> int:
        """Rows up to the highest that was ever given, free ones among them."""
        return self._count

    @property
    def held(self) -> int:
        """How many ids have a row."""
        return self._count - len(self._free_F) - self._retired

    @property
    def free_rows(self) -> int:
        """How many ids find a row before the table needs room for more."""
        return len(self._free_F)

    @property
    def ids_N(self) -> NDArray[np.uint64]:
        """The id of each row, that which it had where it is retired, 0 where it is free. Read-only view. Shape (N,)."""
        view = self._ids_C[: self._count]
        view.flags.writeable = False
        return view

    def rows(self, ids: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The row of each id, -1 where it is unknown or no item (0). Takes and returns any shape."""
        flat = _flat(ids)
        out = np.empty(len(flat), np.int32)
        _find(self._words_S, flat, out)
        return out.reshape(ids.shape)

    def ensure(self, ids: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The row of each id, giving new ids free rows, lowest first; -1 for no item (0). Takes and returns any shape.

        Raises:
            OverflowError: more than 16.7 million distinct ids. A setting is wrong; the process stops.
        """
        flat = _flat(ids)
        out = np.empty(len(flat), np.int32)
        self._reserve(self._count + max(_find(self._words_S, flat, out) - len(self._free_F), 0))
        self._count, left = _insert(self._words_S, self._ids_C.view(np.int64), self._count, self._free_F, flat, out)
        self._free_F = self._free_F[:left]
        return out.reshape(ids.shape)

    def given(self, rows_R: NDArray[np.int32] | slice) -> NDArray[np.bool_]:
        """Which rows are those of ids: neither free nor retired. Shape (R,)."""
        given_R: NDArray[np.bool_] = (self._ids_C[rows_R] != NO_ITEM) & ~self._retired_C[rows_R]
        return given_R

    def retire(self, rows_R: NDArray[np.int32]) -> None:
        """Forget the ids of distinct rows, each of them given; `ids_N` still says them, and nobody gets the rows."""
        if len(rows_R):
            self._retired_C[rows_R] = True
            _erase(self._words_S, self._ids_C[rows_R].view(np.int64))
            self._retired, self._erased = self._retired + len(rows_R), self._erased + len(rows_R)

    def reclaim(self, rows_R: NDArray[np.int32]) -> None:
        """Let others have distinct retired rows."""
        self._ids_C[rows_R], self._retired_C[rows_R] = NO_ITEM, False
        self._retired -= len(rows_R)
        ascending_F = np.concatenate([self._free_F[::-1], np.sort(rows_R.astype(np.int32))])
        self._free_F = np.sort(ascending_F, kind="stable")[::-1].copy()  # two runs: merged in one pass

    def free(self, rows_R: NDArray[np.int32]) -> None:
        """Take distinct rows back at once, each of them given; only where nobody else still means their ids by them."""
        self.retire(rows_R)
        self.reclaim(rows_R)

    def restore(self, ids_N: NDArray[np.uint64]) -> None:
        """Be the table whose `ids_N` these are."""
        self._ids_C = np.zeros(_power_of_two(len(ids_N)), np.uint64)
        self._ids_C[: len(ids_N)] = ids_N
        self._retired_C = np.zeros(len(self._ids_C), np.bool_)
        self._count, self._retired = len(ids_N), 0
        self._free_F = np.flatnonzero(ids_N == NO_ITEM)[::-1].astype(np.int32)
        self._hash_anew()

    def _reserve(self, count: int) -> None:
        """Make room for `count` ids at a load of at most one half, three quarters with what was erased."""
        if count > MAX_ROWS:
            raise OverflowError(f"more than {MAX_ROWS:,} distinct item ids")
        if count > len(self._ids_C):
            more = np.zeros(_power_of_two(count) - len(self._ids_C), np.uint64)
            self._ids_C = np.append(self._ids_C, more)
            self._retired_C = np.append(self._retired_C, more != 0)
        if 2 * len(self._ids_C) > len(self._words_S) or self._erased > len(self._ids_C) // 2:
            self._hash_anew()

    def _hash_anew(self) -> None:
        """Readers keep the old words while others are written."""
        words_S = np.zeros(2 * len(self._ids_C), np.int64)
        _rehash(words_S, self._ids_C.view(np.int64), self._retired_C, self._count)
        self._words_S, self._erased = words_S, 0


def _power_of_two(count: int) -> int:
    return 1 << max(3, (count - 1).bit_length())


def _flat(ids: NDArray[np.uint64]) -> NDArray[np.int64]:
    return np.ascontiguousarray(ids, np.uint64).reshape(-1).view(np.int64)


@kernel
def _slot(words_S: NDArray[np.int64], item: int) -> int:
    """The slot that holds an id, or the empty one where it would go. Fibonacci hashing, linear probing."""
    mask = len(words_S) - 1
    at = ((item * -7046029254386353131) >> 24) & mask
    while words_S[at] != 0 and ((words_S[at] >> ROW_BITS) & ITEM_MASK) != item:
        at = (at + 1) & mask
    return at


@kernel
def _find(words_S: NDArray[np.int64], item_R: NDArray[np.int64], row_R: NDArray[np.int32]) -> int:
    """Write rows, -1 where unknown; return how many unknown ids (not 0) there were, repeats counted."""
    unknown = 0
    for r in range(len(item_R)):
        row_R[r] = UNKNOWN
        if item_R[r] != NO_ITEM:
            word = words_S[_slot(words_S, item_R[r])]
            if word == 0:
                unknown += 1
            else:
                row_R[r] = word & MAX_ROWS
    return unknown


@kernel
def _insert(
    words_S: NDArray[np.int64],
    ids_C: NDArray[np.int64],
    count: int,
    free_F: NDArray[np.int32],
    item_R: NDArray[np.int64],
    row_R: NDArray[np.int32],
) -> tuple[int, int]:
    """Give new ids rows; return how many rows there are then, and how many are left of the free ones."""
    left = len(free_F)
    for r in range(len(item_R)):
        if row_R[r] >= 0 or item_R[r] == NO_ITEM:
            continue
        at = _slot(words_S, item_R[r])
        if words_S[at] == 0:
            row = count
            if left > 0:
                left -= 1
                row = int(free_F[left])
            else:
                count += 1
            ids_C[row] = item_R[r]
            words_S[at] = (item_R[r] << ROW_BITS) | row
        row_R[r] = words_S[at] & MAX_ROWS
    return count, left


@kernel
def _erase(words_S: NDArray[np.int64], item_R: NDArray[np.int64]) -> None:
    for r in range(len(item_R)):
        words_S[_slot(words_S, item_R[r])] = _ERASED


@kernel
def _rehash(words_S: NDArray[np.int64], ids_C: NDArray[np.int64], retired_C: NDArray[np.bool_], count: int) -> None:
    for row in range(count):
        if ids_C[row] != NO_ITEM and not retired_C[row]:
            words_S[_slot(words_S, ids_C[row])] = (ids_C[row] << ROW_BITS) | row
