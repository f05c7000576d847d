"""The learner's checkpoint: counts, weights and offsets in one file, whole or not at all.

The file is safetensors; names, marks and offsets travel as JSON in its metadata. The last few are kept.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from embeddings.events import Source

Arrays = dict[str, NDArray[np.generic]]


class UnreadableCheckpoint(Exception):
    """A checkpoint is there and cannot be read. The learner does not start over silently: move the file away first."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A learner's state, and the next offset to read of each partition of `observations`."""

    arrays: Arrays
    text: str
    offsets: dict[Source, int]


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
        save_file(
            {name: np.ascontiguousarray(array) for name, array in checkpoint.arrays.items()},
            part,
            metadata={"state": checkpoint.text, "offsets": offsets},
        )
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
        for old in self._paths()[: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def latest(self, *, beyond: int = -1) -> Checkpoint | None:
        """The newest checkpoint, None where there is none with a serial above `beyond`.

        Raises:
            UnreadableCheckpoint: the newest one is damaged.
        """
        paths = self._paths()
        if not paths or int(paths[-1].stem.rpartition("-")[2]) <= beyond:
            return None
        try:
            with safe_open(paths[-1], framework="numpy") as file:
                metadata = file.metadata()
            offsets = {Source(topic, p): offset for topic, p, offset in json.loads(metadata["offsets"])}
            return Checkpoint(load_file(paths[-1]), metadata["state"], offsets)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise UnreadableCheckpoint(f"{paths[-1]}: {error}") from error

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*.safetensors"))
