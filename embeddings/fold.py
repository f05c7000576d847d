"""The fold of behaviour into user states. Pure; nothing here does I/O.

Shapes: U users, B events, H = 50 entries of history, S input partitions, P positions.

A *position* is a moment in a user's life inside one batch. User u with m events in the batch has m + 1 of them: before
the first event, and after each. They are numbered user by user, so that all of a user's positions are neighbours: the
one after an event is `before_B[r] + 1`, and `before_B` of that user's next event.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.events import TOUCHES, EventBatch, Fate, Says, actions_that
from embeddings.jit import kernel
from embeddings.lessons import AFTER_2AA, SITTING_S, shares
from embeddings.state_columns import (
    HISTORY,
    MAX_LATENESS_S,
    NO_OFFSET,
    RING,
    Evictions,
    Histories,
    UserStates,
    coarse,
    coarsen,
    no_histories,
)

_LAST_SECOND = 2**32 - 1
_TAKES_BACK = actions_that(Says.takes_back)
_APPLIED, _REPLAYED = np.uint8(Fate.applied), np.uint8(Fate.replayed)
_DUPLICATE, _LATE = np.uint8(Fate.duplicate), np.uint8(Fate.late)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """What a batch did: every event's fate, the states after it, and the way to any position between.

    Attributes:
        states: the states after the batch; equal, bit for bit, however the same log was batched.
        fate_B: `Fate` of each event.
        changed_U: has the user's state to be saved? Not where every event was refused or replayed.
        before_B: position just before each event. Shape (B,).
        start_U: first position of each user.
        final_U: last position of each user.
        evicted: what left the histories.
    """

    states: UserStates
    fate_B: NDArray[np.uint8]
    changed_U: NDArray[np.bool_]
    before_B: NDArray[np.int32]
    start_U: NDArray[np.int32]
    final_U: NDArray[np.int32]
    evicted: Evictions
    _origin: UserStates
    _rows: "_Rows"

    def users_of(self, position_P: NDArray[np.int32]) -> NDArray[np.int32]:
        """Which user each position belongs to."""
        return (np.searchsorted(self.start_U, position_P, side="right") - 1).astype(np.int32)

    def histories(self, position_P: NDArray[np.int32], user_P: NDArray[np.int32] | None = None) -> Histories:
        """The histories at the wanted positions, in the order asked for; a position may be asked for twice.

        Last positions alone are read off `states`; any other makes the fold run again, copying windows as it passes.
        `user_P` is what `users_of` says of them, where it is known.
        """
        user_P = self.users_of(position_P) if user_P is None else user_P
        if np.array_equal(self.final_U[user_P], position_P):
            now = self.states
            columns = (now.item_UH, now.action_UH, now.time_UH, now.share_UH, now.count_U, now.last_s_U)
            return Histories._make(column[user_P] for column in columns)
        wanted = len(position_P)
        slot_P = np.full(len(self.before_B) + len(self.start_U), -1, np.int32)
        slot_P[position_P] = np.arange(wanted, dtype=np.int32)
        windows = no_histories(wanted)
        _fold(self._origin.copy(), self._rows, self.before_B, self.start_U, slot_P, windows, AFTER_2AA)
        owner_P = slot_P[position_P]
        if np.array_equal(owner_P, np.arange(wanted)):
            return windows
        return Histories._make(column[owner_P] for column in windows)


class _Rows(NamedTuple):
    """The columns of a batch that the fold reads."""

    user_B: NDArray[np.int32]
    item_B: NDArray[np.uint64]
    action_B: NDArray[np.uint8]
    time_s_B: NDArray[np.int64]
    source_B: NDArray[np.int32]
    offset_B: NDArray[np.int64]
    dedupe_B: NDArray[np.uint32]
    consent_B: NDArray[np.uint8]
    refused_B: NDArray[np.uint8]
    share_B: NDArray[np.uint8]
    source_code_S: NDArray[np.int32]
    floor_offset_S: NDArray[np.int64]
    lateness_s: int


def fold(
    states: UserStates,
    batch: EventBatch,
    *,
    lateness_s: int,
    source_code_S: NDArray[np.int32],
    floor_offset_S: NDArray[np.int64] | None = None,
    length_s_B: NDArray[np.float32] | None = None,
) -> Folded:
    """Apply a batch of behaviour to its users' states, and tell every event's fate. Does not mutate its arguments.

    In this order: at or below its partition's floor → replayed; refused before → that fate; at or below the user's
    own mark for that partition → replayed; its id among the user's last `RING` → duplicate; older than the user's
    latest event by more than `lateness_s` → late; else applied. Refused and replayed events leave the user untouched,
    duplicate and late ones only advance the mark. An applied event of an action without history (`TOUCHES`) counts,
    moves the clock and is remembered, but leaves the history alone; one that takes something back changes what the
    entry of its item says (`embeddings.lessons.after`).

    Args:
        states: one row for each of `batch.user_ids`.
        batch: events in offset order inside each partition; times are clamped to 0 … 2^32 - 1 s.
        lateness_s: 0 … `MAX_LATENESS_S`.
        source_code_S: `source_code` of each of `batch.sources`.
        floor_offset_S: last offset of each partition whose effects are stored already; -1 = none.
        length_s_B: how long each event's item is, 0 = not known.

    Raises:
        ValueError: `lateness_s` is out of range, or `states` has another number of users. A bug of the caller.
    """
    if not 0 <= lateness_s <= MAX_LATENESS_S:
        raise ValueError(f"lateness_s is {lateness_s}, allowed 0 … {MAX_LATENESS_S}")
    if len(states.count_U) != len(batch.user_ids):
        raise ValueError(f"{len(states.count_U)} states for {len(batch.user_ids)} users")
    floor_S = np.full(len(batch.sources), NO_OFFSET, np.int64) if floor_offset_S is None else floor_offset_S
    rows = _Rows(
        *(batch.user_B, batch.item_B, batch.action_B, batch.time_s_B, batch.source_B, batch.offset_B, batch.dedupe_B),
        *(batch.consent_B, batch.refused_B, shares(batch, length_s_B), source_code_S, floor_S, lateness_s),
    )
    before_B, start_U, final_U = _positions(batch.user_B, len(batch.user_ids))
    after = states.copy()
    none = np.empty(0, np.int32), no_histories(0)
    fate_B, changed_U, evicted = _fold(after, rows, before_B, start_U, *none, AFTER_2AA)
    order_E = np.argsort(evicted[2])
    return Folded(
        states=after,
        fate_B=fate_B,
        changed_U=changed_U,
        before_B=before_B,
        start_U=start_U,
        final_U=final_U,
        evicted=Evictions._make(column[order_E] for column in evicted),
        _origin=states,
        _rows=rows,
    )


@kernel
def _positions(user_B: NDArray[np.int32], users: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    count_U = np.zeros(users, np.int32)
    before_B = np.empty(len(user_B), np.int32)
    for r in range(len(user_B)):
        before_B[r] = count_U[user_B[r]]
        count_U[user_B[r]] += 1
    start_U = np.empty(users, np.int32)
    final_U = np.empty(users, np.int32)
    position = np.int32(0)
    for u in range(users):
        start_U[u] = position
        final_U[u] = position + count_U[u]
        position = np.int32(final_U[u] + 1)
    for r in range(len(user_B)):
        before_B[r] += start_U[user_B[r]]
    return before_B, start_U, final_U


@kernel
def _newer(
    mark_source_U2: NDArray[np.int32], mark_offset_U2: NDArray[np.int64], u: int, code: int, offset: int
) -> bool:
    """Is the offset above the user's mark of its partition, or has the user no mark of it?"""
    for m in range(2):
        if mark_source_U2[u, m] == code:
            return bool(offset > mark_offset_U2[u, m])
    return True


