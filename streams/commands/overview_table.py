"""An overview as a terminal shows it."""

import math
from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from streams.commands.overview import Overview, ProcessView


def table(seen: Overview) -> Group:
    """Everything as a terminal shows it: all together, each process, each stage."""
    return Group(_together(seen), _processes(seen.processes), _stages(seen))


def _together(seen: Overview) -> Text:
    here = sum(process.away is None for process in seen.processes)
    parts = [
        f"{here} of {len(seen.processes)} answer",
        f"{_number(seen.events_per_s)} events/s",
        f"{_number(seen.slates_per_s)} slates/s ({_number(seen.degraded_per_s)} degraded)",
        f"{_number(seen.ads_per_s)} ads/s",
        f"event to slate p50 {_time(seen.p50_s)}, p99 {_time(seen.p99_s)}",
        f"lag {_time(seen.lag_s)}, {_number(seen.lag_records)} records",
    ]
    return Text(" · ".join(parts), style="bold")


def _processes(processes: Sequence[ProcessView]) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column("process")
    columns = "events/s", "slates/s", "ads/s", "rows/s", "p50", "p99", "lag", "snapshot", "age", "cores", "MiB"
    for name in columns:
        shown.add_column(name, justify="right")
    shown.add_column("ranker")
    for of in processes:
        name = of.url.removesuffix("/metrics").removeprefix("http://")
        if of.away is not None:
            shown.add_row(Text(name), *[""] * len(columns), Text(f"away: {of.away}", style="red"))
            continue
        rates = map(_number, (of.events_per_s, of.slates_per_s, of.ads_per_s, of.rows_per_s))
        times = map(_time, (of.p50_s, of.p99_s, of.lag_s))
        version = str(of.snapshot_version or "")
        size = _number(of.cpu), _number(of.memory_bytes / 2**20)
        ranker = {"serves": "taught", None: ""}.get(of.ranker, of.ranker)
        said = f"{ranker or ''}{' (started anew)' if of.restarted else ''}"
        shown.add_row(Text(f"{name} {of.role or ''}"), *rates, *times, version, _time(of.snapshot_age_s), *size, said)
    return shown


def _stages(seen: Overview) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
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
    """Milliseconds, seconds, minutes or hours, whichever reads well."""
    if math.isnan(seconds):
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
