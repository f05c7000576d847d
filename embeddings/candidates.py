"""From a history to candidates: the taste vector, and the union of what the sources propose.

Sources are the vector search, the neighbour lists of the latest items, what is trending and what is new; where there is
no taste to search with, what is popular; where it is asked for, what was begun and not finished. `gather` makes
one list per position with more than is wanted; the caller finds out which of those the person has seen or must not
see, and `keep` takes the first that remain.

A *position* is a state of one user, P of them; histories are item rows, latest first, -1 padded, with a weight per
item: 1 for what the person wanted, 0 for what says nothing about taste (skipped, disliked). The k-th latest wanted item
counts `decay^(k-1)`. Rows beyond the snapshot's count, and bring nothing.
"""

import threading
from enum import IntFlag
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.jit import kernel

Rows = NDArray[np.int32]
Floats = NDArray[np.float32]


class Proposed(IntFlag):
    """Which sources proposed a candidate, as bits."""

    vector = 1
    neighbours = 2
    trending = 4
    fresh = 8
    popular = 16
    begun = 32


_VECTOR, _NEIGHBOURS, _TRENDING, _FRESH, _POPULAR, _BEGUN = (int(bit) for bit in Proposed)
_NEW = _FRESH | _BEGUN
_SHARED = _TRENDING | _NEW
BEGUN_SHARES = 26, 230
"""From a tenth to nine tenths of an item, in 255ths: what is left in between is begun and not finished."""
_BUCKET_SHIFT = 50
"""Keys begin with the bits of a float; this leaves its exponent and five bits of its mantissa."""
_CROWD = 64
"""More keys than this in one bucket are sorted, not inserted."""
_FLOOR = 1e-9
"""Retrieval score of what only the shared lists propose; below any score of the other sources."""

VECTOR_SHARE = 1.0
"""How much the vector search's score adds to the neighbours' sum."""


class Retrieved(NamedTuple):
    """M candidates per position, best first: rows (-1 padded), `Proposed` bits, retrieval scores (not negative)."""

    row_PM: Rows
    source_PM: NDArray[np.uint8]
    score_PM: Floats


def taste(history_PH: Rows, weight_PH: Floats, source_ND: Floats, decay: float) -> Floats:
    """The faded sum of the source vectors of what each position wanted. Shape (P, D); zero without a known item."""
    out_PD = np.zeros((len(history_PH), source_ND.shape[1]), np.float32)
    _taste(history_PH, weight_PH, source_ND, decay, out_PD)
    return out_PD


def gather(
    history_PH: Rows,
    weight_PH: Floats,
    found: tuple[Rows, Floats],
    neighbours: tuple[Rows, Floats],
    *,
    trending_T: Rows,
    fresh_PF: Rows,
    size_P: Rows,
    trending_P: Rows | None = None,
    popular_P: NDArray[np.bool_] | None = None,
    begun_PH: Rows | None = None,
    blocked_N: NDArray[np.bool_] | None = None,
    latest: int = 20,
    decay: float = 0.9,
    vector_share: float = VECTOR_SHARE,
) -> Retrieved:
    """The union of all sources, each row once.

    The retrieval score is the faded sum of the neighbour lists plus `vector_share` times what the vector search gave
    above the last it found; rows that only a list proposes that is not by score follow in the order of that list.

    Args:
        history_PH: rows of what each position holds.
        weight_PH: a weight per held item; not above 0 = says nothing.
        found: rows (P, V) and scores of the vector search, best first, -1 padded.
        neighbours: lists of every row (N, K) and their weights, as `PairCounts.neighbours` gives them.
        trending_T: rows trending now, best first.
        fresh_PF: new rows for each position, best first.
        size_P: candidates by score of each position, for which as many of `found` are looked at: what is wanted for
            one changes nothing for another. The shared lists come on top, M = max(size_P) + T + F.
        trending_P: how far each position looks down the trending list; None is all of it.
        popular_P: where `found` is what is popular; None is nowhere.
        begun_PH: rows of what each position has begun, latest first, -1 for others; None is nothing.
        blocked_N: rows that must not be shown: the lists' are passed over, so that they take nobody's place.
        latest: of how many wanted items the lists are added.
        decay: how much each newer item fades the older ones.
        vector_share: see `VECTOR_SHARE`.
    """
    if begun_PH is None:
        begun_PH = np.empty((len(history_PH), 0), np.int32)
    lists = len(trending_T) + fresh_PF.shape[1] + begun_PH.shape[1]
    out = _room(len(history_PH), int(size_P.max(initial=0)) + lists)
    if trending_P is None:
        trending_P = np.full(len(history_PH), len(trending_T), np.int32)
    if popular_P is None:
        popular_P = np.zeros(len(history_PH), np.bool_)
    shared = trending_T, fresh_PF, size_P, trending_P
    beyond = (1 + int(rows.max(initial=-1)) for rows in (found[0], trending_T, fresh_PF, begun_PH))
    place_N = _places(max(len(neighbours[0]), *beyond))
    if blocked_N is None:
        blocked_N = np.zeros(0, np.bool_)
    own = history_PH, weight_PH, *found, *neighbours, *shared
    _gather(*own, popular_P, begun_PH, blocked_N, latest, decay, vector_share, place_N, out)
    return out


