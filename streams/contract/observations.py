"""What a worker tells the learner about a batch: one packed columnar record per input partition.

A row is an applied event; a *take* is a row that takes, likes or dislikes, told with the items held before it;
an *example* is a take with the features of the taken item and of a sample of its candidates at one of the two moments
that are served: the take's own, as a request would have asked, or that of the event before, as its slate was written.
A *shown* slate carries the features of its items, so that an impression can become a label later; so does an *ad* that
was decided for a slot. Rows are in offset order, and the learner drops those at or below the last offset it has of that
partition.

Version 2. Version 1 is read; what it and earlier releases of version 2 do not say is filled in: `_UNSAID`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embeddings.events import Source

_VERSION = 2
MOST_BYTES = 512 * 1024
"""Larger observations are told in pieces: the smallest limit that topics and brokers have is 1 MiB."""
AT_TAKE, AT_EVENT = 0, 1
"""The moments of an example: that of the take, that of the event before it."""
NO_SLOT = -1
_OLDEST_S = 2**33


class UnreadableObservation(Exception):
    """A record on `observations` is not one of ours. The learner puts it aside and goes on."""


class LaterObservation(UnreadableObservation):
    """A later release wrote it. The learner ends before it loses rows; start one of that release."""


def _none(name: str) -> Callable[[], NDArray[Any]]:
    """What makes a column without rows."""
    return lambda: np.zeros([0] * len(_letters(name)), _COLUMNS[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One batch of one partition: R rows, T takes, E examples of S items and F features, L shown slates of N items.

    Item, user and slate ids are hashes. There may be no rows where slates were shown. A ads were decided, O outcomes
    are told apart (`ranking.ads.features.OUTCOMES`), a taste has D components.

    Attributes:
        source: the input partition, `first` and `last` the offsets told.
        log: which log the offsets are of, empty where that is not known.
        names: what some of the items are called.
        value_R: what the event says beside its action: a rating, or the share that was watched.
        slate_R: the slate that the event names, 0 = none; `slot_R` the place in it, `NO_SLOT` = none.
        kind_R: what the item is, `streams.serving.values.Kind`.
        context_RC: keys of where it happened (`embeddings.contexts`); no columns where an earlier release told it.
        take_T: rows that teach something beside what was held; those of items not held took something new.
        history_TH: what was held before, latest first, 0-padded.
        history_action_TH: the action that put it there, 0 = not known.
        history_time_s_TH: its event time, to about a hundredth of how long ago it was; 0 = not known.
        example_E: rows that are told with features.
        example_item_ES: slot 0 the item taken, the others a sample of the candidates, 0 = none.
        log_q_ES: log probability of a candidate being in the sample.
        moment_E: `AT_TAKE` or `AT_EVENT`.
        policy_E: hash of the policy, 0 = not known; `rate_E` the share of takes that are told.
        shown_L: slates; `shown_item_LN` their items in order, `policy_L` and `rate_L` as above.
        shown_propensity_LN: with which probability the item stood in its place.
        ad_A: decisions, hashed as slates are: events of the ad name them in `slate_R`.
        ad_item_A: creatives; `ad_advertiser_A` and `ad_placement_A` hashes, 0 = none.
        ad_x_AF: columns of `ranking.ads.features`; `ad_taste_AD` directions of tastes, zeros where none may be used.
        ad_p_AO: chances per impression as they were told then; `ad_propensity_A` that of the ad being shown.
        ad_click_s_A: how long after a click a conversion is the ad's; `ad_view_s_A` after an impression.
    """

    source: Source
    first: int
    last: int
    log: str = ""
    names: dict[int, str] = field(default_factory=dict)
    offset_R: NDArray[np.int64]
    user_R: NDArray[np.uint64]
    item_R: NDArray[np.uint64]
    action_R: NDArray[np.uint8]
    value_R: NDArray[np.float32]
    time_s_R: NDArray[np.int64]
    consent_R: NDArray[np.uint8]
    slate_R: NDArray[np.uint64]
    slot_R: NDArray[np.int16]
    kind_R: NDArray[np.uint8]
    context_RC: NDArray[np.uint16]
    take_T: NDArray[np.int32]
    history_TH: NDArray[np.uint64]
    history_action_TH: NDArray[np.uint8]
    history_time_s_TH: NDArray[np.int64]
    example_E: NDArray[np.int32]
    example_item_ES: NDArray[np.uint64]
    example_x_ESF: NDArray[np.float16]
    log_q_ES: NDArray[np.float16]
    moment_E: NDArray[np.uint8]
    policy_E: NDArray[np.uint32]
    rate_E: NDArray[np.float32]
    shown_L: NDArray[np.uint64]
    shown_item_LN: NDArray[np.uint64]
    shown_x_LNF: NDArray[np.float16]
    shown_propensity_LN: NDArray[np.float16]
    policy_L: NDArray[np.uint32]
    rate_L: NDArray[np.float32]
    ad_A: NDArray[np.uint64] = field(default_factory=_none("ad_A"))
    ad_item_A: NDArray[np.uint64] = field(default_factory=_none("ad_item_A"))
    ad_advertiser_A: NDArray[np.uint32] = field(default_factory=_none("ad_advertiser_A"))
    ad_placement_A: NDArray[np.uint32] = field(default_factory=_none("ad_placement_A"))
    ad_x_AF: NDArray[np.float16] = field(default_factory=_none("ad_x_AF"))
    ad_taste_AD: NDArray[np.float16] = field(default_factory=_none("ad_taste_AD"))
    ad_p_AO: NDArray[np.float32] = field(default_factory=_none("ad_p_AO"))
    ad_propensity_A: NDArray[np.float32] = field(default_factory=_none("ad_propensity_A"))
    ad_click_s_A: NDArray[np.int32] = field(default_factory=_none("ad_click_s_A"))
    ad_view_s_A: NDArray[np.int32] = field(default_factory=_none("ad_view_s_A"))

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
    "slot_R": "<i2",
    "kind_R": "|u1",
    "context_RC": "<u2",
    "take_T": "<i4",
    "history_TH": "<u8",
    "history_action_TH": "|u1",
    "history_time_s_TH": "<i8",
    "example_E": "<i4",
    "example_item_ES": "<u8",
    "example_x_ESF": "<f2",
    "log_q_ES": "<f2",
    "moment_E": "|u1",
    "policy_E": "<u4",
    "rate_E": "<f4",
    "shown_L": "<u8",
    "shown_item_LN": "<u8",
    "shown_x_LNF": "<f2",
    "shown_propensity_LN": "<f2",
    "policy_L": "<u4",
    "rate_L": "<f4",
    "ad_A": "<u8",
    "ad_item_A": "<u8",
    "ad_advertiser_A": "<u4",
    "ad_placement_A": "<u4",
    "ad_x_AF": "<f2",
    "ad_taste_AD": "<f2",
    "ad_p_AO": "<f4",
    "ad_propensity_A": "<f4",
    "ad_click_s_A": "<i4",
    "ad_view_s_A": "<i4",
}
_ADS = tuple(name for name in _COLUMNS if name.startswith("ad_"))
_UNSAID = {
    "slot_R": NO_SLOT,
    "kind_R": 0,
    "context_RC": 0,
    "history_action_TH": 0,
    "history_time_s_TH": 0,
    "moment_E": AT_TAKE,
    "policy_E": 0,
    "rate_E": 1,
    "shown_propensity_LN": 1,
    "policy_L": 0,
    "rate_L": 1,
    **dict.fromkeys(_ADS, 0),
}
"""What the columns are that earlier releases had not."""
_HISTORY = ("history_TH", "history_action_TH", "history_time_s_TH")
_encoder = msgspec.msgpack.Encoder()
_parts = msgspec.msgpack.Decoder(list[msgspec.Raw])
_place = msgspec.msgpack.Decoder(tuple[int, str, int, int, int])
_packed = msgspec.msgpack.Decoder(tuple[dict[int, str], dict[str, tuple[str, list[int], bytes]]])


