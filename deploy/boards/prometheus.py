"""Asking a Prometheus what boards and rules ask, as Grafana would: variables take values first."""

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from deploy.boards.promql import ON_BOARDS, fill


class Unanswered(Exception):
    """The server refused a query; the message is its own."""


class Series(NamedTuple):
    """One answer: its labels, and its values at moments in epoch seconds."""

    labels: Mapping[str, str]
    values: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        """The latest value."""
        return self.values[-1][1]

    @property
    def known(self) -> bool:
        """Whether any value is a number."""
        return any(not math.isnan(value) for _, value in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose series are meant: values of a board's variables, and the selector that rules were built with."""

    job: str = ".+"
    cluster: str = ".*"
    instance: str = ".+"
    interval: str = "1m"
    selector: str = ""

    def on_board(self, text: str) -> str:
        """A query of a board."""
        filled = fill(text, selector=ON_BOARDS, interval=self.interval)
        for name in ("cluster", "job", "instance"):
            filled = filled.replace(f"${name}", getattr(self, name))
        return filled

    def in_rule(self, text: str, interval: str = "5m") -> str:
        """A query of a rule."""
        return fill(text, selector=self.selector, interval=interval)


class Prometheus:
    """A server's HTTP API."""

    def __init__(self, url: str) -> None:
        """`url` is where it answers, such as `http://127.0.0.1:9090`."""
        self.url = url.rstrip("/")

    def now(self, query: str) -> list[Series]:
        """What a query returns now.

        Raises:
            Unanswered: it refused the query.
        """
        found = self._ask("query", {"query": query})
        return [Series(one["metric"], (_point(one["value"]),)) for one in found["result"]]

    def between(self, query: str, begin_s: float, end_s: float, step_s: float) -> list[Series]:
        """What a query returned over a time.

        Raises:
            Unanswered: it refused the query.
        """
        asked = {"query": query, "start": f"{begin_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:g}"}
        found = self._ask("query_range", asked)
        return [Series(one["metric"], tuple(_point(value) for value in one["values"])) for one in found["result"]]

    def rules(self) -> list[Mapping[str, Any]]:
        """The rules that it evaluates, with their health.

        Raises:
            Unanswered: it refused.
        """
        return [rule for group in self._ask("rules", {})["groups"] for rule in group["rules"]]

    def _ask(self, what: str, asked: Mapping[str, str]) -> Any:
        body = urllib.parse.urlencode(asked)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{body}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise Unanswered(f"{asked.get('query', what)}: {error.read().decode()}") from error


def _point(point: tuple[float, str]) -> tuple[float, float]:
    return float(point[0]), float(point[1])
