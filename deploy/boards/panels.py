"""What there is to put on a board: plain values, which `grafana` makes JSON of and `pictures` draws."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["lines", "area", "number", "bars"]
"""Lines over time, stacked areas over time, the last value as a number, last values as bars."""

RATE_INTERVAL_RULE = "target-rate-interval-rule"
"""The linter's rule that every rate is over `$__rate_interval`."""


class Query(NamedTuple):
    """PromQL with rooms (`deploy.boards.promql`), and how its series are called: `{{label}}` takes a label's value."""

    text: str
    legend: str = ""


class Mark(NamedTuple):
    """From this value on it is this bad."""

    at: float
    colour: Literal["green", "yellow", "red"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture.

    Attributes:
        kind: how it is drawn.
        title: what it shows.
        description: what a reader should make of it, and do.
        unit: Grafana's name of the unit.
        queries: what it asks.
        width: of 24.
        height: in rows of about 36 pixels.
        marks: from which values on it is bad; ascending.
        most: the end of the scale, where there is one.
        window: why its rates are over fixed windows and not over `$__rate_interval`; empty where they are not.
        may_be_empty: when its queries return nothing though all is well; empty where they always return something.
    """

    kind: Kind
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 8
    height: int = 7
    marks: tuple[Mark, ...] = ()
    most: float | None = None
    window: str = ""
    may_be_empty: str = ""


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    marks: tuple[Mark, ...] = (),
    area: bool = False,
    width: int = 8,
    may_be_empty: str = "",
) -> Panel:
    """A panel of lines, or of stacked areas."""
    return Panel(
        kind="area" if area else "lines",
        title=title,
        description=description,
        unit=unit,
        queries=queries,
        width=width,
        marks=marks,
        may_be_empty=may_be_empty,
    )


class Row(NamedTuple):
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


class Board(NamedTuple):
    """A dashboard; `name` is that of its file."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]

    def panels(self) -> Iterator[Panel]:
        """All panels, in reading order."""
        for row in self.rows:
            yield from row.panels
