"""Impression fatigue: what a person was shown and has not answered, and how often. Kept in the state, up to 64 items.

An impression counts one and fades with a half-life in event time; an answer (what goes into the history, a click)
takes the item out. A count is kept as one number, the second at which it comes to one: at `now` it is
2^((once - now) / h), h the half-life, and an impression at t makes it h · log2(2^(once / h) + 2^(t / h)), to the second
(forward decay; Cormode, Shkapenyuk, Srivastava, Xu, 2009). So counts stand in the same order at any time, and nothing
is rewritten as time goes by. A sixteenth of an impression counts as none.

Where 64 items are held a newcomer halves the smallest count, and takes its place once that is below a half: whoever
scrolls through hundreds of items keeps those that come back (after the decrements of Misra, Gries, 1982). So a count
may be too low, never too high.

Shapes: U users, W items of the user with the most, B events, P positions (`embeddings.fold`), K candidates.

>>> tables = Unanswered(np.array([[7, 9]], np.uint64), np.array([[1_000, 900]]))
>>> shown = tables.shown(np.array([1_000]), 100.0, np.ones(1, np.bool_))
>>> shown.times(np.array([[9, 8, 7]], np.uint64))
array([[0.5, 0. , 1. ]], dtype=float32)
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.events import EventBatch, Fate, Says, actions_that
from embeddings.fold import Folded
from embeddings.jit import kernel
from embeddings.state_columns import UserStates

MOST = 64
"""Items of one person."""
_NONE_AFTER = 4
"""Half-lives below one after which a count is none."""
_SHOWN, _ANSWERED = np.uint8(1), np.uint8(2)
_LARGEST = 30
_LAST_SECOND = 2**32 - 1
_MIX = np.uint64(0x9E3779B97F4A7C15)
#: By action code: is it an impression, or the answer to one?
_DEED = np.where(actions_that(Says.shown), _SHOWN, np.uint8(0))
_DEED[actions_that(Says.touched | Says.engaged)] = _ANSWERED


class Shown(NamedTuple):
    """What P positions were shown without an answer: item ids, 0 past the end, and how often, faded to the moment."""

    item_PW: NDArray[np.uint64]
    times_PW: NDArray[np.float32]

    def at(self, at: NDArray[np.intp]) -> "Shown":
        """Some of the positions."""
        return Shown(self.item_PW[at], self.times_PW[at])

    def times(self, item_PK: NDArray[np.uint64]) -> NDArray[np.float32]:
        """How often each candidate was shown. Shape (P, K)."""
        times_PK = np.zeros(item_PK.shape, np.float32)
        if self.item_PW.size:
            _times(self.item_PW, self.times_PW, item_PK, times_PK)
        return times_PK


class Unanswered(NamedTuple):
    """What U users were shown without an answer, as it is stored.

    Attributes:
        item_UW: 40-bit item ids, 0 past the end; those first that were shown first.
        once_s_UW: epoch second at which the count of each comes to one.
    """

    item_UW: NDArray[np.uint64]
    once_s_UW: NDArray[np.int64]

    @classmethod
    def nothing(cls, users: int, room: int = 0) -> "Unanswered":
        """Nothing, with room for `room` items."""
        return cls(np.zeros((users, room), np.uint64), np.zeros((users, room), np.int64))

    @property
    def held_U(self) -> NDArray[np.int64]:
        """How many items each user has."""
        held_U: NDArray[np.int64] = np.count_nonzero(self.item_UW, axis=1)
        return held_U

    def take(self, user_N: NDArray[np.integer]) -> "Unanswered":
        """The rows of N users, copied."""
        return Unanswered(self.item_UW[user_N], self.once_s_UW[user_N])

    def shown(self, now_s_U: NDArray[np.int64], half_life_s: float, known_U: NDArray[np.bool_]) -> Shown:
        """How often each item was shown as of a moment for every row; nothing where it must not be known."""
        item_UW = np.where(known_U[:, None], self.item_UW, np.uint64(0))
        above_UW = np.minimum((self.once_s_UW - now_s_U[:, None]) / half_life_s, _LARGEST)  # after another half-life
        times_UW = np.exp2(above_UW) * (item_UW != 0)
        return Shown(item_UW, times_UW.astype(np.float32))

    def copy(self) -> "Unanswered":
        """An independent copy."""
        return Unanswered(self.item_UW.copy(), self.once_s_UW.copy())

    def widened(self, room: int) -> "Unanswered":
        """A copy with room for so many items, at least as many as there is room for now."""
        wide = Unanswered.nothing(len(self.item_UW), room)
        wide.item_UW[:, : self.item_UW.shape[1]] = self.item_UW
        wide.once_s_UW[:, : self.item_UW.shape[1]] = self.once_s_UW
        return wide


class _Rows(NamedTuple):
    """What the fold reads of a batch: only events that were applied say anything."""

    user_B: NDArray[np.int32]
    item_B: NDArray[np.uint64]
    deed_B: NDArray[np.uint8]
    time_s_B: NDArray[np.int64]
    applied_B: NDArray[np.bool_]
    before_B: NDArray[np.int32]
    start_U: NDArray[np.int32]
    half_life_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Impressions:
    """What a batch did to what its users were shown, and the way to any position between.

    Attributes:
        after: the tables after the batch; equal however the same log was batched.
    """

    after: Unanswered
    _before: Unanswered
    _last_s_U: NDArray[np.int64]
    _final_U: NDArray[np.int32]
    _rows: _Rows

    def at(self, position_P: NDArray[np.int32], user_P: NDArray[np.int32]) -> Unanswered:
        """The tables at positions, whose users are known. Last positions alone are read off `after`."""
        if not self._before.item_UW.size or np.array_equal(self._final_U[user_P], position_P):
            return self.after.take(user_P)
        slot_P = np.full(len(self._rows.user_B) + len(self._final_U), -1, np.int32)
        slot_P[position_P] = np.arange(len(position_P), dtype=np.int32)
        windows = Unanswered.nothing(len(position_P), self._before.item_UW.shape[1])
        _fold(self._before.copy(), self._last_s_U.copy(), self._rows, slot_P, windows)
        return windows.take(slot_P[position_P])


def fold_impressions(
    before: Unanswered, states: UserStates, batch: EventBatch, folded: Folded, half_life_s: float
) -> Impressions:
    """Apply a batch to what its users were shown. Does not mutate its arguments; costs nothing where nobody was.

    Args:
        before: the tables before the batch, one row for each of `batch.user_ids`.
        states: the states before it.
        batch: the events.
        folded: what became of them.
        half_life_s: seconds of event time; 0 = nothing is counted, and what was is dropped.
    """
    applied_B = folded.fate_B == Fate.applied
    deed_B = _DEED[batch.action_B] * (batch.item_B != 0)
    time_s_B = np.clip(batch.time_s_B, 0, _LAST_SECOND)
    places = folded.before_B, folded.start_U
    rows = _Rows(batch.user_B, batch.item_B, deed_B, time_s_B, applied_B, *places, float(half_life_s))
    before = _with_room(before, batch.user_B[applied_B & (deed_B == _SHOWN)]) if half_life_s else _none(before)
    after = before
    if before.item_UW.size:
        after = before.copy()
        _fold(after, states.last_s_U.copy(), rows, np.empty(0, np.int32), _none(before))
        fullest = int(after.held_U.max())
        item_UW, once_s_UW = after
        after = Unanswered(item_UW[:, :fullest].copy(), once_s_UW[:, :fullest].copy())
    return Impressions(after=after, _before=before, _last_s_U=states.last_s_U, _final_U=folded.final_U, _rows=rows)


def _none(tables: Unanswered) -> Unanswered:
    return Unanswered.nothing(len(tables.item_UW))


def _with_room(tables: Unanswered, user_R: NDArray[np.int32]) -> Unanswered:
    """The tables with room for another item at each of these impressions."""
    if not len(user_R):
        return tables
    most_U = tables.held_U + np.bincount(user_R, minlength=len(tables.item_UW))
    return tables.widened(max(tables.item_UW.shape[1], min(int(most_U.max()), MOST)))


@kernel
def _times(
    item_PW: NDArray[np.uint64], times_PW: NDArray[np.float32], item_PK: NDArray[np.uint64], out_PK: NDArray[np.float32]
) -> None:
    """A hash table of 256 slots for each position that has anything; a slot holds the place of an item plus one."""
    slot_S = np.zeros(256, np.uint8)
    for p in range(len(item_PW)):
        if item_PW[p, 0] == 0:
            continue
        slot_S[:] = 0
        for w in range(item_PW.shape[1]):
            if item_PW[p, w] == 0:
                break
            s = np.int64((item_PW[p, w] * _MIX) >> np.uint64(56))
            while slot_S[s] != 0:
                s = (s + 1) & 255
            slot_S[s] = w + 1
        for k in range(item_PK.shape[1]):
            s = np.int64((item_PK[p, k] * _MIX) >> np.uint64(56))
            while slot_S[s] != 0:
                at = slot_S[s] - 1
                if item_PW[p, at] == item_PK[p, k]:
                    out_PK[p, k] = times_PW[p, at]
                    break
                s = (s + 1) & 255


@kernel
def _once_more(once_s: int, time_s: int, half_life_s: float) -> int:
    """When a count comes to one after another impression."""
    more_s = half_life_s * math.log2(1.0 + 2.0 ** (-abs(once_s - time_s) / half_life_s))
    return min(max(once_s, time_s) + round(more_s), _LAST_SECOND)


@kernel
def _find(item_W: NDArray[np.uint64], held: int, item: np.uint64) -> int:
    """Where an item is among those held; their number where it is not."""
    at = 0
    while at < held and item_W[at] != item:
        at += 1
    return at


@kernel
def _remove(item_W: NDArray[np.uint64], once_s_W: NDArray[np.int64], held: int, at: int) -> int:
    """Take out what stands at a place, if anything does; return how many are held."""
    if at >= held:
        return held
    for w in range(at, held - 1):
        item_W[w], once_s_W[w] = item_W[w + 1], once_s_W[w + 1]
    item_W[held - 1], once_s_W[held - 1] = 0, 0
    return held - 1


@kernel
def _without_faded(
    item_W: NDArray[np.uint64], once_s_W: NDArray[np.int64], held: int, last_s: int, half_life_s: float
) -> int:
    """Take out what has faded away by a moment; return how many are left."""
    left = 0
    for w in range(held):
        if once_s_W[w] >= last_s - _NONE_AFTER * half_life_s:
            item_W[left], once_s_W[left] = item_W[w], once_s_W[w]
            left += 1
    item_W[left:held] = 0
    once_s_W[left:held] = 0
    return left


@kernel
def _add(
    item_W: NDArray[np.uint64], once_s_W: NDArray[np.int64], held: int, item: np.uint64, time_s: int, half_life_s: float
) -> int:
    """Count an impression of an item; return how many are held."""
    at = _find(item_W, held, item)
    if at < held:
        once_s_W[at] = _once_more(once_s_W[at], time_s, half_life_s)
        return held
    if held == MOST:
        least = int(np.argmin(once_s_W[:held]))
        if once_s_W[least] >= time_s - half_life_s:
            once_s_W[least] = max(round(once_s_W[least] - half_life_s), 0)
            return held
        held = _remove(item_W, once_s_W, held, least)
    item_W[held], once_s_W[held] = item, time_s
    return held + 1


@kernel
def _copy(now: Unanswered, u: int, held: int, last_s: int, half_life_s: float, windows: Unanswered, p: int) -> None:
    """Copy a user's table to a row, as it would be stored then."""
    windows.item_UW[p], windows.once_s_UW[p] = now.item_UW[u], now.once_s_UW[u]
    _without_faded(windows.item_UW[p], windows.once_s_UW[p], held, last_s, half_life_s)


