"""`marquee bench`: speed beside its yardsticks, in one run, on servers of its own."""

from typing import Annotated, Any

import typer
from rich.table import Table

from streams.commands.console import Json, err, finish, out
from streams.commands.extras import require

bench_app = typer.Typer(no_args_is_help=True, help="Speed, beside its yardsticks, in one run.")


@bench_app.command()
def ingest(
    events: Annotated[int, typer.Option(help="Events of each mix of users.", min=50_000)] = 400_000,
    users: Annotated[int, typer.Option(help="People the events are of.", min=100)] = 20_000,
    as_json: Json = False,
) -> None:
    """Decode, fold and state in Redis through the agent, beside a stock Faust agent and the ceiling."""
    require("the benchmark", "cpu", "learner", "demo")
    from streams.lab.bench_ingest import run_ingest
    from streams.lab.synthetic import World

    result = run_ingest(World(users=users), events=events, say=err.print)
    table = Table(title="events per second, one core each", title_justify="left")
    for heading in ("users", "Marquee", "stock Faust", "ceiling", "× stock", "of the ceiling"):
        table.add_column(heading, justify="right" if heading != "users" else "left", no_wrap=True)
    for mix, f in result["mixes"].items():
        table.add_row(
            mix,
            *(f"{f[key]:,.0f}" for key in ("marquee_eps", "stock_eps", "ceiling_eps")),
            f"{f['ratio_stock']:.1f}",
            f"{f['ratio_ceiling']:.0%}",
        )
    out.print(table)
    finish(result, as_json)


@bench_app.command()
def slates(
    events: Annotated[int, typer.Option(help="Events of the backlog.", min=1_000)] = 20_000,
    items: Annotated[int, typer.Option(help="Items in the catalogue.", min=1_000)] = 100_000,
    users: Annotated[int, typer.Option(help="People the events are of.", min=100)] = 20_000,
    seconds: Annotated[float, typer.Option(help="How long each load lasts.", min=1)] = 10,
    as_json: Json = False,
) -> None:
    """Slates per second of one worker on one core, and event → slate latency beside a bare echo loop and a floor."""
    require("the benchmark", "cpu", "learner", "demo")
    from streams.lab.bench_slates import run_slates
    from streams.lab.synthetic import World

    result = run_slates(World(items=items, users=users), events=events, seconds=seconds, say=err.print)
    out.print(f"{result['slates_per_s']:,} slates/s: {items:,} items, {result['candidates']} candidates each")
    out.print(f"{result['floor_per_s']:,} answers/s of the floor, library calls alone")
    table = Table(title=f"event → slate on {result['broker']}", title_justify="left")
    for heading in ("events/s", "p50 ms", "p99 ms", "echo p50", "× echo", "transport", "floor"):
        table.add_column(heading, justify="right", no_wrap=True)
    for load in result["loads"]:
        table.add_row(*_figures(load))
    out.print(table)
    finish(result, as_json)


@bench_app.command()
def growth(
    quick: Annotated[bool, typer.Option("--quick", help="Three of the nine sizes, within ten minutes.")] = False,
    seconds: Annotated[float, typer.Option(help="How long pauses are looked for at each size.", min=1)] = 10,
    as_json: Json = False,
) -> None:
    """Cost per event and slate, memory, pauses, load and build, at up to a million items and a million people."""
    require("the benchmark", "cpu", "learner", "demo")
    from itertools import product

    from streams.lab.bench_growth import ITEMS, QUICK, USERS, run_growth

    result = run_growth(QUICK if quick else tuple(product(ITEMS, USERS)), seconds=seconds, say=err.print)
    table = Table(title="as items and people grow", title_justify="left", box=None, padding=(0, 1, 0, 0))
    keys = [key for key in result["rows"][0] if key != "pauses"]
    for key in keys:
        table.add_column(key.replace("_", " "), justify="right")
    for row in result["rows"]:
        table.add_row(*(f"{row[key]:,}" for key in keys))
    out.print(table)
    out.print(f"the longest pause at the 99.9th percentile: {result['worst_pause_p999_ms']} ms")
    finish(result, as_json)