@kernel
def _mark(mark_source_U2: NDArray[np.int32], mark_offset_U2: NDArray[np.int64], u: int, code: int, offset: int) -> None:
    """Advance the user's mark of a partition and put it first; a third partition takes the older one's place."""
    if mark_source_U2[u, 0] != code:
        mark_source_U2[u, 1] = mark_source_U2[u, 0]
        mark_offset_U2[u, 1] = mark_offset_U2[u, 0]
        mark_source_U2[u, 0] = code
    mark_offset_U2[u, 0] = offset


@kernel
def _remembers(ring_UR: NDArray[np.uint32], u: int, dedupe: int) -> bool:
    known = False
    for k in range(RING):
        known |= ring_UR[u, k] == dedupe
    return known and dedupe != 0


@kernel
def _remember(ring_UR: NDArray[np.uint32], u: int, dedupe: int) -> None:
    for k in range(RING - 1, 0, -1):
        ring_UR[u, k] = ring_UR[u, k - 1]
    ring_UR[u, 0] = dedupe


@kernel
def _judge(
    source_U2: NDArray[np.int32],
    offset_U2: NDArray[np.int64],
    ring_UR: NDArray[np.uint32],
    u: int,
    code: int,
    offset: int,
    dedupe: int,
    late: bool,
) -> np.uint8:
    """The fate of an event that nothing refused before; whatever is not replayed advances the user's mark."""
    if not _newer(source_U2, offset_U2, u, code, offset):
        return _REPLAYED
    _mark(source_U2, offset_U2, u, code, offset)
    if _remembers(ring_UR, u, dedupe):
        return _DUPLICATE
    return _LATE if late else _APPLIED


