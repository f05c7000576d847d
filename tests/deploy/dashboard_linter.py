"""The rules of Grafana's dashboard linter (grafana/dashboard-linter, docs/rules), for boards as JSON.

A rule takes a board and yields what is wrong with it; the linter's own exclusions file says what may be.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

Board = dict[str, Any]
Complaint = tuple[str, str]
"""A panel's title, empty for what is wrong with the board; and what is wrong."""
UNITS = {"none", "short", "percent", "percentunit", "bytes", "s", "ms", "cps", "ops", "reqps", "bool", "currencyUSD"}
"""Those of the linter's list that are used here, and a few more."""
_SERIES = re.compile(r"(?<![\w:$\"])((?:marquee|process|python)_\w+|up)\b(?!\s*\()(\{[^}]*\})?")
_RANGE = re.compile(r"\[([^\]]+)\]")
_COUNTED = re.compile(r"(?:rate|irate|increase|count|max_over_time)\s*\(\s*$")


def panels(board: Board) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def variable(board: Board, name: str) -> dict[str, Any]:
    return next((one for one in board["templating"]["list"] if one["name"] == name), {})


def targets(board: Board) -> Iterator[tuple[str, str]]:
    for panel in panels(board):
        for target in panel.get("targets", []):
            yield panel.get("title", ""), target["expr"]


def series_of(text: str) -> list[tuple[str, str]]:
    """Each series that a query reads, and its matchers in braces; recorded ones are left out."""
    return [(found[0], found[1]) for found in _SERIES.findall(_without_labels(text))]


def template_datasource(board: Board) -> Iterator[Complaint]:
    found = [one for one in board["templating"]["list"] if one["type"] == "datasource"]
    if [(one["name"], one["label"], one["query"]) for one in found] != [("datasource", "Data source", "prometheus")]:
        yield "", "no variable for the data source"


def _template(name: str) -> Callable[[Board], Iterator[Complaint]]:
    def rule(board: Board) -> Iterator[Complaint]:
        one = variable(board, name)
        wanted = {"type": "query", "label": name.title(), "multi": True, "includeAll": True, "allValue": ".+"}
        for key, value in wanted.items():
            if one.get(key) != value:
                yield "", f"variable {name}: {key} is {one.get(key)!r}, not {value!r}"
        if one.get("datasource", {}).get("uid") not in ("$datasource", "${datasource}"):
            yield "", f"variable {name} has a data source of its own"

    return rule


def template_label_promql(board: Board) -> Iterator[Complaint]:
    for one in board["templating"]["list"]:
        if one["type"] == "query" and not re.fullmatch(r"label_values\(\w+(\{.*\})?, \w+\)", one["query"]):
            yield "", f"variable {one['name']} asks {one['query']}"


def template_on_time_change_reload(board: Board) -> Iterator[Complaint]:
    for one in board["templating"]["list"]:
        if one["type"] == "query" and one.get("refresh") != 2:
            yield "", f"variable {one['name']} is not loaded again with the time range"


def panel_datasource(board: Board) -> Iterator[Complaint]:
    for panel in panels(board):
        sources = [panel.get("datasource"), *(target.get("datasource") for target in panel.get("targets", []))]
        if any((source or {}).get("uid") not in ("$datasource", "${datasource}") for source in sources):
            yield panel.get("title", ""), "a data source of its own"


def panel_title_description(board: Board) -> Iterator[Complaint]:
    for panel in panels(board):
        if not panel.get("title") or not panel.get("description"):
            yield panel.get("title", ""), "no title or no description"


def panel_units(board: Board) -> Iterator[Complaint]:
    for panel in panels(board):
        if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
            yield panel.get("title", ""), "no unit, or one that Grafana does not know"


def panel_no_targets(board: Board) -> Iterator[Complaint]:
    for panel in panels(board):
        if not panel.get("targets"):
            yield panel.get("title", ""), "asks nothing"


def target_rate_interval(board: Board) -> Iterator[Complaint]:
    for title, text in targets(board):
        if set(_RANGE.findall(text)) - {"$__rate_interval"}:
            yield title, f"a window of its own: {text}"


def _matcher(name: str) -> Callable[[Board], Iterator[Complaint]]:
    def rule(board: Board) -> Iterator[Complaint]:
        for title, text in targets(board):
            for series, matchers in series_of(text):
                if f'{name}=~"${name}"' not in matchers:
                    yield title, f"{series} of every {name}"

    return rule


def target_counter_agg(board: Board) -> Iterator[Complaint]:
    for title, text in targets(board):
        for found in _SERIES.finditer(_without_labels(text)):
            counter = found[1].endswith(("_total", "_count", "_sum", "_bucket"))
            if counter and not _COUNTED.search(text[: found.start()]):
                yield title, f"{found[1]} without a rate"


def uneditable(board: Board) -> Iterator[Complaint]:
    if board.get("editable"):
        yield "", "can be edited where it is generated"


def no_identity(board: Board) -> Iterator[Complaint]:
    """No board, panel or link has a uid that another Grafana may have given away."""
    if board.get("uid") or board.get("id"):
        yield "", "a hard-coded identity"


def _without_labels(text: str) -> str:
    """The query with names inside of `by (…)` and `on (…)` blanked, length kept."""
    return re.sub(r"\b(?:by|on|group_left|without) \([^)]*\)", lambda found: " " * len(found[0]), text)


RULES: dict[str, Callable[[Board], Iterator[Complaint]]] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": _template("job"),
    "template-instance-rule": _template("instance"),
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": _matcher("job"),
    "target-instance-rule": _matcher("instance"),
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard-rule": uneditable,
    "no-identity-rule": no_identity,
}


def exclusions(text: str) -> set[tuple[str, str, str]]:
    """Rule, board and panel of each entry of a `.lint` file as it is written here."""
    found, rule, board = set(), "", ""
    for line in text.splitlines():
        if named := re.fullmatch(r"  ([\w-]+):", line):
            rule = named[1]
        if named := re.fullmatch(r'    - dashboard: "(.*)"', line):
            board = named[1]
        if named := re.fullmatch(r'      panel: "(.*)"', line):
            found.add((rule, board, named[1]))
    return found


def lint(board: Board, excluded: set[tuple[str, str, str]]) -> dict[str, list[Complaint]]:
    """What each rule has to say that is not excluded."""
    said = {
        name: [one for one in rule(board) if (name, board["title"], one[0]) not in excluded]
        for name, rule in RULES.items()
    }
    return {name: complaints for name, complaints in said.items() if complaints}
