"""What an alert is: measures beside their bounds, and what is said of it."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Severity = Literal["page", "ticket"]
"""Somebody is woken; somebody looks at it on a working day."""


class Bound(NamedTuple):
    """A query, and the value beyond which it is trouble."""

    measure: str
    sign: Literal[">", "<"]
    limit: float

    @property
    def text(self) -> str:
        """As PromQL."""
        binds = " or " in self.measure or " and " in self.measure
        inner = f"({self.measure})" if binds else self.measure
        return f"{inner} {self.sign} {self.limit:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Trouble that somebody should know of.

    Attributes:
        name: the alert's, and its page's in docs/runbook.
        severity: how soon somebody should look.
        lasting: for how long it must have been so.
        any_of: it is trouble where all bounds of one of these hold.
        summary: one line; `$labels` and `$value` as in Prometheus' templates.
        description: what it means and what to look at first.
        may_be_empty: when a measure returns nothing though all is well; empty where each always returns something.
    """

    name: str
    severity: Severity
    lasting: str
    any_of: tuple[tuple[Bound, ...], ...]
    summary: str
    description: str
    may_be_empty: str = ""

    @property
    def text(self) -> str:
        """As PromQL."""
        groups = [" and ".join(bound.text for bound in group) for group in self.any_of]
        return groups[0] if len(groups) == 1 else " or ".join(f"({group})" for group in groups)

    @property
    def measures(self) -> list[str]:
        """The queries that it compares, each once."""
        return list(dict.fromkeys(bound.measure for group in self.any_of for bound in group))


def above(measure: str, limit: float) -> tuple[tuple[Bound, ...], ...]:
    """Trouble above a limit."""
    return ((Bound(measure, ">", limit),),)


def outside(least: str, lower: float, most: str, upper: float, *where: Bound) -> tuple[tuple[Bound, ...], ...]:
    """Trouble where the least is below one limit or the most above another, and all of `where` hold."""
    return ((Bound(least, "<", lower), *where), (Bound(most, ">", upper), *where))


def risen(series: str, hours: float, by: str) -> str:
    """By how much a counter rose. Of a younger process it is the whole: it may have risen before its first scrape.

    What happens at a start is seen by no `increase`, and is when records have expired and a snapshot does not fit.
    """
    young = f"time() - process_start_time_seconds{{*}} < {hours * 3_600:g}"
    return f"sum by ({by}) ({series} and on (*, instance) ({young}) or increase({series}[{hours * 60:g}m]))"


def share(part: str, whole: str, window: str, by: str = "*") -> str:
    """A share of two rates over a window; 0 where there was nothing at all."""
    parts, total = (f"sum by ({by}) (rate({each}[{window}]))" for each in (part, whole))
    return f"{parts} / ({total} > 0) or 0 * {total}"
