"""What `marquee evaluate` prints: how well a log was foreseen, beside yardsticks, as tables and as figures."""

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.table import Table

from streams.commands.console import err, out

if TYPE_CHECKING:
    from streams.lab.baselines import Quality
    from streams.lab.datasets import Log
    from streams.settings import Settings


class Protocol(StrEnum):
    """How a log is gone through: every event ranked before it is learned, or people's last events left out."""

    progressive = "progressive"
    leave_last_out = "leave-last-out"


class Ask(StrEnum):
    """When people are asked for."""

    event = "event"
    later = "later"


def left_out(log: "Log", settings: "Settings", ask: Ask, batch: int) -> dict[str, object]:
    """People's last events, asked for at one moment."""
    from streams.lab.leave_last_out import run_leave_last_out

    both = run_leave_last_out(log, settings, ask.value, batch=batch, say=err.print)
    when = "at the end of the log" if ask == Ask.later else "at the event before"
    print_quality(f"{log.name}, people's last events, asked {when}", {"marquee": both.marquee, "popular": both.popular})
    q = both.marquee
    figures = {"hr@10": round(q.recall_10, 5), "ndcg@10": round(q.ndcg_10, 5), "people": q.events}
    return {"dataset": log.name, "protocol": "leave-last-out", "ask": ask.value, **figures}


def measured(log: "Log", settings: "Settings", names: list[str]) -> Iterator[tuple[str, "Quality"]]:
    """Yardsticks over a log; one that takes too much memory is left out with a line."""
    from streams.lab.baselines import TooLarge, measure

    for name in names:
        try:
            yield name, measure(name, log, settings.seed)
        except TooLarge as error:
            err.print(str(error), markup=False)


def rounded(quality: "Quality") -> dict[str, float]:
    """Figures as scripts read them."""
    q = quality
    figures = {"recall@10": q.recall_10, "recall@20": q.recall_20, "ndcg@10": q.ndcg_10, "second_half": q.second_half}
    return {name: round(figure, 5) for name, figure in figures.items()}


def print_quality(title: str, qualities: "dict[str, Quality]") -> None:
    """A table, a line for each method."""
    table = Table(title=title, title_justify="left")
    for heading in ("", "recall@10", "±", "recall@20", "ndcg@10", "2nd half", "events"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for method, q in qualities.items():
        numbers = (q.recall_10, q.error, q.recall_20, q.ndcg_10, q.second_half)
        table.add_row(method, *(f"{number:.4f}" for number in numbers), f"{q.events:,}")
    out.print(table)
