"""Exposures: which ads a person saw, and when; what frequency caps count. Kept in the state.

The latest `LOG` impressions stand in a log: the 24-bit keys of creative, line item, campaign and advertiser, and the
second. The oldest of a full log rolls into a count per key, of at most `KEYS` keys. A key whose lowest bit is set is to
be counted for good (a lifetime cap, or one of more than a week, counts it); the others are dropped a week after they
were last seen, for no shorter cap asks for more.

Nothing is forgotten silently: where there are more keys than places, `lost` says how often one that is not held may
have been seen, and when last, and a newcomer begins there (after the space saving of Metwally, Agrawal, El Abbadi,
2005). So a count may be too high, never too low.

A session ends with half an hour without an event of its person. Its begin is kept for whoever saw an ad.

Who saw none costs nothing here. Shapes: U users, X impressions of the user with the most, Y keys of theirs, B events.

>>> Exposures.nothing(2).seen_U.tolist()
[0, 0]
"""

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from embeddings.events import Action, EventBatch, Fate
from embeddings.fold import Folded
from embeddings.jit import kernel
from embeddings.state_columns import UserStates

T = TypeVar("T", bound=np.generic)
LEVELS = 4
"""Creative, line item, campaign, advertiser, in this order."""
LOG = 128
"""Impressions of one person that are held each by itself."""
KEYS = 64
"""Keys of one person that older ones are counted by; `_PASSING` of them are left to keys not counted for good."""
SESSION_S = 1_800
"""A session ends with so long a silence."""
WEEK_S = 604_800
_PASSING = 16
_MOST_COUNTED = 65_535
_LAST_SECOND = 2**32 - 1
_APPLIED, _LATE = np.uint8(Fate.applied), np.uint8(Fate.late)


class AdSeen(NamedTuple):
    """The ad that each of B events is an impression of.

    Attributes:
        key_B4: its keys; zeros where it is none, or of no known decision.
        decided_s_B: when it was decided: no impression is before that, whatever a clock that is slow says. None: not
            known of any.
    """

    key_B4: NDArray[np.uint32]
    decided_s_B: NDArray[np.int64] | None = None

    @classmethod
    def nothing(cls, rows: int) -> "AdSeen":
        """No ads."""
        return cls(np.zeros((rows, LEVELS), np.uint32))


class Exposures(NamedTuple):
    """Which ads U users saw, as it is stored.

    Attributes:
        key_UX4: 24-bit keys of the ads in the log, in the order of arrival; 0 is no key.
        time_s_UX: their event times, epoch seconds.
        seen_U: how many are in the log.
        old_key_UY: keys of what rolled out of it, each once; 0 past the end.
        old_count_UY: how often, at most 65,535; `old_last_s_UY` when last.
        lost_U3: how often a key that is not held may have been seen: one that is counted for good; any, and when last.
        session_s_U: when the session began; 0 where no ad was seen.
    """

    key_UX4: NDArray[np.uint32]
    time_s_UX: NDArray[np.int64]
    seen_U: NDArray[np.int64]
    old_key_UY: NDArray[np.uint32]
    old_count_UY: NDArray[np.int64]
    old_last_s_UY: NDArray[np.int64]
    lost_U3: NDArray[np.int64]
    session_s_U: NDArray[np.int64]

    @classmethod
    def nothing(cls, users: int, seen: int = 0, old: int = 0) -> "Exposures":
        """Nothing, with room for so many impressions and so many keys of older ones."""
        return cls(
            np.zeros((users, seen, LEVELS), np.uint32),
            np.zeros((users, seen), np.int64),
            np.zeros(users, np.int64),
            np.zeros((users, old), np.uint32),
            np.zeros((users, old), np.int64),
            np.zeros((users, old), np.int64),
            np.zeros((users, 3), np.int64),
            np.zeros(users, np.int64),
        )

    @property
    def old_U(self) -> NDArray[np.int64]:
        """How many keys of older ones each user has."""
        held_U: NDArray[np.int64] = np.count_nonzero(self.old_key_UY, axis=1)
        return held_U

    def take(self, user_N: NDArray[np.integer]) -> "Exposures":
        """The rows of N users, copied."""
        return Exposures._make(column[user_N] for column in self)

    def sized(self, seen: int, old: int) -> "Exposures":
        """A copy with room for so many, which has to be enough for what is there."""
        return Exposures(
            _sized(self.key_UX4, seen),
            _sized(self.time_s_UX, seen),
            self.seen_U.copy(),
            _sized(self.old_key_UY, old),
            _sized(self.old_count_UY, old),
            _sized(self.old_last_s_UY, old),
            self.lost_U3.copy(),
            self.session_s_U.copy(),
        )


