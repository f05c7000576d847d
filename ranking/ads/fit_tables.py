"""Which creatives fit slots, remembered: slots of a page are alike for everybody who looks at it.

`selection.fitting` asks the same of the same creatives again and again. Here a slot that was asked about as often as
there are line items gets a table of the whole house; from then on only flights are looked at. Slots that are seldom
asked for cost what they cost there, so that a stream of slots that are all different costs no more.

>>> tables = FitTables()
>>> tables.held
0
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.ads.inventory import House
from ranking.ads.selection import Fits, Slot, Slots, fitting_while, running
from ranking.jit import kernel

TABLES = 64
"""Slots of a house that have tables at most: some 200 KB each for 10,000 line items of three creatives."""
_MOST_WATCHED = 4_096
_NONE = -1


class _Tables(NamedTuple):
    """By table and row: what becomes of a line item without a flight and with one, and its creatives that fit."""

    code_TL2: NDArray[np.int16]
    start_TL1: NDArray[np.int32]
    creative_TN: NDArray[np.int32]


@dataclass(slots=True)
class FitTables:
    """The tables of one house at a time; for one thread. `most` is how many there may be."""

    most: int = TABLES
    _house: House | None = field(init=False, default=None)
    _asked: dict[Slot, int] = field(init=False, default_factory=dict)
    _table_of: dict[Slot, int] = field(init=False, default_factory=dict)
    _tables: _Tables = field(init=False)

    @property
    def held(self) -> int:
        """How many slots have a table."""
        return len(self._table_of)

    def fitting(
        self, house: House, slots: Sequence[Slot], start_P1: NDArray[np.int64], row_M: NDArray[np.int32], now_ms: int
    ) -> Fits:
        """What `selection.fitting` says of P slots."""
        if house is not self._house:
            self._begin(house)
        running_L, table_P = running(house, now_ms), self._tables_of(house, slots, np.diff(start_P1))
        new = np.flatnonzero(table_P == _NONE)
        start_N1, row_N = _of_places(start_P1, row_M, new)
        direct = fitting_while(house, Slots.of([slots[p] for p in new.tolist()], house), start_N1, row_N, running_L)
        if len(new) == len(slots):
            return direct
        most = int(np.diff(house.creative_start_L1)[row_M].sum())
        out = Fits(np.empty(len(row_M), np.int16), np.zeros(len(row_M) + 1, np.int64), np.empty(most, np.int32))
        _look_up(self._tables, running_L, table_P, start_P1, row_M, direct, out)
        return out._replace(creative_N=out.creative_N[: out.start_M1[-1]])

    def _begin(self, house: House) -> None:
        self._house = house
        self._asked.clear()
        self._table_of.clear()
        self._tables = _Tables(
            np.empty((self.most, house.rows, 2), np.int16),
            np.empty((self.most, house.rows + 1), np.int32),
            np.empty((self.most, len(house.creatives)), np.int32),
        )

    def _tables_of(self, house: House, slots: Sequence[Slot], size_P: NDArray[np.int64]) -> NDArray[np.int64]:
        """The table of each slot; a slot that was asked about for enough line items has one from now on."""
        many: dict[Slot, int] = {}
        for slot, size in zip(slots, size_P.tolist(), strict=True):
            many[slot] = many.get(slot, 0) + size
        for slot in many.keys() - self._table_of.keys():
            asked = self._asked[slot] = self._asked.get(slot, 0) + many[slot]
            if asked >= house.rows and len(self._table_of) < self.most:
                self._make(house, slot)
        if len(self._asked) > _MOST_WATCHED:
            self._asked.clear()
        return np.array([self._table_of.get(slot, _NONE) for slot in slots], np.int64)

    def _make(self, house: House, slot: Slot) -> None:
        of_slot = Slots.of([slot], house), np.array([0, house.rows]), np.arange(house.rows, dtype=np.int32)
        table, all_L = len(self._table_of), np.ones(house.rows, np.bool_)
        fits = fitting_while(house, *of_slot, all_L)
        self._tables.code_TL2[table, :, 0] = fitting_while(house, *of_slot, ~all_L).code_M
        self._tables.code_TL2[table, :, 1] = fits.code_M
        self._tables.start_TL1[table] = fits.start_M1
        self._tables.creative_TN[table, : len(fits.creative_N)] = fits.creative_N
        self._table_of[slot] = table
        del self._asked[slot]


def _of_places(
    start_P1: NDArray[np.int64], row_M: NDArray[np.int32], places: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The candidates of some places, side by side."""
    size_P = np.diff(start_P1)
    if len(places) == len(size_P):
        return start_P1, row_M
    there_P = np.zeros(len(size_P), np.bool_)
    there_P[places] = True
    return np.append(0, np.cumsum(size_P[places])), row_M[np.repeat(there_P, size_P)]


@kernel
def _look_up(
    tables: _Tables,
    running_L: NDArray[np.bool_],
    table_P: NDArray[np.int64],
    start_P1: NDArray[np.int64],
    row_M: NDArray[np.int32],
    direct: Fits,
    out: Fits,
) -> None:
    code_TL2, start_TL1, creative_TN = tables
    direct_code_X, direct_start_X1, direct_creative_X = direct
    code_M, start_M1, creative_N = out
    used = x = 0
    for p in range(len(table_P)):
        t = table_P[p]
        for m in range(start_P1[p], start_P1[p + 1]):
            row = row_M[m]
            if t < 0:
                code_M[m] = direct_code_X[x]
                for n in range(direct_start_X1[x], direct_start_X1[x + 1]):
                    creative_N[used] = direct_creative_X[n]
                    used += 1
                x += 1
            else:
                code_M[m] = code_TL2[t, row, np.int64(running_L[row])]
                if running_L[row]:
                    for n in range(start_TL1[t, row], start_TL1[t, row + 1]):
                        creative_N[used] = creative_TN[t, n]
                        used += 1
            start_M1[m + 1] = used
