"""`marquee init`: the two files that a new deployment begins with."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from streams.commands.console import Failed, Json, err, finish

FILES = ("marquee.toml", "compose.yaml")


def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to; made where it is missing.")] = Path(),
    as_json: Json = False,
) -> None:
    """Write a small marquee.toml and compose.yaml for a new deployment; nothing that is there is overwritten."""
    written = write(folder)
    for file in written:
        err.print(f"wrote {file}", markup=False)
    said = "[consent] in marquee.toml denies what events do not say; docs/deploy.md: images to build, a first event"
    err.print(said, markup=False)
    finish({"written": [str(file) for file in written]}, as_json)


def write(folder: Path) -> list[Path]:
    """Write both files, or neither where one of them is there already; returns where they are.

    Raises:
        Failed: one is there, or the folder is a file. Nothing was written.
        OSError: the folder cannot be written to.
    """
    places = [folder / name for name in FILES]
    if folder.exists() and not folder.is_dir():
        raise Failed(f"{folder} is no folder; nothing was written")
    if there := [str(place) for place in places if place.exists() or place.is_symlink()]:
        raise Failed(f"{' and '.join(there)} would be overwritten; nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    for place in places:
        place.write_bytes((files("deploy") / "starter" / place.name).read_bytes())
    return places
