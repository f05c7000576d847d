"""The learner's checkpoint: counts, weights and offsets in one file, whole or not at all.

The file is safetensors; names, marks and offsets travel as JSON in its metadata. The last few are kept.
"""

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from embeddings.events import Source

Arrays = dict[str, NDArray[np.generic]]


class UnreadableCheckpoint(OSError):
    """A checkpoint is there and cannot be read. The learner does not start over silently: move the file away first."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A learner's state, the next offset to read of each partition of `observations`, and which logs these are of."""

    arrays: Arrays
    text: str
    offsets: dict[Source, int]
    logs: dict[Source, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """Where checkpoints are kept, the newest `keep` of them."""

    folder: Path
    keep: int = 3

    def write(self, checkpoint: Checkpoint, serial: int) -> Path:
        """Write a checkpoint durably; `serial` orders it after all before it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"checkpoint-{serial:020d}.safetensors"
        part = path.with_suffix(".part")
        offsets = json.dumps([[*source, offset] for source, offset in checkpoint.offsets.items()])
        logs = json.dumps([[*source, log] for source, log in checkpoint.logs.items()])
        save_file(
            {name: np.ascontiguousarray(array) for name, array in checkpoint.arrays.items()},
            part,
            metadata={"state": checkpoint.text, "offsets": offsets, "logs": logs},
        )
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
        for old in self._paths()[: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def start_over(self) -> Path | None:
        """Forget the offsets of the newest checkpoint, not what was learned; its path, None where there is none.

        Raises:
            UnreadableCheckpoint: it is damaged.
        """
        checkpoint = self.latest()
        return self.write(replace(checkpoint, offsets={}, logs={}), self._serial()) if checkpoint else None

    def _serial(self) -> int:
        return max((int(path.stem.rpartition("-")[2]) for path in self._paths()), default=-1)

    def latest(self, *, beyond: int = -1) -> Checkpoint | None:
        """The newest checkpoint, None where there is none with a serial above `beyond`.

        Raises:
            UnreadableCheckpoint: the newest one is damaged.
        """
        paths = self._paths()
        if not paths or self._serial() <= beyond:
            return None
        try:
            with safe_open(paths[-1], framework="numpy") as file:
                metadata = file.metadata()
            offsets = {Source(topic, p): offset for topic, p, offset in json.loads(metadata["offsets"])}
            logs = {Source(topic, p): log for topic, p, log in json.loads(metadata.get("logs", "[]"))}
            return Checkpoint(load_file(paths[-1]), metadata["state"], offsets, logs)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise UnreadableCheckpoint(
                f"{paths[-1]} cannot be read, move it away to go on without it: {error}"
            ) from error

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*.safetensors"))
