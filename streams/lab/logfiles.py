"""What a log looks like on disk: text files of rows, read to their end, each row handed to the one conversion.

A file of another kind, or without the columns, is refused as a whole; a line that is wrong is a fault, and the lines
after it are read.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from streams.lab.columns import Columns, Faults, UnreadableLog
from streams.lab.fields import Unusable, convert, shown, taken

#: How files begin that are no UTF-8 text, and what they are.
_OTHERS = (
    (b"\x1f\x8b", "compressed with gzip; unpack it first (gunzip)"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet; unpack it, or save it as CSV"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first (unzstd)"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first (unxz)"),
    (b"BZh91AY", "compressed with bzip2; unpack it first (bunzip2)"),
    (b"PAR1\x15", "a Parquet file; save it as CSV"),
    (b"\xff\xfe\0\0", "UTF-32; save it as UTF-8"),
    (b"\0\0\xfe\xff", "UTF-32; save it as UTF-8"),
    (b"\xff\xfe", "UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16; save it as UTF-8"),
)
#: What a byte that is not UTF-8 is read as.
_ESCAPED = re.compile("[\udc80-\udcff]")
_MARK = "\ufeff"
_FIELDS = ("user_id", "item_id", "rating", "timestamp")
_MOVIELENS = ("userId", "movieId", "rating", "timestamp")
_TWICE = "one inside a field is written twice"


class _Lines:
    """The lines of a file for a reader that takes several for one row, and may give back all but the first."""

    def __init__(self, text: Iterable[str]) -> None:
        self._text, self._again = iter(text), list[str]()
        self.number, self.row = 0, list[str]()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._text)
        self.row.append(line)
        return line

    def begin(self) -> None:
        """What is taken from here on is the next row; `number` is its first line's, from 1, once that is taken."""
        self.number += len(self.row) or 1
        self.row = []

    def peek(self) -> str:
        """The first line, which is still to come; "" where there is none."""
        self._again = list(islice(self._text, 1))
        return "".join(self._again)

    def give_back(self) -> None:
        """The row ended with its first line."""
        self._again.extend(reversed(self.row[1:]))
        del self.row[1:]

    def wrong(self) -> str | None:
        """What is wrong with the text of the row, whatever its format."""
        for line in self.row:
            if line.isascii():
                continue
            if found := _ESCAPED.search(line):
                byte = ord(found[0]) - 0xDC00
                return f"byte 0x{byte:02x} at column {found.start() + 1} is not UTF-8; save the file as UTF-8"
            if line.startswith(_MARK):
                return "begins with a byte order mark in the middle of the file; two files were joined"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """How the rows of a CSV file are written: the names of its columns, where the wanted ones are, what separates."""

    names: Sequence[str]
    places: Sequence[int | None]
    separator: str = ","
    spaced: bool = False

    def read(self, lines: _Lines, columns: Columns) -> None:
        """Rows to the end of the file. After a wrong one that took several lines, the second of them is the next."""
        reader = self._reader(lines)
        while True:
            lines.begin()
            try:
                row = next(reader)
                wrong = lines.wrong() or self._wrong(row, lines.row)
            except StopIteration:
                return
            except csv.Error as error:
                long = len(lines.row) == 1 and len(lines.row[0]) > csv.field_size_limit()
                place = f"{shown(lines.row[0])} has a field" if long else "a quotation mark is out of place"
                row, wrong = [], f"{place} ({error}){'' if long else f'; {_TWICE}'}"
            if wrong:
                lines.give_back()
                columns.faults.add(lines.number, wrong)
            elif row:
                columns.add(lines.number, *self.fields(row))

    def fields(self, row: list[str]) -> list[str | None]:
        """The wanted fields, None where there is no such column."""
        return [row[place] if place is not None else None for place in self.places]

    def is_event(self, line: str) -> bool:
        """Is a line an event by itself, with nothing left out?"""
        try:
            row = next(self._reader([line]), [])
            return len(row) == len(self.names) and "" not in self.fields(row) and bool(convert(*self.fields(row)))
        except (csv.Error, Unusable):
            return False

    def _wrong(self, row: list[str], lines: list[str]) -> str | None:
        if len(lines) > 1 and any(map(self.is_event, lines[1:])):
            return f"a quotation begins here and swallows the next line, which is an event; {_TWICE}"
        if row and len(row) != len(self.names):
            return f"{shown(lines[0].strip())} has {_fields(len(row))}; {', '.join(self.names)} are wanted"
        if [name.strip().lower() for name in row] == list(self.names):
            return "the header is here again; two files were joined"
        return None

    def _reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self.separator, strict=True, skipinitialspace=self.spaced)


@contextmanager
def _opened(path: Path) -> Iterator[_Lines]:
    with path.open("rb") as file:
        head = file.read(4096)
    if kind := next((kind for beginning, kind in _OTHERS if head.startswith(beginning)), None):
        raise UnreadableLog(f"{path}: this is {kind}")
    if b"\0" in head:
        raise UnreadableLog(f"{path}: holds zero bytes, as UTF-16, UTF-32 and binary files do; UTF-8 text is wanted")
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        yield _Lines(text)


