"""`marquee contract`: the contract as files that other languages' tools read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.console import Config, Failed, Json, err, finish, load
from streams.commands.extras import require

if TYPE_CHECKING:
    from streams.settings import Settings


def contract(
    folder: Annotated[Path, typer.Option("--out", help="Where the files are.", file_okay=False)] = Path(
        "deploy/contract"
    ),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where they are not what they were.")
    ] = False,
    freeze: Annotated[bool, typer.Option("--freeze", help="Keep the schemas as those of a released version.")] = False,
    record: Annotated[bool, typer.Option("--record", help="Take new examples from a run of some seconds.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write AsyncAPI 3 and a JSON Schema per topic, for the topics of the settings; --check: do they hold?"""
    settings = load(config)
    from streams.contract import documents

    if check:
        _check(folder, settings, as_json)
        return
    if record:
        require("a run for examples", "cpu", "learner", "demo")
        from streams.lab.contract_scene import recorded

        documents.write_examples(folder, recorded())
    _refuse_broken(folder)
    if freeze:
        try:
            kept = documents.freeze(folder)
        except FileExistsError as error:
            raise Failed(str(error)) from None
        err.print(f"kept in {kept}" if kept else "kept already", markup=False)
    written = documents.write(folder, settings)
    err.print(f"{len(written)} files in {folder}", markup=False)
    finish({"folder": str(folder), "files": written}, as_json)


def _check(folder: Path, settings: "Settings", as_json: bool) -> None:
    from streams.contract import documents

    stale, broken = documents.differing(folder, settings), documents.broken(folder)
    for name in stale:
        err.print(f"differs from the code: {folder / name}", markup=False)
    for why in broken:
        err.print(f"breaks a released version: {why}", markup=False)
    finish({"ok": not (stale or broken), "differing": stale, "broken": broken}, as_json)
    if stale or broken:
        raise typer.Exit(1)


def _refuse_broken(folder: Path) -> None:
    from streams.contract import documents

    if broken := documents.broken(folder):
        raise Failed("\n".join(["a released version is broken; it takes a new topic, .v2:", *broken]))
