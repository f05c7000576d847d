"""What changed and when something will: rows in the order of changes, and rows by moment.

Both let a reader look only at what is new to it, however many rows there are.

>>> times = Times()
>>> times.add(np.array([30, 10]), np.array([5, 6]))
>>> times.between(9, 20).tolist(), times.latest(0, 99, 1)
([6], (array([30]), array([5]), False))
"""

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from embeddings.idtable import MAX_ROWS, ROW_BITS

Rows = NDArray[np.int32]
_MOST = 1 << 16
_LAST_S = 1 << 38


class Changes:
    """Which rows changed, in order, as far back as some ten thousands of them; each reader has its own place in it."""

    def __init__(self) -> None:
        """Nothing changed yet."""
        self.end = 0
        self._parts: deque[Rows] = deque()
        self._held = 0

    def add(self, rows_R: Rows) -> None:
        """Some rows changed."""
        self._parts.append(rows_R)
        self._held += len(rows_R)
        self.end += 1
        while self._parts and (self._held > _MOST or len(self._parts) > _MOST):
            self._held -= len(self._parts.popleft())

    def since(self, end: int) -> Rows | None:
        """Rows that changed since `end` was the end, each once; None where that is too long ago to be known."""
        wanted = self.end - end
        if wanted > len(self._parts):
            return None
        if not wanted:
            return np.empty(0, np.int32)
        return np.unique(np.concatenate([self._parts[n] for n in range(len(self._parts) - wanted, len(self._parts))]))


class Times:
    """Moments of rows in order: some sorted arrays, each at least twice as long as the next when added, replaced whole.

    One thread may add while others look. What was added stays until `keep`: a row may have moments that hold no more.
    """

    def __init__(self) -> None:
        """No moments."""
        self._levels: tuple[NDArray[np.int64], ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self._levels))

    def add(self, time_s_R: NDArray[np.int64], row_R: NDArray[np.integer]) -> None:
        """Add moments, epoch seconds; those that are 0, or so far away that they never come, are left out."""
        key_R = (time_s_R << ROW_BITS | row_R)[(time_s_R > 0) & (time_s_R < _LAST_S)]
        if not len(key_R):
            return
        levels = [*self._levels, np.unique(key_R)]
        while len(levels) > 1 and len(levels[-2]) < 2 * len(levels[-1]):
            both = np.sort(np.concatenate([levels.pop(), levels.pop()]), kind="stable")
            levels.append(both[np.append(True, both[1:] != both[:-1])])
        self._levels = tuple(levels)

    def keep(self, holds: Callable[[NDArray[np.int64], Rows], NDArray[np.bool_]]) -> None:
        """Leave out the moments, of rows, that hold no more."""
        kept = [level[holds(level >> ROW_BITS, (level & MAX_ROWS).astype(np.int32))] for level in self._levels]
        self._levels = tuple(level for level in kept if len(level))

    def between(self, after_s: int, until_s: int) -> Rows:
        """Rows with a moment after one and not after another."""
        found = [level[slice(*_within(level, after_s, until_s))] for level in self._levels]
        keys = np.concatenate(found) if found else np.empty(0, np.int64)
        return (keys & MAX_ROWS).astype(np.int32)

    def latest(self, after_s: int, until_s: int, most: int) -> tuple[NDArray[np.int64], Rows, bool]:
        """At most so many of these moments per array, latest first, and their rows; are these all of them?"""
        parts, surely, whole = [np.empty(0, np.int64)], 0, True
        for level in self._levels:
            begin, end = _within(level, after_s, until_s)
            if end - begin > most:
                begin, whole = end - most, False
                surely = max(surely, int(level[begin]))
            parts.append(level[begin:end])
        keys = np.unique(np.concatenate(parts))[::-1]
        keys = keys[keys >= surely]
        return keys >> ROW_BITS, (keys & MAX_ROWS).astype(np.int32), whole


def _within(level: NDArray[np.int64], after_s: int, until_s: int) -> tuple[int, int]:
    ends = np.clip([after_s + 1, until_s + 1], 0, _LAST_S) << ROW_BITS
    begin, end = np.searchsorted(level, ends).tolist()
    return begin, max(begin, end)
