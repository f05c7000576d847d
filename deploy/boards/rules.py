"""Recording rules and alerts as Prometheus' files."""

from deploy.boards.alerting import Alert
from deploy.boards.alerts import ALERTS
from deploy.boards.objectives import OBJECTIVES, WINDOWS
from deploy.boards.promql import fill
from deploy.boards.yaml import Value, to_yaml

RUNBOOKS = "https://marquee.example/runbook/"
"""Where the pages of docs/runbook are served; a build parameter, because every installation has its own."""


def recording(selector: str = "") -> dict[str, str]:
    """Expressions of recording rules by name: each objective's share of bad slates over each window."""
    return {
        objective.record(window): fill(objective.share(), selector=selector, interval=window)
        for objective in OBJECTIVES
        for window in WINDOWS
    }


def recording_rules(selector: str = "") -> str:
    """The file of recording rules."""
    rules: list[Value] = [{"record": name, "expr": text} for name, text in recording(selector).items()]
    return _HEAD + to_yaml({"groups": [{"name": "marquee-objectives", "rules": rules}]})


def alert_rules(selector: str = "", runbooks: str = RUNBOOKS) -> str:
    """The file of alerts."""
    rules: list[Value] = [_rule(alert, selector, runbooks) for alert in ALERTS]
    return _HEAD + to_yaml({"groups": [{"name": "marquee-alerts", "rules": rules}]})


def _rule(alert: Alert, selector: str, runbooks: str) -> Value:
    return {
        "alert": alert.name,
        "expr": fill(alert.text, selector=selector),
        "for": alert.lasting,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": f"{runbooks.rstrip('/')}/{alert.name}",
        },
    }


_HEAD = "# Written by python -m deploy.boards; change deploy/boards and run it again.\n"
