"""Which moments of a batch are looked at: those that get a slate, and those whose next take is told to the learner."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embeddings.events import TAKES, EventBatch, Fate
from embeddings.fold import Folded
from embeddings.jit import kernel
from embeddings.state_columns import Histories
from streams.settings import Slates

_APPLIED, _REPLAYED = int(Fate.applied), int(Fate.replayed)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which moments of a batch are looked at.

    Attributes:
        serve_Q: rows that get a slate, from the position after them.
        take_T: rows that took an item their user did not hold, told from the position before them.
        position_P: the distinct positions of both, ascending.
        serve_at: where in `position_P` each slate's position is; `take_at` likewise.
        user_P: whose positions they are.
        histories: what the users held at `position_P`.
    """

    serve_Q: NDArray[np.int32]
    take_T: NDArray[np.int32]
    position_P: NDArray[np.int32]
    serve_at: NDArray[np.intp]
    take_at: NDArray[np.intp]
    user_P: NDArray[np.int32]
    histories: Histories


def plan_of(
    batch: EventBatch,
    folded: Folded,
    *,
    published_ms_B: NDArray[np.int64],
    committed_S: NDArray[np.int64],
    now_ms: int,
    slates: Slates,
    observed: bool,
    foresee: bool,
) -> Plan:
    """Which rows are answered and which are told.

    A row is answered when it was applied, now or by an attempt that died before its slate was acknowledged, was not
    committed before, and is young enough for anybody to be waiting. With `foresee` it is answered from the position
    before it.
    """
    live_B = (folded.fate_B == _APPLIED) | (folded.fate_B == _REPLAYED)
    live_B &= batch.offset_B >= committed_S[batch.source_B]
    live_B &= published_ms_B >= now_ms - slates.max_age_s * 1000
    each, last = slates.per_event == "all", slates.per_event == "coalesced"
    serve_Q, take_T, serve_at, take_at, position_P, user_P = _positions(
        folded.fate_B, live_B, batch.user_B, batch.action_B, batch.item_B, folded.before_B, folded.final_U,
        each, last, observed, not foresee,
    )  # fmt: skip
    histories = folded.histories(position_P, user_P)
    new_T = _not_held(histories.item_PH, take_at, batch.item_B, take_T)
    return Plan(serve_Q, take_T[new_T], position_P, serve_at, take_at[new_T], user_P, histories)


@kernel
def _positions(
    fate_B: NDArray[np.uint8],
    live_B: NDArray[np.bool_],
    user_B: NDArray[np.int32],
    action_B: NDArray[np.uint8],
    item_B: NDArray[np.uint64],
    before_B: NDArray[np.int32],
    final_U: NDArray[np.int32],
    each: bool,
    last: bool,
    observed: bool,
    after: bool,
) -> tuple[
    NDArray[np.int32], NDArray[np.int32], NDArray[np.intp], NDArray[np.intp], NDArray[np.int32], NDArray[np.int32]
]:
    """Rows served and rows that took something, and the distinct positions of both with their users."""
    rows, users = len(fate_B), len(final_U)
    last_U = np.full(users, -1, np.int32)
    for r in range(rows):
        if live_B[r]:
            last_U[user_B[r]] = r
    serve_Q, take_T = np.empty(rows, np.int32), np.empty(rows, np.int32)
    served = took = 0
    slot_P = np.full(rows + users, -1, np.int32)
    for r in range(rows):
        if live_B[r] and (each or (last and last_U[user_B[r]] == r)):
            serve_Q[served] = r
            served += 1
            slot_P[before_B[r] + int(after)] = 0
        if observed and fate_B[r] == _APPLIED and action_B[r] < 16 and item_B[r] != 0 and TAKES[action_B[r]]:
            take_T[took] = r
            took += 1
            slot_P[before_B[r]] = 0
    position_P, user_P = np.empty(len(slot_P), np.int32), np.empty(len(slot_P), np.int32)
    held, u = 0, 0
    for at in range(len(slot_P)):
        while final_U[u] < at:
            u += 1
        if slot_P[at] == 0:
            slot_P[at] = held
            position_P[held], user_P[held] = at, u
            held += 1
    serve_at, take_at = np.empty(served, np.intp), np.empty(took, np.intp)
    for q in range(served):
        serve_at[q] = slot_P[before_B[serve_Q[q]] + int(after)]
    for t in range(took):
        take_at[t] = slot_P[before_B[take_T[t]]]
    return serve_Q[:served], take_T[:took], serve_at, take_at, position_P[:held], user_P[:held]


@kernel
def _not_held(
    item_PH: NDArray[np.uint64], at_T: NDArray[np.intp], item_B: NDArray[np.uint64], row_T: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Which rows took an item that is not in the history at their position."""
    new_T = np.ones(len(row_T), np.bool_)
    for t in range(len(row_T)):
        for h in range(item_PH.shape[1]):
            if item_PH[at_T[t], h] == item_B[row_T[t]]:
                new_T[t] = False
    return new_T