def _sized(column_UW: NDArray[T], width: int) -> NDArray[T]:
    """A copy of some width, filled with zeros."""
    out = np.zeros((len(column_UW), width, *column_UW.shape[2:]), column_UW.dtype)
    out[:, : column_UW.shape[1]] = column_UW[:, :width]
    return out


class _Rows(NamedTuple):
    """What the fold reads of a batch."""

    user_B: NDArray[np.int32]
    time_s_B: NDArray[np.int64]
    shown_s_B: NDArray[np.int64]
    applied_B: NDArray[np.bool_]
    counts_B: NDArray[np.bool_]
    key_B4: NDArray[np.uint32]


def fold_exposures(
    before: Exposures, states: UserStates, batch: EventBatch, folded: Folded, seen: AdSeen | None
) -> Exposures:
    """Which ads its users saw after a batch; equal however the same log was batched. Mutates nothing.

    An impression counts once, whatever is delivered again: where it was applied, and where it was too late to be, for
    an ad that was seen was seen. Other events only begin sessions.

    Args:
        before: what they had seen before the batch, one row for each of `batch.user_ids`.
        states: the states before it.
        batch: the events.
        folded: what became of them.
        seen: the ads that they are impressions of; None where they are of none.
    """
    if seen is None and not before.key_UX4.size:
        return before
    key_B4 = AdSeen.nothing(len(batch)).key_B4 if seen is None else seen.key_B4
    fate_B = folded.fate_B
    counts_B = (batch.action_B == Action.ad_impression) & ((fate_B == _APPLIED) | (fate_B == _LATE))
    counts_B &= key_B4.any(axis=1)
    if not counts_B.any() and not before.key_UX4.size:
        return before
    after = _with_room(before, batch.user_B[counts_B])
    time_s_B = np.clip(batch.time_s_B, 0, _LAST_SECOND)
    decided_s_B = seen.decided_s_B if seen is not None else None
    shown_s_B = time_s_B if decided_s_B is None else np.clip(decided_s_B, time_s_B, _LAST_SECOND)
    rows = _Rows(batch.user_B, time_s_B, shown_s_B, fate_B == _APPLIED, counts_B, key_B4)
    _fold(after, states.last_s_U.copy(), rows)
    fullest = int(after.seen_U.max()), int(after.old_U.max(initial=0))
    return after if fullest == (after.time_s_UX.shape[1], after.old_key_UY.shape[1]) else after.sized(*fullest)


def _with_room(before: Exposures, user_R: NDArray[np.int32]) -> Exposures:
    """What can be changed by another impression at each of these, and by sessions alone where there is none."""
    if not len(user_R):
        return before._replace(session_s_U=before.session_s_U.copy())
    most = int((before.seen_U + np.bincount(user_R, minlength=len(before.seen_U))).max())
    return before.sized(min(most, LOG), KEYS if most > LOG else before.old_key_UY.shape[1])


@kernel
def _fold(now: Exposures, last_s_U: NDArray[np.int64], rows: _Rows) -> None:
    """Fold into `now` and the clocks, in place."""
    user_B, time_s_B, shown_s_B, applied_B, counts_B, key_B4 = rows
    for r in range(len(user_B)):
        u, time_s, shown_s = user_B[r], time_s_B[r], shown_s_B[r]
        if applied_B[r]:
            if time_s >= last_s_U[u] + SESSION_S and now.seen_U[u] > 0:
                now.session_s_U[u] = time_s
            last_s_U[u] = max(last_s_U[u], time_s)
        if counts_B[r]:
            if now.seen_U[u] == 0:
                now.session_s_U[u] = time_s
            if now.seen_U[u] == LOG:
                _roll(now, u, shown_s)
            at = now.seen_U[u]
            now.key_UX4[u, at], now.time_s_UX[u, at] = key_B4[r], shown_s
            now.seen_U[u] = at + 1


