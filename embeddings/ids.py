"""How people, items and places are named inside: 40-bit item ids, and the murmur2 of partitions and buckets.

>>> item_id("movie-1") < 2**40
True
"""

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from embeddings.jit import kernel

NO_ITEM = 0
ITEM_MASK = (1 << 40) - 1


def item_id(name: str) -> int:
    """The 40-bit id of an item: xxh64 of its UTF-8 name, cut to 40 bits; never 0, which means *no item*."""
    return (xxhash.xxh64_intdigest(name.encode()) & ITEM_MASK) or 1


def item_ids(names: Sequence[str]) -> NDArray[np.uint64]:
    """`item_id` of each of N names. Shape (N,)."""
    return np.fromiter((item_id(name) for name in names), np.uint64, len(names))


def murmur2(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """Kafka's murmur2 of each key, with the sign bit cleared as the Java partitioner does. Shape (N,).

    `murmur2(key) % partitions` is the partition that Java, aiokafka and kafkajs choose.
    """
    ends = np.fromiter(map(len, keys), np.int64, len(keys)).cumsum()
    return _murmur2(np.frombuffer(b"".join(keys), np.uint8), ends)


def ids_of(row_PK: NDArray[np.int32], ids_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The ids of rows, 0 where a row is negative. Shape (P, K)."""
    out_PK = np.zeros(row_PK.shape, np.uint64)
    _ids_of(row_PK, ids_N, out_PK)
    return out_PK


@kernel
def _ids_of(row_PK: NDArray[np.int32], ids_N: NDArray[np.uint64], out_PK: NDArray[np.uint64]) -> None:
    for p in range(row_PK.shape[0]):
        for k in range(row_PK.shape[1]):
            if row_PK[p, k] >= 0:
                out_PK[p, k] = ids_N[row_PK[p, k]]


@kernel
def _murmur2(data: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.uint32]:
    out = np.empty(len(ends), np.uint32)
    m = np.uint32(0x5BD1E995)
    begin = np.int64(0)
    for i in range(len(ends)):
        length = ends[i] - begin
        h = np.uint32(np.uint32(0x9747B28C) ^ np.uint32(length))
        words = length // 4
        for w in range(words):
            at = begin + 4 * w
            k = np.uint32(
                np.uint32(data[at])
                | (np.uint32(data[at + 1]) << np.uint32(8))
                | (np.uint32(data[at + 2]) << np.uint32(16))
                | (np.uint32(data[at + 3]) << np.uint32(24))
            )
            k = np.uint32(k * m)
            k = np.uint32(k ^ (k >> np.uint32(24)))
            k = np.uint32(k * m)
            h = np.uint32(np.uint32(h * m) ^ k)
        tail = begin + 4 * words
        rest = length - 4 * words
        if rest >= 3:
            h = np.uint32(h ^ (np.uint32(data[tail + 2]) << np.uint32(16)))
        if rest >= 2:
            h = np.uint32(h ^ (np.uint32(data[tail + 1]) << np.uint32(8)))
        if rest >= 1:
            h = np.uint32(np.uint32(h ^ np.uint32(data[tail])) * m)
        h = np.uint32(h ^ (h >> np.uint32(13)))
        h = np.uint32(h * m)
        h = np.uint32(h ^ (h >> np.uint32(15)))
        out[i] = h & np.uint32(0x7FFFFFFF)
        begin = ends[i]
    return out