@bench_app.command()
def ads(
    lines: Annotated[int, typer.Option(help="Live line items.", min=10)] = 10_000,
    items: Annotated[int, typer.Option(help="Items in the catalogue.", min=1_000)] = 10_000,
    users: Annotated[int, typer.Option(help="People who ask.", min=100)] = 2_000,
    batch: Annotated[int, typer.Option(help="Requests decided at a time.", min=1, max=512)] = 64,
    seconds: Annotated[float, typer.Option(help="How long each figure is taken.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """Ad decisions per second on one core beside a floor; kill switch, age of ad-stats, and what ads add to slates."""
    require("the benchmark", "cpu", "learner", "demo")
    from streams.lab.bench_ads import run_ads
    from streams.lab.synthetic import World

    result = run_ads(World(items=items, users=users), lines=lines, batch=batch, seconds=seconds, say=err.print)
    out.print(
        f"{result['requests_per_s']:,} requests/s, {result['decisions_per_s']:,} decisions/s: "
        f"{result['line_items']:,} line items, {result['slots']} slots; "
        f"the floor, library calls alone: {result['floor_requests_per_s']:,} requests/s"
    )
    out.print(f"on {result['broker']}: a campaign stops within {result['kill_switch_p99_s']} s (p99);")
    out.print(f"ad-stats counts an event within {result['stats_age_p99_s']} s (p99)")
    table = Table(title="what ads add, in turns", title_justify="left")
    for heading in ("slates", "p50 ms", "p99 ms", "slates/s", "slates/CPU s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in ("off", "on"):
        keys = "p50_ms", "p99_ms", "slates_per_s", "slates_per_cpu_s"
        table.add_row(f"ads {name}", *(f"{result['slates'][f'{name}_{key}']:,}" for key in keys))
    out.print(table)
    finish(result, as_json)


@bench_app.command()
def http(
    items: Annotated[int, typer.Option(help="Items in the catalogue.", min=1_000)] = 10_000,
    users: Annotated[int, typer.Option(help="People who are asked for.", min=100)] = 2_000,
    seconds: Annotated[float, typer.Option(help="How long each figure is taken.", min=1)] = 8,
    as_json: Json = False,
) -> None:
    """Answers per second over HTTP of one worker on one core, beside a bare handler that reads one key from Redis."""
    require("the benchmark", "cpu", "learner", "demo")
    from streams.lab.bench_http import run_http
    from streams.lab.synthetic import World

    result = run_http(World(items=items, users=users), seconds=seconds, say=err.print)
    ours, floor, ratio = (result[key] for key in ("answers_per_s", "floor_per_s", "ratio"))
    out.print(f"{ours:,} stored slates/s, a bare handler {floor:,}/s: × {ratio}; {result['connections']} connections")
    out.print(f"per second of CPU {result['answers_per_cpu_s']:,}, a bare handler {result['floor_per_cpu_s']:,}")
    for load in result["loads"]:
        out.print(
            f"at {load['load_per_s']:,}/s: p50 {load['p50_ms']} ms, p99 {load['p99_ms']} ms; "
            f"the bare handler {load['floor_p50_ms']} and {load['floor_p99_ms']} ms"
        )
    for name, load in result["posted"].items():
        out.print(f"posted {name}: {load['per_s']:,}/s, p50 {load['p50_ms']} ms, p99 {load['p99_ms']} ms")
    finish(result, as_json)


@bench_app.command()
def observing(
    rounds: Annotated[int, typer.Option(help="Turns that each of the four workers has.", min=1)] = 6,
    events: Annotated[int, typer.Option(help="Events of a turn that are only folded.", min=50_000)] = 400_000,
    backlog: Annotated[int, typer.Option(help="Events of a turn that are answered with slates.", min=500)] = 4_000,
    seconds: Annotated[float, typer.Option(help="How long a turn at a steady rate lasts.", min=0.5)] = 3,
    items: Annotated[int, typer.Option(help="Items in the catalogue.", min=1_000)] = 100_000,
    users: Annotated[int, typer.Option(help="People the events are of.", min=100)] = 20_000,
    as_json: Json = False,
) -> None:
    """What metrics and spans add to an event and to a slate: off, metrics, metrics and spans, in turns on one core."""
    require("the benchmark", "cpu", "learner", "demo", "otel")
    from streams.lab.bench_observing import Sizes, run_observing
    from streams.lab.synthetic import World

    sizes = Sizes(events, backlog, seconds)
    result = run_observing(World(items=items, users=users), rounds=rounds, sizes=sizes, say=err.print)
    _observed("events only folded, as in `bench ingest`", "events/s", "per_s", result["events"])
    _observed("slates of a backlog, as in `bench slates`", "slates/s", "per_s", result["slates"])
    _observed(f"slates at {result['steady_eps']} events/s", "p50 ms", "p50_ms", result["steady"])
    out.print(
        "off: nothing is counted, timed, judged or traced. metrics: scraped once a second. spans: of every batch, with "
        f"links, sent to a collector twice a second, {result['spans']:,} in all. Beside off: ratios of the same round, "
        f"median (lowest to highest) of {rounds}. Every event comes with a traceparent; on {result['broker']}."
    )
    finish(result, as_json)


def _observed(title: str, heading: str, key: str, sides: dict[str, dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in ("µs of CPU", "beside off", heading, "beside off"):
        table.add_column(name, justify="right", no_wrap=True)
    for side, f in sides.items():
        table.add_row(side, f"{f['cpu_us']:,}", _span(f["cpu_us_to_off"]), f"{f[key]:,}", _span(f[f"{key}_to_off"]))
    out.print(table)


def _span(ratios: list[float]) -> str:
    middle, least, most = (f"{ratio - 1:+.1%}" for ratio in ratios)
    return f"{middle} ({least} to {most})"


def _figures(load: dict[str, Any]) -> list[str]:
    keys = ("p50_ms", "p99_ms", "echo_p50_ms", "ratio_p50", "transport_p50_ms", "floor_p50_ms")
    return [f"{load['load_eps']:,}", *(f"{load[key]:.1f}" for key in keys)]
