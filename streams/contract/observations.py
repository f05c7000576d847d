"""What a worker tells the learner about a batch: one packed columnar record per input partition.

A row is an applied event; a *take* is a row that put a new item into the history, told with the items held before it;
an *example* is a take with the features of the taken item and of a sample of its candidates as they were used; a
*shown* slate carries the features of its items, so that an impression can become a label later. Rows are in offset
order, and the learner drops those at or below the last offset it has of that partition.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embeddings.events import Source

_VERSION = 1
MOST_BYTES = 512 * 1024
"""Larger observations are told in pieces: the smallest limit that topics and brokers have is 1 MiB."""


class UnreadableObservation(Exception):
    """A record on `observations` is not one of ours. The learner puts it aside and goes on."""


class LaterObservation(UnreadableObservation):
    """A later release wrote it. The learner ends before it loses rows; start one of that release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One batch of one partition: R rows, T takes, E examples of S items and F features, L shown slates of N items.

    `take_T` and `example_E` index rows; `history_TH` is latest first, 0-padded; slot 0 of an example is the item
    taken. `context_RC` are the keys of where a row happened (`embeddings.contexts`), none where an earlier release told
    it. `log_q_ES` is the log probability of a candidate being in the sample. Item, user and slate ids are hashes.
    `log` names the log that the offsets are of, empty where that is not known.
    """

    source: Source
    first: int
    last: int
    log: str = ""
    model_version: int = 0
    names: dict[int, str] = field(default_factory=dict)
    context_RC: NDArray[np.uint16] = field(default_factory=lambda: np.zeros((0, 0), np.uint16))
    offset_R: NDArray[np.int64]
    user_R: NDArray[np.uint64]
    item_R: NDArray[np.uint64]
    action_R: NDArray[np.uint8]
    value_R: NDArray[np.float32]
    time_s_R: NDArray[np.int64]
    consent_R: NDArray[np.uint8]
    slate_R: NDArray[np.uint64]
    take_T: NDArray[np.int32]
    history_TH: NDArray[np.uint64]
    example_E: NDArray[np.int32]
    example_item_ES: NDArray[np.uint64]
    example_x_ESF: NDArray[np.float16]
    log_q_ES: NDArray[np.float16]
    shown_L: NDArray[np.uint64]
    shown_item_LN: NDArray[np.uint64]
    shown_x_LNF: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.offset_R)


_COLUMNS = {
    "offset_R": "<i8",
    "user_R": "<u8",
    "item_R": "<u8",
    "action_R": "|u1",
    "value_R": "<f4",
    "time_s_R": "<i8",
    "consent_R": "|u1",
    "slate_R": "<u8",
    "take_T": "<i4",
    "history_TH": "<u8",
    "example_E": "<i4",
    "example_item_ES": "<u8",
    "example_x_ESF": "<f2",
    "log_q_ES": "<f2",
    "shown_L": "<u8",
    "shown_item_LN": "<u8",
    "shown_x_LNF": "<f2",
}
_CONTEXT = "context_RC"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(
    tuple[int, str, int, int, int, int, dict[int, str], dict[str, tuple[str, list[int], bytes]]]
)


def encode(observation: Observation) -> bytes:
    """Pack an observation; a history costs 5 bytes an item, as far as it is filled."""
    columns = {}
    for name in _COLUMNS:
        array = getattr(observation, name)
        if name == "history_TH":
            filled_T = (array != 0).sum(1).astype(np.uint8)
            flat = np.ascontiguousarray(array[array != 0]).view(np.uint8).reshape(-1, 8)[:, :5]
            columns["history_count_T"] = (filled_T.dtype.str, list(filled_T.shape), filled_T.tobytes())
            columns[name] = ("|u1", list(array.shape), flat.tobytes())
        else:
            columns[name] = (array.dtype.str, list(array.shape), array.tobytes())
    o = observation
    if o.log:  # beside the columns: earlier releases pass over what they do not know there
        columns["log"] = ("|u1", [len(o.log.encode())], o.log.encode())
    if o.context_RC.size:
        columns[_CONTEXT] = (o.context_RC.dtype.str, list(o.context_RC.shape), o.context_RC.tobytes())
    return _encoder.encode((_VERSION, *o.source, o.first, o.last, o.model_version, o.names, columns))


def pieces(observation: Observation, most_bytes: int = MOST_BYTES) -> Iterator[bytes]:
    """Pack an observation, its rows in as many pieces as it takes for each to be no larger than `most_bytes`."""
    value, rows = encode(observation), len(observation)
    if len(value) <= most_bytes or rows < 2:
        yield value
        return
    shown = len(observation.shown_L) // 2
    yield from pieces(_rows(observation, 0, rows // 2, slice(None, shown)), most_bytes)
    yield from pieces(_rows(observation, rows // 2, rows, slice(shown, None)), most_bytes)


def _rows(o: Observation, begin: int, end: int, shown: slice) -> Observation:
    """Some rows of an observation with their takes and examples, and some of the slates shown."""
    T, E = ((begin <= of) & (of < end) for of in (o.take_T, o.example_E))
    item_R = o.item_R[begin:end]
    return replace(
        o,
        first=int(o.offset_R[begin]),
        last=int(o.offset_R[end - 1]),
        names={item: o.names[item] for item in set(item_R.tolist()) & o.names.keys()},
        **{name: getattr(o, name)[begin:end] for name in _COLUMNS if name.endswith("_R")},
        take_T=o.take_T[T] - np.int32(begin),
        history_TH=o.history_TH[T],
        example_E=o.example_E[E] - np.int32(begin),
        example_item_ES=o.example_item_ES[E],
        example_x_ESF=o.example_x_ESF[E],
        log_q_ES=o.log_q_ES[E],
        context_RC=o.context_RC[begin:end],
        shown_L=o.shown_L[shown],
        shown_item_LN=o.shown_item_LN[shown],
        shown_x_LNF=o.shown_x_LNF[shown],
    )


def decode(value: bytes) -> Observation:
    """Unpack what `encode` packed.

    Raises:
        LaterObservation: of a later release. The learner ends before it loses rows.
        UnreadableObservation: not ours, or cut short. It is dead-lettered.
    """
    try:
        version, topic, partition, first, last, model_version, names, packed = _decoder.decode(value)
        if version > _VERSION:
            raise LaterObservation(f"observation version {version}; this release reads {_VERSION}")
        columns = {name: _column(*packed[name], kind) for name, kind in _COLUMNS.items() if name != "history_TH"}
        filled_T = _column(*packed["history_count_T"], "|u1")
        columns["history_TH"] = _histories(packed["history_TH"], filled_T)
        log = packed["log"][2].decode() if "log" in packed else ""
        rows = len(columns["offset_R"])
        context_RC = _column(*packed[_CONTEXT], "<u2") if _CONTEXT in packed else np.zeros((rows, 0), np.uint16)
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError) as error:
        raise UnreadableObservation(f"not an observation: {type(error).__name__}") from error
    _check(columns | {_CONTEXT: context_RC}, first, last)
    return Observation(
        source=Source(topic, partition),
        first=first,
        last=last,
        log=log,
        model_version=model_version,
        names=names,
        context_RC=context_RC,
        **columns,
    )


def _column(dtype: str, shape: list[int], data: bytes, kind: str) -> NDArray[Any]:
    if dtype != kind:
        raise ValueError
    return np.frombuffer(data, kind).reshape(shape)


def _check(columns: Mapping[str, NDArray[Any]], first: int, last: int) -> None:
    """See that columns agree on their sizes, rows are in order, and takes and examples are of rows that are there.

    Raises:
        UnreadableObservation: they do not.
    """
    sizes: dict[str, int] = {}
    for name, array in columns.items():
        letters = name.rpartition("_")[2]
        if len(letters) != array.ndim or any(
            sizes.setdefault(letter, size) != size for letter, size in zip(letters, array.shape, strict=True)
        ):
            raise UnreadableObservation(f"{name} has shape {array.shape} beside sizes {sizes}")
    offset_R, rows = columns["offset_R"], sizes["R"]
    if not rows or (first, last) != (offset_R[0], offset_R[-1]) or (np.diff(offset_R) <= 0).any() or first < 0:
        raise UnreadableObservation("its offsets are not in order")
    for name in ("take_T", "example_E"):
        if columns[name].min(initial=0) < 0 or columns[name].max(initial=-1) >= rows:
            raise UnreadableObservation(f"{name} names rows that are not there")


def _histories(packed: tuple[str, list[int], bytes], filled_T: NDArray[np.uint8]) -> NDArray[np.uint64]:
    _, (takes, held), data = packed
    if takes != len(filled_T) or not 0 <= held <= 255:
        raise ValueError
    wide = np.zeros((len(data) // 5, 8), np.uint8)
    wide[:, :5] = np.frombuffer(data, np.uint8).reshape(-1, 5)
    history_TH = np.zeros((takes, held), np.uint64)
    history_TH[np.arange(held) < filled_T[:, None]] = wide.view(np.uint64).ravel()
    return history_TH