@kernel
def _advance(
    events_U: NDArray[np.int64],
    last_s_U: NDArray[np.int64],
    consent_U: NDArray[np.uint8],
    ring_UR: NDArray[np.uint32],
    u: int,
    time_s: int,
    consent: int,
    dedupe: int,
) -> None:
    """Count an applied event and remember its id; the clock and the consent are those of the latest."""
    events_U[u] += 1
    if time_s >= last_s_U[u]:
        last_s_U[u] = time_s
        consent_U[u] = consent
    if dedupe != 0:
        _remember(ring_UR, u, dedupe)


@kernel
def _find(item_UH: NDArray[np.uint64], count_U: NDArray[np.int32], u: int, item: np.uint64) -> int:
    """Where an item is in a history; its length where it is not."""
    at = 0
    while at < count_U[u] and item_UH[u, at] != item:
        at += 1
    return at


@kernel
def _said(
    action_UH: NDArray[np.uint8],
    time_UH: NDArray[np.int64],
    u: int,
    at: int,
    action: int,
    time_s: int,
    last_s: int,
    after_2AA: NDArray[np.uint8],
) -> np.uint8:
    """What an item's entry says after one more event of it, which may be the earlier of the two.

    Its time counts as the state had it before the event, so that nothing depends on when that was last stored.
    """
    held, held_s = action_UH[u, at] & 15, coarse(time_UH[u, at], last_s)
    same = int(abs(time_s - held_s) < SITTING_S)
    return np.uint8(after_2AA[same, action, held] if time_s < time_UH[u, at] else after_2AA[same, held, action])


@kernel
def _place(
    item_UH: NDArray[np.uint64],
    action_UH: NDArray[np.uint8],
    time_UH: NDArray[np.int64],
    share_UH: NDArray[np.uint8],
    count_U: NDArray[np.int32],
    u: int,
    at: int,
    item: np.uint64,
    action: np.uint8,
    time_s: int,
    share: np.uint8,
) -> np.uint64:
    """Put an item from place `at` where its time belongs, before its equals; return what fell out, or 0.

    A share of 0 leaves what is known of how far its person got.
    """
    count = count_U[u]
    to = 0
    while to < count and time_UH[u, to] > time_s:
        to += 1
    if at < to:  # known by a later event
        action_UH[u, at] = action
        return np.uint64(0)
    if to == HISTORY:  # older than all that is kept
        return item
    evicted = np.uint64(0)
    if at < count and share == 0:
        share = share_UH[u, at]
    if at == HISTORY:
        at = HISTORY - 1
        evicted = item_UH[u, at]
    elif at == count:
        count_U[u] = count + 1
    for h in range(at, to, -1):
        item_UH[u, h] = item_UH[u, h - 1]
        action_UH[u, h] = action_UH[u, h - 1]
        time_UH[u, h] = time_UH[u, h - 1]
        share_UH[u, h] = share_UH[u, h - 1]
    item_UH[u, to] = item
    action_UH[u, to] = action
    time_UH[u, to] = time_s
    share_UH[u, to] = share
    return evicted