def blank(**sizes: int) -> dict[str, NDArray[Any]]:
    """All columns of an observation as zeros, of these sizes by the letters of their axes, 0 where none is given."""
    return {
        name: np.zeros([sizes.get(letter, 0) for letter in _letters(name)], kind) for name, kind in _COLUMNS.items()
    }


def encode(observation: Observation) -> bytes:
    """Pack an observation; a history costs 8 bytes an item, as far as it is filled."""
    o = observation
    apart = (*_HISTORY, *_ADS) if not len(o.ad_A) else _HISTORY
    columns = {name: _bytes(getattr(o, name)) for name in _COLUMNS if name not in apart}
    held_TH = o.history_TH != 0
    columns["history_count_T"] = _bytes(held_TH.sum(1).astype(np.uint8))
    id_X = np.ascontiguousarray(o.history_TH[held_TH]).view(np.uint8).reshape(-1, 8)[:, :5]
    columns["history_TH"] = ("|u1", list(o.history_TH.shape), id_X.tobytes())
    columns["history_action_TH"] = _bytes(o.history_action_TH[held_TH])
    age_TH = o.time_s_R[o.take_T, None] - o.history_time_s_TH if len(o.take_T) else o.history_time_s_TH
    columns["history_age_TH"] = _bytes(_halved(age_TH[held_TH]))
    if o.log:
        columns["log"] = ("|u1", [len(o.log.encode())], o.log.encode())
    return _encoder.encode((_VERSION, *o.source, o.first, o.last, o.names, columns))


