"""Rows of counted pairs in one pool of slots: the kernels under `embeddings.cooccurrence`.

An item's neighbours lie in one block of the pool, 16, 32, 64 … slots long. A neighbour may lie only in the sixteen that
its hash selects, one cache line, so that adding to a pair is one memory access. When those are full the block doubles;
at its limit the smallest of the sixteen gives way.
"""

import math

import numpy as np
from numpy.typing import NDArray

from embeddings.heap import offer, order
from embeddings.jit import kernel

WAYS = 16
EMPTY = -1
_RENORMALISE_AT = 64
"""Half-lives."""


@kernel
def count_rows(
    item_R: NDArray[np.int32],
    history_RH: NDArray[np.int32],
    time_s_R: NDArray[np.int64],
    weight_H: NDArray[np.float64],
    backward: float,
    half_life_s: float,
    limits: tuple[int, int],
    count_N: NDArray[np.float64],
    start_N: NDArray[np.int64],
    size_N: NDArray[np.int32],
    pool_row: NDArray[np.int32],
    pool_weight: NDArray[np.float32],
    tally: NDArray[np.int64],
    clock: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Count R rows (`PairCounts.update`); return the pool, which may have moved.

    `limits` are the most slots of one item and of all; `tally` holds the pool's slots given out and those in use,
    `clock` the latest event time and the origin of weights, in half-lives.
    """
    for r in range(len(item_R)):
        item = int(item_R[r])
        if item < 0:
            continue
        exponent = time_s_R[r] / half_life_s
        whole = math.floor(exponent)
        if whole - clock[1] >= _RENORMALISE_AT:
            shrink = 2.0 ** float(clock[1] - whole)
            count_N *= shrink
            pool_weight *= np.float32(shrink)
            clock[1] = whole
        clock[0] = max(clock[0], time_s_R[r])
        unit = 2.0 ** (exponent - whole) * 2.0 ** float(whole - clock[1])
        k = 0
        for h in range(history_RH.shape[1]):
            held = int(history_RH[r, h])
            if held < 0:
                continue
            weight_k = weight_H[k]
            k += 1
            if held == item:
                continue
            for source, target, share in ((held, item, 1.0), (item, held, backward)):
                weight = unit * weight_k * share
                while not _add(pool_row, pool_weight, start_N[source], size_N[source], target, weight, False):
                    if not _may_grow(size_N[source], limits, tally):
                        _add(pool_row, pool_weight, start_N[source], size_N[source], target, weight, True)
                        break
                    if tally[0] + 2 * size_N[source] + WAYS > len(pool_row):
                        pool_row, pool_weight = _compact(pool_row, pool_weight, start_N, size_N, tally)
                    _grow(pool_row, pool_weight, start_N, size_N, tally, source)
        count_N[item] += unit
    return pool_row, pool_weight


@kernel
def _set_of(neighbour: int, size: int) -> int:
    """Where in a block of `size` slots the sixteen begin that may hold a neighbour."""
    return (((neighbour * -7046029254386353131) >> 16) & (size // WAYS - 1)) * WAYS


@kernel
def _add(
    pool_row: NDArray[np.int32],
    pool_weight: NDArray[np.float32],
    start: int,
    size: int,
    neighbour: int,
    weight: float,
    replace: bool,
) -> bool:
    """Add to a neighbour's count; where it has no slot and none is empty, take the smallest's if `replace`."""
    if size == 0:
        return False
    begin = start + _set_of(neighbour, size)
    smallest = begin
    for at in range(begin, begin + WAYS):
        if pool_row[at] == neighbour:
            pool_weight[at] += np.float32(weight)
            return True
        if pool_row[at] == EMPTY:
            pool_row[at], pool_weight[at] = neighbour, weight
            return True
        if pool_weight[at] < pool_weight[smallest]:
            smallest = at
    if replace:
        pool_row[smallest], pool_weight[smallest] = neighbour, weight
    return replace


@kernel
def _may_grow(size: int, limits: tuple[int, int], tally: NDArray[np.int64]) -> bool:
    """May a block of `size` slots double? The first sixteen are always granted."""
    return size == 0 or (2 * size <= limits[0] and tally[1] + size <= limits[1])


@kernel
def _grow(
    pool_row: NDArray[np.int32],
    pool_weight: NDArray[np.float32],
    start_N: NDArray[np.int64],
    size_N: NDArray[np.int32],
    tally: NDArray[np.int64],
    item: int,
) -> None:
    """Move an item's block to the end of the pool, at twice its size (from none: the least size)."""
    start, size, to = start_N[item], int(size_N[item]), tally[0]
    grown = 2 * size if size > 0 else WAYS
    pool_row[to : to + grown] = EMPTY
    pool_weight[to : to + grown] = 0
    for at in range(start, start + size):
        if pool_row[at] != EMPTY:
            _add(pool_row, pool_weight, to, grown, int(pool_row[at]), float(pool_weight[at]), False)
    start_N[item], size_N[item] = to, grown
    tally[0] += grown
    tally[1] += grown - size


@kernel
def _compact(
    pool_row: NDArray[np.int32],
    pool_weight: NDArray[np.float32],
    start_N: NDArray[np.int64],
    size_N: NDArray[np.int32],
    tally: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Copy the blocks in use, in item order, into a pool of more than twice their size."""
    room = 2 * tally[1] + 4 * int(size_N.max()) + WAYS
    to_row = np.full(room, EMPTY, np.int32)
    to_weight = np.zeros(room, np.float32)
    used = 0
    for item in range(len(start_N)):
        start, size = start_N[item], int(size_N[item])
        to_row[used : used + size] = pool_row[start : start + size]
        to_weight[used : used + size] = pool_weight[start : start + size]
        start_N[item] = used
        used += size
    tally[0] = used
    return to_row, to_weight


@kernel
def erase(
    start_N: NDArray[np.int64],
    size_N: NDArray[np.int32],
    pool_row: NDArray[np.int32],
    pool_weight: NDArray[np.float32],
    tally: NDArray[np.int64],
    gone_N: NDArray[np.bool_],
) -> None:
    """Give back the blocks of items that are gone, and take those items out of all other blocks."""
    for item in range(len(start_N)):
        if gone_N[item]:
            tally[1] -= size_N[item]
            start_N[item], size_N[item] = 0, 0
        for begin in range(start_N[item], start_N[item] + size_N[item], WAYS):
            to = begin
            for at in range(begin, begin + WAYS):
                if pool_row[at] == EMPTY:
                    break
                if not gone_N[pool_row[at]]:
                    pool_row[to], pool_weight[to] = pool_row[at], pool_weight[at]
                    to += 1
            for at in range(to, begin + WAYS):  # those in use come first, or a neighbour would be found twice
                pool_row[at], pool_weight[at] = EMPTY, 0


@kernel
def best_neighbours(
    start_N: NDArray[np.int64],
    size_N: NDArray[np.int32],
    pool_row: NDArray[np.int32],
    pool_weight: NDArray[np.float32],
    source_N: NDArray[np.float64],
    target_N: NDArray[np.float64],
    rows_NK: NDArray[np.int32],
    weights_NK: NDArray[np.float32],
) -> None:
    """Write the greatest entries of each row of M, greatest first."""
    for item in range(len(start_N)):
        held = 0
        for at in range(start_N[item], start_N[item] + size_N[item]):
            row = int(pool_row[at])
            if row != EMPTY:
                value = np.float32(pool_weight[at] * source_N[item] * target_N[row])
                if value > 0:
                    held = offer(weights_NK[item], rows_NK[item], held, float(value), row)
        order(weights_NK[item], rows_NK[item], held)


@kernel
def compress(
    start_N: NDArray[np.int64],
    size_N: NDArray[np.int32],
    pool_row: NDArray[np.int32],
    pool_weight: NDArray[np.float32],
    source_N: NDArray[np.float64],
    target_N: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """M in compressed rows: end offsets (N+1,), columns and values; zeros left out."""
    end_N = np.zeros(len(start_N) + 1, np.int64)
    column = np.empty(int(size_N.sum()), np.int32)
    value = np.empty(int(size_N.sum()), np.float32)
    stored = 0
    for item in range(len(start_N)):
        for at in range(start_N[item], start_N[item] + size_N[item]):
            row = int(pool_row[at])
            if row != EMPTY:
                column[stored] = row
                value[stored] = pool_weight[at] * source_N[item] * target_N[row]
                stored += value[stored] > 0
        end_N[item + 1] = stored
    return end_N, column[:stored].copy(), value[:stored].copy()
