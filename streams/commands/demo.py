"""The commands that bring their own servers: `demo` and `up`."""

import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.table import Table

from streams.commands.console import Json, err, finish, out, refuse_taken
from streams.commands.demo_ads import print_ads, told
from streams.commands.extras import require

if TYPE_CHECKING:
    from streams.lab.demo import DemoRun

#: Months of a log pass in a minute: every event is answered, and what is meant for a second is not enough.
_OVERRIDES = {
    "MARQUEE_SLATES__PER_EVENT": "all",
    "MARQUEE_LEARNER__REFRESH_MIN_S": "0.5",
    "MARQUEE_OBSERVE__EXAMPLES_PER_S": "1000",
    "MARQUEE_ADS__SECRET": "people of a public log, who need none",
}
_EXTRAS = ("cpu", "learner", "demo")
_STARTING = "starting a broker, Valkey, a learner and a worker"
_SPEAK_EVERY_S = 10.0
_SHOWN_HISTORY, _SHOWN_SLATE = 5, 8


def demo(
    events: Annotated[int | None, typer.Option(help="Publish only the first so many events.", min=100)] = None,
    report: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("marquee-report"),
    window: Annotated[int, typer.Option(help="Events in flight.", min=1, max=100_000)] = 128,
    as_json: Json = False,
) -> None:
    """Run the main job on MovieLens 100K: embedded servers, a worker, a learner, a slate for every event, ads."""
    began = time.monotonic()
    require("the demo", *_EXTRAS)
    _end_on_sigterm()
    from streams.lab.ad_campaigns import RATES
    from streams.lab.datasets import ML_100K_HALF_LIVES, half_lives_told, ml_100k
    from streams.lab.demo import run_demo
    from streams.lab.local_stack import Stack
    from streams.lab.report import render
    from streams.process.folders import writable

    writable(report, "--report")
    log = ml_100k()
    log = log.head(events) if events else log
    err.print(f"{log.name}: {len(log):,} events of {len(set(log.user_R)):,} people on {len(log.items):,} items")
    err.print(_STARTING)
    paced = {f"MARQUEE_HALF_LIVES__{name.upper()}": f"{seconds:g}" for name, seconds in ML_100K_HALF_LIVES.items()}
    rates = {"MARQUEE_ADS__CURRENCIES": json.dumps(RATES)}
    with Stack(_OVERRIDES | rates | paced) as stack:
        ready_s = stack.wait_until_ready()
        err.print(half_lives_told(stack.settings.half_lives))
        err.print(f"worker ready after {ready_s:.1f} s; consent without a word: {stack.settings.consent.default}")
        with Progress(len(log)) as progress:
            run = asyncio.run(run_demo(stack, log, progress, window=window))
        run.ready_s = ready_s
    path = render(run, report)
    result = summary(run, path, time.monotonic() - began)
    _print_demo(run, result)
    finish(result, as_json)


