"""The most taken rows, kept in order while counts change a few at a time.

Counts fade alike, so their order stays: a row's *key*, log2(count) + clock / half-life, never changes with time.
"""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int32]
MOST = 1 << 16
"""So many of the best are always kept, where there are as many."""


def keys_of(count_R: NDArray[np.float32], clock_s_R: NDArray[np.integer], half_life_s: float) -> NDArray[np.float64]:
    """A key of each count, as of its clock; minus infinity where nothing was taken."""
    with np.errstate(divide="ignore", invalid="ignore"):
        key_R = np.log2(np.asarray(count_R, np.float64)) + np.asarray(clock_s_R, np.float64) / half_life_s
    return np.where(count_R > 0, key_R, -np.inf)


class Leaders:
    """All rows whose key is above `floor`, best first. Arrays are replaced, so a reader has one state."""

    def __init__(self) -> None:
        """No row was taken."""
        self.row_L: Rows = np.empty(0, np.int32)
        self._key_L = np.empty(0)
        self.floor = -np.inf

    def take(self, row_R: Rows, key_R: NDArray[np.float64]) -> bool:
        """Take over the keys of distinct rows. Returns False where too few are left: begin anew with all rows."""
        kept = ~np.isin(self.row_L, row_R) if len(self.row_L) else np.zeros(0, np.bool_)
        up = key_R > self.floor
        keys, rows = np.append(self._key_L[kept], key_R[up]), np.append(self.row_L[kept], row_R[up])
        order = np.argsort(-keys, kind="stable")
        if len(order) > 2 * MOST:
            self.floor = float(keys[order[MOST]])
            order = order[:MOST]
        self._key_L, self.row_L = keys[order], rows[order].astype(np.int32)
        return self.floor == -np.inf or len(order) >= MOST // 2

    def best(self, size: int, blocked_N: NDArray[np.bool_]) -> Rows | None:
        """The first rows that are not blocked, at most so many; None where there are others, below the floor."""
        looked, found = 4 * size, self.row_L[:0]
        while len(found) < size:
            rows = self.row_L[:looked]
            found = rows[~blocked_N[rows]]
            if looked >= len(self.row_L):
                break
            looked *= 4
        return None if len(found) < size and self.floor > -np.inf else found[:size]