def keep(
    retrieved: Retrieved,
    seen_PM: NDArray[np.bool_],
    blocked_N: NDArray[np.bool_],
    size: int,
    *,
    reserve: int = 0,
) -> Retrieved:
    """The first `size` candidates, in order, that were not seen by their position and are not blocked for all.

    Up to `reserve` places are kept for new and begun rows that would otherwise be cut off; they are how an item
    that nobody took yet reaches the ranker.
    """
    out = _room(len(retrieved.row_PM), size)
    _keep(retrieved, seen_PM, blocked_N, min(reserve, size), out)
    return out


def _room(positions: int, width: int) -> Retrieved:
    shape = positions, width
    return Retrieved(np.full(shape, -1, np.int32), np.zeros(shape, np.uint8), np.zeros(shape, np.float32))


@kernel
def _taste(history_PH: Rows, weight_PH: Floats, source_ND: Floats, decay: float, out_PD: Floats) -> None:
    for p in range(len(history_PH)):
        fade = 1.0
        for h in range(history_PH.shape[1]):
            row = history_PH[p, h]
            if weight_PH[p, h] > 0 and row >= 0:
                share = np.float32(fade * weight_PH[p, h])
                if row < len(source_ND):
                    for d in range(out_PD.shape[1]):
                        out_PD[p, d] += share * source_ND[row, d]
                fade *= decay


class _Table(NamedTuple):
    """One position's candidates, as far as `used` counts; every array is as it was when the position is done.

    `place_N` says of any row where among them it is, -1 for none. A hash table takes less room and twice the time: the
    processor cannot guess where a probe ends. `bits_U` is the memory of `score_U` as whole numbers, which order as the
    scores do while none is negative.
    """

    place_N: Rows
    row_U: Rows
    score_U: Floats
    bits_U: Rows
    source_U: NDArray[np.uint8]


_scratch = threading.local()


def _places(rows: int) -> Rows:
    """This thread's `place_N`, all -1, for at least as many rows."""
    place_N: Rows | None = getattr(_scratch, "place_N", None)
    if place_N is None or len(place_N) < rows:
        place_N = _scratch.place_N = np.full(2 * rows, -1, np.int32)
    return place_N


@kernel
def _offer(table: _Table, used: int, row: int, score: float, bit: int) -> int:
    """Add a source's score and bit to a row; return how many are in use. Without a branch on whether it is new."""
    at = table.place_N[row]
    new = at < 0
    at = np.int32(used) if new else at
    table.place_N[row] = at
    table.row_U[at] = row
    table.score_U[at] += np.float32(score)
    table.source_U[at] |= np.uint8(bit)
    return used + int(new)


