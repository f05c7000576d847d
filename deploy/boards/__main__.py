"""`python -m deploy.boards`: write boards and rules, ask a Prometheus for all they ask, draw what it answers."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.boards import BOARDS
from deploy.boards.prometheus import Prometheus, Scope, Unanswered
from deploy.boards.rules import RUNBOOKS, alert_rules, recording_rules

HERE = Path(__file__).parents[1]
_OF_A_RELEASE = 'job="job-of-the-release"'
"""What the chart's rules select; its templates know the job's name."""


def files(selector: str = "", runbooks: str = RUNBOOKS) -> Mapping[str, str]:
    """All generated files, by their place under deploy/."""
    from deploy.boards.grafana import linter_exclusions, to_json

    return {
        **{f"grafana/{board.name}.json": to_json(board, selector) for board in BOARDS},
        "grafana/.lint": linter_exclusions(BOARDS),
        "prometheus/recording.yaml": recording_rules(selector),
        "prometheus/alerts.yaml": alert_rules(selector, runbooks),
    }


def chart_files() -> Mapping[str, str]:
    """Those that are the chart's own, by their place under deploy/: rules that see one release alone."""
    place = "helm/marquee/files/prometheus"
    return {
        f"{place}/recording.yaml": recording_rules(_OF_A_RELEASE),
        f"{place}/alerts.yaml": alert_rules(_OF_A_RELEASE),
    }


def write(options: argparse.Namespace) -> int:
    """Write the files; says which."""
    written = files(options.selector, options.runbooks)
    for name, text in ({**written, **chart_files()} if options.out == HERE else written).items():
        path = options.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")
    return 0


def check(options: argparse.Namespace) -> int:
    """Print every query with how many series it returns; 1 where one returns none that should."""
    from deploy.boards.check import answers, table

    scope = Scope(job=options.job, cluster=options.cluster, selector=options.selector, interval=options.interval)
    found = answers(Prometheus(options.url), scope)
    sys.stdout.write(table({"series": found}))
    return int(any(answer.missing for answer in found))


def draw(options: argparse.Namespace) -> int:
    """Draw each board into a folder; says which."""
    from deploy.boards.pictures import draw as picture

    scope = Scope(job=options.job, cluster=options.cluster, interval=options.interval)
    options.folder.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        path = picture(board, Prometheus(options.url), scope, options.folder, minutes=options.minutes)
        sys.stdout.write(f"{path}\n")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.boards", description=__doc__)
    parser.set_defaults(run=write)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for grafana/ and prometheus/")
    parser.add_argument("--selector", default="", help='matchers for all series, such as job="recs", cluster="eu1"')
    parser.add_argument("--runbooks", default=RUNBOOKS, help="where docs/runbook is served")
    commands = parser.add_subparsers()
    for name, run in (("check", check), ("draw", draw)):
        command = commands.add_parser(name, help=str(run.__doc__))
        command.set_defaults(run=run)
        command.add_argument("url", help="a Prometheus, such as http://127.0.0.1:9090")
        command.add_argument("--job", default=".+", help="value of $job, a regular expression")
        command.add_argument("--cluster", default=".*", help="value of $cluster")
        command.add_argument("--interval", default="1m", help="value of $__rate_interval")
        if name == "draw":
            command.add_argument("folder", type=Path)
            command.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (OSError, Unanswered) as error:
        sys.stderr.write(f"failed: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
