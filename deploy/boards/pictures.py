"""What a board shows, drawn without Grafana: the same queries, layout, units and marks, as one picture.

Needs matplotlib, which `pip install '.[demo]'` brings.
"""

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from deploy.boards.panels import Board, Kind, Panel, Row
from deploy.boards.prometheus import Prometheus, Scope, Series

COLUMNS, ROW_INCHES, COLUMN_INCHES = 24, 0.36, 0.62
STEPS, LEGEND_ROWS, DOTS_PER_INCH = 120, 3, 96
_LETTER_INCHES = 0.066
_HEADING = 1.2
_INK, _PALE, _PAPER = "#1f2933", "#9aa5b1", "#f5f7fa"
_MARKS = {"green": "#2f9e44", "yellow": "#e8a200", "red": "#d6336c"}
_COLOURS = (
    "#1c7ed6",
    "#f08c00",
    "#2f9e44",
    "#d6336c",
    "#7048e8",
    "#0c8599",
    "#a87a3d",
    "#868e96",
    "#e64980",
    "#5c940d",
)
_LABEL = re.compile(r"\{\{(\w+)\}\}")


class Placed(NamedTuple):
    """A panel's place: columns from the left, rows from the top."""

    x: float
    y: float
    panel: Panel


class Drawn(NamedTuple):
    """A series under the name that its legend gives it."""

    name: str
    series: Series


def draw(board: Board, server: Prometheus, scope: Scope, folder: Path, *, minutes: float = 60) -> Path:
    """Draw a board over the last so many minutes into `folder`; returns the picture's place.

    Raises:
        Unanswered: the server refused a query.
    """
    from matplotlib.figure import Figure

    end_s = time.time()
    begin_s = end_s - minutes * 60
    placed, headings, rows = _layout(board)
    wide, high = COLUMNS * COLUMN_INCHES, (rows + 1.6) * ROW_INCHES
    figure = Figure(figsize=(wide, high), dpi=DOTS_PER_INCH, facecolor="white")
    figure.text(0.3 / wide, 1 - 0.32 / high, board.title, fontsize=15, weight="bold", color=_INK, va="center")
    for y, title in headings:
        at = 1 - (1.6 + y + _HEADING * 0.6) * ROW_INCHES / high
        figure.text(0.3 / wide, at, title, fontsize=11, weight="bold", color=_INK, va="center")
    for x, y, panel in placed:
        box = _box(x, 1.6 + y, panel, wide, high)
        found = list(_ask(panel, server, scope, begin_s, end_s))
        _draw_panel(figure, box, panel, found, (begin_s, end_s))
    path = folder / f"{board.name}.png"
    figure.savefig(path, dpi=DOTS_PER_INCH)
    _lighten(path)
    return path


def _layout(board: Board) -> tuple[list[Placed], list[tuple[float, str]], float]:
    placed, headings, y = [], [], 0.0
    for row in board.rows:
        headings.append((y, row.title))
        y += _HEADING
        for line in _lines_of(row):
            x = 0
            for panel in line:
                placed.append(Placed(x, y, panel))
                x += panel.width
            y += max(panel.height for panel in line)
    return placed, headings, y


def _lines_of(row: Row) -> Iterator[list[Panel]]:
    line: list[Panel] = []
    for panel in row.panels:
        line.append(panel)
        if sum(one.width for one in line) >= COLUMNS:
            yield line
            line = []
    if line:
        yield line


def _box(x: float, y: float, panel: Panel, wide: float, high: float) -> tuple[float, float, float, float]:
    left, top = x * COLUMN_INCHES + 0.1, y * ROW_INCHES + 0.05
    inches_wide, inches_high = panel.width * COLUMN_INCHES - 0.2, panel.height * ROW_INCHES - 0.1
    return left / wide, 1 - (top + inches_high) / high, inches_wide / wide, inches_high / high


def _ask(panel: Panel, server: Prometheus, scope: Scope, begin_s: float, end_s: float) -> Iterator[Drawn]:
    step_s = max((end_s - begin_s) / STEPS, 1)
    for query in panel.queries:
        text = scope.on_board(query.text)
        found = server.now(text) if panel.kind == "bars" else server.between(text, begin_s, end_s, step_s)
        for series in found:
            name = _LABEL.sub(lambda label, labels=series.labels: labels.get(label[1], ""), query.legend)  # type: ignore[misc]
            yield Drawn(name.strip() or panel.title, series)


def _draw_panel(
    figure: Any, box: tuple[float, float, float, float], panel: Panel, found: list[Drawn], over: tuple[float, float]
) -> None:
    left, bottom, wide, high = box
    paper = figure.add_axes(box, facecolor=_PAPER)
    paper.set(xticks=[], yticks=[])
    paper.spines[:].set_color("#d9e2ec")
    paper.text(0.02, 0.97, panel.title, transform=paper.transAxes, fontsize=8.5, weight="bold", color=_INK, va="top")
    inner = figure.add_axes(_INSIDE[panel.kind](left, bottom, wide, high), facecolor="none")
    known = [one for one in found if one.series.known]
    if not known:
        inner.axis("off")
        says = panel.may_be_empty or ("no number yet" if found else "no data")
        inner.text(0.5, 0.5, says, ha="center", va="center", fontsize=8, color=_PALE, wrap=True)
        return
    _KINDS[panel.kind](inner, panel, known, over)


