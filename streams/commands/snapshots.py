"""The commands around the learner's snapshots: which there are, and which of them all workers must serve."""

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from streams.commands.console import Config, Failed, Json, err, finish, load, out
from streams.commands.control_topics import read_whole, write

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    from streams.contract.manifests import Announcements
    from streams.contract.records import ModelManifest
    from streams.settings import Settings

snapshot_app = typer.Typer(no_args_is_help=True, help="What the learner learned: list it, pin a version, go back.")

Unchecked = Annotated[bool, typer.Option("--unchecked", help="Do not fetch it first, to see whether it can be had.")]


@snapshot_app.command("list")
def snapshot_list(config: Config = None, as_json: Json = False) -> None:
    """List the snapshots that are announced, oldest first, and say which is pinned."""
    said = asyncio.run(announcements(load(config)))
    pin = int(said.pin.version) if said.pin is not None else None
    table = Table("version", "made", "items", "events", "", "address", box=None)
    for version, record in said.versions.items():
        made = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(record.created_ms / 1000))
        mark = "pinned" if version == pin else ""
        table.add_row(str(version), made, f"{record.items:,}", f"{record.events:,}", mark, record.uri)
    if said.versions:
        out.print(table)
    err.print(f"{len(said.versions)} snapshots; {_serves(said)}")
    finish({"pinned": pin, "snapshots": [_described(record) for record in said.versions.values()]}, as_json)


@snapshot_app.command("pin")
def snapshot_pin(
    version: Annotated[int, typer.Argument(help="The version, as `list` names it.", min=1)],
    unchecked: Unchecked = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Have all workers serve this version, at once and after every start, until `unpin`. The learner goes on."""
    settings = load(config)
    said = asyncio.run(announcements(settings))
    if version not in said.versions:
        known = ", ".join(map(str, said.versions)) or "none"
        raise Failed(f"snapshot {version} is not announced; those that are: {known}")
    _pin(settings, said.versions[version], unchecked, as_json)


@snapshot_app.command("rollback")
def snapshot_rollback(unchecked: Unchecked = False, config: Config = None, as_json: Json = False) -> None:
    """Pin the version before the one that serves: the newest, or the one that is pinned."""
    settings = load(config)
    said = asyncio.run(announcements(settings))
    serves = int(said.pin.version) if said.pin is not None else max(said.versions, default=0)
    if not (older := [version for version in said.versions if version < serves]):
        raise Failed(f"there is no snapshot before {serves}" if serves else "no snapshot is announced")
    _pin(settings, said.versions[older[-1]], unchecked, as_json)


@snapshot_app.command("unpin")
def snapshot_unpin(config: Config = None, as_json: Json = False) -> None:
    """Have all workers serve the newest version again."""
    settings = load(config)
    said = asyncio.run(announcements(settings))
    if said.pin is None:
        raise Failed("no snapshot is pinned")
    asyncio.run(_publish(settings, None))
    newest = max(said.versions, default=0)
    err.print(f"snapshot {said.pin.version} is released; {newest} serves")
    finish({"released": int(said.pin.version), "serves": newest}, as_json)


def _pin(settings: "Settings", record: "ModelManifest", unchecked: bool, as_json: bool) -> None:
    from embeddings import snapshots
    from embeddings.errors import SnapshotRefused, SnapshotUnreachable
    from streams.contract.manifests import manifest_of, pinned

    try:
        if not unchecked:
            snapshots.load(manifest_of(record), max_bytes=settings.model.max_bytes)
    except SnapshotUnreachable as error:
        raise Failed(f"it cannot be fetched from here, --unchecked pins it all the same: {error}") from error
    except SnapshotRefused as error:
        raise Failed(str(error)) from error
    asyncio.run(_publish(settings, pinned(record)))
    err.print(f"all workers serve snapshot {record.version} until `marquee snapshot unpin`")
    if settings.model.pinned_version not in (None, record.version):
        err.print(f"but where model.pinned_version is {settings.model.pinned_version}, that is what serves")
    finish({"pinned": int(record.version)}, as_json)


async def announcements(settings: "Settings") -> "Announcements":
    """What the `models` topic says, to its end: a version or a pin that was overlooked would be the wrong one.

    Raises:
        Failed: it could not be read to its end.
        aiokafka.errors.KafkaConnectionError: no broker answers.
    """
    from streams.contract.manifests import Announcements

    said = Announcements()

    def take(records: "Sequence[ConsumerRecord]") -> None:
        for record in records:
            said.read(record.key, record.value)

    await read_whole(settings, "models", take, "announcements")
    return said


async def _publish(settings: "Settings", pin: "ModelManifest | None") -> None:
    from streams.contract.manifests import PIN_KEY
    from streams.contract.records import encode

    await write(settings, "models", PIN_KEY, encode(pin) if pin is not None else None)


def _serves(said: "Announcements") -> str:
    if said.pin is not None:
        return f"{said.pin.version} is pinned"
    return f"{max(said.versions)} serves" if said.versions else "none serves"


def _described(record: "ModelManifest") -> dict[str, Any]:
    return {
        "version": int(record.version),
        "created_ms": record.created_ms,
        "items": record.items,
        "events": record.events,
        "uri": record.uri,
    }
