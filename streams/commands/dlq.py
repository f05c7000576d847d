"""The commands around dead letters: look at them, publish them again, set them aside, let paused partitions go on."""

import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from streams.commands.console import Config, Failed, Json, err, finish, load, out

if TYPE_CHECKING:
    from streams.commands.dead_letter_admin import Chosen, DeadLetterBox, Letter, Report
    from streams.settings import Settings

dlq_app = typer.Typer(no_args_is_help=True, help="Records that could not be read.")

Topic = Annotated[str, typer.Option(help="Whose dead letters: events, requests, catalog, …")]
Codes = Annotated[list[str] | None, typer.Option("--code", help="Letters with this code; may be repeated.")]
Places = Annotated[list[str] | None, typer.Option("--letter", help="This letter, as `list` names it; may be repeated.")]
All = Annotated[bool, typer.Option("--all", help="Every letter that was not dealt with.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; do nothing.")]


@dlq_app.command("list")
def dlq_list(
    topic: Topic = "events",
    code: Codes = None,
    done: Annotated[bool, typer.Option(help="Also those dealt with.")] = False,
    most: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List dead letters, oldest first: what they are called, where they came from and why they are here."""
    found = asyncio.run(_box(load(config), topic).letters(done=done, most=None if code else most))
    letters = [letter for letter in found if not code or letter.code in code][:most]
    table = Table("letter", "code", "from", "replayed", "why", box=None)
    for letter in letters:
        said = described(letter)
        table.add_row(*(str(said[key]) for key in ("letter", "code", "from", "attempts", "why")))
    if letters:
        out.print(table)
    err.print(f"{len(letters):,} dead letters of {topic}")
    finish({"topic": topic, "letters": [described(letter) for letter in letters]}, as_json)


@dlq_app.command("show")
def dlq_show(
    letter: Annotated[str, typer.Argument(help="The letter, as `list` names it.")],
    topic: Topic = "events",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter whole: key, headers and value as they came. What it says may concern a person."""
    partition, offset = place(letter)
    found = asyncio.run(_box(load(config), topic).letter(partition, offset))
    if found is None:
        raise Failed(f"there is no letter {letter} of {topic}")
    record = found.record
    whole = {
        **described(found),
        "key": _text(record.key),
        "headers": {name: _text(value) for name, value in record.headers},
        "value": _text(record.value),
    }
    if not as_json:
        for name, value in whole.items():
            lines = [f"  {k}: {v}" for k, v in value.items()] if isinstance(value, dict) else [str(value)]
            sys.stdout.write(f"{name}: " + ("\n" if isinstance(value, dict) else "") + "\n".join(lines) + "\n")
    finish(whole, as_json)


@dlq_app.command("replay")
def dlq_replay(
    topic: Topic = "events",
    code: Codes = None,
    letter: Places = None,
    everything: All = False,
    rate: Annotated[float, typer.Option(help="Letters per second.", min=0.1)] = 100,
    attempts: Annotated[
        int | None, typer.Option(help="Leave letters replayed so often; default limits.replays.", min=1)
    ] = None,
    dry_run: DryRun = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Publish letters again to where they came from, with their own headers, so that no effect happens twice."""
    settings, wanted = load(config), chosen(code, letter, everything)
    most = attempts or settings.limits.replays
    box = _box(settings, topic)
    report = asyncio.run(box.replay(wanted, most_attempts=most, rate_per_s=rate, dry_run=dry_run))
    _say(report, "replayed", as_json)


@dlq_app.command("discard")
def dlq_discard(
    topic: Topic = "events",
    code: Codes = None,
    letter: Places = None,
    everything: All = False,
    dry_run: DryRun = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Count letters as dealt with; they stay until the topic's retention takes them."""
    wanted = chosen(code, letter, everything)
    report = asyncio.run(_box(load(config), topic).discard(wanted, dry_run=dry_run))
    _say(report, "discarded", as_json)


@dlq_app.command("release")
def dlq_release(
    topic: Topic = "events",
    partition: Annotated[
        list[int] | None, typer.Option(help="This partition; may be repeated. Default: all.", min=0)
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Let partitions go on that are paused because most of what they brought became dead letters.

    What else cannot be read there becomes dead letters too; they are judged again once good records came. Workers see
    it within seconds, without a restart.
    """
    settings = load(config)
    if topic != "events":
        raise typer.BadParameter(f"{topic!r} never pauses; events does")
    from streams.commands.paused import release

    released = release(settings, partition)
    for source, mark in released.items():
        err.print(f"{source.topic}/{source.partition} goes on at offset {mark.offset + 1}", markup=False)
    if not released:
        err.print("nothing is paused")
    places = [
        {"topic": source.topic, "partition": source.partition, **asdict(mark.run)} for source, mark in released.items()
    ]
    finish({"released": places}, as_json)


def chosen(codes: list[str] | None, letters: list[str] | None, everything: bool) -> "Chosen":
    """Which letters are meant.

    Raises:
        typer.BadParameter: none of the three was said, or a code that does not exist.
    """
    from streams.contract.deadletters import Code

    if unknown := sorted(set(codes or ()) - {*Code, "foreign"}):
        raise typer.BadParameter(f"code {', '.join(unknown)} is none of {', '.join(Code)}, foreign")
    if not (codes or letters or everything):
        raise typer.BadParameter("say which letters: --code, --letter or --all")
    places = {place(name) for name in letters or ()}
    return lambda found: everything or found.code in (codes or ()) or (found.partition, found.offset) in places


def place(name: str) -> tuple[int, int]:
    """Partition and offset of a letter's name.

    >>> place("0/12"), place("12")
    ((0, 12), (0, 12))

    Raises:
        typer.BadParameter: it is no such name.
    """
    partition, _, offset = name.rpartition("/")
    if not (offset.isdigit() and (partition or "0").isdigit()):
        raise typer.BadParameter(f"{name!r} is no letter; `marquee dlq list` names them, as 0/12")
    return int(partition or 0), int(offset)


def described(letter: "Letter") -> dict[str, Any]:
    """A letter in words; nothing of its value."""
    reason = letter.reason
    return {
        "letter": f"{letter.partition}/{letter.offset}",
        "code": letter.code,
        "from": f"{reason.source.topic}/{reason.source.partition}/{reason.offset}" if reason else "unknown",
        "stage": reason.stage if reason else "",
        "attempts": reason.attempts if reason else 0,
        "why": reason.detail if reason else "not written by Marquee",
        "done": letter.done,
    }


def _box(settings: "Settings", topic: str) -> "DeadLetterBox":
    from streams.commands.dead_letter_admin import DeadLetterBox
    from streams.contract.records import topic_specs
    from streams.settings import TOPIC_NAMES

    cleanup = {spec.topic: spec.config["cleanup.policy"] for spec in topic_specs(settings)}
    of = {name: settings.topics.dead_letters(name) for name in TOPIC_NAMES}
    names = [name for name, full in of.items() if full in cleanup]
    if topic not in names:
        raise typer.BadParameter(f"{topic!r} has no dead letters; topics that do: {', '.join(names)}")
    name = next(name for name in names if name == topic)
    source = settings.topics.name(name)
    return DeadLetterBox(
        client_options=settings.kafka.client_options(),
        topic=of[name],
        compacted=source if "compact" in cleanup[source] else None,
        group=f"{settings.kafka.group_prefix}.dlq",
        idempotent=settings.kafka.idempotent,
    )


def _say(report: "Report", verb: str, as_json: bool) -> None:
    verb = f"would be {verb}" if report.dry_run else verb
    for code, count in report.handled.items():
        err.print(f"{verb}: {count:,} {code}")
    for why, count in report.left.items():
        err.print(f"left: {count:,}, {why}", markup=False)
    if not report.handled and not report.left:
        err.print("no such letter")
    result = {"handled": dict(report.handled), "left": dict(report.left), "dry_run": report.dry_run}
    finish(result, as_json)


def _text(value: bytes | None) -> str | None:
    """Bytes as text; what is no text is escaped."""
    return None if value is None else value.decode("utf-8", "backslashreplace")
