"""The command `marquee`: every verb is a thin shell around a function that can be called without it.

Progress and logs go to standard error; with `--json` the last line of standard output is one object. Exit codes: 0
done, 1 failed, 2 wrong use or settings.
"""

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from streams import configuration
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.baselines import Quality
    from streams.demo import DemoRun

app = typer.Typer(name="marquee", no_args_is_help=True, add_completion=False, help=__doc__.splitlines()[0])
topics_app = typer.Typer(no_args_is_help=True, help="Which topics there are, and creating them.")
config_app = typer.Typer(no_args_is_help=True, help="What the settings are.")
dlq_app = typer.Typer(no_args_is_help=True, help="Records that could not be read.")
bench_app = typer.Typer(no_args_is_help=True, help="Speed, beside its yardsticks, in one run.")
app.add_typer(topics_app, name="topics")
app.add_typer(config_app, name="config")
app.add_typer(dlq_app, name="dlq")
app.add_typer(bench_app, name="bench")

err = Console(stderr=True)
Config = Annotated[Path | None, typer.Option("--config", help="TOML file of settings; environment variables win.")]
Json = Annotated[bool, typer.Option("--json", help="End standard output with one machine-readable object.")]


class Failed(Exception):
    """A command could not do what it was asked; its message is for the person. Exit code 1."""


def main() -> None:
    """Run the command line; expected errors are one line on standard error, without a traceback."""
    try:
        app(standalone_mode=False)
    except configuration.SettingsError as error:
        err.print(f"[red]settings:[/] {escape(str(error))}", highlight=False)
        raise SystemExit(2) from None
    except typer._click.exceptions.ClickException as error:
        error.show(sys.stderr)
        raise SystemExit(2) from None
    except (typer.Abort, KeyboardInterrupt):
        err.print("stopped")
        raise SystemExit(130) from None
    except _expected() as error:
        err.print(f"[red]failed:[/] {escape(str(error))}", highlight=False)
        raise SystemExit(1) from None


def _expected() -> tuple[type[Exception], ...]:
    from aiokafka.errors import KafkaError
    from redis.exceptions import RedisError

    from deploy.processes import StartFailed
    from streams.datasets import UnreadableLog
    from streams.topics import TopicsRefused, TopicsUnfit

    return (Failed, StartFailed, UnreadableLog, TopicsRefused, TopicsUnfit, TimeoutError, KafkaError, RedisError)


