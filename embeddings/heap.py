"""The best k of a stream of scored rows, inside kernels: higher score first, ties to the lower row."""

import numpy as np
from numpy.typing import NDArray

from embeddings.jit import kernel


@kernel
def worse(score: float, row: int, other_score: float, other_row: int) -> bool:
    """Does the first entry rank after the second?"""
    return score < other_score or (score == other_score and row > other_row)


@kernel
def offer(score_K: NDArray[np.float32], row_K: NDArray[np.int32], held: int, score: float, row: int) -> int:
    """Offer an entry to a heap whose worst entry is on top; return how many of the K places are taken."""
    k = len(score_K)
    if held < k:
        at = held
        while at > 0:
            parent = (at - 1) >> 1
            if not worse(score, row, score_K[parent], row_K[parent]):
                break
            score_K[at], row_K[at] = score_K[parent], row_K[parent]
            at = parent
        score_K[at], row_K[at] = score, row
        return held + 1
    if k > 0 and worse(score_K[0], row_K[0], score, row):
        _sink(score_K, row_K, k, score, row)
    return held


@kernel
def insert(score_K: NDArray[np.float32], row_K: NDArray[np.int32], held: int, score: float, row: int) -> int:
    """Insert an entry into a list that is kept best first; return how many of the K places are taken.

    Takes time for each entry it moves: meant for entries that come nearly in order.
    """
    k = len(score_K)
    if k == 0 or (held == k and not worse(score_K[k - 1], row_K[k - 1], score, row)):
        return held
    at = held if held < k else k - 1
    while at > 0 and worse(score_K[at - 1], row_K[at - 1], score, row):
        score_K[at], row_K[at] = score_K[at - 1], row_K[at - 1]
        at -= 1
    score_K[at], row_K[at] = score, row
    return held + 1 if held < k else held


@kernel
def order(score_K: NDArray[np.float32], row_K: NDArray[np.int32], held: int) -> None:
    """Turn the heap into a list in place, best first; places never taken become row -1, score 0."""
    for last in range(held - 1, 0, -1):
        score, row = score_K[last], row_K[last]
        score_K[last], row_K[last] = score_K[0], row_K[0]
        _sink(score_K, row_K, last, score, row)
    score_K[held:] = 0
    row_K[held:] = -1


@kernel
def _sink(score_K: NDArray[np.float32], row_K: NDArray[np.int32], held: int, score: float, row: int) -> None:
    """Put an entry in place of the top of a heap of `held` entries."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= held:
            break
        if child + 1 < held and worse(score_K[child + 1], row_K[child + 1], score_K[child], row_K[child]):
            child += 1
        if not worse(score_K[child], row_K[child], score, row):
            break
        score_K[at], row_K[at] = score_K[child], row_K[child]
        at = child
    score_K[at], row_K[at] = score, row