def read_csv(path: Path, columns: Columns) -> None:
    """A header with `user_id` and `item_id`, and a row per event; separated by comma, semicolon, tab or bar.

    Raises:
        UnreadableLog: the file is no text, or has not these columns.
    """
    with _opened(path) as lines:
        _table(path, lines, _FIELDS).read(lines, columns)


def read_movielens(path: Path, columns: Columns) -> None:
    """User, item, rating and time, as GroupLens has them: `u.data` by tabs, `ratings.dat` by `::`, `ratings.csv`.

    Raises:
        UnreadableLog: the file is no text, or has not these columns.
    """
    with _opened(path) as lines:
        if path.suffix == ".csv":
            bare = _Table(names=_MOVIELENS, places=range(4))
            table = bare if bare.is_event(lines.peek()) else _table(path, lines, _MOVIELENS)
            table.read(lines, columns)
        else:
            _split(lines, columns, "::" if path.suffix == ".dat" else "\t")


def read_jsonl(path: Path, columns: Columns) -> None:
    """One JSON object a line with `user_id` and `item_id`, and optionally `rating`, `timestamp`, `type` and `value`.

    Raises:
        UnreadableLog: the file is no text.
    """
    with _opened(path) as lines:
        for line in _each(lines, columns.faults):
            try:
                row = _named(_DECODER.decode(line.strip()))
                taken(row)
            except Unusable as error:
                columns.faults.add(lines.number, str(error))
                continue
            except (ValueError, RecursionError) as error:
                columns.faults.add(lines.number, _no_object(line.strip(), error))
                continue
            columns.add(lines.number, *map(row.get, _FIELDS))


FORMATS: dict[str, Callable[[Path, Columns], None]] = {
    "movielens": read_movielens,
    "csv": read_csv,
    "jsonl": read_jsonl,
}


def _each(lines: _Lines, faults: Faults) -> Iterator[str]:
    """Lines of which each is a row; blank ones are none."""
    while True:
        lines.begin()
        try:
            line = next(lines)
        except StopIteration:
            return
        if wrong := lines.wrong():
            faults.add(lines.number, wrong)
        elif line.strip():
            yield line


def _split(lines: _Lines, columns: Columns, separator: str) -> None:
    for line in _each(lines, columns.faults):
        fields = line.rstrip("\r\n").split(separator)
        if len(fields) == 4:
            columns.add(lines.number, *fields, whole=line.strip())
        else:
            wanted = f"user, item, rating and time, separated by {separator!r}, are wanted"
            columns.faults.add(lines.number, f"{shown(line.strip())} has {_fields(len(fields))}; {wanted}")


def _table(path: Path, lines: _Lines, wanted: tuple[str, ...]) -> _Table:
    """What the first line says: the names of the columns, in any case, of which the first two wanted must be there."""
    faults = Faults(path)
    line = next(_each(lines, faults), None)
    if faults.count:
        raise UnreadableLog(str(faults))
    if line is None:
        raise UnreadableLog(f"{path}: no events")
    names: list[str] = []
    for separator in ",;\t|":
        try:
            found = next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True))
        except csv.Error:
            continue
        lower = [name.strip().lower() for name in found]
        places = [lower.index(name.lower()) if name.lower() in lower else None for name in wanted]
        if None not in places[:2]:
            _refuse_twins(path, lower, wanted)
            return _Table(names=lower, places=places, separator=separator, spaced=f"{separator} " in line)
        names = max(names, found, key=len)
    said = ", ".join(map(shown, names[:12])) or shown(line.strip())
    raise UnreadableLog(f"{path}:{lines.number}: the columns are {said}; {wanted[0]} and {wanted[1]} are needed")


def _refuse_twins(path: Path, names: list[str], wanted: tuple[str, ...]) -> None:
    if twin := next((name.lower() for name in wanted if names.count(name.lower()) > 1), None):
        raise UnreadableLog(f"{path}: the column {twin} is there {names.count(twin)} times; one is wanted")


def _fields(count: int) -> str:
    return f"{count} field{'s'[: count != 1]}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{shown(next(name for name in names if names.count(name) > 1))} is there twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _named(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{'null' if row is None else shown(row)} is no object")
    return _object([(name.strip().lower(), value) for name, value in row.items()])


def _no_object(line: str, error: Exception) -> str:
    wanted = "one JSON object a line is wanted"
    if line.startswith("["):
        return f"an array begins here; {wanted} (jq -c '.[]')"
    if isinstance(error, json.JSONDecodeError):
        ends = error.pos >= len(line)
        return f"{shown(line)} {'ends too early' if ends else f'is no JSON at column {error.colno}'}; {wanted}"
    return f"{error if isinstance(error, ValueError) else 'nested too deep'}; {wanted}"
