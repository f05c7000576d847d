"""Streaming counts per item, faded by events: what popularity, trending and like rates are made of.

Counts are kept on a growing scale: instead of fading every item at every event, the weight of a new event grows by
2^(1/half-life), and a reader divides by today's weight. The scale starts anew before it leaves the range of a double.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embeddings.events import TAKES, Says, actions_that
from embeddings.idtable import IdTable
from embeddings.items import POPULARITY_HALF_LIVES, ItemCounts

_RATE_HALF_LIFE = 100_000.0
_HALF_LIVES_4 = np.array([*POPULARITY_HALF_LIVES, _RATE_HALF_LIFE])
_LARGEST_EXPONENT = 200.0
_REACTIONS = [actions_that(say) for say in (Says.like, Says.dislike, Says.shown, Says.clicked)]


@dataclass(slots=True)
class ItemCounters:
    """Counts of every item of a learner's id table; `events` is the number of events counted so far."""

    ids: IdTable
    events: float = 0.0
    popularity_N3: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    reactions_N4: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    last_taken_s_N: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    first_seen_s_N: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    origin_4: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))
    _changed: list[NDArray[np.int32]] = field(default_factory=list)

    def count(self, row_R: NDArray[np.int32], action_R: NDArray[np.uint8], time_s_R: NDArray[np.int64]) -> None:
        """Count R events in order: their actions say who takes, likes, dislikes, is shown or clicks an item."""
        self._make_room()
        weight_R4 = np.exp2((self.events + np.arange(1, len(row_R) + 1))[:, None] / _HALF_LIVES_4 - self.origin_4)
        takes_R = TAKES[action_R]
        np.add.at(self.popularity_N3, row_R[takes_R], weight_R4[takes_R, :3])
        for column, counts in enumerate(_REACTIONS):
            chosen_R = counts[action_R]
            np.add.at(self.reactions_N4[:, column], row_R[chosen_R], weight_R4[chosen_R, 3])
        np.maximum.at(self.last_taken_s_N, row_R[takes_R], time_s_R[takes_R])
        row_N, first_N = np.unique(row_R, return_index=True)
        new_N = self.first_seen_s_N[row_N] == 0
        self.first_seen_s_N[row_N[new_N]] = time_s_R[first_N[new_N]]
        self.events += len(row_R)
        self._changed.append(row_R)
        if (self.events / _HALF_LIVES_4 - self.origin_4).max() > _LARGEST_EXPONENT:
            self._rescale()

    def changed(self) -> ItemCounts:
        """Absolute counts of the items counted since the last call."""
        rows = np.unique(np.concatenate(self._changed)) if self._changed else np.empty(0, np.int32)
        self._changed.clear()
        return self.of(rows.astype(np.int32))

    def tell_again(self, item_N: NDArray[np.uint64]) -> None:
        """Have `changed` name these items once more: what it said last did not arrive."""
        self._changed.append(self.ids.rows(item_N))

    def of(self, rows_R: NDArray[np.int32]) -> ItemCounts:
        """Absolute counts of R items, faded to now."""
        today_4 = np.exp2(self.origin_4 - self.events / _HALF_LIVES_4)
        reactions_R4 = (self.reactions_N4[rows_R] * today_4[3]).astype(np.float32)
        return ItemCounts(
            item_N=self.ids.ids_N[rows_R],
            popularity_N3=(self.popularity_N3[rows_R] * today_4[:3]).astype(np.float32),
            likes_N=reactions_R4[:, 0],
            dislikes_N=reactions_R4[:, 1],
            shown_N=reactions_R4[:, 2],
            clicked_N=reactions_R4[:, 3],
            last_taken_s_N=self.last_taken_s_N[rows_R],
            first_seen_s_N=self.first_seen_s_N[rows_R],
            events=self.events,
        )

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything needed to go on from here, as arrays."""
        return {
            "counters.events": np.array([self.events]),
            "counters.origin": self.origin_4.copy(),
            "counters.popularity": self.popularity_N3.copy(),
            "counters.reactions": self.reactions_N4.copy(),
            "counters.last_taken_s": self.last_taken_s_N.copy(),
            "counters.first_seen_s": self.first_seen_s_N.copy(),
        }

    def restore(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Go on from a `state`; all items count as changed, so that readers hear of them again."""
        self.events = float(arrays["counters.events"][0])
        self.origin_4 = np.array(arrays["counters.origin"], np.float64)
        self.popularity_N3 = np.array(arrays["counters.popularity"], np.float64)
        self.reactions_N4 = np.array(arrays["counters.reactions"], np.float64)
        self.last_taken_s_N = np.array(arrays["counters.last_taken_s"], np.int64)
        self.first_seen_s_N = np.array(arrays["counters.first_seen_s"], np.int64)
        self._changed = [np.arange(min(len(self.ids), len(self.first_seen_s_N)), dtype=np.int32)]  # room beyond

    def _make_room(self) -> None:
        missing = len(self.ids) - len(self.first_seen_s_N)
        if missing > 0:
            missing = max(missing, len(self.first_seen_s_N) // 2, 1024)
            self.popularity_N3 = np.concatenate([self.popularity_N3, np.zeros((missing, 3))])
            self.reactions_N4 = np.concatenate([self.reactions_N4, np.zeros((missing, 4))])
            self.last_taken_s_N = np.concatenate([self.last_taken_s_N, np.zeros(missing, np.int64)])
            self.first_seen_s_N = np.concatenate([self.first_seen_s_N, np.zeros(missing, np.int64)])

    def _rescale(self) -> None:
        shift_4 = self.events / _HALF_LIVES_4 - self.origin_4
        self.popularity_N3 *= np.exp2(-shift_4[:3])
        self.reactions_N4 *= np.exp2(-shift_4[3])
        self.origin_4 = self.origin_4 + shift_4
