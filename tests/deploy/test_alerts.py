"""Each alert fires where it should and stays quiet where it should, as promtool sees it; each has its page."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from deploy.boards.__main__ import HERE
from deploy.boards.alerts import ALERTS
from deploy.boards.overview import BOARD
from deploy.boards.promql import fill
from streams.commands.cli import app
from tests.deploy.alert_cases import ALSO, CALM, CASES, FEW, GONE, HALF_HOURS, LONG, Series, slow
from tests.deploy.promtool import cases, promtool

RUNBOOK = HERE.parent / "docs" / "runbook"
SEVERITIES = {"page", "ticket"}


def _of_job(job: str, series: Series) -> Iterator[dict[str, str]]:
    for name, values in series.items():
        metric, _, labels = name.rstrip("}").partition("{")
        inside = ", ".join(part for part in (f'job="{job}"', labels) if part)
        yield {"series": f"{metric}{{{inside}}}", "values": values}


def _firing(minutes: int, fires: dict[str, tuple[str, ...]], quiet: list[str]) -> list[dict[str, Any]]:
    """What is asked at the end: exactly these fire, and of the quiet ones nothing even pends."""
    expected = [
        {"labels": f'{{job="{job} fires", alertname="{name}", severity="{_severity(name)}"}}', "value": 1}
        for job, names in fires.items()
        for name in names
    ]
    at = f"{minutes}m"
    asked = 'group by (job, alertname, severity) (ALERTS{alertstate="firing", job=~".* fires"})'
    return [
        {"expr": asked, "eval_time": at, "exp_samples": expected},
        *({"expr": f'ALERTS{{alertname="{name}", job="{name} quiet"}}', "eval_time": at} for name in quiet),
    ]


def _severity(name: str) -> str:
    return next(alert.severity for alert in ALERTS if alert.name == name)


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    assert set(CASES) == {alert.name for alert in ALERTS}
    assert all(case.fires != case.quiet for name, case in CASES.items() if name != "MarqueeHitRateFell")


@pytest.mark.slow
def test_each_alert_fires_in_its_case_alone_and_is_quiet_in_the_other(tmp_path: Path) -> None:
    series = [one for name, case in CASES.items() for one in _of_job(f"{name} fires", case.fires)]
    series += [one for name, case in CASES.items() for one in _of_job(f"{name} quiet", case.quiet)]
    series += [one for name, fires in ALSO.items() for one in _of_job(f"{name} also fires", fires)]
    fires = {name: (name, *case.also) for name, case in CASES.items() if case.fires}
    quiet = list(fires)
    cases(tmp_path / "minutes.yaml", "1m", series, _firing(LONG, fires | {f"{n} also": (n,) for n in ALSO}, quiet))


@pytest.mark.slow
def test_nobody_is_told_at_a_first_start_in_an_idle_night_or_of_a_worker_that_is_replaced(tmp_path: Path) -> None:
    series = [one for name, calm in CALM.items() for one in _of_job(name, calm)]
    asked = 'ALERTS{alertstate="firing"}'
    minutes = 5, 30, *range(LONG - 4, LONG)
    every = [{"expr": asked, "eval_time": f"{minute}m", "exp_samples": []} for minute in minutes]
    cases(tmp_path / "calm.yaml", "1m", series, every)


@pytest.mark.slow
def test_a_fallen_hit_rate_is_told_beside_three_days(tmp_path: Path) -> None:
    name = "MarqueeHitRateFell"
    series = [*_of_job(f"{name} fires", HALF_HOURS.fires), *_of_job(f"{name} quiet", HALF_HOURS.quiet)]
    night = {"expr": 'ALERTS{job="a night"}', "eval_time": f"{64 * 30}m", "exp_samples": []}
    asked = [*_firing(64 * 30, {name: (name,)}, [name]), night]
    cases(tmp_path / "half-hours.yaml", "30m", [*series, *_of_job("a night", FEW)], asked)


@pytest.mark.slow
def test_who_is_gone_is_told_by_one_alert_or_another(tmp_path: Path) -> None:
    series = [one for job, (present, _) in GONE.items() for one in _of_job(job, present)]
    expected = [
        {"labels": f'{{job="{job}", alertname="{name}"}}', "value": 1}
        for job, (_, names) in GONE.items()
        for name in names
    ]
    asked = [
        {
            "expr": 'group by (job, alertname) (ALERTS{alertstate="firing"})',
            "eval_time": f"{at}m",
            "exp_samples": expected if at < 48 * 60 else [one for one in expected if "MarqueeDown" in one["labels"]],
        }
        for at in (3 * 60, 20 * 60, 48 * 60)
    ]
    cases(tmp_path / "gone.yaml", "10m", series, asked)


@pytest.mark.slow
def test_where_nothing_runs_nothing_fires(tmp_path: Path) -> None:
    asked = [{"expr": "ALERTS", "eval_time": "60m", "exp_samples": []}]
    cases(tmp_path / "nothing.yaml", "1m", [{"series": 'up{job="another"}', "values": "0x60"}], asked)


@pytest.mark.slow
@pytest.mark.parametrize(("late", "left"), [(0, 1), (0.004, 0.6), (0.49, 0)])
def test_of_a_budget_all_to_nothing_is_left(tmp_path: Path, late: float, left: float) -> None:
    (panel,) = [panel for panel in BOARD.panels() if panel.title == "Latency budget left"]
    text = fill(panel.queries[0].text, selector='job="budget"')
    asked = [{"expr": f"round({text}, 0.001)", "eval_time": "60m", "exp_samples": [{"labels": "{}", "value": left}]}]
    cases(tmp_path / "left.yaml", "1m", list(_of_job("budget", slow(late))), asked)


def test_examples_of_configurations_are_what_prometheus_takes() -> None:
    promtool("check", "config", str(HERE / "prometheus" / "prometheus.yml"))


def test_alertmanager_is_told_of_no_alert_that_is_not_there() -> None:
    named = set(re.findall(r"Marquee\w+", (HERE / "prometheus" / "alertmanager.yml").read_text()))
    assert len(named) > 5
    assert not named - {alert.name for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_says_how_long_how_bad_what_and_where_to_read_more(alert: Any) -> None:
    text = (HERE / "prometheus" / "alerts.yaml").read_text().split(f'- alert: "{alert.name}"\n')[1].split("- alert:")[0]
    assert re.search(r'for: "\d+[mh]"', text)
    assert re.search(rf'severity: "{"|".join(SEVERITIES)}"', text)
    assert f'/{alert.name}"' in re.search(r"runbook_url: (.*)", text)[1]  # type: ignore[index]
    assert "summary: " in text
    assert "description: " in text
    page = (RUNBOOK / f"{alert.name}.md").read_text()
    assert re.findall(r"^(#.*)$", page, re.M) == [
        f"# {alert.name}",
        "## What it means",
        "## What to look at",
        "## What to do",
    ]
    assert len(page.split()) > 60


def test_pages_give_no_command_that_is_not_there() -> None:
    groups = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    told = {
        words
        for page in RUNBOOK.glob("*.md")
        for words in re.findall(r"`marquee ([a-z-]+)(?: ([a-z-]+))?", page.read_text())
    }
    assert len(told) > 12
    for command, verb in told:
        assert command in groups, command
        verbs = getattr(groups[command], "commands", None)
        assert verbs is None or verb in verbs, (command, verb)


def test_no_page_is_left_of_an_alert_that_is_gone() -> None:
    assert {path.stem for path in RUNBOOK.glob("Marquee*.md")} == {alert.name for alert in ALERTS}


def test_the_list_of_pages_is_that_of_the_alerts() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (page|ticket) \|", (RUNBOOK / "README.md").read_text(), re.M)
    assert rows == [(alert.name, alert.name, alert.severity) for alert in ALERTS]