@kernel
def _offer_neighbours(
    table: _Table,
    used: int,
    history_H: Rows,
    weight_H: Floats,
    neighbours_NK: Rows,
    weights_NK: Floats,
    blocked_N: NDArray[np.bool_],
    latest: int,
    decay: float,
) -> int:
    fade = 1.0
    for h in range(len(history_H)):
        held = history_H[h]
        if latest == 0:
            break
        if weight_H[h] <= 0 or held < 0:
            continue
        share = fade * weight_H[h]
        for k in range(neighbours_NK.shape[1] if held < len(neighbours_NK) else 0):
            row = int(neighbours_NK[held, k])
            if row < 0:
                break
            if row >= len(blocked_N) or not blocked_N[row]:
                used = _offer(table, used, row, share * weights_NK[held, k], _NEIGHBOURS)
        fade *= decay
        latest -= 1
    return used


@kernel
def _offer_found(table: _Table, used: int, row_V: Rows, score_V: Floats, vector_share: float, bit: int) -> int:
    """The vector search's rows, or what is popular in their stead, by how much they are above the last of them."""
    last = 0.0
    for v in range(len(row_V)):
        if row_V[v] >= 0:
            last = max(0.0, score_V[v])
    for v in range(len(row_V)):
        if row_V[v] >= 0:
            score = vector_share * max(0.0, score_V[v] - last) + 2 * _FLOOR
            used = _offer(table, used, int(row_V[v]), score, bit)
    return used


@kernel
def _offer_shared(table: _Table, used: int, row_T: Rows, bit: int, floor: float) -> int:
    for t in range(len(row_T)):
        used = _offer(table, used, int(row_T[t]), floor * (1.0 - 0.5 * t / len(row_T)), bit)
    return used


@kernel
def _gather(
    history_PH: Rows,
    weight_PH: Floats,
    found_PV: Rows,
    found_score_PV: Floats,
    neighbours_NK: Rows,
    weights_NK: Floats,
    trending_T: Rows,
    fresh_PF: Rows,
    size_P: Rows,
    trending_P: Rows,
    popular_P: NDArray[np.bool_],
    begun_PH: Rows,
    blocked_N: NDArray[np.bool_],
    latest: int,
    decay: float,
    vector_share: float,
    place_N: Rows,
    out: Retrieved,
) -> None:
    most = min(latest, history_PH.shape[1]) * neighbours_NK.shape[1] + found_PV.shape[1]
    most += len(trending_T) + fresh_PF.shape[1] + begun_PH.shape[1]
    score_U = np.zeros(most + 1, np.float32)
    row_U, source_U = np.zeros(most + 1, np.int32), np.zeros(most + 1, np.uint8)
    table = _Table(place_N, row_U, score_U, score_U.view(np.int32), source_U)
    key_U, order_U = np.empty(most, np.int64), np.empty(most, np.int64)
    count_B = np.zeros(1 << (63 - _BUCKET_SHIFT), np.int32)
    for p in range(len(history_PH)):
        used = _offer_neighbours(
            table, 0, history_PH[p], weight_PH[p], neighbours_NK, weights_NK, blocked_N, latest, decay
        )
        size = size_P[p]
        bit = _POPULAR if popular_P[p] else _VECTOR
        used = _offer_found(table, used, found_PV[p, :size], found_score_PV[p, :size], vector_share, bit)
        used = _offer_shared(table, used, trending_T[: trending_P[p]], _TRENDING, _FLOOR)
        used = _offer_shared(table, used, fresh_PF[p], _FRESH, 0.5 * _FLOOR)
        for h in range(begun_PH.shape[1]):
            row = int(begun_PH[p, h])
            if row >= 0 and (row >= len(blocked_N) or not blocked_N[row]):
                used = _offer(table, used, row, _FLOOR * (1.0 - 0.5 * h / begun_PH.shape[1]), _BEGUN)
        _best(table, used, key_U, order_U, count_B, size, out.row_PM[p], out.source_PM[p], out.score_PM[p])
        for u in range(used):
            place_N[row_U[u]] = -1
        score_U[:used] = 0
        source_U[:used] = 0