@kernel
def _roll(now: Exposures, u: int, now_s: int) -> None:
    """Count the oldest impression of a full log by its keys, and take it out."""
    held = _without_passed(now, u, now_s)
    time_s = now.time_s_UX[u, 0]
    for level in range(LEVELS):
        key = now.key_UX4[u, 0, level]
        if key != 0 and (key & 1 or time_s >= now_s - WEEK_S):
            held = _count(now, u, held, key, time_s)
    for x in range(LOG - 1):
        now.key_UX4[u, x], now.time_s_UX[u, x] = now.key_UX4[u, x + 1], now.time_s_UX[u, x + 1]
    now.seen_U[u] = LOG - 1


@kernel
def _without_passed(now: Exposures, u: int, now_s: int) -> int:
    """Drop what was last seen more than a week ago and is not counted for good; return how many keys are left."""
    key_Y, count_Y, last_s_Y = now.old_key_UY[u], now.old_count_UY[u], now.old_last_s_UY[u]
    left = held = 0
    while held < len(key_Y) and key_Y[held] != 0:
        if key_Y[held] & 1 or last_s_Y[held] >= now_s - WEEK_S:
            key_Y[left], count_Y[left], last_s_Y[left] = key_Y[held], count_Y[held], last_s_Y[held]
            left += 1
        held += 1
    key_Y[left:held], count_Y[left:held], last_s_Y[left:held] = 0, 0, 0
    if now.lost_U3[u, 2] < now_s - WEEK_S:
        now.lost_U3[u, 1:] = 0
    return left


@kernel
def _count(now: Exposures, u: int, held: int, key: np.uint32, time_s: int) -> int:
    """Count a key once more; return how many are held."""
    key_Y, count_Y, last_s_Y = now.old_key_UY[u], now.old_count_UY[u], now.old_last_s_UY[u]
    at = 0
    while at < held and key_Y[at] >> 1 != key >> 1:
        at += 1
    if at == held:
        before = max(now.lost_U3[u, 1], now.lost_U3[u, 0] * np.int64(key & 1))
        if held == KEYS:
            at = _given_up(now, u, key)
            held -= 1
        key_Y[at], count_Y[at], last_s_Y[at] = 0, before, 0
        held += 1
    key_Y[at] |= key
    count_Y[at] = min(count_Y[at] + 1, _MOST_COUNTED)
    last_s_Y[at] = max(last_s_Y[at], time_s)
    return held


@kernel
def _given_up(now: Exposures, u: int, key: np.uint32) -> int:
    """The place of the key that a newcomer takes the place of; what it counted is taken down as lost.

    Of those that are dropped some day the one last seen first, while they have more than their share of the places,
    else of those counted for good the one with the smallest count.
    """
    key_Y, count_Y, last_s_Y, lost_3 = now.old_key_UY[u], now.old_count_UY[u], now.old_last_s_UY[u], now.lost_U3[u]
    passing = 0
    for y in range(KEYS):
        passing += int(key_Y[y] & 1 == 0)
    for_good = np.uint32(passing < _PASSING or (passing == _PASSING and key & 1))
    at = -1
    for y in range(KEYS):
        sooner = at < 0 or (count_Y[y] < count_Y[at] if for_good else last_s_Y[y] < last_s_Y[at])
        if key_Y[y] & 1 == for_good and sooner:
            at = y
    if for_good:
        lost_3[0] = max(lost_3[0], count_Y[at])
    lost_3[1], lost_3[2] = max(lost_3[1], count_Y[at]), max(lost_3[2], last_s_Y[at])
    return at
