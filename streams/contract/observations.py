"""What a worker tells the learner about a batch: one packed columnar record per input partition.

A row is an applied event; a *take* is a row that put a new item into the history, told with the items held before it;
an *example* is a take with the features of the taken item and of a sample of its candidates as they were used; a
*shown* slate carries the features of its items, so that an impression can become a label later. Rows are in offset
order, and the learner drops those at or below the last offset it has of that partition.
"""

from dataclasses import dataclass, field, fields

import msgspec
import numpy as np
from numpy.typing import NDArray

from embeddings.events import Source

_VERSION = 1


class UnreadableObservation(Exception):
    """A record on `observations` is not one of ours, or of a later release. The learner stops: its log is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One batch of one partition: R rows, T takes, E examples of S items and F features, L shown slates of N items.

    `take_T` and `example_E` index rows; `history_TH` is latest first, 0-padded; slot 0 of an example is the item
    taken. `log_q_ES` is the log probability of a candidate being in the sample. Item, user and slate ids are hashes.
    """

    source: Source
    first: int
    last: int
    model_version: int = 0
    names: dict[int, str] = field(default_factory=dict)
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


_COLUMNS = tuple(f.name for f in fields(Observation) if f.name.rpartition("_")[2].isupper())
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
    return _encoder.encode((_VERSION, *o.source, o.first, o.last, o.model_version, o.names, columns))


def decode(value: bytes) -> Observation:
    """Unpack what `encode` packed.

    Raises:
        UnreadableObservation: not ours, cut short, or from a later release. The learner stops before it loses rows.
    """
    try:
        version, topic, partition, first, last, model_version, names, packed = _decoder.decode(value)
        if version != _VERSION:
            raise UnreadableObservation(f"observation version {version}; this release reads {_VERSION}")
        columns = {
            name: np.frombuffer(data, np.dtype(dtype)).reshape(shape)
            for name, (dtype, shape, data) in packed.items()
            if name != "history_TH"
        }
        columns["history_TH"] = _histories(packed["history_TH"], columns.pop("history_count_T"))
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError) as error:
        raise UnreadableObservation(str(error)) from error
    return Observation(
        source=Source(topic, partition),
        first=first,
        last=last,
        model_version=model_version,
        names=names,
        **{name: columns[name] for name in _COLUMNS},
    )


def _histories(packed: tuple[str, list[int], bytes], filled_T: NDArray[np.uint8]) -> NDArray[np.uint64]:
    _, shape, data = packed
    wide = np.zeros((len(data) // 5, 8), np.uint8)
    wide[:, :5] = np.frombuffer(data, np.uint8).reshape(-1, 5)
    history_TH = np.zeros(shape, np.uint64)
    history_TH[np.arange(shape[1]) < filled_T[:, None]] = wide.view(np.uint64).ravel()
    return history_TH
