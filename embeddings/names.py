"""Names of item rows, as one run of bytes: a fifth of what strings in a dictionary take, and stored as they lie here.

>>> names = Names()
>>> names.put(np.array([0, 2], np.int32), ["ann", "Bö"])
>>> names.of(np.array([2, 1, 0], np.int32))
['Bö', '', 'ann']
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from embeddings.jit import kernel

LEAST_WASTE = 1 << 20
"""Bytes of names that are gone, below which nothing is packed."""


class Names:
    """The name of each row, empty where it is not known."""

    def __init__(self) -> None:
        """Start with no name."""
        self._text_B = np.zeros(1024, np.uint8)
        self._used = 0
        self._wasted = 0
        self._begin_N = np.zeros(0, np.int64)
        self._size_N = np.zeros(0, np.int32)
        self.held = 0
        """How many rows have a name."""

    def known(self, rows_R: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which rows have a name."""
        inside_R = rows_R < len(self._size_N)
        known_R: NDArray[np.bool_] = np.zeros(len(rows_R), np.bool_)
        known_R[inside_R] = self._size_N[rows_R[inside_R]] > 0
        return known_R

    def put(self, rows_R: NDArray[np.int32], names: Sequence[str]) -> None:
        """Name rows that have no name."""
        encoded = [name.encode() for name in names]
        size_R = np.fromiter(map(len, encoded), np.int32, len(encoded))
        self._make_room(int(rows_R.max(initial=-1)) + 1, self._used + int(size_R.sum()))
        self._begin_N[rows_R], self._size_N[rows_R] = self._used + np.cumsum(size_R) - size_R, size_R
        end = self._used + int(size_R.sum())
        self._text_B[self._used : end] = np.frombuffer(b"".join(encoded), np.uint8)
        self._used = end
        self.held += int((size_R > 0).sum())

    def of(self, rows_R: NDArray[np.int32]) -> list[str]:
        """The names of R rows."""
        known_R = self.known(rows_R)
        begin_R, size_R = np.zeros(len(rows_R), np.int64), np.zeros(len(rows_R), np.int64)
        begin_R[known_R], size_R[known_R] = self._begin_N[rows_R[known_R]], self._size_N[rows_R[known_R]]
        text = self._text_B.data
        return [str(text[at : at + size], "utf-8") for at, size in zip(begin_R.tolist(), size_R.tolist(), strict=True)]

    def forget(self, rows_R: NDArray[np.int32]) -> None:
        """Leave no name of these rows."""
        rows_R = rows_R[self.known(rows_R)]
        self._wasted += int(self._size_N[rows_R].sum())
        self.held -= len(rows_R)
        self._size_N[rows_R] = 0
        if self._wasted > max(LEAST_WASTE, self._used // 2):
            packed_B = np.zeros(self._used - self._wasted, np.uint8)
            _pack(self._text_B, self._begin_N, self._size_N, packed_B)
            self._text_B, self._used, self._wasted = packed_B, len(packed_B), 0

    def copy(self) -> "Names":
        """The same names, for another thread."""
        copied = Names()
        copied.restore({name: array.copy() for name, array in self.state().items()})
        return copied

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything, as arrays: views, good until the next `put`."""
        return {"text": self._text_B[: self._used], "begin": self._begin_N, "size": self._size_N}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Be what `state` was of."""
        self._text_B = np.array(state["text"], np.uint8)
        self._begin_N, self._size_N = np.array(state["begin"], np.int64), np.array(state["size"], np.int32)
        self._used = len(self._text_B)
        self._wasted = self._used - int(self._size_N.sum())
        self.held = int((self._size_N > 0).sum())

    def _make_room(self, rows: int, used: int) -> None:
        if used > len(self._text_B):
            self._text_B = np.append(self._text_B, np.zeros(max(used, 2 * self._used) - len(self._text_B), np.uint8))
        if (more := rows - len(self._size_N)) > 0:
            more = max(more, len(self._size_N) // 2)
            self._begin_N = np.append(self._begin_N, np.zeros(more, np.int64))
            self._size_N = np.append(self._size_N, np.zeros(more, np.int32))


@kernel
def _pack(
    text_B: NDArray[np.uint8], begin_N: NDArray[np.int64], size_N: NDArray[np.int32], packed_B: NDArray[np.uint8]
) -> None:
    """Copy the names that are there, in the order of rows, and note where they lie then."""
    used = 0
    for row in range(len(begin_N)):
        size = int(size_N[row])
        packed_B[used : used + size] = text_B[begin_N[row] : begin_N[row] + size]
        begin_N[row] = used
        used += size