def _plot(axes: Any, panel: Panel, found: list[Drawn], over: tuple[float, float]) -> None:
    for colour, (name, series) in _coloured(found):
        times, values = zip(*series.values, strict=True)
        axes.plot(times, values, color=colour, linewidth=1.2, label=_short(name))
    for mark in panel.marks[1:]:
        axes.axhline(mark.at, color=_MARKS[mark.colour], linestyle="--", linewidth=0.8)
    _finish(axes, panel, found, over)


def _stack(axes: Any, panel: Panel, found: list[Drawn], over: tuple[float, float]) -> None:
    times = sorted({moment for one in found for moment, _ in one.series.values})
    rows = [[_number(dict(one.series.values).get(moment)) for moment in times] for one in found]
    colours = [colour for colour, _ in _coloured(found)]
    axes.stackplot(times, rows, colors=colours, alpha=0.75, labels=[_short(one.name) for one in found])
    _finish(axes, panel, found, over)


def _bars(axes: Any, panel: Panel, found: list[Drawn], over: tuple[float, float]) -> None:
    ordered = sorted(found, key=lambda one: _number(one.series.last))
    names, values = [_short(one.name) for one in ordered], [_number(one.series.last) for one in ordered]
    bars = axes.barh(names, values, color=_COLOURS[0], height=0.7)
    axes.bar_label(bars, [readable(value, panel.unit) for value in values], fontsize=6.5, color=_INK, padding=2)
    axes.set_xlim(0, max([*values, 1e-9]) * 1.25)
    axes.set_ylim(len(names) - max(len(names), 4) - 0.6, len(names) - 0.4)
    axes.set_xticks([])
    axes.tick_params(labelsize=6.5, length=0, colors=_INK)
    axes.spines[:].set_visible(False)


def _figure(axes: Any, panel: Panel, found: list[Drawn], over: tuple[float, float]) -> None:
    last = next(value for _, value in reversed(found[0].series.values) if not math.isnan(value))
    colour = _INK
    for mark in panel.marks:
        colour = _MARKS[mark.colour] if last >= mark.at or mark is panel.marks[0] else colour
    axes.axis("off")
    axes.text(0.5, 0.5, readable(last, panel.unit), fontsize=17, weight="bold", color=colour, ha="center", va="center")


def _finish(axes: Any, panel: Panel, found: list[Drawn], over: tuple[float, float]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

    axes.set_xlim(*over)
    values = [value for one in found for _, value in one.series.values if not math.isnan(value)]
    axes.set_ylim(bottom=min(*values, 0) * 1.1 if min(values) < 0 else 0, top=None if any(values) else 1)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if panel.unit == "bytes" and any(values):
        axes.yaxis.set_major_locator(MultipleLocator(2 ** math.ceil(math.log2(max(values) / 4))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value, panel.unit)))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: time.strftime("%H:%M:%S", time.gmtime(value))))
    axes.tick_params(labelsize=6.5, length=2, colors=_INK)
    axes.grid(color="#d9e2ec", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_PALE)
    handles, names = axes.get_legend_handles_labels()
    columns = max(1, min(3, int(panel.width * COLUMN_INCHES / (max(map(len, names)) * _LETTER_INCHES + 0.3))))
    if len(names) > (room := columns * LEGEND_ROWS):
        shown = sorted(sorted(range(len(found)), key=lambda n: -_most(found[n]))[: room - 1])
        handles = [*(handles[n] for n in shown), axes.plot([], [], color="none")[0]]
        names = [*(names[n] for n in shown), f"+ {len(found) - room + 1} more"]
    axes.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(-0.06, -0.12),
        ncols=min(columns, len(names)),
        fontsize=6.5,
        frameon=False,
        handlelength=1,
        columnspacing=1,
        labelspacing=0.3,
        borderaxespad=0,
    )


def _coloured(found: list[Drawn]) -> Iterator[tuple[str, Drawn]]:
    for n, one in enumerate(found):
        yield _COLOURS[n % len(_COLOURS)], one


def _most(one: Drawn) -> float:
    return max(_number(value) for _, value in one.series.values)


def _number(value: float | None) -> float:
    return 0.0 if value is None or math.isnan(value) else value


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def readable(value: float, unit: str) -> str:
    """A value with its unit, short.

    >>> [readable(0.25, "percentunit"), readable(0.0042, "s"), readable(1234, "cps"), readable(3 << 20, "bytes")]
    ['25%', '4.2 ms', '1.23k/s', '3 MiB']
    """
    if unit == "percentunit":
        return f"{value * 100:.3g}%"
    if unit == "s":
        return _time(value)
    if unit == "bytes":
        power = min(int(math.log(value, 1024)), 4) if value >= 1 else 0
        return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
    end = "/s" if unit in ("cps", "ops", "reqps") else ""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}{end}"
    return f"{value:.3g}{end}"


def _time(value: float) -> str:
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return f"{value * 1e6:.3g} µs" if value else "0 s"


def _of_lines(left: float, bottom: float, wide: float, high: float) -> tuple[float, float, float, float]:
    return left + 0.038, bottom + high * 0.31, wide - 0.053, high * 0.55


def _of_bars(left: float, bottom: float, wide: float, high: float) -> tuple[float, float, float, float]:
    return left + wide * 0.34, bottom + high * 0.04, wide * 0.62, high * 0.82


def _of_number(left: float, bottom: float, wide: float, high: float) -> tuple[float, float, float, float]:
    return left, bottom, wide, high * 0.8


def _lighten(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as picture:
        picture.convert("RGB").quantize(64).save(path, optimize=True)


_INSIDE = {"lines": _of_lines, "area": _of_lines, "bars": _of_bars, "number": _of_number}
_KINDS: dict[Kind, Any] = {"lines": _plot, "area": _stack, "bars": _bars, "number": _figure}
