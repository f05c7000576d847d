"""What follows the taste vector in a stored state: what was shown without an answer, then which ads were seen.

A tail is read from its end, for where it begins depends on the width of the vector. Nothing is written of who was shown
nothing and saw no ad.

    version 3   items shown, their number
    version 4   items shown, their number (0 too) · ads seen, keys of older ones, what was lost of those (if there are
                any), begin of the session, number of ads, number of keys
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.errors import UnreadableState
from embeddings.exposures import KEYS, LOG, Exposures
from embeddings.fatigue import MOST, Unanswered
from embeddings.jit import kernel

SHOWN, SEEN = 3, 4
"""Versions of a state: with what was shown, with which ads were seen as well."""
_ITEM = np.dtype([("low", "<u4"), ("high", "u1"), ("once_s", "<u4")])
_AD_BYTES = 16
"""Of an ad: the lower two bytes of its four keys, their highest bytes, four bytes of its time."""
_KEY = np.dtype([("low", "<u2"), ("high", "u1"), ("count", "<u2"), ("last_s", "<u4")])
_LOST = np.dtype([("for_good", "<u2"), ("any", "<u2"), ("last_s", "<u4")])
_END = np.dtype([("session_s", "<u4"), ("seen", "u1"), ("old", "u1")])


class Tail(NamedTuple):
    """The parts of one state's tail as they are stored; empty where there is nothing."""

    items: bytes = b""
    ads: bytes = b""
    keys: bytes = b""
    lost: bytes = b""
    session: bytes = b""
    length: int = 0


_NO_TAIL = Tail()


def tail_of(chunk: bytes) -> Tail:
    """The tail of a stored value.

    Raises:
        UnreadableState: it is torn.
    """
    if chunk[0] == SEEN:
        return _with_ads(chunk)
    return _with_items(chunk, _NO_TAIL) if chunk[0] == SHOWN else _NO_TAIL


def _with_ads(chunk: bytes) -> Tail:
    seen, old = chunk[-2], chunk[-1]
    sizes = seen * _AD_BYTES, old * _KEY.itemsize, bool(old) * _LOST.itemsize, 4
    if not 1 <= seen <= LOG or old > KEYS or sum(sizes) + 2 >= len(chunk):
        raise UnreadableState(f"a state of {len(chunk)} bytes, version {chunk[0]}, with {seen} ads seen, {old} keys")
    ends = list(accumulate(sizes, initial=len(chunk) - 2 - sum(sizes)))
    ads, keys, lost, session = (chunk[begin:end] for begin, end in pairwise(ends))
    return _with_items(chunk[: ends[0]], Tail(b"", ads, keys, lost, session, len(chunk) - ends[0]))


def _with_items(chunk: bytes, tail: Tail) -> Tail:
    size = 1 + _ITEM.itemsize * chunk[-1]
    if chunk[-1] > MOST or (not chunk[-1] and not tail.ads) or size >= len(chunk):
        raise UnreadableState(f"a state of {len(chunk)} bytes, version {chunk[0]}, with {chunk[-1]} items shown")
    return tail._replace(items=chunk[-size:-1], length=tail.length + size)


def unanswered_of(tails: Sequence[Tail]) -> Unanswered:
    """What the tails of U values say was shown, none of them longer than `MOST` items."""
    held_U = np.array([len(tail.items) for tail in tails], np.int64) // _ITEM.itemsize
    tables = Unanswered.nothing(len(tails), int(held_U.max(initial=0)))
    entry_N = np.frombuffer(b"".join([tail.items for tail in tails]), _ITEM)
    there_UW = _there(tables.item_UW, held_U)
    tables.item_UW[there_UW] = entry_N["low"].astype(np.uint64) | entry_N["high"].astype(np.uint64) << np.uint64(32)
    tables.once_s_UW[there_UW] = entry_N["once_s"]
    return tables


def exposures_of(tails: Sequence[Tail]) -> Exposures:
    """Which ads the tails of U values say were seen."""
    seen_U = np.array([len(tail.ads) for tail in tails], np.int64) // _AD_BYTES
    old_U = np.array([len(tail.keys) for tail in tails], np.int64) // _KEY.itemsize
    out = Exposures.nothing(len(tails), int(seen_U.max(initial=0)), int(old_U.max(initial=0)))
    out.seen_U[:] = seen_U
    ad_NB = np.frombuffer(b"".join([tail.ads for tail in tails]), np.uint8).reshape(-1, _AD_BYTES)
    _unpack(ad_NB, seen_U, out.key_UX4, out.time_s_UX)
    key_N = np.frombuffer(b"".join([tail.keys for tail in tails]), _KEY)
    there_UY = _there(out.old_key_UY, old_U)
    out.old_key_UY[there_UY], out.old_count_UY[there_UY] = _whole(key_N), key_N["count"]
    out.old_last_s_UY[there_UY] = key_N["last_s"]
    lost_N = np.frombuffer(b"".join([tail.lost for tail in tails]), _LOST)
    out.lost_U3[old_U > 0] = np.stack([lost_N["for_good"], lost_N["any"], lost_N["last_s"]], axis=1)
    out.session_s_U[seen_U > 0] = np.frombuffer(b"".join([tail.session for tail in tails]), "<u4")
    return out


