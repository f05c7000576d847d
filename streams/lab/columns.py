"""A log while it is read: columns that grow by rows, and what is wrong with the file, line by line."""

from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.contract.fields import LAST_KEPT_MS
from streams.lab.fields import UNITS, Unusable, convert, shown

_SHOWN = 5


class UnreadableLog(Exception):
    """The file is not of the stated format; the message names file, line, field, value and what is wanted."""


@dataclass(slots=True)
class Faults:
    """The lines of a file that cannot be read: how many there are, and what is wrong with the first ones."""

    path: Path
    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, wrong: str) -> None:
        """One more line (from 1) that cannot be read."""
        self.count += 1
        self.first = sorted([*self.first, (line, wrong)])[:_SHOWN]

    def __str__(self) -> str:
        more = self.count - len(self.first)
        said = "; line ".join(f"{line}: {wrong}" for line, wrong in self.first)
        counted = f"{self.count:,} bad line{'s'[: self.count > 1]}"
        return f"{self.path}:{said}{f'; and {more:,} more' if more else ''} ({counted})"


@dataclass(slots=True)
class Columns:
    """R rows in the order of the file. `unit_R` is a place in `fields.UNITS`."""

    faults: Faults
    user_R: list[str] = field(default_factory=list)
    item_R: list[str] = field(default_factory=list)
    rating_R: "array[float]" = field(default_factory=lambda: array("f"))
    time_ms_R: "array[int]" = field(default_factory=lambda: array("q"))
    unit_R: bytearray = field(default_factory=bytearray)
    line_R: "array[int]" = field(default_factory=lambda: array("q"))
    _names: dict[str, str] = field(default_factory=dict)

    def add(self, line: int, user: Any, item: Any, rating: Any, time: Any, *, whole: str = "") -> None:
        """One more row, or one more fault, which shows the `whole` line where its fields have no names."""
        try:
            user, item, rating, time_ms, unit = convert(user, item, rating, time)
        except Unusable as error:
            self.faults.add(line, f"{error}; the line is {shown(whole)}" if whole else str(error))
            return
        self.user_R.append(self._names.setdefault(user, user))
        self.item_R.append(self._names.setdefault(item, item))
        self.rating_R.append(rating)
        self.time_ms_R.append(time_ms)
        self.unit_R.append(UNITS.index(unit))
        self.line_R.append(line)

    def agreeing(self) -> NDArray[np.intp]:
        """The rows, in time order, whose times are in the unit of the file; the others become faults.

        A file has one unit: a value that is taken for another one is a mistake, or a time before 1973. A time is after
        the year 2106, which states cannot hold, only where all are: then they count from somewhere else.
        """
        unit_R, time_ms_R = np.frombuffer(self.unit_R, np.uint8), np.frombuffer(self.time_ms_R, np.int64)
        if not len(unit_R) or not unit_R.any():
            return np.arange(len(unit_R))
        common = int(np.bincount(unit_R[unit_R > 0]).argmax())
        good_R = unit_R == common
        late_R = time_ms_R > LAST_KEPT_MS
        if not late_R[good_R].all():
            good_R &= ~late_R
        for r in np.flatnonzero(~good_R).tolist():
            self.faults.add(self.line_R[r], self._out_of_place(r, common))
        rows = np.flatnonzero(good_R)
        return rows[np.argsort(time_ms_R[rows], kind="stable")]

    def _out_of_place(self, row: int, common: int) -> str:
        unit = self.unit_R[row]
        if not unit:
            return "timestamp is missing; it may be left out only in all lines of a file"
        moment = np.datetime64(self.time_ms_R[row], "ms")
        if unit == common:
            return f"timestamp is {moment}, which is after the year 2106"
        return f"timestamp is {moment} in {UNITS[unit]}; the file has {UNITS[common]}, and one unit is wanted"
