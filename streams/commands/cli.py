"""The command `marquee`: every verb is a thin shell around a function that can be called without it.

Progress and logs go to standard error; with `--json` the last line of standard output is one object. Exit codes: 0
done, 1 failed, 2 wrong use or settings or an extra that is not installed, 130 stopped by Ctrl-C. Heavy modules are
imported where they are used.
"""

import asyncio
import os
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands import ad_explain, ad_report
from streams.commands.ads import ads_app
from streams.commands.bench import bench_app
from streams.commands.bidding import bought
from streams.commands.console import Config, Failed, Json, complain, err, finish, load, print_json, refuse_taken
from streams.commands.contract import contract
from streams.commands.demo import demo, up
from streams.commands.dlq import dlq_app
from streams.commands.extras import NotInstalled, require
from streams.commands.init import init
from streams.commands.qualities import Ask, Protocol, left_out, measured, print_quality, rounded
from streams.commands.simulation import simulate_app
from streams.commands.snapshots import snapshot_app
from streams.commands.state import state_app
from streams.commands.top import top
from streams.commands.topics_acl import acl

if TYPE_CHECKING:
    from streams.lab.datasets import Log
    from streams.settings import Settings
    from streams.transport.topics import Plan


class Format(StrEnum):
    """Of an event log; `docs/logs.md` says what each holds."""

    movielens = "movielens"
    csv = "csv"
    jsonl = "jsonl"


class OnError(StrEnum):
    """What becomes of a log with lines that cannot be read."""

    stop = "stop"
    skip = "skip"


Errors = Annotated[OnError, typer.Option("--on-error", help="A log with bad lines: refuse it, or leave them out.")]

app = typer.Typer(name="marquee", no_args_is_help=True, add_completion=False, help="Events in, slates out.")
topics_app = typer.Typer(no_args_is_help=True, help="Which topics there are, and creating them.")
#: Their verbs are of `marquee ads`.
_OF_ADS = ad_explain, ad_report
config_app = typer.Typer(no_args_is_help=True, help="What the settings are.")
app.command()(demo)
app.command()(up)
app.command()(init)
app.command()(top)
app.command()(contract)
app.add_typer(topics_app, name="topics")
app.add_typer(config_app, name="config")
app.add_typer(dlq_app, name="dlq")
app.add_typer(ads_app, name="ads")
app.add_typer(snapshot_app, name="snapshot")
app.add_typer(bench_app, name="bench")
app.add_typer(simulate_app, name="simulate")
app.add_typer(state_app, name="state")


#: What typer raises for a wrong command line: the root of its own, vendored click's errors.
_WrongUse: type[Any] = typer.BadParameter.__mro__[2]

#: What typer returns after Ctrl-C.
_INTERRUPTED = 130

#: Products of a slate are too small to share. A second thread waits for its part in a loop: on a busy machine ranking
#: takes five times the time of a core. Who says otherwise is heard.
_BLAS_THREADS = "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit; expected errors are one line on standard error, without a traceback."""
    for name in _BLAS_THREADS:  # it reads them as NumPy is imported, which no command has done yet
        os.environ.setdefault(name, "1")
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=arguments or ["--help"], standalone_mode=False, prog_name="marquee")
    except _WrongUse as error:
        raise SystemExit(_say_wrong_use(error)) from None
    except (typer.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except Exception as error:
        raise SystemExit(_exit_code(error)) from None
    if code == _INTERRUPTED:
        err.print("stopped")
    raise SystemExit(code if isinstance(code, int) else 0)


def _say_wrong_use(error: Any) -> int:
    command = error.ctx.command_path if getattr(error, "ctx", None) else "marquee"
    if type(error).__name__ == "NoArgsIsHelpError":  # a group of commands without one of them
        error.show(sys.stdout)
    else:
        complain("wrong use", f"{error.format_message()} (see {command} --help)")
    return 2


def _exit_code(error: Exception) -> int:
    """Say what went wrong; what nobody expected keeps its traceback."""
    from streams.configuration import SettingsError

    if isinstance(error, SettingsError | NotInstalled):
        complain("settings" if isinstance(error, SettingsError) else "not installed", error)
        return 2
    from streams.transport.brokers import unanswered
    from streams.transport.failures import is_known

    if not (isinstance(error, _expected()) or is_known(error)):
        raise error
    complain("failed", unanswered(error) or error)
    return 1


def _expected() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError

    from deploy.kafka_admin import TopicsRefused
    from deploy.processes import StartFailed
    from embeddings.errors import EmbeddingsError
    from ranking.errors import RankingError
    from streams.commands.dead_letter_admin import TooScattered
    from streams.lab.columns import UnreadableLog
    from streams.learning.checkpoints import UnreadableCheckpoint
    from streams.transport.topics import TopicsUnfit

    ours = (Failed, StartFailed, UnreadableLog, UnreadableCheckpoint, TooScattered)
    theirs = (EmbeddingsError, RankingError, TopicsRefused, TopicsUnfit)
    return (*ours, *theirs, TimeoutError, OSError, RedisError)


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        sys.stdout.write(f"marquee {importlib.metadata.version('marquee')}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which one.")
    ] = False,
) -> None:
    """Real-time recommender: behaviour events in, slates out, every effect exactly once."""


