"""Which impression earned which outcome: the labels of the pointwise heads, and the counts behind the click rate.

A published slate is not an impression; an `impression` event is. Its label is whether the same person clicked, played
or completed the item within the window, in the event time of their partition. It is of an item, or of a slate and a
slot: then it is of the item shown there. Every impression whose window closed is counted, answered or not, so that an
item's click rate is the rate of what the click head learns; one whose slate is known (told, and not too old) teaches
the heads too.

What is held is bounded. A slate too many pushes out the oldest. An impression too many is not taken up: one that was
closed before its time would be a label that is wrong. Both are told (`dropped`).
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.events import Says, Source, actions_that
from streams.learning.shown_slates import ShownSlates

_SHOWN, _ENGAGED, _COMPLETED = (actions_that(say) for say in (Says.shown, Says.engaged, Says.completed))
_ANSWERED, _THROUGH, _TAUGHT = 1, 2, 4
_SLATES = "slates."
Arrays = Mapping[str, NDArray[np.generic]]


class Labelled(NamedTuple):
    """C impressions whose window has closed, and what T of them teach.

    Attributes:
        item_C: what was shown.
        shown_s_C: when.
        engaged_C: did the person go for it?
        completed_C: and through to the end?
        taught_T: which of them are of a slate that is known.
        x_TF: features as used.
        place_T: where in the slate they stood, 0 is the first place.
        surface_T: the codes that came with the impressions, of where that was.
        propensity_T: with which probability they stood there.
    """

    item_C: NDArray[np.uint64]
    shown_s_C: NDArray[np.int64]
    engaged_C: NDArray[np.bool_]
    completed_C: NDArray[np.bool_]
    taught_T: NDArray[np.intp]
    x_TF: NDArray[np.float32]
    place_T: NDArray[np.int64]
    surface_T: NDArray[np.int64]
    propensity_T: NDArray[np.float32]


@dataclass(slots=True)
class _Impression:
    """Features are bytes, none where the slate is not known: an array each would cost three times as much."""

    item: int
    shown_s: int
    x: bytes = b""
    place: int = 0
    surface: int = 0
    engaged: bool = False
    completed: bool = False
    propensity: float = 1.0


@dataclass(slots=True)
class _Partition:
    """Open impressions of a partition by person and item, oldest first; its clock is its latest event time."""

    clock_s: int = 0
    open: OrderedDict[tuple[int, int], _Impression] = field(default_factory=OrderedDict)


@dataclass(slots=True)
class Attribution:
    """Joins shown slates, impressions and outcomes; holds at most `slates` slates and `impressions` open ones.

    The slates have at most `places` items together. What comes out depends on the rows of each partition and their
    order, not on how they are cut into batches, nor on restarts.
    """

    window_s: int
    slates: int = 50_000
    places: int = 1_000_000
    impressions: int = 500_000
    shown: ShownSlates = field(init=False)
    """The slates that are known: an impression of one finds the features that were used."""
    dropped: int = 0
    """How many impressions were, since `take_dropped`."""
    _of: dict[Source, _Partition] = field(default_factory=dict)
    _held: int = 0

    def __post_init__(self) -> None:
        self.shown = ShownSlates(self.slates, self.places)

    def take_dropped(self) -> dict[str, int]:
        """How many slates and impressions were dropped since the last call."""
        dropped = {"slates": self.shown.dropped, "impressions": self.dropped}
        self.shown.dropped = self.dropped = 0
        return dropped

    def happen(
        self,
        source: Source,
        user_R: NDArray[np.uint64],
        item_R: NDArray[np.uint64],
        action_R: NDArray[np.uint8],
        slate_R: NDArray[np.uint64],
        slot_R: NDArray[np.integer],
        time_s_R: NDArray[np.int64],
        surface_R: NDArray[np.integer],
    ) -> Labelled:
        """Take R events of a partition, in order; returns the impressions whose window closed before the last of them.

        `item_R` is 0 and `slot_R` below 0 where an event names none. `surface_R` is a code of where it happened.
        """
        of_interest_R = (_ENGAGED | _SHOWN)[action_R] & ((item_R != 0) | ((slate_R != 0) & (slot_R >= 0)))
        partition = self._of.setdefault(source, _Partition())
        clock_s_R = np.maximum.accumulate(np.maximum(time_s_R, partition.clock_s))
        closed: list[_Impression] = []
        columns = user_R, item_R, action_R, slate_R, slot_R, time_s_R, clock_s_R, surface_R
        rows = np.flatnonzero(of_interest_R)
        for row in zip(*(column[rows].tolist() for column in columns), strict=True):
            user, item, action, slate, slot, time_s, clock_s, surface = row
            self._close(partition, clock_s, closed)
            key = user, item or self._shown_in(slate, slot)
            if not key[1]:
                continue
            found = partition.open.get(key)
            if found is not None and found.shown_s + self.window_s < clock_s:  # one behind it closes later
                closed.append(partition.open.pop(key))
                self._held, found = self._held - 1, None
            if _SHOWN[action]:
                self._impress(partition, key, slate, found or _Impression(key[1], time_s, surface=surface))
            elif found is not None and time_s <= found.shown_s + self.window_s:
                found.engaged = True
                found.completed |= bool(_COMPLETED[action])
        partition.clock_s = int(clock_s_R[-1]) if len(clock_s_R) else partition.clock_s
        self._close(partition, partition.clock_s, closed)
        return _labelled(closed)

    def _shown_in(self, slate: int, slot: int) -> int:
        """The item in a slot, 0 where that is not known."""
        known = self.shown.find(slate)
        return int(known.item_N[slot]) if known is not None and 0 <= slot < len(known.item_N) else 0

    def _impress(self, partition: _Partition, key: tuple[int, int], slate: int, impression: _Impression) -> None:
        """Take up an impression, or what another of the same item in a slate that is known says of it."""
        if key not in partition.open:
            if self._held >= self.impressions:
                self.dropped += 1
                return
            partition.open[key] = impression
            self._held += 1
        known = self.shown.find(slate)
        if known is None or impression.x or impression.engaged:
            return
        at = np.flatnonzero(known.item_N == key[1])
        if len(at):
            impression.place = int(at[0])
            impression.x = known.x_NF[impression.place].tobytes()
            impression.propensity = float(known.propensity_N[impression.place])

    def _close(self, partition: _Partition, now_s: int, closed: list[_Impression]) -> None:
        while partition.open:
            key = next(iter(partition.open))
            if partition.open[key].shown_s + self.window_s >= now_s:
                break
            closed.append(partition.open.pop(key))
            self._held -= 1

    def state(self) -> tuple[dict[str, NDArray[np.generic]], list[list[Any]]]:
        """What is open and which slates are known, to go on from: arrays, and partitions with their clocks."""
        open_K = [(p, *each) for p, of in enumerate(self._of.values()) for each in of.open.items()]
        held = [each for _, _, each in open_K]
        flag_K = [e.engaged * _ANSWERED + e.completed * _THROUGH + bool(e.x) * _TAUGHT for e in held]
        arrays: dict[str, NDArray[np.generic]] = {
            "partition": np.array([p for p, _, _ in open_K], np.int32),
            "user": np.array([user for _, (user, _), _ in open_K], np.uint64),
            "item": np.array([item for _, (_, item), _ in open_K], np.uint64),
            "shown_s": np.array([e.shown_s for e in held], np.int64),
            "place": np.array([e.place for e in held], np.int32),
            "surface": np.array([e.surface for e in held], np.int32),
            "flags": np.array(flag_K, np.uint8),
            "propensity": np.array([e.propensity for e in held], np.float32),
            "x": np.frombuffer(b"".join(e.x for e in held), np.float16).copy(),
        }
        arrays |= {f"{_SLATES}{name}": array for name, array in self.shown.state().items()}
        return arrays, [[*source, of.clock_s] for source, of in self._of.items()]

    def restore(self, arrays: Arrays, clocks: list[list[Any]], features: int) -> None:
        """Go on from a `state`; where it has another number of features than there are, it teaches nothing.

        One of an earlier release knows no slates.
        """
        if slates := {name.removeprefix(_SLATES): a for name, a in arrays.items() if name.startswith(_SLATES)}:
            self.shown.restore(slates, features)
        sources = [Source(topic, p) for topic, p, _ in clocks]
        self._of = {source: _Partition(clock[2]) for source, clock in zip(sources, clocks, strict=True)}
        names = "partition", "user", "item", "shown_s", "place", "surface", "flags", "propensity"
        before = {"propensity": np.ones(len(arrays["user"]), np.float32)}  # earlier releases drew nothing by chance
        columns = [{**before, **arrays}[name].tolist() for name in names]
        taught, x, at = int((arrays["flags"].astype(np.uint8) & _TAUGHT != 0).sum()), arrays["x"].tobytes(), 0
        width = 2 * features * (len(x) == 2 * features * taught)
        for p, user, item, shown_s, place, surface, flags, propensity in zip(*columns, strict=True):
            end = at + width * bool(flags & _TAUGHT)
            answered, through = bool(flags & _ANSWERED), bool(flags & _THROUGH)
            held = _Impression(item, shown_s, x[at:end], place, surface, answered, through, propensity)
            self._of[sources[p]].open[user, item] = held
            at = end
        self._held = len(columns[0])


def _labelled(closed: list[_Impression]) -> Labelled:
    taught = [n for n, each in enumerate(closed) if each.x]
    x_TF = np.frombuffer(b"".join(closed[n].x for n in taught), np.float16).reshape(len(taught), -1 if taught else 0)
    return Labelled(
        np.array([each.item for each in closed], np.uint64),
        np.array([each.shown_s for each in closed], np.int64),
        np.array([each.engaged for each in closed], np.bool_),
        np.array([each.completed for each in closed], np.bool_),
        np.array(taught, np.intp),
        x_TF.astype(np.float32),
        np.array([closed[n].place for n in taught], np.int64),
        np.array([closed[n].surface for n in taught], np.int64),
        np.array([closed[n].propensity for n in taught], np.float32),
    )