@kernel
def _fold(
    now: Unanswered, last_s_U: NDArray[np.int64], rows: _Rows, slot_P: NDArray[np.int32], windows: Unanswered
) -> None:
    """Fold into `now` and the clocks, in place; position p is copied to `windows[slot_P[p]]`, -1 is nowhere."""
    user_B, item_B, deed_B, time_s_B, applied_B, before_B, start_U, half_life_s = rows
    item_UW, once_s_UW = now
    held_U, wanted = np.empty(len(item_UW), np.int64), len(slot_P) > 0
    for u in range(len(item_UW)):
        held_U[u] = _find(item_UW[u], item_UW.shape[1], np.uint64(0))
        if wanted and slot_P[start_U[u]] >= 0:
            _copy(now, u, held_U[u], last_s_U[u], half_life_s, windows, slot_P[start_U[u]])
    for r in range(len(user_B)):
        u, deed = user_B[r], deed_B[r]
        if applied_B[r]:
            last_s_U[u] = max(last_s_U[u], time_s_B[r])
        if applied_B[r] and deed != 0:
            held_U[u] = _without_faded(item_UW[u], once_s_UW[u], held_U[u], last_s_U[u], half_life_s)
            if deed == _SHOWN:
                held_U[u] = _add(item_UW[u], once_s_UW[u], held_U[u], item_B[r], time_s_B[r], half_life_s)
            else:
                held_U[u] = _remove(item_UW[u], once_s_UW[u], held_U[u], _find(item_UW[u], held_U[u], item_B[r]))
        if wanted and slot_P[before_B[r] + 1] >= 0:
            _copy(now, u, held_U[u], last_s_U[u], half_life_s, windows, slot_P[before_B[r] + 1])
    for u in range(len(item_UW)):
        _without_faded(item_UW[u], once_s_UW[u], held_U[u], last_s_U[u], half_life_s)