@kernel
def _copy_window(now: UserStates, u: int, windows: Histories, p: int) -> None:
    item_UH, action_UH, time_UH, share_UH = now.item_UH, now.action_UH, now.time_UH, now.share_UH
    item_PH, action_PH, time_PH, share_PH = windows.item_PH, windows.action_PH, windows.time_PH, windows.share_PH
    count, last_s = now.count_U[u], now.last_s_U[u]
    for h in range(count):
        item_PH[p, h] = item_UH[u, h]
        action_PH[p, h] = action_UH[u, h]
        time_PH[p, h] = time_UH[u, h]
        share_PH[p, h] = share_UH[u, h]
    coarsen(time_PH[p], count, last_s)
    windows.count_P[p] = count
    windows.last_s_P[p] = last_s


@kernel
def _fold(
    now: UserStates,
    rows: _Rows,
    before_B: NDArray[np.int32],
    start_U: NDArray[np.int32],
    slot_P: NDArray[np.int32],
    windows: Histories,
    after_2AA: NDArray[np.uint8],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], tuple[NDArray[np.int32], NDArray[np.uint64], NDArray[np.int32]]]:
    """Fold into `now`, in place; position p is copied to `windows[slot_P[p]]` where that is not negative.

    Columns are bound to names once: reading them off the tuples inside the loop costs reference counts, 0.3 µs a row.
    """
    item_UH, action_UH, time_UH, share_UH, count_U, last_s_U, events_U, source_U2, offset_U2, ring_UR, consent_U = now
    user_B, item_B, action_B, time_s_B, source_B, offset_B, dedupe_B, consent_B, refused_B, share_B = rows[:10]
    code_S, floor_S, lateness_s = rows[10:]
    rows_B, wanted = len(user_B), len(slot_P) > 0
    fate_B = np.empty(rows_B, np.uint8)
    changed_U = np.zeros(len(start_U), np.bool_)
    user_E, item_E, position_E = np.empty(rows_B, np.int32), np.empty(rows_B, np.uint64), np.empty(rows_B, np.int32)
    evictions = 0
    for u in range(len(start_U) if wanted else 0):
        if slot_P[start_U[u]] >= 0:
            _copy_window(now, u, windows, slot_P[start_U[u]])
    for r in range(rows_B):
        u, code, offset, dedupe = user_B[r], code_S[source_B[r]], offset_B[r], dedupe_B[r]
        fate_B[r] = _REPLAYED if offset <= floor_S[source_B[r]] else refused_B[r]
        if fate_B[r] == _APPLIED:
            time_s = min(max(time_s_B[r], 0), _LAST_SECOND)
            late = time_s < last_s_U[u] - lateness_s
            fate_B[r] = _judge(source_U2, offset_U2, ring_UR, u, code, offset, dedupe, late)
            changed_U[u] |= fate_B[r] != _REPLAYED
        if fate_B[r] == _APPLIED:
            before_s, action = last_s_U[u], action_B[r]
            _advance(events_U, last_s_U, consent_U, ring_UR, u, time_s, consent_B[r], dedupe)
            at = _find(item_UH, count_U, u, item_B[r]) if item_B[r] != 0 and action < 16 else HISTORY
            if at < count_U[u]:
                action = _said(action_UH, time_UH, u, at, action, time_s, before_s, after_2AA)
            if _TAKES_BACK[action_B[r]] and at < count_U[u] and time_s >= time_UH[u, at]:
                action_UH[u, at] = action
            elif item_B[r] != 0 and TOUCHES[action_B[r]]:
                row = item_B[r], action, time_s, share_B[r]
                out = _place(item_UH, action_UH, time_UH, share_UH, count_U, u, at, *row)
                if out != 0:
                    user_E[evictions], item_E[evictions], position_E[evictions] = u, out, before_B[r] + 1
                    evictions += 1
        if wanted and slot_P[before_B[r] + 1] >= 0:
            _copy_window(now, u, windows, slot_P[before_B[r] + 1])
    for u in range(len(start_U)):
        if changed_U[u]:
            coarsen(time_UH[u], count_U[u], last_s_U[u])
    return fate_B, changed_U, (user_E[:evictions], item_E[:evictions], position_E[:evictions])
