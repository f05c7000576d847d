"""Does every query of every board and rule return data?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deploy.boards import BOARDS
from deploy.boards.alerts import ALERTS
from deploy.boards.objectives import OBJECTIVES, WINDOWS
from deploy.boards.prometheus import Prometheus, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A query, where it is asked, and when it may return nothing though all is well."""

    where: str
    what: str
    text: str
    may_be_empty: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a query: how many series, and how many of them hold a number."""

    asked: Asked
    series: int
    known: int

    @property
    def missing(self) -> bool:
        """Whether nothing came where something should."""
        return not self.series and not self.asked.may_be_empty


def every_query(scope: Scope) -> Iterator[Asked]:
    """All that boards and rules ask, in order; alerts without their bounds, which leave nothing while all is well."""
    for board in BOARDS:
        for panel in board.panels():
            for query in panel.queries:
                what = panel.title if len(panel.queries) == 1 else f"{panel.title}: {query.legend}"
                yield Asked(
                    where=board.name, what=what, text=scope.on_board(query.text), may_be_empty=panel.may_be_empty
                )
    for objective in OBJECTIVES:
        for window in WINDOWS:
            yield Asked(where="recording", what=objective.record(window), text=scope.in_rule(objective.share(), window))
    for alert in ALERTS:
        for number, measure in enumerate(alert.measures, 1):
            what = alert.name if len(alert.measures) == 1 else f"{alert.name} {number}"
            yield Asked(where="alerts", what=what, text=scope.in_rule(measure), may_be_empty=alert.may_be_empty)


def answers(server: Prometheus, scope: Scope) -> list[Answer]:
    """Ask everything.

    Raises:
        Unanswered: the server refused a query.
    """
    found = []
    for asked in every_query(scope):
        series = server.now(asked.text)
        found.append(Answer(asked=asked, series=len(series), known=sum(one.known for one in series)))
    return found


def table(columns: Mapping[str, Sequence[Answer]]) -> str:
    """How many series each query returned, a column for each set of labels.

    `5 (2)` are five series, two of which hold a number by now.
    """
    wide = {head: max(10, len(head)) for head in columns}
    rows = [(answer.asked.where, answer.asked.what) for answer in next(iter(columns.values()))]
    widest = max(len(what) for _, what in rows)
    lines = [_line("where", "query", widest, [f"{head:>{wide[head]}}" for head in columns])]
    for n, (where, what) in enumerate(rows):
        lines.append(_line(where, what, widest, [f"{_count(each[n]):>{wide[head]}}" for head, each in columns.items()]))
    return "\n".join(lines) + "\n"


def _line(where: str, what: str, widest: int, counts: Sequence[str]) -> str:
    return f"{where:<9}  {what:<{widest}}  {'  '.join(counts)}".rstrip()


def _count(answer: Answer) -> str:
    if answer.missing:
        return "NONE"
    return str(answer.series) if answer.known == answer.series else f"{answer.series} ({answer.known})"