def _load(config: Path | None) -> Settings:
    settings = configuration.load_settings(config)
    handler: logging.Handler = logging.StreamHandler()
    if sys.stderr.isatty() and settings.log.format == "text":
        handler = RichHandler(console=err, show_path=False)
    logging.basicConfig(
        level=settings.log.level.upper(),
        handlers=[handler],
        format="%(asctime)s %(levelname)s %(name)s %(message)s"
        if not isinstance(handler, RichHandler)
        else "%(message)s",
    )
    for noisy in ("faust", "mode", "aiokafka", "numba", "matplotlib", "faiss"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
    return settings


def _finish(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(result, default=str) + "\n")
        sys.stdout.flush()


@app.command()
def demo(
    events: Annotated[int | None, typer.Option(help="Publish only the first so many events.", min=100)] = None,
    report: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("marquee-report"),
    window: Annotated[int, typer.Option(help="Events in flight.", min=1, max=100_000)] = 128,
    as_json: Json = False,
) -> None:
    """Run the main job on MovieLens 100K: embedded servers, a worker, a learner, every event answered with a slate."""
    from streams.demo import run_demo
    from streams.report import render
    from streams.stack import Stack

    began = time.monotonic()
    from streams.datasets import ml_100k

    log = ml_100k()
    log = log.head(events) if events else log
    err.print(f"{log.name}: {len(log):,} events of {len(set(log.user_R)):,} people on {len(log.items):,} items")
    with Stack({"MARQUEE_SLATES__PER_EVENT": "all"}) as stack:
        ready_s = stack.wait_until_ready()
        err.print(f"worker ready after {ready_s:.1f} s; consent for this demo: grant")
        with _progress(len(log)) as tick:
            run = asyncio.run(run_demo(stack, log, tick, window=window))
        run.ready_s = ready_s
    path = render(run, report)
    result = _demo_result(run, path, time.monotonic() - began)
    _print_demo(run, result)
    _finish(result, as_json)


class _progress:  # noqa: N801
    """Live progress of a demo: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.percentage:3.0f}%"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
            console=err, disable=not err.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=total)
        self._spoke = time.monotonic()

    def __enter__(self) -> "_progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, run: "DemoRun") -> None:
        """Show where a run is."""
        elapsed = max(time.monotonic() - run.began, 1e-9)
        said = (
            f"{run.published / elapsed:,.0f} events/s  {run.slates / elapsed:,.0f} slates/s  "
            f"p50 {run.latency_ms(50):,.0f} ms  hits@10 {run.hits / max(run.scored, 1):.3f}"
        )
        self._bar.update(self._task, completed=run.slates, description=said)
        if not err.is_terminal and time.monotonic() - self._spoke > 10:
            self._spoke = time.monotonic()
            err.print(f"{run.slates:,} of {len(run.log):,} slates  {said}", highlight=False)


def _demo_result(run: "DemoRun", path: Path, seconds: float) -> dict[str, Any]:
    from streams.baselines import Quality

    ours, popularity = run.quality, Quality.of(run.popularity())
    return {
        "events": len(run.log),
        "events_per_s": round(len(run.log) / run.seconds, 1),
        "slates": run.slates,
        "ranked_slates": run.ranked,
        "p50_ms": round(run.latency_ms(50), 1),
        "p99_ms": round(run.latency_ms(99), 1),
        "recall@10": round(ours.recall_10, 4),
        "recall@20": round(ours.recall_20, 4),
        "popularity_recall@10": round(popularity.recall_10, 4),
        "broker": run.broker,
        "ready_s": round(run.ready_s, 1),
        "report": str(path),
        "seconds": round(seconds, 1),
    }


def _print_demo(run: "DemoRun", result: dict[str, Any]) -> None:
    out = Console()
    table = Table(title=f"{run.log.name} through {run.broker}", show_header=False)
    table.add_row("throughput", f"{result['events_per_s']:,.0f} events/s, as many slates")
    table.add_row("event → slate", f"p50 {result['p50_ms']:,.0f} ms, p99 {result['p99_ms']:,.0f} ms (indicative)")
    table.add_row("recall@10 of the published slates", f"{result['recall@10']:.4f}")
    table.add_row("recall@10 of popularity, same events", f"{result['popularity_recall@10']:.4f}")
    table.add_row("slates ordered by the learned ranker", f"{run.ranked:,} of {run.slates:,}")
    out.print(table)
    from streams.report import person

    who = person(run)
    out.print(f"\n[bold]{who.user}[/] took last:")
    for title in who.history[:5]:
        out.print(f"  {title}")
    out.print("and is offered now:")
    for place in who.slate[:8]:
        out.print(f"  {place.title}  [dim]{place.source}; {'; '.join(place.why)}[/]")
    out.print(f"\nreport: {result['report']}")


@app.command()
def up(
    http_port: Annotated[int, typer.Option(help="Port of the worker's HTTP pages; 0 takes a free one.")] = 6066,
) -> None:
    """Start embedded servers, a worker and a learner, say where they are, and stay up until Ctrl-C."""
    from streams.stack import Stack

    with Stack() as stack:
        stack.http_port = http_port or stack.http_port
        ready_s = stack.wait_until_ready()
        err.print(f"ready after {ready_s:.1f} s; Ctrl-C ends everything")
        for name, where in (
            ("Kafka protocol", stack.broker.bootstrap),
            ("Redis protocol", stack.valkey.url),
            ("HTTP", f"http://127.0.0.1:{stack.http_port}/metrics"),
            ("logs", stack.folder),
        ):
            sys.stdout.write(f"{name}: {where}\n")
        sys.stdout.flush()
        while True:
            stack.check()
            time.sleep(0.5)


@app.command()
def worker(config: Config = None) -> None:
    """Consume events and requests, keep user state, publish slates; until SIGTERM."""
    from streams.app import run_worker

    raise SystemExit(run_worker(_load(config)))


@app.command()
def learner(config: Config = None) -> None:
    """Learn embeddings and ranker from observations, publish snapshots; until SIGTERM."""
    from streams.app import run_learner

    raise SystemExit(run_learner(_load(config)))


@app.command()
def evaluate(
    dataset: Annotated[str, typer.Argument(help="ml-100k, or a path with --format.")] = "ml-100k",
    form: Annotated[str | None, typer.Option("--format", help="movielens, csv or jsonl: the format of a file.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Yardstick beside it; may be repeated.")] = None,
    events: Annotated[int | None, typer.Option(help="Only the first so many events.", min=10)] = None,
    batch: Annotated[int, typer.Option(help="Events per batch; ranked before any of them is learned.", min=1)] = 64,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Replay a log through the service's own code, in process: every event is ranked before it is learned."""
    from streams.baselines import BASELINES, measure
    from streams.datasets import ml_100k, read_log
    from streams.evaluation import run_evaluation

    for name in baseline or ():
        if name not in BASELINES:
            raise typer.BadParameter(f"baseline {name!r} is none of {', '.join(BASELINES)}")
    if form is None and dataset != "ml-100k":
        raise typer.BadParameter(f"dataset {dataset!r} is not ml-100k; a file needs --format movielens|csv|jsonl")
    began = time.monotonic()
    settings = _load(config)
    log = ml_100k() if form is None else read_log(Path(dataset), form)
    log = log.head(events) if events else log
    ours = run_evaluation(log, settings, batch=batch, say=lambda text: err.print(text, highlight=False))
    qualities: dict[str, Quality] = {"marquee": ours.quality}
    for name in baseline or ():
        qualities[name] = measure(name, log, settings.seed)
    _print_quality(log.name, qualities)
    result = {
        "dataset": log.name,
        "events": len(log),
        "recall@10": round(ours.quality.recall_10, 5),
        "recall@20": round(ours.quality.recall_20, 5),
        "ndcg@10": round(ours.quality.ndcg_10, 5),
        "second_half": round(ours.quality.second_half, 5),
        "baselines": {
            name: {
                "recall@10": round(q.recall_10, 5),
                "recall@20": round(q.recall_20, 5),
                "ndcg@10": round(q.ndcg_10, 5),
            }
            for name, q in qualities.items()
            if name != "marquee"
        },
        "snapshots": ours.snapshots,
        "seconds": round(time.monotonic() - began, 1),
    }
    _finish(result, as_json)


def _print_quality(name: str, qualities: "dict[str, Quality]") -> None:
    table = Table(title=f"{name}, every event ranked before it is learned")
    for heading in ("", "recall@10", "±", "recall@20", "ndcg@10", "second half", "events"):
        table.add_column(heading, justify="left" if not heading else "right")
    for method, q in qualities.items():
        numbers = (q.recall_10, q.error, q.recall_20, q.ndcg_10, q.second_half)
        table.add_row(method, *(f"{number:.4f}" for number in numbers), f"{q.events:,}")
    Console().print(table)


@app.command()
def replay(
    path: Annotated[Path, typer.Argument(help="The log.", exists=True, dir_okay=False)],
    form: Annotated[str, typer.Option("--format", help="movielens, csv or jsonl.")] = "jsonl",
    rate: Annotated[float, typer.Option(help="Events per second; 0 is as fast as the broker takes them.", min=0)] = 0,
    shift: Annotated[bool, typer.Option(help="Shift event times so that the last one is now.")] = True,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Publish an event log to the events topic."""
    from streams.datasets import read_log
    from streams.replay import publish_log

    settings = _load(config)
    log = read_log(path, form)
    seconds = asyncio.run(publish_log(log, settings, rate=rate, shift=shift))
    err.print(f"{len(log):,} events in {seconds:.1f} s")
    _finish({"events": len(log), "seconds": round(seconds, 2)}, as_json)


@app.command()
def doctor(config: Config = None, as_json: Json = False) -> None:
    """Check broker, Redis, FAISS, torch, GPU and topics, and say what to do."""
    from streams.doctor import examine

    checks = asyncio.run(examine(_load(config)))
    out = Console(stderr=as_json)
    for check in checks:
        out.print(f"{'[green]ok  [/]' if check.ok else '[red]FAIL[/]'} {check.name}: {check.detail}", highlight=False)
        if check.advice:
            out.print(f"     {check.advice}", highlight=False)
    ok = all(check.ok for check in checks)
    listed = [{"name": c.name, "ok": c.ok, "detail": c.detail, "advice": c.advice} for c in checks]
    _finish({"ok": ok, "checks": listed}, as_json)
    raise SystemExit(0 if ok else 1)


@topics_app.command("plan")
def topics_plan(config: Config = None, as_json: Json = False) -> None:
    """Say what `apply` would create and what differs from the settings; changes nothing."""
    from streams import topics

    _say_plan(asyncio.run(topics.plan(_load(config))), "would create", as_json)


@topics_app.command("apply")
def topics_apply(config: Config = None, as_json: Json = False) -> None:
    """Create what is missing. What differs is reported, never altered."""
    from streams import topics

    _say_plan(asyncio.run(topics.apply(_load(config))), "created", as_json)


def _say_plan(plan: Any, verb: str, as_json: bool) -> None:
    for spec in plan.create:
        err.print(f"{verb} {spec.topic}: {spec.partitions} partitions, {spec.config}", highlight=False)
    for drift in plan.drift:
        err.print(f"differs: {drift}", highlight=False)
    if not plan.create and not plan.drift:
        err.print("nothing to do")
    _finish({"created": [s.topic for s in plan.create], "drift": [str(d) for d in plan.drift]}, as_json)


@config_app.command("show")
def config_show(config: Config = None) -> None:
    """Print the settings in force as JSON; secrets are hidden."""
    sys.stdout.write(json.dumps(configuration.show(configuration.load_settings(config)), indent=2, default=str) + "\n")


@config_app.command("check")
def config_check(config: Config = None) -> None:
    """Load the settings as a worker would, and say so or say what is wrong."""
    configuration.require_consent_default(configuration.load_settings(config))
    err.print("settings are fine")


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the settings."""
    sys.stdout.write(json.dumps(configuration.schema(), indent=2) + "\n")