class Progress:
    """Live progress of a demo: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, total: int) -> None:
        """Nothing is shown before the `with` block."""
        from rich import progress

        columns = (
            progress.TextColumn("{task.percentage:3.0f}%"),
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.description}"),
            progress.TimeElapsedColumn(),
        )
        self._bar = progress.Progress(*columns, console=err, disable=not err.is_terminal)
        self._task = self._bar.add_task("first slates", total=total)
        self._spoke = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, run: "DemoRun") -> None:
        """Show where a run is."""
        elapsed = max(time.monotonic() - run.began, 1e-9)
        said = (
            f"{run.published / elapsed:,.0f} events/s  {run.slates / elapsed:,.0f} slates/s  "
            f"p50 {run.latency_ms(50):,.0f} ms  hit rate {run.hits / max(run.scored, 1):.3f}"
        )
        self._bar.update(self._task, completed=run.slates, description=said)
        if not err.is_terminal and time.monotonic() - self._spoke > _SPEAK_EVERY_S:
            self._spoke = time.monotonic()
            err.print(f"{run.slates:,} of {len(run.log):,} slates  {said}")


def summary(run: "DemoRun", report: Path, seconds: float) -> dict[str, Any]:
    """What `demo --json` ends with."""
    from streams.lab.baselines import Quality

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
        "ads": told(run.ads),
        "broker": run.broker,
        "ready_s": round(run.ready_s, 1),
        "report": str(report),
        "seconds": round(seconds, 1),
    }


def _print_demo(run: "DemoRun", result: dict[str, Any]) -> None:
    from streams.lab.report import person

    table = Table(title=f"{run.log.name} through {run.broker}", title_justify="left", show_header=False)
    table.add_row("throughput", f"{result['events_per_s']:,.0f} events/s, a slate for each")
    table.add_row("event → slate", f"p50 {result['p50_ms']:,.0f} ms, p99 {result['p99_ms']:,.0f} ms (indicative)")
    table.add_row("recall@10 of the published slates", f"{result['recall@10']:.4f}")
    table.add_row("recall@10 of popularity, same events", f"{result['popularity_recall@10']:.4f}")
    table.add_row("slates ordered by the learned ranker", f"{run.ranked:,} of {run.slates:,}")
    out.print(table)
    who = person(run)
    out.print(f"\n[bold]Person {who.user}[/] has taken {who.taken:,} items, these last:")
    for title in who.history[:_SHOWN_HISTORY]:
        out.print(f"     {title}", markup=False)
    out.print("and is offered now:")
    width = max(len(place.title) for place in who.slate[:_SHOWN_SLATE])
    for n, place in enumerate(who.slate[:_SHOWN_SLATE], 1):
        out.print(f"  {n:>2} {place.title:<{width}}  {place.why}", markup=False, soft_wrap=True)
    print_ads(run.ads)
    out.print(f"\nreport: {result['report']}", markup=False, soft_wrap=True)


def up(
    http_port: Annotated[int, typer.Option(help="Port of the worker's HTTP pages; 0 takes a free one.")] = 6066,
    kafka_port: Annotated[int, typer.Option(help="Port of the broker; 0 takes a free one.")] = 0,
    redis_port: Annotated[int, typer.Option(help="Port of Valkey; 0 takes a free one.")] = 0,
    as_json: Json = False,
) -> None:
    """Start embedded servers, a worker and a learner, say where they are, and stay up until Ctrl-C."""
    require("an installation on this machine", *_EXTRAS)
    _end_on_sigterm()
    for option, port in (("--http-port", http_port), ("--kafka-port", kafka_port), ("--redis-port", redis_port)):
        refuse_taken("127.0.0.1", port, f"{option} 0 takes a free one")
    from streams.lab.local_stack import Stack

    err.print(_STARTING)
    with Stack(http_port=http_port, kafka_port=kafka_port, redis_port=redis_port) as stack:
        ready_s = stack.wait_until_ready()
        places = {
            "kafka": stack.broker.bootstrap,
            "redis": stack.valkey.url,
            "http": stack.url,
            "logs": str(stack.folder),
        }
        err.print(f"ready after {ready_s:.1f} s; nothing is kept after the end; Ctrl-C ends everything")
        try:
            finish({**places, "ready_s": round(ready_s, 1)}, as_json)
            if not as_json:
                _print_places(places)
            while True:
                stack.check()
                time.sleep(0.5)
        except KeyboardInterrupt:  # the ordinary end
            err.print("stopping")


def _print_places(places: dict[str, str]) -> None:
    lines = [
        f"Kafka protocol  {places['kafka']}",
        f"Redis protocol  {places['redis']}",
        f"metrics         {places['http']}/metrics",
        f"latest slate    {places['http']}/v1/users/USER/slate",
        f"logs            {places['logs']}",
        "for other commands in another shell:",
        f"  export MARQUEE_KAFKA__BOOTSTRAP={places['kafka']} MARQUEE_KAFKA__IDEMPOTENT=false \\",
        f"    MARQUEE_REDIS__URL={places['redis']} MARQUEE_CONSENT__DEFAULT=grant",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _end_on_sigterm() -> None:
    """End on SIGTERM as on Ctrl-C: everything that was started is stopped.

    Not by way of SIGINT: a shell lets what it starts in the background ignore that.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
