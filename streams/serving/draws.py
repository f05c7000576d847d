"""Chance that comes out the same however often, and in whatever batch, an event is delivered."""

from collections.abc import Iterable, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from embeddings.events import Source

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: its multiples are spread evenly."""
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def seeds(
    sources: Sequence[Source], source_T: NDArray[np.int32], offset_T: NDArray[np.int64], seed: int
) -> NDArray[np.uint64]:
    """A number of each of T events: of its partition and offset. Shape (T,)."""
    base_S = np.array([xxhash.xxh64_intdigest(f"{topic}/{p}".encode(), seed) for topic, p in sources], np.uint64)
    seed_T: NDArray[np.uint64] = base_S[source_T] ^ (offset_T.astype(np.uint64) * GOLDEN)
    return seed_T


def uniform(seed_E: NDArray[np.uint64], draws: int) -> NDArray[np.float32]:
    """Draws from 0 to 1 by the seed of each row alone. Shape (E, draws)."""
    bits_EK = keys(seed_E, np.arange(1, draws + 1, dtype=np.uint64)[None])
    drawn_EK: NDArray[np.float32] = (bits_EK >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
    return drawn_EK


def keys(seed_E: NDArray[np.uint64], of_EK: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A number drawn for each of K things by the seed of its row: splitmix64 (Steele, Lea & Flood 2014). Shape (E, K).

    Sorted by them, different things stand in a random order, which does not depend on where they stood before.
    """
    return mixed(seed_E[:, None] + GOLDEN * of_EK)


def mixed(bits_X: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: numbers that differ in a bit come out unlike. Any shape."""
    bits_X = (bits_X ^ (bits_X >> np.uint64(30))) * _FIRST
    bits_X = (bits_X ^ (bits_X >> np.uint64(27))) * _SECOND
    return bits_X ^ (bits_X >> np.uint64(31))


def chances(slate_ids: Iterable[str], seed: int) -> NDArray[np.uint64]:
    """What the places of Q slates are drawn by: their names, so that a slate that is written again is the same."""
    return np.array([int(slate_id[16:], 16) ^ seed for slate_id in slate_ids], np.uint64)
