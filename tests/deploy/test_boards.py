"""Boards are what the code says, read series that exist, and pass the rules of Grafana's dashboard linter."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.boards import BOARDS
from deploy.boards.__main__ import HERE, chart_files, files, main
from deploy.boards.alerts import ALERTS
from deploy.boards.check import every_query
from deploy.boards.objectives import OBJECTIVES
from deploy.boards.prometheus import Scope
from deploy.boards.promql import RATE_INTERVAL, names
from deploy.processes import free_port
from streams.process.metrics import LearnerMetrics, WorkerMetrics
from tests.deploy import dashboard_linter
from tests.deploy.dashboard_linter import exclusions, lint, series_of

EXCLUDED = exclusions((HERE / "grafana" / ".lint").read_text())


def a_board(name: str = "overview") -> dict[str, Any]:
    board: dict[str, Any] = json.loads((HERE / "grafana" / f"{name}.json").read_text())
    return board


def known_series() -> set[str]:
    known = {"up"}
    for metrics in (WorkerMetrics(), LearnerMetrics()):
        for family in metrics.registry.collect():
            known |= {sample.name for sample in family.samples} | {family.name}
            if family.type == "histogram":
                known |= {f"{family.name}_{end}" for end in ("bucket", "sum", "count")}
    return known


def test_files_are_what_the_code_writes() -> None:
    written = {**files(), **chart_files()}
    assert {name: (HERE / name).read_text() for name in written} == dict(written)


def test_no_file_is_left_of_a_board_that_is_gone() -> None:
    found = {f"grafana/{path.name}" for path in (HERE / "grafana").iterdir() if path.is_file()}
    assert found == {name for name in files() if name.startswith("grafana/")}


def test_every_series_that_is_asked_for_exists() -> None:
    asked = {name for one in every_query(Scope()) for name in names(one.text)}
    assert len(asked) > 50
    assert not asked - known_series()


def test_label_values_that_are_asked_for_exist_where_labels_are_known_from_the_start() -> None:
    told: dict[str, dict[str, set[str]]] = {}
    for metrics in (WorkerMetrics(), LearnerMetrics()):
        for family in metrics.registry.collect():
            for sample in family.samples:
                for label, value in sample.labels.items():
                    told.setdefault(sample.name, {}).setdefault(label, set()).add(value)
    wrong = []
    for one in every_query(Scope()):
        for series, matchers in re.findall(r"(marquee_\w+)\{([^}]*)\}", one.text):
            for label, _, value in re.findall(r'(\w+)(=~|=)"([^"]*)"', matchers):
                if label in told.get(series, {}) and not set(value.split("|")) <= told[series][label]:
                    wrong.append((one.what, series, label, value))
    assert not wrong


@pytest.mark.parametrize("name", [board.name for board in BOARDS])
def test_a_board_passes_the_rules_of_the_dashboard_linter(name: str) -> None:
    assert lint(a_board(name), EXCLUDED) == {}


def test_what_the_linter_is_told_to_let_pass_has_a_reason_and_a_panel() -> None:
    panels = {(board.title, panel.title) for board in BOARDS for panel in board.panels() if panel.window}
    assert {(board, panel) for _, board, panel in EXCLUDED} == panels


def _spoil(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def spoil(board: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        place: Any = board
        for part in parents:
            place = place[int(part)] if part.isdigit() else place[part]
        place[last] = value

    return spoil


SPOILED = {
    "template-datasource-rule": _spoil("templating/list/0/label", "Prometheus"),
    "template-job-rule": _spoil("templating/list/2/allValue", ".*"),
    "template-instance-rule": _spoil("templating/list/3/multi", False),
    "template-label-promql-rule": _spoil("templating/list/2/query", "up"),
    "template-on-time-change-reload-rule": _spoil("templating/list/2/refresh", 1),
    "panel-datasource-rule": _spoil("panels/1/datasource/uid", "P1809F7CD0C75ACF3"),
    "panel-title-description-rule": _spoil("panels/1/description", ""),
    "panel-units-rule": _spoil("panels/1/fieldConfig/defaults/unit", "slates"),
    "panel-no-targets-rule": _spoil("panels/1/targets", []),
    "target-rate-interval-rule": _spoil(
        "panels/1/targets/0/expr", 'rate(marquee_slates_total{job=~"$job", instance=~"$instance"}[5m])'
    ),
    "target-job-rule": _spoil("panels/1/targets/0/expr", 'max(marquee_lag_seconds{instance=~"$instance"})'),
    "target-instance-rule": _spoil("panels/1/targets/0/expr", 'max(marquee_lag_seconds{job=~"$job"})'),
    "target-counter-agg-rule": _spoil(
        "panels/1/targets/0/expr", 'sum(marquee_slates_total{job=~"$job", instance=~"$instance"})'
    ),
    "uneditable-dashboard-rule": _spoil("editable", True),
    "no-identity-rule": _spoil("uid", "marquee"),
}


@pytest.mark.parametrize("rule", list(dashboard_linter.RULES))
def test_each_rule_of_the_linter_sees_its_fault_and_only_that(rule: str) -> None:
    board = a_board()
    SPOILED[rule](board)
    assert set(lint(board, EXCLUDED)) == {rule}


def test_queries_are_promql(tmp_path: Path) -> None:
    """As Prometheus' own parser reads them, with variables as Grafana puts them in."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool comes with Debian's prometheus")
    scope = Scope(job="media/recs-prod", cluster="eu1", instance="a|b", selector='job="a"')
    rules = [{"record": f"asked:{n}", "expr": one.text} for n, one in enumerate(every_query(scope))]
    assert len(rules) > 120
    path = tmp_path / "asked.yaml"
    path.write_text(json.dumps({"groups": [{"name": "asked", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_query_names_a_job_or_an_interval_of_its_own() -> None:
    texts = [query.text for board in BOARDS for panel in board.panels() for query in panel.queries]
    texts += [measure for alert in ALERTS for measure in alert.measures]
    texts += [objective.share() for objective in OBJECTIVES]
    assert not [text for text in texts if "job=" in text or "cluster=" in text or RATE_INTERVAL in text]


def test_another_installation_has_its_own_selector_in_every_rule_and_variable(tmp_path: Path) -> None:
    assert main(["--selector", 'namespace="media"', "--runbooks", "https://sre.example/m", "--out", str(tmp_path)]) == 0
    ours = Scope(selector='namespace="media"')
    read = [found for one in every_query(ours) if one.where in ("recording", "alerts") for found in series_of(one.text)]
    assert len(read) > 60
    assert all('namespace="media"' in matchers for _, matchers in read)
    assert (tmp_path / "prometheus" / "recording.yaml").read_text().count('namespace="media"') > 40
    variables = json.loads((tmp_path / "grafana" / "overview.json").read_text())["templating"]["list"]
    assert all('namespace="media"' in one["query"] for one in variables if one["type"] == "query")
    assert "https://sre.example/m/MarqueeLag" in (tmp_path / "prometheus" / "alerts.yaml").read_text()


def test_a_prometheus_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"http://127.0.0.1:{free_port()}"]) == 2
    assert re.fullmatch(r"failed: .*refused.*\n", capsys.readouterr().err)
