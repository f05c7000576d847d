"""Which blocks of a state changed since it was last looked at, and how a state is put together again from them.

A block is known by a hash of 64 bits, so that a look costs one pass over the state and a five-hundredth of its memory,
whoever changed it and how. That a changed block keeps its hash happens once in 10^19.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.jit import kernel

Arrays = Mapping[str, NDArray[np.generic]]
BLOCK = 4096
"""Bytes of a block."""
_WORDS = BLOCK // 8
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


class Changes(NamedTuple):
    """Blocks of one array: its type and shape now, which blocks, and their bytes one after the other."""

    kind: str
    shape: tuple[int, ...]
    block_B: NDArray[np.int64]
    data: NDArray[np.uint8]


@dataclass(slots=True)
class Blocks:
    """The blocks of named arrays as they were last looked at."""

    _hashes: dict[str, NDArray[np.uint64]] = field(default_factory=dict)

    def look(self, arrays: Arrays) -> dict[str, NDArray[np.int64]]:
        """The blocks of each array that are other than they were, or new; all of them the first time."""
        changed = {}
        for name, array in arrays.items():
            hash_B, before = _hashes(_bytes_of(array)), self._hashes.get(name, np.zeros(0, np.uint64))
            shared = min(len(hash_B), len(before))
            differs_B = np.ones(len(hash_B), np.bool_)
            differs_B[:shared] = hash_B[:shared] != before[:shared]
            changed[name], self._hashes[name] = np.flatnonzero(differs_B), hash_B
        return changed


def copied(array: NDArray[np.generic], block_B: NDArray[np.int64]) -> Changes:
    """Some blocks of an array, in their order."""
    data = _bytes_of(array)
    whole_B = block_B[block_B < len(data) // BLOCK]
    blocks = data[: len(data) // BLOCK * BLOCK].reshape(-1, BLOCK)[whole_B].reshape(-1)
    if len(whole_B) < len(block_B):  # the last one is shorter
        blocks = np.concatenate([blocks, data[len(data) // BLOCK * BLOCK :]])
    return Changes(array.dtype.str, array.shape, block_B, blocks)


def applied(before: NDArray[np.generic] | None, changes: Changes) -> NDArray[np.generic]:
    """An array with its changes, which are made in place where it may be written to.

    Raises:
        ValueError: they do not fit it.
    """
    kind = np.dtype(changes.kind)
    size = int(np.prod(changes.shape, dtype=np.int64)) * kind.itemsize
    old = _bytes_of(before) if before is not None else np.zeros(0, np.uint8)
    data = old if len(old) == size and old.flags.writeable else np.zeros(size, np.uint8)
    if data is not old:
        data[: len(old)] = old[:size]
    full = changes.block_B < size // BLOCK
    whole_B = changes.block_B[full]
    data[: size // BLOCK * BLOCK].reshape(-1, BLOCK)[whole_B] = changes.data[: len(whole_B) * BLOCK].reshape(-1, BLOCK)
    if not full.all():
        data[size // BLOCK * BLOCK :] = changes.data[len(whole_B) * BLOCK :]
    return data.view(kind).reshape(changes.shape)


def _bytes_of(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _hashes(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    whole = len(data) // BLOCK
    hash_B = np.zeros(-(-len(data) // BLOCK), np.uint64)
    _hash(data[: whole * BLOCK].view(np.uint64), hash_B[:whole])
    if whole < len(hash_B):
        padded = np.zeros(BLOCK, np.uint8)
        padded[: len(data) - whole * BLOCK] = data[whole * BLOCK :]
        _hash(padded.view(np.uint64), hash_B[whole:])
        hash_B[whole] ^= np.uint64(len(data) - whole * BLOCK)  # zeros that came are a change
    return hash_B


@kernel
def _hash(word_W: NDArray[np.uint64], hash_B: NDArray[np.uint64]) -> None:
    """Hash blocks of words, in four lanes that do not wait for each other."""
    for b in range(len(hash_B)):
        lane_0, lane_1 = np.uint64(1), np.uint64(2)
        lane_2, lane_3 = np.uint64(3), np.uint64(4)
        for at in range(b * _WORDS, (b + 1) * _WORDS, 4):
            lane_0 = (lane_0 ^ word_W[at]) * _PRIME
            lane_1 = (lane_1 ^ word_W[at + 1]) * _PRIME
            lane_2 = (lane_2 ^ word_W[at + 2]) * _PRIME
            lane_3 = (lane_3 ^ word_W[at + 3]) * _PRIME
            lane_0 ^= lane_0 >> _HALF
            lane_1 ^= lane_1 >> _HALF
            lane_2 ^= lane_2 >> _HALF
            lane_3 ^= lane_3 >> _HALF
        mixed = lane_0
        for lane in (lane_1, lane_2, lane_3):
            mixed = (mixed ^ (mixed >> _HALF) ^ lane) * _PRIME
        hash_B[b] = mixed ^ (mixed >> _HALF)
