"""An overview as a terminal shows it."""

import math
import re
from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from streams.commands.overview import Overview, ProcessView

_FIRST_TO_GO = ("MiB", "cores", "rows/s", "p50", "snapshot", "role", "ads/s", "age", "slates/s")
"""Columns that a narrow terminal does without, one by one: a number that is cut off is another number."""
_WORDS = "role", "ranker"
_NAME, _GAP = 16, 2
"""So much of a process' name is shown at least, its end, which tells pods and ports apart; spaces between columns."""


def table(seen: Overview, width: int) -> Group:
    """Everything as a terminal of so many columns shows it: all together, each stage, each process.

    Processes come last, those that are away before the others: where they are too many the end is cut off.
    """
    return Group(_together(seen), _stages(seen), _processes(seen.processes, width))


def _together(seen: Overview) -> Text:
    here = sum(process.away is None for process in seen.processes)
    parts = [
        f"{here} of {len(seen.processes)} answer",
        f"{_number(seen.events_per_s)} events/s",
        f"{_number(seen.slates_per_s)} slates/s ({_number(seen.degraded_per_s)} degraded)",
        f"{_number(seen.ads_per_s)} ads/s",
        f"event to slate p50 {_time(seen.p50_s)}, p99 {_time(seen.p99_s)}",
        f"lag {_time(seen.lag_s)}, {_number(seen.lag_records)} records, of learning {_time(seen.learning_lag_s)}",
    ]
    return Text(" · ".join(parts), style="bold")


def _processes(processes: Sequence[ProcessView], width: int) -> Table:
    away_first = sorted(processes, key=lambda of: of.away is None)
    rows = [_row(of) for of in away_first]
    columns = list(rows[0]) if rows else []
    for column in _FIRST_TO_GO:
        if _NAME + _needed(rows, columns) > width and column in columns:
            columns.remove(column)
    left = max(_NAME, width - _needed(rows, columns))
    names = _names(away_first, left)
    shown = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    shown.add_column("process", no_wrap=True)
    for column in columns:
        shown.add_column(column, justify="left" if column in _WORDS else "right", no_wrap=column != "ranker")
    for name, row in zip(names, rows, strict=True):
        shown.add_row(name, *(row[column] for column in columns))
    return shown


def _names(processes: Sequence[ProcessView], most: int) -> list[str]:
    """What processes are called in so many characters: without their domains where these are too much."""
    whole = [of.url.removesuffix("/metrics").removeprefix("http://") for of in processes]
    short = [re.sub(r"^([^./]*[a-z][^./]*)\.[^:]*", r"\1", name) for name in whole]
    fits = max(map(len, whole), default=0) <= most or len(set(short)) < len(set(whole))
    return [name if len(name) <= most else f"…{name[1 - most :]}" for name in (whole if fits else short)]


def _row(of: ProcessView) -> dict[str, Text]:
    """What is said of a process, by column."""
    said = {"serves": "taught", None: ""}.get(of.ranker, of.ranker) or ""
    cells = {
        "role": of.role or "",
        "events/s": _number(of.events_per_s),
        "slates/s": _number(of.slates_per_s),
        "ads/s": _number(of.ads_per_s),
        "rows/s": _number(of.rows_per_s),
        "p50": _time(of.p50_s),
        "p99": _time(of.p99_s),
        "lag": _time(of.lag_s),
        "snapshot": str(of.snapshot_version or ""),
        "age": _time(of.snapshot_age_s),
        "cores": _number(of.cpu),
        "MiB": _number(of.memory_bytes / 2**20),
        "ranker": f"{said}{' (started anew)' if of.restarted else ''}",
    }
    if of.away is not None:
        cells = dict.fromkeys(cells, "") | {"ranker": f"away: {of.away}"}
    return {column: Text(cell, style="red" if of.away else "") for column, cell in cells.items()}


def _needed(rows: Sequence[dict[str, Text]], columns: Sequence[str]) -> int:
    """The width of these columns; a reason or a state may take two lines."""
    widest = [max(len(column), *(len(row[column]) for row in rows)) for column in columns]
    return sum(
        _GAP + (min(wide, _NAME) if column == "ranker" else wide) for column, wide in zip(columns, widest, strict=True)
    )


def _stages(seen: Overview) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    shown.add_column("stage")
    for name in ("batches/s", "p50", "p99"):
        shown.add_column(name, justify="right")
    for of in seen.stages:
        shown.add_row(f"{of.lane} {of.stage}".strip(), _number(of.per_s), _time(of.p50_s), _time(of.p99_s))
    return shown


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _time(seconds: float) -> str:
    """Milliseconds, seconds, minutes, hours or days, whichever reads well."""
    if math.isnan(seconds):
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
