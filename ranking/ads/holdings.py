"""What one worker may spend until it asks again: columns of L line items, changed in place by loops over candidates.

Nothing here is safe beside another thread: whoever shares holdings has a lock.

>>> held = Holdings.of(np.array([7], np.uint64))
>>> held.pass_L[:], held.left_L[:], held.until_ms_L[:], held.units_L[:], held.code_L[:] = 1.0, 25, 1_000, 9, 0
>>> key_L, row_W = np.array([7], np.uint64), np.zeros(3, np.int32)
>>> held.take(key_L, row_W, np.full(3, 10), 0).tolist(), held.left_L.tolist(), held.untold_L.tolist()
([True, True, False], [5], [20])
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.ads.losses import Loss
from ranking.jit import kernel

ANY_UNITS = 1 << 40
"""So many where no number was booked."""
_PACED = int(Loss.paced)


class Holdings(NamedTuple):
    """L line items as this worker holds them.

    Attributes:
        key_L: hashes of line items' keys, 0 where there is none: a row that another one has now holds nothing for it.
        pass_L: with which chance it may bid.
        code_L: 0, or the `Loss` with which nobody bids on its behalf.
        left_L, until_ms_L: what is left of the lease, in micros, and when it ends.
        units_L: so many more it may win.
        chances_L, passed_L: candidates since the last tick, and those that might bid.
        untold_L, untold_units_L: taken, and the ledger has not answered for it.
        since_L, taken_L: wins since the last tick began, and their micros.
        missed_L, short_L: wins since then that were not covered, and the largest amount of one.
    """

    key_L: NDArray[np.uint64]
    pass_L: NDArray[np.float64]
    code_L: NDArray[np.int16]
    left_L: NDArray[np.int64]
    until_ms_L: NDArray[np.int64]
    units_L: NDArray[np.int64]
    chances_L: NDArray[np.float64]
    passed_L: NDArray[np.float64]
    untold_L: NDArray[np.int64]
    untold_units_L: NDArray[np.int64]
    since_L: NDArray[np.int64]
    taken_L: NDArray[np.int64]
    missed_L: NDArray[np.int64]
    short_L: NDArray[np.int64]

    @classmethod
    def of(cls, key_L: NDArray[np.uint64]) -> "Holdings":
        """Line items that hold nothing yet."""
        L = len(key_L)
        whole, share = np.zeros((9, L), np.int64), np.zeros((3, L))
        return cls(
            *(key_L.astype(np.uint64), share[0], np.full(L, _PACED, np.int16), whole[0], whole[1], whole[2]),
            *(share[1], share[2], whole[3], whole[4], whole[5], whole[6], whole[7], whole[8]),
        )

    def aligned(self, key_L: NDArray[np.uint64]) -> "Holdings":
        """The same with rows as these keys have them; a row that is somebody else's now begins anew."""
        others = Holdings.of(key_L)
        both = min(len(key_L), len(self.key_L))
        stays = np.flatnonzero(self.key_L[:both] == key_L[:both])
        for name in Holdings._fields[1:]:
            getattr(others, name)[stays] = getattr(self, name)[stays]
        return others

    def judge(
        self, key_L: NDArray[np.uint64], row_M: NDArray[np.integer], draw_M: NDArray[np.uint64], now_ms: int
    ) -> NDArray[np.int16]:
        """0, or why a candidate may not bid now; counts them. `key_L` is what rows mean to who asks. Shape (M,)."""
        code_M = np.empty(len(row_M), np.int16)
        _judge(self, key_L, row_M.astype(np.int64), draw_M, now_ms, code_M)
        return code_M

    def take(
        self, key_L: NDArray[np.uint64], row_W: NDArray[np.integer], micros_W: NDArray[np.int64], now_ms: int
    ) -> NDArray[np.bool_]:
        """Spend wins in their order: which are covered. Shape (W,)."""
        covered_W = np.zeros(len(row_W), np.bool_)
        _take(self, key_L, row_W.astype(np.int64), micros_W.astype(np.int64), now_ms, covered_W)
        return covered_W

    def begin(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Begin a tick: chances, and those that might bid, since the last one; both are counted from 0 again.

        Wins that were not covered say nothing of what passing brings: as large a part of what passed is left out.
        """
        wins_L = self.since_L + self.missed_L
        passed_L = np.where(self.missed_L > 0, self.passed_L * self.since_L / np.maximum(wins_L, 1), self.passed_L)
        came = self.chances_L.copy(), passed_L
        counted = self.chances_L, self.passed_L, self.since_L, self.taken_L, self.missed_L, self.short_L
        for column in counted:
            column[:] = 0
        return came

    def told(self, key_L: NDArray[np.uint64], row_W: NDArray[np.integer], micros_W: NDArray[np.int64]) -> None:
        """The ledger has answered for wins that were covered, whatever it said."""
        _told(self, key_L, row_W.astype(np.int64), micros_W.astype(np.int64))


@kernel
def _is_held(held_L: NDArray[np.uint64], key_L: NDArray[np.uint64], row: int) -> bool:
    """Is a row of the market that of the line item that stands there here?"""
    return bool(row < len(held_L) and held_L[row] == key_L[row])


@kernel
def _judge(
    held: Holdings,
    key_L: NDArray[np.uint64],
    row_M: NDArray[np.int64],
    draw_M: NDArray[np.uint64],
    now_ms: int,
    code_M: NDArray[np.int16],
) -> None:
    for m in range(len(row_M)):
        row = row_M[m]
        code_M[m] = _PACED
        if not _is_held(held.key_L, key_L, row):
            continue
        held.chances_L[row] += 1
        if held.code_L[row] != 0:
            code_M[m] = held.code_L[row]
        elif (
            held.left_L[row] > 0
            and held.units_L[row] > 0
            and now_ms < held.until_ms_L[row]
            and (draw_M[m] >> np.uint64(11)) * 2.0**-53 < held.pass_L[row]
        ):
            held.passed_L[row] += 1
            code_M[m] = 0


@kernel
def _take(
    held: Holdings,
    key_L: NDArray[np.uint64],
    row_W: NDArray[np.int64],
    micros_W: NDArray[np.int64],
    now_ms: int,
    covered_W: NDArray[np.bool_],
) -> None:
    for w in range(len(row_W)):
        row, micros = row_W[w], micros_W[w]
        if not _is_held(held.key_L, key_L, row):
            continue
        if micros > held.left_L[row] or held.units_L[row] <= 0 or now_ms >= held.until_ms_L[row]:
            held.missed_L[row] += 1
            held.short_L[row] = max(held.short_L[row], micros)
            continue
        held.left_L[row] -= micros
        held.units_L[row] -= 1
        held.untold_L[row] += micros
        held.untold_units_L[row] += 1
        held.since_L[row] += 1
        held.taken_L[row] += micros
        covered_W[w] = True


@kernel
def _told(held: Holdings, key_L: NDArray[np.uint64], row_W: NDArray[np.int64], micros_W: NDArray[np.int64]) -> None:
    for w in range(len(row_W)):
        row = row_W[w]
        if _is_held(held.key_L, key_L, row):
            held.untold_L[row] = max(held.untold_L[row] - micros_W[w], 0)
            held.untold_units_L[row] = max(held.untold_units_L[row] - 1, 0)


def own_units(room_L: NDArray[np.int64], first_L: NDArray[np.int64], mine_N: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of a room of units are this worker's, if unit `first + i` belongs to partition (first + i) % N.

    So few impressions that are left are sold by the one worker they belong to, and all workers' rooms together are the
    room itself. Shape (L,).

    >>> mine = np.array([True, False, False])
    >>> own_units(np.array([0, 1, 1, 10]), np.array([0, 0, 1, 2]), mine).tolist()
    [0, 1, 0, 3]
    """
    N = len(mine_N)
    upto_2N = np.concatenate(([0], np.cumsum(np.tile(mine_N, 2))))
    at_L, rest_L = first_L % N, room_L % N
    return np.asarray(room_L // N * upto_2N[N] + upto_2N[at_L + rest_L] - upto_2N[at_L])