@kernel
def _best(
    table: _Table,
    used: int,
    key_U: NDArray[np.int64],
    order_U: NDArray[np.int64],
    count_B: Rows,
    size: int,
    row_M: Rows,
    source_M: NDArray[np.uint8],
    score_M: Floats,
) -> None:
    """Write the best `size` rows of a table in order, then the shared ones among the others."""
    for u in range(used):
        key_U[u] = _key(table, u)
    held = min(size, used)
    _in_order(key_U, used, held, order_U, count_B)
    for m in range(held):
        row = 0x7FFFFFFF - (order_U[m] & 0x7FFFFFFF)
        at = table.place_N[row]
        row_M[m], source_M[m], score_M[m] = row, table.source_U[at], table.score_U[at]
    if held == used:
        return
    least = order_U[held - 1] if held else np.int64(0x7FFFFFFFFFFFFFFF)
    for u in range(used):
        if table.source_U[u] & _SHARED and _key(table, u) < least:
            row_M[held], source_M[held], score_M[held] = table.row_U[u], table.source_U[u], table.score_U[u]
            held += 1


@kernel
def _key(table: _Table, u: int) -> int:
    """A number that orders by score, then by lower row; scores are not negative."""
    return (int(table.bits_U[u]) << 32) | (0x7FFFFFFF - int(table.row_U[u]))


@kernel
def _in_order(key_U: NDArray[np.int64], used: int, k: int, order_U: NDArray[np.int64], count_B: Rows) -> None:
    """Write the k greatest keys, greatest first; `order_U` has room for all, `count_B` comes and goes as zeros.

    Keys are counted by exponent and five bits of mantissa, the buckets that hold the k greatest are laid out one after
    the other, and what is left is nearly in order: a fourth of the time of a selection and a sort.
    """
    top, most = np.int64(0), np.int32(0)
    for u in range(used):
        bucket = key_U[u] >> _BUCKET_SHIFT
        count_B[bucket] += 1
        top, most = max(top, bucket), max(most, count_B[bucket])
    held, least = np.int32(0), top + 1
    while held < k:
        least -= 1
        count = count_B[least]
        count_B[least] = held
        held += count
    for u in range(used):
        bucket = key_U[u] >> _BUCKET_SHIFT
        if bucket >= least:
            order_U[count_B[bucket]] = key_U[u]
            count_B[bucket] += 1
    if most > _CROWD:
        order_U[:held] = np.sort(order_U[:held])[::-1]
    for m in range(1, held):
        key, to = order_U[m], m
        while to > 0 and order_U[to - 1] < key:
            order_U[to] = order_U[to - 1]
            to -= 1
        order_U[to] = key
    count_B[: top + 1] = 0


@kernel
def _keep(
    retrieved: Retrieved,
    seen_PM: NDArray[np.bool_],
    blocked_N: NDArray[np.bool_],
    reserve: int,
    out: Retrieved,
) -> None:
    size, width = out.row_PM.shape[1], seen_PM.shape[1]
    alive_M, reserved_M = np.zeros(width, np.bool_), np.zeros(width, np.bool_)
    for p in range(len(seen_PM)):
        row_M, source_M = retrieved.row_PM[p], retrieved.source_PM[p]
        alive, reserved = 0, 0
        for m in range(width):
            alive_M[m] = row_M[m] >= 0 and not seen_PM[p, m] and not blocked_N[row_M[m]]
            reserved_M[m] = alive_M[m] and alive >= size - reserve and reserved < reserve and source_M[m] & _NEW
            reserved += reserved_M[m]
            alive += alive_M[m]
        plain, k = size - reserved, 0
        for m in range(width):
            if alive_M[m] and (reserved_M[m] or plain > 0):
                plain -= not reserved_M[m]
                out.row_PM[p, k], out.source_PM[p, k] = row_M[m], source_M[m]
                out.score_PM[p, k] = retrieved.score_PM[p, m]
                k += 1