@app.command()
def worker(config: Config = None) -> None:
    """Consume events and requests, keep user state, publish slates; until SIGTERM."""
    settings = load(config)
    require("a worker", "cpu", *(["learner"] if settings.index.kind == "torch" else []))
    _refuse_taken_port(settings)
    from streams.worker.worker import run_worker

    raise typer.Exit(run_worker(settings))


@app.command()
def learner(config: Config = None) -> None:
    """Learn embeddings and ranker from observations, publish snapshots; until SIGTERM."""
    settings = load(config)
    require("the learner", "learner")
    _refuse_taken_port(settings)
    if (snapshots := settings.learner).serve:
        refuse_taken(snapshots.host, snapshots.port, "set learner.port, 0 takes a free one", setting="learner.host")
    from streams.learning.learner_process import run_learner

    raise typer.Exit(run_learner(settings))


def _refuse_taken_port(settings: "Settings") -> None:
    advice = "every process needs one of its own: set http.port (MARQUEE_HTTP__PORT), 0 takes a free one"
    refuse_taken(settings.http.host, settings.http.port, advice, setting="http.host")


@app.command()
def evaluate(
    dataset: Annotated[str, typer.Argument(help="ml-100k, ipinyou, or a path with --format.")] = "ml-100k",
    form: Annotated[Format | None, typer.Option("--format", help="The format of a file.")] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Yardstick beside it; may be repeated.")] = None,
    events: Annotated[int | None, typer.Option(help="Only the first so many events.", min=10)] = None,
    batch: Annotated[int, typer.Option(help="Events per batch; ranked before any of them is learned.", min=1)] = 64,
    protocol: Annotated[Protocol, typer.Option(help="What is asked when.")] = Protocol.progressive,
    ask: Annotated[Ask, typer.Option(help="leave-last-out: at the person's event before, or at the end.")] = Ask.later,
    on_error: Errors = OnError.stop,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Replay a log through the service's own code, in process: every event is ranked before it is learned."""
    began, settings = time.monotonic(), load(config)
    if form is None and dataset == "ipinyou":
        if baseline or events or protocol != Protocol.progressive:
            raise typer.BadParameter("ipinyou takes no --baseline, --events or --protocol", param_hint="dataset")
        finish(bought(), as_json)
        return
    if form is None and dataset != "ml-100k":
        raise typer.BadParameter(f"{dataset!r} is not ml-100k or ipinyou; a file needs --format", param_hint="dataset")
    if form is not None and not Path(dataset).is_file():
        said = f"{dataset!r} is no file" if Path(dataset).exists() else f"there is no file {dataset!r}"
        raise typer.BadParameter(said, param_hint="dataset")
    require("an evaluation", "cpu", "learner")
    from streams.lab.baselines import BASELINES, newcomers
    from streams.lab.datasets import half_lives_told, ml_100k, paced
    from streams.lab.evaluation import early, run_evaluation

    if unknown := ", ".join(sorted(set(baseline or ()) - set(BASELINES))):
        raise typer.BadParameter(f"{unknown} is none of {', '.join(BASELINES)}", param_hint="baseline")
    log = ml_100k() if form is None else _read(Path(dataset), form, on_error, settings)
    settings = paced(settings) if form is None else settings
    err.print(half_lives_told(settings.half_lives))
    log = log.head(events) if events else log
    if protocol == Protocol.leave_last_out:
        finish({**left_out(log, settings, ask, batch), "seconds": round(time.monotonic() - began, 1)}, as_json)
        return
    ours = run_evaluation(log, settings, batch=batch, say=err.print)
    print_quality(f"{log.name}, every event ranked before it is learned", {"marquee": ours.quality})
    print_quality("written at the event before it", {"marquee": ours.written})
    beside = newcomers(log, early(log))
    print_quality("people's first five events", {"marquee": ours.newcomers, "decayed-popularity": beside})
    others = dict(measured(log, settings, list(dict.fromkeys(baseline or ()))))
    if others:
        print_quality(f"{log.name}, yardsticks", others)
    result = {"dataset": log.name, "events": len(log), **rounded(ours.quality), "snapshots": ours.snapshots}
    result["recall@10_event"] = round(ours.written.recall_10, 5)
    result["newcomers"] = {
        "events": ours.newcomers.events,
        "recall@10": round(ours.newcomers.recall_10, 4),
        "popularity_recall@10": round(beside.recall_10, 4),
    }
    result["half_lives"] = settings.half_lives.model_dump()
    result["baselines"] = {name: rounded(quality) for name, quality in others.items()}
    finish({**result, "skipped": log.skipped, "seconds": round(time.monotonic() - began, 1)}, as_json)


def _read(path: Path, form: Format, on_error: OnError, settings: "Settings") -> "Log":
    """The whole log, and what is to be said of it."""
    from streams.lab.datasets import read_log
    from streams.lab.replay import rating_remarks

    log = read_log(path, form.value, on_error=on_error.value)
    for remark in (*log.remarks, *rating_remarks(log, settings)):
        err.print(remark, markup=False)
    return log


@app.command()
def replay(
    path: Annotated[Path, typer.Argument(help="The log.", exists=True, dir_okay=False)],
    form: Annotated[Format, typer.Option("--format")] = Format.jsonl,
    rate: Annotated[float, typer.Option(help="Events per second; 0 is as fast as the broker takes them.", min=0)] = 0,
    shift: Annotated[bool, typer.Option(help="Shift event times so that the last one is now.")] = True,
    on_error: Errors = OnError.stop,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Publish an event log to the events topic; nothing of a log that is refused."""
    settings = load(config)
    from streams.lab.replay import publish_log

    log = _read(path, form, on_error, settings)
    seconds = asyncio.run(publish_log(log, settings, rate=rate, shift=shift))
    err.print(f"{len(log):,} events in {seconds:.1f} s")
    finish({"events": len(log), "skipped": log.skipped, "seconds": round(seconds, 2)}, as_json)


@app.command()
def doctor(
    acl: Annotated[bool, typer.Option("--acl", help="Only say which rights the Redis user needs.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check broker, Redis, FAISS, torch, GPU, topics and folders, and say what to do."""
    settings = load(config)
    if acl:
        _say_acl(settings, as_json)
        return
    from streams.commands.doctor import examine

    findings = asyncio.run(examine(settings))
    for finding in findings:
        err.print(f"{'[green]ok  [/]' if finding.ok else '[red]FAIL[/]'} {finding.name}:", end=" ")
        err.print(finding.detail, markup=False, soft_wrap=True)
        if finding.advice:
            err.print(f"     {finding.advice}", markup=False, soft_wrap=True)
    ok = all(finding.ok for finding in findings)
    checks = [{"name": f.name, "ok": f.ok, "detail": f.detail, "advice": f.advice} for f in findings]
    finish({"ok": ok, "checks": checks}, as_json)
    raise typer.Exit(0 if ok else 1)


def _say_acl(settings: "Settings", as_json: bool) -> None:
    from embeddings.redis_rights import COMMANDS, acl_rule

    rule = acl_rule(settings.redis.username or "marquee", settings.redis.prefix)
    err.print("without +msetex where Redis is older than 8.4 or Valkey than 9; +select and +info are optional")
    if not as_json:
        sys.stdout.write(rule + "\n")
    finish({"commands": COMMANDS, "keys": f"{settings.redis.prefix}:*", "rule": rule}, as_json)


topics_app.command("acl")(acl)


@topics_app.command("plan")
def topics_plan(config: Config = None, as_json: Json = False) -> None:
    """Say what `apply` would create and what differs from the settings; changes nothing."""
    settings = load(config)
    from streams.transport import topics

    _say_plan(asyncio.run(topics.plan(settings)), "would create", as_json)


@topics_app.command("apply")
def topics_apply(config: Config = None, as_json: Json = False) -> None:
    """Create what is missing. What differs is reported, never altered."""
    settings = load(config)
    from streams.transport import topics

    _say_plan(asyncio.run(topics.apply(settings)), "created", as_json)


def _say_plan(plan: "Plan", verb: str, as_json: bool) -> None:
    for spec in plan.create:
        config_words = ", ".join(f"{key}={value}" for key, value in spec.config.items())
        err.print(f"{verb} {spec.topic}: {spec.partitions} partitions, {config_words}", markup=False)
    for drift in plan.drift:
        err.print(f"differs: {drift}", markup=False)
    if not plan.create and not plan.drift:
        err.print("nothing to do")
    finish({"created": [s.topic for s in plan.create], "drift": [str(d) for d in plan.drift]}, as_json)


@config_app.command("show")
def config_show(config: Config = None) -> None:
    """Print the settings in force as JSON; secrets are hidden."""
    settings = load(config)
    from streams import configuration

    print_json(configuration.show(settings))


@config_app.command("check")
def config_check(config: Config = None) -> None:
    """Load the settings as a worker would, and say so or say what is wrong."""
    settings = load(config)
    from streams import configuration

    configuration.require_consent_default(settings)
    err.print("settings are fine")


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the settings."""
    from streams import configuration

    print_json(configuration.schema())
