"""Boards as Grafana's JSON, by Grafana's own SDK.

Nothing names a data source, a job or a cluster: these are variables, and so are instances. `cluster` takes "all" as
`.*`, which also matches where there is no such label; `job` and `instance` always exist.
"""

import json
import string
from typing import Any, Final

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model

from deploy.boards.panels import RATE_INTERVAL_RULE, Board, Kind, Mark, Panel, Query
from deploy.boards.promql import ON_BOARDS, fill

SOURCE: Final = model.DataSourceRef("prometheus", "${datasource}")
TAG = "marquee"
AnyPanel = timeseries.Panel | stat.Panel | bargauge.Panel


def to_json(board: Board, selector: str = "") -> str:
    """A board as Grafana imports or provisions it.

    Args:
        board: what is on it.
        selector: matchers that narrow what its variables offer, such as `namespace="media"`.
    """
    built = (
        dashboard.Dashboard(board.title)
        .description(board.description)
        .tags([TAG])
        .readonly()
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Other boards")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
            .as_dropdown(True)
        )
    )
    for variable in _variables(selector):
        built.with_variable(variable)
    number = 0
    for row in board.rows:
        built.with_row(dashboard.Row(row.title).id(number := number + 1))
        for panel in row.panels:
            built.with_panel(_panel(panel).id(number := number + 1))
    return json.dumps(built.build(), cls=JSONEncoder, indent=1, ensure_ascii=False) + "\n"


def linter_exclusions(boards: tuple[Board, ...]) -> str:
    """What Grafana's dashboard linter is told to let pass, and why: its `.lint` file."""
    told: dict[str, list[tuple[str, str]]] = {}
    for board in boards:
        for panel in board.panels():
            if panel.window:
                told.setdefault(panel.window, []).append((board.title, panel.title))
    entries = [
        f'    - dashboard: "{title}"\n      panel: "{panel}"\n      reason: "{why}"\n'
        for why, places in told.items()
        for title, panel in places
    ]
    return f"exclusions:\n  {RATE_INTERVAL_RULE}:\n    entries:\n{''.join(entries)}"


def _variables(selector: str) -> list[Any]:
    def query(name: str, label: str, matchers: str, every: str) -> dashboard.QueryVariable:
        both = ", ".join(part for part in (selector, matchers) if part)
        return (
            dashboard.QueryVariable(name)
            .label(label)
            .datasource(SOURCE)
            .query(f"label_values(marquee_build_info{{{both}}}, {name})")
            .multi(True)
            .include_all(True)
            .all_value(every)
            .current(model.VariableOption(text="All", value="$__all"))
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
        )

    return [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        query("cluster", "Cluster", "", ".*"),
        query("job", "Job", 'cluster=~"$cluster"', ".+"),
        query("instance", "Instance", 'cluster=~"$cluster", job=~"$job"', ".+"),
    ]


def _panel(panel: Panel) -> AnyPanel:
    built: AnyPanel = _KINDS[panel.kind]()
    built.title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE)
    built.span(panel.width).height(panel.height)
    if panel.marks:
        built.thresholds(_thresholds(panel.marks))
        if isinstance(built, timeseries.Panel):
            built.thresholds_style(common.GraphThresholdsStyleConfig().mode(look.GraphThresholdsStyleMode.DASHED))
    for letter, query in zip(string.ascii_uppercase, panel.queries, strict=False):
        built.with_target(_target(query, letter, last=panel.kind == "bars"))
    return built


def _target(query: Query, letter: str, *, last: bool) -> prometheus.Dataquery:
    target = (
        prometheus.Dataquery()
        .expr(fill(query.text, selector=ON_BOARDS))
        .legend_format(query.legend)
        .datasource(SOURCE)
        .ref_id(letter)
    )
    return target.instant() if last else target.range()


def _thresholds(marks: tuple[Mark, ...]) -> dashboard.ThresholdsConfig:
    first, *others = marks
    steps = [model.Threshold(value=None, color=first.colour)]
    steps += [model.Threshold(value=mark.at, color=mark.colour) for mark in others]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _lines() -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(look.LegendDisplayMode.LIST).placement(look.LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI).sort(look.SortOrder.DESCENDING)
    return timeseries.Panel().legend(legend.show_legend(True)).tooltip(tooltip).fill_opacity(8).axis_soft_min(0)


def _area() -> timeseries.Panel:
    return _lines().fill_opacity(40).stacking(common.StackingConfig().mode(look.StackingMode.NORMAL).group("A"))


def _number() -> stat.Panel:
    return stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def _bars() -> bargauge.Panel:
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"])
    return bargauge.Panel().orientation(look.VizOrientation.HORIZONTAL).reduce_options(reduced)


_KINDS: Final[dict[Kind, Any]] = {"lines": _lines, "area": _area, "number": _number, "bars": _bars}
