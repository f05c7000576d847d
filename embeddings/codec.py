"""User state as bytes, a whole batch at a time. The layout is `state_dtype`; its first byte is the version.

At width 64 a value is 556 bytes: with the server's six bytes of string header it lies in an allocation of 640. Item ids
take five bytes, actions four bits, times two bytes (`embeddings.state_columns.coarsen`), shares watched and components
of the taste vector a byte each. Version 3 adds what the person was shown without an answer (`embeddings.fatigue`), nine
bytes an item and their number, 577 at most; version 4 which ads they saw as well (`embeddings.exposures`), 16 bytes
each and seven more. Who was shown nothing and saw no ad is written as version 2. Version 1 had no shares; it is read.

>>> from embeddings.state_columns import no_states
>>> codec = StateCodec(64)
>>> states, tastes, unanswered, exposures = codec.decode([None])
>>> len(codec.encode(states, tastes.vectors(), version=0)[0])
556
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embeddings.errors import UnreadableState
from embeddings.exposures import Exposures
from embeddings.fatigue import Unanswered
from embeddings.jit import kernel
from embeddings.state_columns import HISTORY, RING, Tastes, UserStates
from embeddings.tails import SEEN, Tail, exposures_of, tail_of, tails, unanswered_of

VERSION = SEEN
_NOTHING_SHOWN, _WITHOUT_SHARES = 2, 1
_NO_SOURCE = 0xFFFF
_LARGEST_U32 = 2**32 - 1
_LARGEST_SCALE = np.float32(1e30)


def state_dtype(width: int) -> np.dtype[np.void]:
    """The layout of a state with a taste vector of `width` components: little endian, packed, taste last."""
    return np.dtype(
        [
            ("version", "u1"),
            ("count", "u1"),
            ("consent", "u1"),
            ("last_s", "<u4"),
            ("events", "<u4"),
            ("mark_source", "<u2", (2,)),
            ("mark_offset_low", "<u4", (2,)),
            ("mark_offset_high", "<u2", (2,)),
            ("ring", "<u4", (RING,)),
            ("item_low", "<u4", (HISTORY,)),
            ("item_high", "u1", (HISTORY,)),
            ("action", "u1", (HISTORY // 2,)),
            ("time", "<u2", (HISTORY,)),
            ("share", "u1", (HISTORY,)),
            ("taste_version", "<u4"),
            ("taste_scale", "<f4"),
            ("taste", "i1", (width,)),
        ]
    )


class StateCodec:
    """Encode and decode states with taste vectors of one width."""

    def __init__(self, width: int) -> None:
        """Args: width: components of a taste vector, the embedding width D."""
        self.width = width
        self._dtype = state_dtype(width)
        self._plain = state_dtype(0).itemsize
        empty = np.zeros(1, self._dtype)
        empty["version"] = _NOTHING_SHOWN
        empty["mark_source"] = _NO_SOURCE
        self._empty = empty.tobytes()

    def decode(self, values: Sequence[bytes | None]) -> tuple[UserStates, Tastes, Unanswered, Exposures]:
        """States, taste vectors, what was shown and which ads were seen of U stored values; None: nothing is known.

        A value with a vector of another width, or one without finite components, is read without it, its taste version
        0: it is derived from the history.

        Raises:
            UnreadableState: a value's version is not known, or its length does not fit. Nothing was changed; a newer
                release wrote it, or it is not ours.
        """
        ends: list[Tail] = []
        chunks = [value or self._empty for value in values]
        if {chunk[0] for chunk in chunks} - {_NOTHING_SHOWN}:
            chunks = [_with_shares(chunk) if chunk[0] == _WITHOUT_SHARES else chunk for chunk in chunks]
            ends = [tail_of(chunk) for chunk in chunks]
            chunks = [_without(chunk, tail) if tail.length else chunk for chunk, tail in zip(chunks, ends, strict=True)]
        if set(map(len, chunks)) - {self._dtype.itemsize}:
            chunks = [self._refit(chunk) for chunk in chunks]
        record_U = np.frombuffer(b"".join(chunks), self._dtype)
        self._check(record_U)
        seen = any(tail.ads for tail in ends)
        return (
            _states(record_U),
            _tastes(record_U),
            unanswered_of(ends) if ends else Unanswered.nothing(len(values)),
            exposures_of(ends) if seen else Exposures.nothing(len(values)),
        )

    def encode(
        self,
        states: UserStates,
        taste_UD: NDArray[np.float32],
        version: int,
        unanswered: Unanswered | None = None,
        exposures: Exposures | None = None,
    ) -> list[bytes]:
        """The values to store for U states, taste vectors of snapshot `version`, what was shown, which ads were seen.

        None is nothing.
        """
        record_U = np.zeros(len(states.count_U), self._dtype)
        record_U["version"] = _NOTHING_SHOWN
        _put_states(record_U, states)
        _put_tastes(record_U, taste_UD, version)
        data, size = record_U.tobytes(), self._dtype.itemsize
        values = [data[at : at + size] for at in range(0, len(data), size)]
        shown = Unanswered.nothing(len(values)) if unanswered is None else unanswered
        seen = Exposures.nothing(len(values)) if exposures is None else exposures
        for u, later, tail in tails(shown, seen):
            values[u] = bytes([later]) + values[u][1:] + tail
        return values

    def _refit(self, chunk: bytes) -> bytes:
        if len(chunk) == self._dtype.itemsize:
            return chunk
        if len(chunk) < self._plain or chunk[0] != _NOTHING_SHOWN:
            raise UnreadableState(f"a state of {len(chunk)} bytes, version {chunk[0]}: this release reads {VERSION}")
        return chunk[: self._plain - 8] + bytes(8 + self.width)

    def _check(self, record_U: NDArray[np.void]) -> None:
        wrong = (record_U["version"] != _NOTHING_SHOWN) | (record_U["count"] > HISTORY)
        if wrong.any():
            odd = record_U[wrong][0]
            raise UnreadableState(
                f"a state of version {odd['version']} with {odd['count']} items: this release reads {VERSION}"
            )


def _with_shares(chunk: bytes) -> bytes:
    """A value of version 1 as one of version 2, with nothing known of shares; a torn one stays too short."""
    at = state_dtype(0).fields["share"][1]  # type: ignore[index]
    return bytes([_NOTHING_SHOWN]) + chunk[1:at] + bytes(HISTORY) + chunk[at:] if len(chunk) >= at else chunk


def _without(chunk: bytes, tail: Tail) -> bytes:
    return bytes([_NOTHING_SHOWN]) + chunk[1 : -tail.length]


def _states(record_U: NDArray[np.void]) -> UserStates:
    count_U = record_U["count"].astype(np.int32)
    last_s_U = record_U["last_s"].astype(np.int64)
    item_UH, action_UH, time_UH = _unpack(
        np.ascontiguousarray(record_U["item_low"]),
        np.ascontiguousarray(record_U["item_high"]),
        np.ascontiguousarray(record_U["action"]),
        np.ascontiguousarray(record_U["time"]),
        count_U,
        last_s_U,
    )
    source_U2 = record_U["mark_source"].astype(np.int32)
    offset_U2 = record_U["mark_offset_high"].astype(np.int64) << 32 | record_U["mark_offset_low"]
    none_U2 = source_U2 == _NO_SOURCE
    source_U2[none_U2] = -1
    offset_U2[none_U2] = -1
    return UserStates(
        item_UH=item_UH,
        action_UH=action_UH,
        time_UH=time_UH,
        share_UH=record_U["share"].astype(np.uint8),
        count_U=count_U,
        last_s_U=last_s_U,
        events_U=record_U["events"].astype(np.int64),
        mark_source_U2=source_U2,
        mark_offset_U2=offset_U2,
        ring_UR=record_U["ring"].astype(np.uint32),
        consent_U=record_U["consent"].astype(np.uint8),
    )


def _tastes(record_U: NDArray[np.void]) -> Tastes:
    scale_U, version_U = record_U["taste_scale"].astype(np.float32), record_U["taste_version"].astype(np.uint32)
    odd_U = ~(np.abs(scale_U) < _LARGEST_SCALE)
    scale_U[odd_U], version_U[odd_U] = 0, 0
    return Tastes(np.ascontiguousarray(record_U["taste"]), scale_U, version_U)


def _put_states(record_U: NDArray[np.void], states: UserStates) -> None:
    record_U["count"] = states.count_U
    record_U["consent"] = states.consent_U
    record_U["last_s"] = states.last_s_U
    record_U["events"] = np.minimum(states.events_U, _LARGEST_U32)
    record_U["mark_source"] = states.mark_source_U2 & _NO_SOURCE
    record_U["mark_offset_low"] = states.mark_offset_U2 & _LARGEST_U32
    record_U["mark_offset_high"] = states.mark_offset_U2 >> 32 & 0xFFFF
    record_U["ring"] = states.ring_UR
    record_U["share"] = states.share_UH
    record_U["item_low"], record_U["item_high"], record_U["action"], record_U["time"] = _pack(
        states.item_UH, states.action_UH, states.time_UH, states.count_U, states.last_s_U
    )


def _put_tastes(record_U: NDArray[np.void], taste_UD: NDArray[np.float32], version: int) -> None:
    scale_U = np.abs(taste_UD).max(axis=1, initial=0.0).astype(np.float32) / np.float32(127)
    step_U = np.where(scale_U > 0, scale_U, np.float32(1))
    record_U["taste_version"] = version
    record_U["taste_scale"] = scale_U
    record_U["taste"] = np.rint(taste_UD / step_U[:, None]).astype(np.int8)


@kernel
def _unpack(
    low_UH: NDArray[np.uint32],
    high_UH: NDArray[np.uint8],
    pair_UG: NDArray[np.uint8],
    code_UH: NDArray[np.uint16],
    count_U: NDArray[np.int32],
    last_s_U: NDArray[np.int64],
) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int64]]:
    """Ids from low and high parts, actions from pairs, times from exponent and difference."""
    item_UH = np.zeros(low_UH.shape, np.uint64)
    action_UH = np.zeros(low_UH.shape, np.uint8)
    time_UH = np.zeros(low_UH.shape, np.int64)
    for u in range(len(count_U)):
        last_s = last_s_U[u]
        for h in range(count_U[u]):
            item_UH[u, h] = np.uint64(low_UH[u, h]) | (np.uint64(high_UH[u, h]) << np.uint64(32))
            action_UH[u, h] = (pair_UG[u, h >> 1] >> (4 * (h & 1))) & 15
            k = np.int64(code_UH[u, h] >> 12)
            time_UH[u, h] = ((last_s >> k) - np.int64(code_UH[u, h] & 4095)) << k
    return item_UH, action_UH, time_UH


@kernel
def _pack(
    item_UH: NDArray[np.uint64],
    action_UH: NDArray[np.uint8],
    time_UH: NDArray[np.int64],
    count_U: NDArray[np.int32],
    last_s_U: NDArray[np.int64],
) -> tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint16]]:
    """The inverse of `_unpack`. Times fall along a history, so their exponent only rises."""
    low_UH = np.zeros(item_UH.shape, np.uint32)
    high_UH = np.zeros(item_UH.shape, np.uint8)
    pair_UG = np.zeros((len(count_U), HISTORY // 2), np.uint8)
    code_UH = np.zeros(item_UH.shape, np.uint16)
    for u in range(len(count_U)):
        last_s, k = last_s_U[u], 0
        for h in range(count_U[u]):
            time_s = time_UH[u, h]
            while k < 15 and (last_s >> k) - (time_s >> k) > 4095:
                k += 1
            low_UH[u, h] = np.uint32(item_UH[u, h] & np.uint64(0xFFFFFFFF))
            high_UH[u, h] = np.uint8(item_UH[u, h] >> np.uint64(32))
            pair_UG[u, h >> 1] |= (action_UH[u, h] & 15) << (4 * (h & 1))
            code_UH[u, h] = k << 12 | min((last_s >> k) - (time_s >> k), 4095)
    return low_UH, high_UH, pair_UG, code_UH
