"""The slates that were told last, as long as there is room: what impressions are joined with.

They lie one after the other in a ring of places, so that of a checkpoint only the blocks of new ones change. Memory is
taken as the ring fills for the first time.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.generic]]
_FIRST_PLACES = 1_024


class ShownSlate(NamedTuple):
    """N items in their places, 0 is none, their features as used, and with which probability each stood there.

    Views, good until the next slate is told.
    """

    item_N: NDArray[np.uint64]
    x_NF: NDArray[np.float16]
    propensity_N: NDArray[np.float16]


class ShownSlates:
    """At most `most` slates, and no more than fit `places` items together; the oldest give way."""

    def __init__(self, most: int, places: int) -> None:
        """Start with none."""
        self.most, self.places = most, places
        self.dropped = 0
        """How many gave way, or were larger than all places together."""
        self._begin: OrderedDict[int, int] = OrderedDict()
        self._end, self._used = 0, 0
        self._slate_P = np.zeros(0, np.uint64)  # said at the first place of a slate, 0 elsewhere
        self._size_P = np.zeros(0, np.int32)
        self._item_P = np.zeros(0, np.uint64)
        self._x_PF = np.zeros((0, 0), np.float16)
        self._propensity_P = np.zeros(0, np.float16)

    def __len__(self) -> int:
        return len(self._begin)

    def find(self, slate: int) -> ShownSlate | None:
        """A slate by its id, None where it is not known."""
        begin = self._begin.get(slate)
        if begin is None:
            return None
        end = begin + int(self._size_P[begin])
        return ShownSlate(self._item_P[begin:end], self._x_PF[begin:end], self._propensity_P[begin:end])

    def show(
        self,
        slate_L: NDArray[np.uint64],
        item_LN: NDArray[np.uint64],
        x_LNF: NDArray[np.float16],
        propensity_LN: NDArray[np.float16],
    ) -> None:
        """Remember L slates of up to N items; one that is told again is remembered as it was told last."""
        if len(slate_L) and self._x_PF.shape[1] != x_LNF.shape[2]:
            self._x_PF = np.zeros((len(self._item_P), x_LNF.shape[2]), np.float16)
        places_N = np.arange(1, item_LN.shape[1] + 1)
        size_L = (places_N * (item_LN != 0)).max(1, initial=0)
        for at, (slate, size) in enumerate(zip(slate_L.tolist(), size_L.tolist(), strict=True)):
            begin = self._room(slate, size)
            if begin >= 0:
                self._slate_P[begin], self._size_P[begin] = slate, size
                self._item_P[begin : begin + size] = item_LN[at, :size]
                self._x_PF[begin : begin + size] = x_LNF[at, :size]
                self._propensity_P[begin : begin + size] = propensity_LN[at, :size]

    def _room(self, slate: int, size: int) -> int:
        """Where a slate may lie, with those gone that lay there; -1 where it cannot."""
        known = self._begin.get(slate)
        if known is not None and self._size_P[known] == size:
            return known
        if known is not None:
            self._slate_P[self._begin.pop(slate)] = 0
        if not 0 < size <= self.places:
            self.dropped += size > 0
            return -1
        if self._end + size > self.places:
            self._drop_from(self._end, self.places)
            self._end = 0
        begin, self._end = self._end, self._end + size
        if self._end > len(self._item_P):
            self._grow()
        self._drop_from(begin, self._end)
        while len(self._begin) >= self.most:
            self._drop()
        self._used = max(self._used, self._end)
        self._begin[slate] = begin
        return begin

    def _grow(self) -> None:
        """Make room up to the end, and for twice as many places as before."""
        more = min(max(self._end, 2 * len(self._item_P), _FIRST_PLACES), self.places) - len(self._item_P)
        self._slate_P = np.pad(self._slate_P, (0, more))
        self._size_P = np.pad(self._size_P, (0, more))
        self._item_P = np.pad(self._item_P, (0, more))
        self._x_PF = np.pad(self._x_PF, ((0, more), (0, 0)))
        self._propensity_P = np.pad(self._propensity_P, (0, more))

    def _drop_from(self, begin: int, end: int) -> None:
        """Drop the slates that begin between two places: the oldest are those that the ring comes to next."""
        while self._begin and begin <= next(iter(self._begin.values())) < end:
            self._drop()

    def _drop(self) -> None:
        _, begin = self._begin.popitem(last=False)
        self._slate_P[begin] = 0
        self.dropped += 1

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything needed to go on, as arrays: views, good until the next slate is told."""
        used = self._used
        return {
            "end": np.array([self._end], np.int64),
            "slate": self._slate_P[:used],
            "size": self._size_P[:used],
            "item": self._item_P[:used],
            "x": self._x_PF[:used],
            "propensity": self._propensity_P[:used],
        }

    def restore(self, state: Arrays, features: int) -> None:
        """Remember the slates of a `state`, in their order; none where their features are not so many."""
        slate_P, size_P, item_P, x_PF = (np.asarray(state[name]) for name in ("slate", "size", "item", "x"))
        if x_PF.shape[1] != features:
            return
        propensity_P = state.get("propensity", np.ones(len(item_P)))  # earlier releases drew nothing by chance
        begin_M = np.flatnonzero(slate_P)
        older_M = begin_M >= int(state["end"][0])
        for begin in np.append(begin_M[older_M], begin_M[~older_M]).tolist():
            end = begin + int(size_P[begin])
            slate_1, item_1N = slate_P[begin : begin + 1].astype(np.uint64), item_P[None, begin:end].astype(np.uint64)
            x_1NF, propensity_1N = (some[None, begin:end].astype(np.float16) for some in (x_PF, propensity_P))
            self.show(slate_1, item_1N, x_1NF, propensity_1N)
