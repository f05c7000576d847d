"""Which impression earned which outcome: the labels of the pointwise heads.

A published slate is not an impression; an `impression` event is. Its label is whether the same person clicked, played
or completed the item within the window, in event time. An impression whose slate is unknown (not sampled, too old)
teaches nothing.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.events import Action, Says, actions_that

_ENGAGED, _COMPLETED = actions_that(Says.engaged), actions_that(Says.completed)


class Labelled(NamedTuple):
    """R impressions whose window has closed: features as used, item ids, and the two labels."""

    x_RF: NDArray[np.float32]
    item_R: NDArray[np.uint64]
    engaged_R: NDArray[np.bool_]
    completed_R: NDArray[np.bool_]


@dataclass(slots=True)
class _Impression:
    item: int
    x_F: NDArray[np.float16]
    until_s: int
    engaged: bool = False
    completed: bool = False


@dataclass(slots=True)
class Attribution:
    """Joins shown slates, impressions and outcomes; holds at most `capacity` slates and as many open impressions."""

    window_s: int
    capacity: int = 50_000
    _slates: OrderedDict[int, tuple[NDArray[np.uint64], NDArray[np.float16]]] = field(default_factory=OrderedDict)
    _open: dict[tuple[int, int], _Impression] = field(default_factory=dict)
    _due: deque[tuple[int, tuple[int, int]]] = field(default_factory=deque)
    _now_s: int = 0

    def show(self, slate_L: NDArray[np.uint64], item_LN: NDArray[np.uint64], x_LNF: NDArray[np.float16]) -> None:
        """Remember L published slates, so that an impression of one finds the features that were used."""
        for position, slate in enumerate(slate_L.tolist()):
            self._slates[slate] = (item_LN[position], x_LNF[position])
        while len(self._slates) > self.capacity:
            self._slates.popitem(last=False)

    def happen(
        self,
        user_R: NDArray[np.uint64],
        item_R: NDArray[np.uint64],
        action_R: NDArray[np.uint8],
        slate_R: NDArray[np.uint64],
        time_s_R: NDArray[np.int64],
    ) -> Labelled:
        """Take R events in order; returns the impressions whose window closed before the last of them."""
        of_interest_R = (_ENGAGED[action_R] | (action_R == Action.impression)) & (item_R != 0)
        if not self._open and not (action_R == Action.impression).any():
            return self._labelled([])
        for r in np.flatnonzero(of_interest_R).tolist():
            key = int(user_R[r]), int(item_R[r])
            if action_R[r] == Action.impression:
                self._impress(key, int(slate_R[r]), int(time_s_R[r]))
            elif (shown := self._open.get(key)) and time_s_R[r] <= shown.until_s:
                shown.engaged = True
                shown.completed |= bool(_COMPLETED[action_R[r]])
        self._now_s = max(self._now_s, int(time_s_R.max(initial=0)))
        return self._labelled(self._closed())

    def _impress(self, key: tuple[int, int], slate: int, time_s: int) -> None:
        known = self._slates.get(slate)
        if known is None or key in self._open:
            return
        item_N, x_NF = known
        at = np.flatnonzero(item_N == key[1])
        if not len(at):
            return
        self._open[key] = _Impression(key[1], x_NF[int(at[0])], time_s + self.window_s)
        self._due.append((time_s + self.window_s, key))

    def _closed(self) -> list[_Impression]:
        closed: list[_Impression] = []
        while self._due and (self._due[0][0] < self._now_s or len(self._due) > self.capacity):
            closed.append(self._open.pop(self._due.popleft()[1]))
        return closed

    def _labelled(self, closed: list[_Impression]) -> Labelled:
        return Labelled(
            np.array([i.x_F for i in closed], np.float32) if closed else np.empty((0, 0), np.float32),
            np.array([i.item for i in closed], np.uint64),
            np.array([i.engaged for i in closed], np.bool_),
            np.array([i.completed for i in closed], np.bool_),
        )
