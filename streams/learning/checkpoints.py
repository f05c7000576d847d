"""The learner's checkpoints: counts, weights and offsets together, as a whole now and then, and what changed since.

A *whole* is one safetensors file. An *increment* holds the blocks of it that changed since the one before, what was
done to pair counts meanwhile, and the offsets of then; they are numbered, and what counts is the newest whole with all
of its increments. Files appear whole or not at all, in their order, so that a learner killed at any point finds a state
as it was. Texts travel as JSON in the metadata, which may hold some 100 MB: marks, never names. The last few wholes are
kept, with their increments.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from embeddings.events import Source
from embeddings.snapshots import drop_left
from streams.learning.increments import BLOCK, Blocks, Changes, applied, copied

Arrays = dict[str, NDArray[np.generic]]
_BLOCKS, _DATA, _LOG = "blocks.", "data.", "log."
_LOGGED = "pairs."
"""Arrays of which an increment says what was done to them, not which blocks changed: each take changes a hundred."""
_REPLACED = "factors.source", "factors.target"
"""Arrays that are never changed, only replaced: nobody has to copy them."""
_SMALL = 1 << 20
"""Bytes for which no room is made beforehand."""
_LARGEST_SHARE = 0.5
"""Increments that come to more of a whole than this are followed by the next whole."""
_MOST = 360
"""As are so many."""


class UnreadableCheckpoint(OSError):
    """A checkpoint is there and cannot be read. The learner does not start over silently: move the file away first."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A learner's state, the next offset to read of each partition of `observations`, and which logs these are of.

    `steps` are what is still to be done to its pair counts, in order (`embeddings.pairlog`).
    """

    arrays: Arrays
    text: str
    offsets: dict[Source, int]
    logs: dict[Source, str] = field(default_factory=dict)
    steps: tuple[Arrays, ...] = ()


@dataclass(frozen=True, slots=True)
class Increment:
    """What changed since the checkpoint before, the `number`-th after the whole with the serial `whole`."""

    whole: int
    number: int
    changes: dict[str, Changes]
    step: Arrays
    text: str
    offsets: dict[Source, int]
    logs: dict[Source, str]


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """Where checkpoints are kept, the newest `keep` wholes of them."""

    folder: Path
    keep: int = 3

    def write(self, checkpoint: Checkpoint, serial: int) -> Path:
        """Write a whole durably; `serial` orders it after all before it. Older ones beyond `keep` are deleted.

        Raises:
            OSError: it cannot be written, as when the disk is full; what was there before is as it was.
        """
        path = self.folder / f"checkpoint-{serial:020d}.safetensors"
        self._put(path, checkpoint.arrays | _logged(checkpoint.steps), _metadata(checkpoint))
        kept = {_serial_of(whole) for whole in self._wholes()[-self.keep :]}
        for old in [*self._wholes(), *self.folder.glob("increment-*.safetensors")]:
            if int(old.stem.split("-")[1]) not in kept:
                old.unlink(missing_ok=True)
        return path

    def add(self, increment: Increment, serial: int) -> Path:
        """Write an increment durably.

        Raises:
            OSError: as `write`.
        """
        i = increment
        path = self.folder / f"increment-{i.whole:020d}-{i.number:06d}-{serial:020d}.safetensors"
        shapes = {name: (change.kind, change.shape) for name, change in i.changes.items()}
        arrays: Arrays = {_BLOCKS + name: change.block_B for name, change in i.changes.items()}
        arrays |= {_DATA + name: change.data for name, change in i.changes.items()}
        self._put(path, arrays | _logged([i.step]), _metadata(i) | {"shapes": json.dumps(shapes)})
        return path

    def _put(self, path: Path, arrays: Arrays, metadata: dict[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        drop_left(self.folder, "*.part")
        part = path.with_suffix(".part")
        try:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, part, metadata=metadata)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        except (SafetensorError, OSError) as error:
            part.unlink(missing_ok=True)
            raise OSError(f"{path} cannot be written: {error}") from error
        part.replace(path)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # no increment may be there without the one before it
        finally:
            os.close(folder)

    def start_over(self) -> Path | None:
        """Forget the offsets of the newest checkpoint, not what was learned; its path, None where there is none.

        Raises:
            UnreadableCheckpoint: it is damaged.
        """
        checkpoint = self.latest()
        return self.write(replace(checkpoint, offsets={}, logs={}), self._serial()) if checkpoint else None

    def _serial(self) -> int:
        wholes = self._wholes()
        return max(map(_serial_of, [wholes[-1], *self._increments(wholes[-1])])) if wholes else -1

    def latest(self, *, beyond: int = -1) -> Checkpoint | None:
        """The newest checkpoint, None where there is none with a serial above `beyond`.

        Raises:
            UnreadableCheckpoint: the newest whole or one of its increments is damaged.
        """
        wholes = self._wholes()
        if not wholes or self._serial() <= beyond:
            return None
        path = wholes[-1]
        try:
            checkpoint = _read(path)
            for number, path in enumerate(self._increments(path), 1):  # noqa: B020  # the error names this one
                if int(path.stem.split("-")[2]) != number:
                    raise ValueError(f"increment {number} before it is missing")
                checkpoint = _added(checkpoint, path)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise UnreadableCheckpoint(f"{path} cannot be read, move it away to go on without it: {error}") from error
        return checkpoint

    def _wholes(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*.safetensors"))

    def _increments(self, whole: Path) -> list[Path]:
        """Those of a whole, in their order."""
        return sorted(self.folder.glob(f"increment-{_serial_of(whole):020d}-*.safetensors"))


@dataclass(slots=True)
class Journal:
    """Decides what of a state is to be written: all of it, or what changed since it was written last.

    `take` copies it where nothing changes meanwhile; `make_room` before it and `put`, which writes what was taken, are
    for another thread. One that was not written, for whatever reason, is followed by a whole.
    """

    folder: CheckpointFolder
    _blocks: Blocks = field(init=False, default_factory=Blocks)
    _whole: int = field(init=False, default=-1)
    _number: int = field(init=False, default=0)
    _whole_bytes: int = field(init=False, default=0)
    _bytes: int = field(init=False, default=0)
    _last: int = field(init=False, default=0)
    _due: bool = field(init=False, default=True)
    """The next one is a whole."""
    _room: dict[str, NDArray[np.uint8]] = field(init=False, default_factory=dict)

    def begin_anew(self) -> None:
        """Follow no checkpoint of before: another learner may have written since."""
        self._due = True

    @property
    def expects_whole(self) -> bool:
        """Whether the next one will be a whole, if as much changes as on average."""
        often = self._number + 1
        return self._due or often >= _MOST or self._bytes * (often + 1) / often > _LARGEST_SHARE * self._whole_bytes

    def make_room(self, sizes: Mapping[str, int]) -> None:
        """Have memory at hand for a whole, by the bytes of its arrays and a little more. While the state changes.

        To be given a page takes ten times as long as to fill it, and who copies a state holds up the learner.
        """
        room = {}
        for name, size in sizes.items():
            if size > _SMALL and name not in _REPLACED:
                room[name] = np.empty(size + size // 16, np.uint8)
                for begin in range(0, len(room[name]), _SMALL):
                    room[name][begin : begin + _SMALL] = 0
        self._room = room

    def take(self, checkpoint: Checkpoint, done: Arrays | None) -> Checkpoint | Increment:
        """What is to be written of a state, copied; the arrays of `checkpoint` may be views.

        `done` is what was done to pair counts since the last time; None if nobody knows.
        """
        arrays = checkpoint.arrays
        whole_bytes = self._whole_bytes = sum(array.nbytes for array in arrays.values())
        changed = self._blocks.look({name: a for name, a in arrays.items() if not name.startswith(_LOGGED)})
        self._bytes += sum(BLOCK * len(block_B) for block_B in changed.values())
        self._bytes += sum(array.nbytes for array in (done or {}).values())
        much = self._bytes > _LARGEST_SHARE * whole_bytes or self._number >= _MOST
        whole, self._due = self._due or done is None or much, True  # until it is written
        taken = self._copied(checkpoint, changed, done or {}, whole=whole)
        self._last = id(taken)
        return taken

    def _copied(
        self, checkpoint: Checkpoint, changed: dict[str, NDArray[np.int64]], done: Arrays, *, whole: bool
    ) -> Checkpoint | Increment:
        arrays = checkpoint.arrays
        if whole:
            room, self._room = self._room, {}
            return replace(checkpoint, arrays={name: _copy(name, array, room) for name, array in arrays.items()})
        changes = {name: copied(arrays[name], block_B) for name, block_B in changed.items()}
        text, offsets, logs = checkpoint.text, checkpoint.offsets, checkpoint.logs
        return Increment(self._whole, self._number + 1, changes, done, text, offsets, logs)

    def put(self, taken: Checkpoint | Increment, serial: int) -> None:
        """Write what was taken, durably.

        Raises:
            OSError: it cannot be written; the next one is a whole.
        """
        if isinstance(taken, Increment):
            self.folder.add(taken, serial)
            self._number = taken.number
        else:
            self.folder.write(taken, serial)
            self._whole, self._number, self._bytes = serial, 0, 0
        self._due = id(taken) != self._last  # another was taken meanwhile


def _copy(name: str, array: NDArray[np.generic], room: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.generic]:
    """An array that stays as this one is now, in the room that was made for it where that is enough."""
    if name in _REPLACED:
        return array
    if name not in room or len(room[name]) < array.nbytes:
        return array.copy()
    copied = room[name][: array.nbytes].view(array.dtype).reshape(array.shape)
    copied[:] = array
    return copied


def _metadata(of: Checkpoint | Increment) -> dict[str, str]:
    offsets = json.dumps([[*source, offset] for source, offset in of.offsets.items()])
    return {
        "state": of.text,
        "offsets": offsets,
        "logs": json.dumps([[*source, log] for source, log in of.logs.items()]),
    }


def _logged(steps: Sequence[Arrays]) -> Arrays:
    """Steps as arrays of a file, by number."""
    return {f"{_LOG}{number:06d}.{name}": array for number, step in enumerate(steps) for name, array in step.items()}


def _read(path: Path) -> Checkpoint:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    offsets = {Source(topic, p): offset for topic, p, offset in json.loads(metadata["offsets"])}
    logs = {Source(topic, p): log for topic, p, log in json.loads(metadata.get("logs", "[]"))}
    arrays, steps = dict[str, NDArray[np.generic]](), dict[str, Arrays]()
    for name, array in sorted(load_file(path).items()):
        if name.startswith(_LOG):
            _, number, part = name.split(".", 2)
            steps.setdefault(number, {})[part] = array
        else:
            arrays[name] = array
    return Checkpoint(arrays, metadata["state"], offsets, logs, tuple(steps.values()))


def _added(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """A checkpoint with the increment in a file."""
    increment = _read(path)
    with safe_open(path, framework="numpy") as file:
        shapes = json.loads(file.metadata()["shapes"])
    arrays = {name: array for name, array in checkpoint.arrays.items() if name.startswith(_LOGGED)}
    for name, (kind, shape) in shapes.items():
        blocks, data = increment.arrays[_BLOCKS + name], increment.arrays[_DATA + name]
        changes = Changes(kind, tuple(shape), blocks.astype(np.int64), data.astype(np.uint8))
        arrays[name] = applied(checkpoint.arrays.get(name), changes)
    return replace(increment, arrays=arrays, steps=(*checkpoint.steps, *increment.steps))


def _serial_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
