"""Folders that a process writes to, tried before anything starts."""

import tempfile
from pathlib import Path

from streams.configuration import SettingsError
from streams.settings import Settings


def writable(folder: Path, setting: str) -> None:
    """See that a file can be written into a folder, or the folder made where it is missing; leaves nothing behind.

    Raises:
        SettingsError: it cannot; the message names the setting. Nothing has started.
    """
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SettingsError(f"{setting} = {str(folder)!a}: cannot be written ({reason})") from None


def folders_of(settings: Settings) -> list[tuple[Path, str]]:
    """The folders that a learner writes to, each with the name of its setting. A worker needs none."""
    s = settings.learner
    return [(s.snapshot_dir, "learner.snapshot_dir"), (s.checkpoint_dir, "learner.checkpoint_dir")]