def tails(unanswered: Unanswered, exposures: Exposures) -> Iterator[tuple[int, int, bytes]]:
    """The users who have a tail: which, of which version, and its bytes."""
    items, ads = _items(unanswered), _ads(exposures)
    for u in sorted({*items, *ads}):
        if u in ads:
            yield u, SEEN, items.get(u, b"\0") + ads[u]
        else:
            yield u, SHOWN, items[u]


def _items(tables: Unanswered) -> dict[int, bytes]:
    held_U = tables.held_U
    if not held_U.any():
        return {}
    there_UW = _there(tables.item_UW, held_U)
    entry_N = np.empty(int(held_U.sum()), _ITEM)
    item_N = tables.item_UW[there_UW]
    entry_N["low"], entry_N["high"] = item_N & np.uint64(0xFFFFFFFF), item_N >> np.uint64(32)
    entry_N["once_s"] = tables.once_s_UW[there_UW]
    parts = _cut(entry_N, held_U)
    return {u: parts[u] + bytes([int(held_U[u])]) for u in np.flatnonzero(held_U).tolist()}


def _ads(exposures: Exposures) -> dict[int, bytes]:
    seen_U, old_U = exposures.seen_U, exposures.old_U
    who_N = np.flatnonzero(seen_U).tolist()
    if not who_N:
        return {}
    ad_N, key_N = _pack(seen_U, exposures.key_UX4, exposures.time_s_UX), np.empty(int(old_U.sum()), _KEY)
    there_UY = _there(exposures.old_key_UY, old_U)
    old_N = exposures.old_key_UY[there_UY]
    key_N["low"], key_N["high"] = old_N & np.uint32(0xFFFF), old_N >> np.uint32(16)
    key_N["count"], key_N["last_s"] = exposures.old_count_UY[there_UY], exposures.old_last_s_UY[there_UY]
    lost_U, end_U = np.empty(len(seen_U), _LOST), np.empty(len(seen_U), _END)
    lost_U["for_good"], lost_U["any"], lost_U["last_s"] = exposures.lost_U3.T
    end_U["session_s"], end_U["seen"], end_U["old"] = exposures.session_s_U, seen_U, old_U
    ads, keys = _cut(ad_N, seen_U), _cut(key_N, old_U)
    return {u: ads[u] + keys[u] + (lost_U[u].tobytes() if keys[u] else b"") + end_U[u].tobytes() for u in who_N}


def _there(padded_UW: NDArray[np.generic], held_U: NDArray[np.int64]) -> NDArray[np.bool_]:
    there_UW: NDArray[np.bool_] = np.arange(padded_UW.shape[1]) < held_U[:, None]
    return there_UW


def _cut(entry_N: NDArray[np.generic], held_U: NDArray[np.int64]) -> list[bytes]:
    """The bytes of each user's entries."""
    data = entry_N.tobytes()
    ends = (np.cumsum(held_U) * (len(data) // max(len(entry_N), 1))).tolist()
    return [data[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []


def _whole(entry_N: NDArray[np.void]) -> NDArray[np.uint32]:
    """24-bit keys of their parts."""
    key_N: NDArray[np.uint32] = entry_N["low"].astype(np.uint32) | entry_N["high"].astype(np.uint32) << np.uint32(16)
    return key_N


@kernel
def _unpack(
    ad_NB: NDArray[np.uint8], seen_U: NDArray[np.int64], key_UX4: NDArray[np.uint32], time_s_UX: NDArray[np.int64]
) -> None:
    n = 0
    for u in range(len(seen_U)):
        for x in range(seen_U[u]):
            ad_B, n = ad_NB[n], n + 1
            for level in range(4):
                low = np.uint32(ad_B[2 * level]) | np.uint32(ad_B[2 * level + 1]) << np.uint32(8)
                key_UX4[u, x, level] = low | np.uint32(ad_B[8 + level]) << np.uint32(16)
                time_s_UX[u, x] |= np.int64(ad_B[12 + level]) << (8 * level)


@kernel
def _pack(seen_U: NDArray[np.int64], key_UX4: NDArray[np.uint32], time_s_UX: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The inverse of `_unpack`."""
    ad_NB, n = np.empty((seen_U.sum(), _AD_BYTES), np.uint8), 0
    for u in range(len(seen_U)):
        for x in range(seen_U[u]):
            for level in range(4):
                key = key_UX4[u, x, level]
                ad_NB[n, 2 * level], ad_NB[n, 2 * level + 1], ad_NB[n, 8 + level] = key, key >> 8, key >> 16
                ad_NB[n, 12 + level] = time_s_UX[u, x] >> (8 * level)
            n += 1
    return ad_NB