def _bytes(array: NDArray[Any]) -> tuple[str, list[int], bytes]:
    return array.dtype.str, list(array.shape), array.tobytes()


def _halved(age_X: NDArray[np.int64]) -> NDArray[np.uint16]:
    """The upper halves of single-precision numbers: to 1/256, which is seconds of a sitting and days of a year."""
    bits_X = age_X.astype(np.float32).view(np.uint32)
    return ((bits_X + np.uint32(0x8000)) >> np.uint32(16)).astype(np.uint16)


def _whole(half_X: NDArray[np.uint16]) -> NDArray[np.int64]:
    """The inverse of `_halved`, in whole seconds."""
    age_X = (half_X.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if not np.isfinite(age_X).all() or np.abs(age_X).max(initial=0) > _OLDEST_S:
        raise ValueError
    return np.rint(age_X).astype(np.int64)


def pieces(observation: Observation, most_bytes: int = MOST_BYTES) -> Iterator[bytes]:
    """Pack an observation, its rows in as many pieces as it takes for each to be no larger than `most_bytes`."""
    o, value = observation, encode(observation)
    sizes = len(o), len(o.shown_L), len(o.ad_A)
    if len(value) <= most_bytes or max(sizes) < 2:
        yield value
        return
    yield from pieces(_some(o, *(slice(0, size // 2) for size in sizes)), most_bytes)
    yield from pieces(_some(o, *(slice(size // 2, size) for size in sizes)), most_bytes)


def _some(o: Observation, rows: slice, shown: slice, ads: slice) -> Observation:
    """Some rows of an observation with their takes and examples, some of the slates shown and of the ads."""
    T, E = ((rows.start <= of) & (of < rows.stop) for of in (o.take_T, o.example_E))
    of_letter: dict[str, Any] = {"R": rows, "T": T, "E": E, "L": shown, "A": ads}
    cut = {name: getattr(o, name)[of_letter[_letters(name)[0]]] for name in _COLUMNS}
    cut["take_T"], cut["example_E"] = (cut[name] - np.int32(rows.start) for name in ("take_T", "example_E"))
    offset_R = cut["offset_R"]
    return replace(
        o,
        first=int(offset_R[0]) if len(offset_R) else o.first,
        last=int(offset_R[-1]) if len(offset_R) else o.first,
        names={item: o.names[item] for item in set(cut["item_R"].tolist()) & o.names.keys()},
        **cut,
    )


def decode(value: bytes) -> Observation:
    """Unpack what `encode` packed, or what version 1 did.

    Raises:
        LaterObservation: of a later release. The learner ends before it loses rows.
        UnreadableObservation: not ours, or cut short. It is dead-lettered.
    """
    try:
        parts = _parts.decode(value)
        version, topic, partition, first, last = _place.decode(_encoder.encode(parts[:5]))
        if version > _VERSION:
            raise LaterObservation(f"observation version {version}; this release reads {_VERSION}")
        if version < 1 or len(parts) != (8 if version == 1 else 7):
            raise ValueError
        names, packed = _packed.decode(_encoder.encode(parts[-2:]))
        columns = _columns(packed)
        log = packed["log"][2].decode() if "log" in packed else ""
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError, IndexError) as error:
        raise UnreadableObservation(f"not an observation: {type(error).__name__}") from error
    _check(columns, first, last)
    return Observation(source=Source(topic, partition), first=first, last=last, log=log, names=names, **columns)


def _columns(packed: Mapping[str, tuple[str, list[int], bytes]]) -> dict[str, NDArray[Any]]:
    columns = {
        name: _column(*packed[name], kind)
        for name, kind in _COLUMNS.items()
        if name not in _HISTORY and (name in packed or name not in _UNSAID)
    }
    held_TH = _held(packed["history_TH"][1], _column(*packed["history_count_T"], "|u1"))
    columns["history_TH"] = _histories(packed["history_TH"][2], held_TH)
    if "history_age_TH" in packed:
        action_X, age_X = _column(*packed["history_action_TH"], "|u1"), _column(*packed["history_age_TH"], "<u2")
        columns["history_action_TH"] = _filled(held_TH, action_X)
        time_s_TH = columns["time_s_R"][columns["take_T"], None] - _filled(held_TH, _whole(age_X))
        columns["history_time_s_TH"] = np.where(held_TH, time_s_TH, 0)
    sizes = {
        letter: size
        for name, array in columns.items()
        for letter, size in zip(_letters(name), array.shape, strict=True)
    }
    for name in _UNSAID.keys() - columns.keys():
        shape = [sizes.get(letter, 0) for letter in _letters(name)]
        columns[name] = np.full(shape, _UNSAID[name], _COLUMNS[name])
    return columns


def _letters(name: str) -> str:
    """What the axes of a column are."""
    return name.rpartition("_")[2]


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
        letters = _letters(name)
        if len(letters) != array.ndim or any(
            sizes.setdefault(letter, size) != size for letter, size in zip(letters, array.shape, strict=True)
        ):
            raise UnreadableObservation(f"{name} has shape {array.shape} beside sizes {sizes}")
    offset_R, rows = columns["offset_R"], sizes["R"]
    ends = (offset_R[0], offset_R[-1]) if rows else (first, max(first, last))
    if (first, last) != ends or (np.diff(offset_R) <= 0).any() or first < 0 or not (rows or sizes["L"] or sizes["A"]):
        raise UnreadableObservation("its offsets are not in order")
    for name in ("take_T", "example_E"):
        if columns[name].min(initial=0) < 0 or columns[name].max(initial=-1) >= rows:
            raise UnreadableObservation(f"{name} names rows that are not there")


def _held(shape: list[int], filled_T: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which places of T histories are filled."""
    takes, held = shape
    if takes != len(filled_T) or not 0 <= held <= 255:
        raise ValueError
    held_TH: NDArray[np.bool_] = np.arange(held) < filled_T[:, None]
    return held_TH


def _histories(data: bytes, held_TH: NDArray[np.bool_]) -> NDArray[np.uint64]:
    wide = np.zeros((len(data) // 5, 8), np.uint8)
    wide[:, :5] = np.frombuffer(data, np.uint8).reshape(-1, 5)
    return _filled(held_TH, wide.view(np.uint64).ravel())


def _filled(held_TH: NDArray[np.bool_], value_X: NDArray[Any]) -> NDArray[Any]:
    """Values in the places that are filled, 0 elsewhere. Shape (T, H).

    Raises:
        ValueError: there are more or fewer.
    """
    if value_X.shape != (int(held_TH.sum()),):
        raise ValueError
    value_TH = np.zeros(held_TH.shape, value_X.dtype)
    value_TH[held_TH] = value_X
    return value_TH
