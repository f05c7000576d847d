"""Streaming counts per item, faded by event time: what popularity, trending and like rates are made of.

How they fade is told in `embeddings.fading`. Counts belong to a *life* of the learner, its epoch: those of a learner
that began anew are sums over other rows, and nobody compares them with those of before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embeddings.events import TAKES
from embeddings.fading import LARGEST_EXPONENT, HalfLives, weights
from embeddings.idtable import IdTable
from embeddings.items import ItemCounts
from embeddings.lessons import Lesson

_OLD_HALF_LIVES_4 = np.array([1_000.0, 10_000.0, 100_000.0, 100_000.0])
"""Of checkpoints without a clock: events, for three popularities and reactions."""
_LESSONS = Lesson.like, Lesson.dislike
_SHOWN, _ANSWERED = len(_LESSONS), len(_LESSONS) + 1
_NEVER = np.iinfo(np.int64).max
Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(slots=True)
class ItemCounters:
    """Counts of every item of a learner's id table.

    Attributes:
        ids: whose rows they are.
        half_lives: how they fade.
        epoch: which life they are of; 0 is not said yet.
        clock_s: the latest event time counted: counts are read as of then.
        events: rows counted so far.
    """

    ids: IdTable
    half_lives: HalfLives = field(default_factory=HalfLives)
    epoch: int = 0
    clock_s: int = 0
    events: float = 0.0
    popularity_N4: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    reactions_N4: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    last_taken_s_N: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    first_seen_s_N: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    origin_5: NDArray[np.int64] = field(default_factory=lambda: np.zeros(5, np.int64))
    _changed: list[NDArray[np.int32]] = field(default_factory=list)

    def count(
        self,
        row_R: NDArray[np.int32],
        action_R: NDArray[np.uint8],
        time_s_R: NDArray[np.int64],
        lesson_R: NDArray[np.uint8],
    ) -> None:
        """Count R events, in any order: who takes, likes or dislikes an item.

        `lesson_R` are `embeddings.lessons.Lesson` bits: an item is not taken anew with every event of its person.
        """
        if not len(row_R):
            return
        self._make_room()
        self.clock_s = max(self.clock_s, int(time_s_R.max()))
        self._move_origin()
        weight_R5 = self._weights(time_s_R)
        takes_R = lesson_R & Lesson.take != 0
        np.add.at(self.popularity_N4, row_R[takes_R], weight_R5[takes_R, :4])
        for column, lesson in enumerate(_LESSONS):
            chosen_R = lesson_R & lesson != 0
            np.add.at(self.reactions_N4[:, column], row_R[chosen_R], weight_R5[chosen_R, 4])
        touched_R = TAKES[action_R]
        np.maximum.at(self.last_taken_s_N, row_R[touched_R], time_s_R[touched_R])
        rows = np.unique(row_R)
        self.first_seen_s_N[rows] = np.where(self.first_seen_s_N[rows], self.first_seen_s_N[rows], _NEVER)
        np.minimum.at(self.first_seen_s_N, row_R, time_s_R)
        self.events += len(row_R)
        self._changed.append(row_R)

    def take_back(self, row_R: NDArray[np.int32], liked_s_R: NDArray[np.int64]) -> None:
        """Count R likes no more, each with the weight of when it was counted."""
        if len(row_R):
            self._make_room()
            np.subtract.at(self.reactions_N4[:, 0], row_R, self._weights(liked_s_R)[:, 4])
            self._changed.append(row_R)

    def count_shown(
        self, row_R: NDArray[np.int32], answered_R: NDArray[np.bool_], shown_s_R: NDArray[np.int64]
    ) -> None:
        """Count R impressions that nobody can answer any more, and those that were, at the time they were made."""
        self._make_room()
        weight_R = self._weights(shown_s_R)[:, 4]
        np.add.at(self.reactions_N4[:, _SHOWN], row_R, weight_R)
        np.add.at(self.reactions_N4[:, _ANSWERED], row_R, weight_R * answered_R)
        self._changed.append(row_R)

    def changed(self, may_tell: Callable[[NDArray[np.uint64]], NDArray[np.bool_]] | None = None) -> ItemCounts:
        """Absolute counts of the items counted since the last call, most taken first, of those that may be told.

        Who has read a part of them has those that matter most.
        """
        rows = np.unique(np.concatenate(self._changed)) if self._changed else np.empty(0, np.int32)
        self._changed.clear()
        if may_tell is not None:
            rows = rows[may_tell(self.ids.ids_N[rows])]
        return self.of(rows[np.argsort(-self.popularity_N4[rows, 2], kind="stable")].astype(np.int32))

    def tell_again(self, item_N: NDArray[np.uint64]) -> None:
        """Have `changed` name these items once more: what it said last did not arrive, or was kept back."""
        row_N = self.ids.rows(item_N)
        self._changed.append(row_N[(row_N >= 0) & (row_N < len(self.first_seen_s_N))])

    def forget(self, rows_R: NDArray[np.int32]) -> None:
        """Leave nothing of items by their rows."""
        gone_N = np.zeros(len(self.ids), np.bool_)
        gone_N[rows_R] = True
        self._changed = [changed[~gone_N[changed]] for changed in self._changed]
        held_R = rows_R[rows_R < len(self.first_seen_s_N)]
        for column in (self.popularity_N4, self.reactions_N4, self.last_taken_s_N, self.first_seen_s_N):
            column[held_R] = 0

    def last_seen_s(self, count: int) -> NDArray[np.int64]:
        """When each of the first `count` rows was taken last, or else first seen; 0 is never. Shape (count,)."""
        seen_s_N = np.zeros(count, np.int64)
        held = min(count, len(self.first_seen_s_N))
        seen_s_N[:held] = np.maximum(self.last_taken_s_N[:held], self.first_seen_s_N[:held])
        return seen_s_N

    def of(self, rows_R: NDArray[np.int32]) -> ItemCounts:
        """Absolute counts of R items, faded to `clock_s`."""
        today_5 = self._today_5()
        reactions_R4 = np.maximum(self.reactions_N4[rows_R] / today_5[4], 0).astype(np.float32)
        return ItemCounts(
            item_N=self.ids.ids_N[rows_R],
            popularity_N4=(self.popularity_N4[rows_R] / today_5[:4]).astype(np.float32),
            likes_N=reactions_R4[:, 0],
            dislikes_N=reactions_R4[:, 1],
            shown_N=reactions_R4[:, 2],
            clicked_N=reactions_R4[:, 3],
            last_taken_s_N=self.last_taken_s_N[rows_R],
            first_seen_s_N=self.first_seen_s_N[rows_R],
            clock_s=self.clock_s,
            epoch=self.epoch,
            events=self.events,
        )

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything needed to go on from here, as arrays: views, good until the next `count`."""
        held = len(self.ids)
        return {
            "counters.events": np.array([self.events]),
            "counters.life": np.array([self.epoch, self.clock_s], np.int64),
            "counters.half_lives": np.array(self.half_lives),
            "counters.origin": self.origin_5.copy(),
            "counters.popularity": self.popularity_N4[:held],
            "counters.reactions": self.reactions_N4[:held],
            "counters.last_taken_s": self.last_taken_s_N[:held],
            "counters.first_seen_s": self.first_seen_s_N[:held],
        }

    def restore(self, arrays: Arrays) -> None:
        """Go on from a `state`; all items count as changed, so that readers hear of them again.

        Half-lives are those of now. Counts of a release that faded by events are taken as they stood, for the time of
        the last take it knew.
        """
        self.events = float(arrays["counters.events"][0])
        self.last_taken_s_N = np.array(arrays["counters.last_taken_s"], np.int64)
        self.first_seen_s_N = np.array(arrays["counters.first_seen_s"], np.int64)
        self.popularity_N4 = np.array(arrays["counters.popularity"], np.float64)
        self.reactions_N4 = np.array(arrays["counters.reactions"], np.float64)
        self._changed = [np.arange(min(len(self.ids), len(self.first_seen_s_N)), dtype=np.int32)]  # room beyond
        if "counters.life" not in arrays:
            self._fade_by_time(np.array(arrays["counters.origin"], np.float64))
            return
        self.epoch, self.clock_s = (int(n) for n in arrays["counters.life"])
        before = HalfLives(*np.array(arrays["counters.half_lives"], np.float64).tolist())
        self.origin_5 = np.array(arrays["counters.origin"], np.int64)
        if before != self.half_lives:
            self._begin_at(1 / self._today_5(before))

    def _fade_by_time(self, origin_4: NDArray[np.float64]) -> None:
        today_4 = np.exp2(origin_4 - self.events / _OLD_HALF_LIVES_4)
        self.popularity_N4 = np.c_[self.popularity_N4, self.popularity_N4[:, 0]]
        self.clock_s = int(max(self.last_taken_s_N.max(initial=0), self.first_seen_s_N.max(initial=0)))
        self._begin_at(np.r_[today_4[:3], today_4[0], today_4[3]])

    def _begin_at(self, factor_5: NDArray[np.float64]) -> None:
        """Take what the counts, times a factor, come to now for what they come to under the half-lives of now."""
        self.origin_5 = np.floor(self.clock_s / np.array(self.half_lives)).astype(np.int64)
        scale_5 = factor_5 * self._today_5()
        self.popularity_N4 *= scale_5[:4]
        self.reactions_N4 *= scale_5[4]

    def _weights(self, time_s_R: NDArray[np.int64]) -> NDArray[np.float64]:
        return weights(time_s_R, np.array(self.half_lives), self.origin_5)

    def _today_5(self, half_lives: HalfLives | None = None) -> NDArray[np.float64]:
        """What a row of now weighs."""
        now = np.array([self.clock_s])
        today_5: NDArray[np.float64] = weights(now, np.array(half_lives or self.half_lives), self.origin_5)[0]
        return today_5

    def _make_room(self) -> None:
        missing = len(self.ids) - len(self.first_seen_s_N)
        if missing > 0:
            missing = max(missing, len(self.first_seen_s_N) // 2, 1024)
            self.popularity_N4 = np.concatenate([self.popularity_N4, np.zeros((missing, 4))])
            self.reactions_N4 = np.concatenate([self.reactions_N4, np.zeros((missing, 4))])
            self.last_taken_s_N = np.concatenate([self.last_taken_s_N, np.zeros(missing, np.int64)])
            self.first_seen_s_N = np.concatenate([self.first_seen_s_N, np.zeros(missing, np.int64)])

    def _move_origin(self) -> None:
        now_5 = np.floor(self.clock_s / np.array(self.half_lives)).astype(np.int64)
        shift_5 = np.where(now_5 - self.origin_5 > LARGEST_EXPONENT, now_5 - self.origin_5, 0)
        if shift_5.any():
            self.origin_5 = self.origin_5 + shift_5
            back_5 = np.maximum(-shift_5, -10_000).astype(np.int32)
            self.popularity_N4 = np.ldexp(self.popularity_N4, back_5[:4])
            self.reactions_N4 = np.ldexp(self.reactions_N4, back_5[4])
