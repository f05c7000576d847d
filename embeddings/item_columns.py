"""The columns of the item table: one array per fact, of which those that ranking reads lie in one line of memory.

A candidate can be anywhere in the table, so what is looked up of it costs as many lines as it lies in: counts, their
clock, dates and categories are 60 bytes of one.
"""

import numpy as np
from numpy.typing import NDArray

from embeddings.content import WORDS

CATEGORIES = 6
FOREVER_S = 1 << 40
_LINE = np.dtype(
    {
        "names": ["popularity", "reactions", "clock_s", "last_taken_s", "first_seen_s", "year", "categories"],
        "formats": ["4f4", "4f4", "u4", "u4", "u4", "i2", f"{CATEGORIES}i2"],
        "itemsize": 64,
    }
)
_OTHERS = {
    "from_s_N": ("i8", 1, 0),
    "until_s_N": ("i8", 1, FOREVER_S),
    "fresh_s_N": ("i8", 1, 0),
    "territory_N4": ("u8", 4, np.iinfo(np.uint64).max),
    "surface_N4": ("u8", 4, np.iinfo(np.uint64).max),
    "language_N4": ("u8", 4, np.iinfo(np.uint64).max),
    "words_NW": ("i2", WORDS, -1),
    "length_s_N": ("f4", 1, 0),
    "used_s_N": ("u4", 1, 0),
    "age_N": ("u1", 1, 0),
    **dict.fromkeys(("rated_N", "hidden_N", "removed_N", "catalogued_N", "named_N", "counted_N"), ("?", 1, 0)),
}
"""Type, width and what is there of an item nobody knows anything about."""


class Columns:
    """One array per fact, all of the same capacity; row r of each speaks of the same item.

    Counts are as of `clock_s_N`, the event time they were told for: what is left of them now is for a reader to work
    out. `reactions_N4` are likes, dislikes, times shown and clicked. `used_s_N` is when somebody last had a use for the
    row (`embeddings.turnover`). Times are epoch seconds, 0 = never.
    """

    popularity_N4: NDArray[np.float32]
    reactions_N4: NDArray[np.float32]
    clock_s_N: NDArray[np.uint32]
    last_taken_s_N: NDArray[np.uint32]
    first_seen_s_N: NDArray[np.uint32]
    year_N: NDArray[np.int16]
    categories_NC: NDArray[np.int16]
    words_NW: NDArray[np.int16]
    length_s_N: NDArray[np.float32]
    from_s_N: NDArray[np.int64]
    until_s_N: NDArray[np.int64]
    fresh_s_N: NDArray[np.int64]
    territory_N4: NDArray[np.uint64]
    surface_N4: NDArray[np.uint64]
    language_N4: NDArray[np.uint64]
    used_s_N: NDArray[np.uint32]
    age_N: NDArray[np.uint8]
    rated_N: NDArray[np.bool_]
    hidden_N: NDArray[np.bool_]
    removed_N: NDArray[np.bool_]
    catalogued_N: NDArray[np.bool_]
    named_N: NDArray[np.bool_]
    counted_N: NDArray[np.bool_]

    def __init__(self, capacity: int) -> None:
        """Columns of items nobody knows anything about."""
        lines_N = np.zeros(capacity, _LINE)
        self.popularity_N4, self.reactions_N4 = lines_N["popularity"], lines_N["reactions"]
        self.clock_s_N, self.year_N = lines_N["clock_s"], lines_N["year"]
        self.last_taken_s_N, self.first_seen_s_N = lines_N["last_taken_s"], lines_N["first_seen_s"]
        self.categories_NC = lines_N["categories"]
        self.categories_NC[:] = -1
        self._lines_N = lines_N
        for name, (kind, width, nothing) in _OTHERS.items():
            shape = (capacity,) if width == 1 else (capacity, width)
            setattr(self, name, np.full(shape, nothing, kind) if nothing else np.zeros(shape, kind))

    def __len__(self) -> int:
        return len(self._lines_N)

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        return int(self._lines_N.nbytes) + sum(int(getattr(self, name).nbytes) for name in _OTHERS)

    def clear(self, rows_R: NDArray[np.int32]) -> None:
        """Leave nothing of some rows."""
        self._lines_N[rows_R] = np.zeros(1, _LINE)
        self.categories_NC[rows_R] = -1
        for name, (_, _, nothing) in _OTHERS.items():
            getattr(self, name)[rows_R] = nothing

    def grown(self, capacity: int) -> "Columns":
        """A copy with room for `capacity` rows."""
        wider = Columns(capacity)
        wider._lines_N[: len(self)] = self._lines_N
        for name in _OTHERS:
            getattr(wider, name)[: len(self)] = getattr(self, name)
        return wider
