"""Decisions about ads and what became of them: which impression earned which click, completed view and conversion.

A decision is told once, its events name it. A click answers its impression. A conversion is the ad's where it comes
within the click window after a click, else within the view window after the impression: click over view; of several
touches it is of the one that the event names, and of several events with one `conversion_id` the first is told. The
decisions held are the latest: an outcome that comes later than so many others were decided is not learned.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.events import Action, Source
from ranking.ads.features import OUTCOMES
from streams.contract.observations import Observation

Arrays = Mapping[str, NDArray[np.generic]]
_TOLD = ("ad_item_A", "ad_advertiser_A", "ad_placement_A", "ad_x_AF", "ad_taste_AD", "ad_p_AO")
_WINDOWS = ("ad_click_s_A", "ad_view_s_A")
_FIRST = 1 << 10
LATE_S = 86_400
"""So long after an impression a click or a completed view that comes late is still learned."""


class Flag(IntFlag):
    """What is known of a decision; outcomes are `1 << (place in OUTCOMES)`."""

    click = 1
    complete = 2
    conversion = 4
    told = 8
    shown = 16
    closed = 32


OF_OUTCOME = tuple(Flag[name] for name in OUTCOMES)
_OUTCOME_OF = {
    Action.ad_click: Flag.click,
    Action.ad_complete: Flag.complete,
    Action.ad_conversion: Flag.conversion,
}


class Happened(NamedTuple):
    """Places of decisions, good until the next are told: C whose impression has waited long enough, L late outcomes.

    An outcome that came in time is a flag of the place by then; `outcome_L` is the place in `OUTCOMES`. Every
    conversion is a late one, so that what it teaches does not depend on how late it is.
    """

    closed_C: NDArray[np.intp]
    late_L: NDArray[np.intp]
    outcome_L: NDArray[np.intp]


class AdImpressions:
    """At most `most` decisions, the oldest give way; an impression waits `window_s` of its partition's event time."""

    def __init__(self, window_s: int, most: int = 1 << 17) -> None:
        """Start with none."""
        self.window_s, self.most, self.dropped = window_s, most, 0
        self.columns: dict[str, NDArray[Any]] = {}
        self._place_of: dict[int, int] = {}
        self._next = 0
        self._open: dict[Source, deque[tuple[int, int]]] = {}
        self._clock_s: dict[Source, int] = {}
        self._begin()

    def _begin(self) -> None:
        """Know no decision."""
        self._place_of.clear()
        self._open.clear()
        self._next = 0
        kinds = {"name": np.uint64, "flags": np.uint8, "shown_s": np.int64, "clicked_s": np.int64}
        self.columns = {name: np.zeros(_FIRST, kind) for name, kind in kinds.items()}

    def __len__(self) -> int:
        return len(self._place_of)

    def show(self, o: Observation) -> None:
        """Remember the decisions that an observation tells; one that is known stays as it was told first."""
        self._fit(o)
        place_A = np.array([self._place(name) for name in o.ad_A.tolist()], np.intp)
        new_A = self.columns["flags"][place_A] & Flag.told == 0
        for name in (*_TOLD, *_WINDOWS):
            self.columns[name][place_A[new_A]] = getattr(o, name)[new_A]
        self.columns["flags"][place_A] |= np.uint8(Flag.told)

    def happen(
        self, source: Source, action_R: NDArray[np.uint8], slate_R: NDArray[np.uint64], time_s_R: NDArray[np.int64]
    ) -> Happened:
        """Take R events of a partition, in order; those that are of no ad only move the clock."""
        late: list[tuple[int, int]] = []
        clock_s = max(self._clock_s.get(source, 0), int(time_s_R.max(initial=0)))
        self._clock_s[source] = clock_s
        rows = np.flatnonzero((action_R >= Action.ad_complete) & (slate_R != 0))
        for action, name, time_s in zip(*(c[rows].tolist() for c in (action_R, slate_R, time_s_R)), strict=True):
            if action == Action.ad_impression or action in _OUTCOME_OF:
                self._take(source, Action(action), self._place(name), time_s, late)
        closed = self._close(source, clock_s)
        late += [(place, 2) for place in closed if self.columns["flags"][place] & Flag.conversion]
        told = [each for each in late if self.columns["flags"][each[0]] & Flag.told]
        return Happened(
            np.array([place for place in closed if self.columns["flags"][place] & Flag.told], np.intp),
            np.array([place for place, _ in told], np.intp),
            np.array([outcome for _, outcome in told], np.intp),
        )

    def _take(self, source: Source, action: Action, place: int, time_s: int, late: list[tuple[int, int]]) -> None:
        c = self.columns
        if action in (Action.ad_impression, Action.ad_click) and not c["flags"][place] & Flag.shown:
            c["flags"][place] |= Flag.shown
            c["shown_s"][place] = time_s
            self._open.setdefault(source, deque()).append((place, int(c["name"][place])))
        outcome = _OUTCOME_OF.get(action)
        if outcome is None or c["flags"][place] & outcome or not self._earned(place, outcome, time_s):
            return
        c["flags"][place] |= outcome
        if outcome is Flag.click:
            c["clicked_s"][place] = time_s
        if c["flags"][place] & Flag.closed:
            late.append((place, OF_OUTCOME.index(outcome)))

    def _earned(self, place: int, outcome: Flag, time_s: int) -> bool:
        """Is an outcome that of the decision, at this time?"""
        c = self.columns
        if not c["flags"][place] & Flag.shown:
            return False
        since_s = time_s - int(c["shown_s"][place])
        if outcome is not Flag.conversion:
            return since_s <= LATE_S
        if "ad_view_s_A" not in c:
            return False
        clicked = bool(c["flags"][place] & Flag.click)
        after_click = clicked and time_s - int(c["clicked_s"][place]) <= int(c["ad_click_s_A"][place])
        return after_click or since_s <= int(c["ad_view_s_A"][place])

    def _close(self, source: Source, clock_s: int) -> list[int]:
        """The places of impressions that have waited long enough."""
        waiting, closed = self._open.get(source), list[int]()
        while waiting:
            place, name = waiting[0]
            held = int(self.columns["name"][place]) == name
            if held and int(self.columns["shown_s"][place]) + self.window_s >= clock_s:
                break
            waiting.popleft()
            if held:
                self.columns["flags"][place] |= Flag.closed
                closed.append(place)
        return closed

    def _fit(self, o: Observation) -> None:
        """Have columns of the widths that are told; decisions of another width are forgotten."""
        width_D = o.ad_taste_AD.shape[1:]
        if "ad_taste_AD" in self.columns and self.columns["ad_taste_AD"].shape[1:] != width_D:
            self._begin()
        for name in (*_TOLD, *_WINDOWS):
            like = getattr(o, name)
            if name not in self.columns:
                self.columns[name] = np.zeros((len(self.columns["name"]), *like.shape[1:]), like.dtype)

    def _place(self, name: int) -> int:
        """Where a decision lies, a new place where it is not known."""
        place = self._place_of.get(name)
        if place is not None:
            return place
        if self._next == len(self.columns["name"]) < self.most:
            more = min(2 * self._next, self.most) - self._next
            for at, array in self.columns.items():
                self.columns[at] = np.concatenate((array, np.zeros((more, *array.shape[1:]), array.dtype)))
        place = self._next % self.most
        self._next = place + 1
        gone = int(self.columns["name"][place])
        if self._place_of.pop(gone, None) is not None:
            self.dropped += not self.columns["flags"][place] & Flag.closed
        for array in self.columns.values():
            array[place] = 0
        self.columns["name"][place] = name
        self._place_of[name] = place
        return place

    def labels(self, place_C: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which outcomes are known of decisions by now. Shape (C, O)."""
        label_CO: NDArray[np.bool_] = (self.columns["flags"][place_C][:, None] & np.array(OF_OUTCOME)) != 0
        return label_CO

    def closed(self) -> NDArray[np.intp]:
        """The places of all decisions that were told and shown and waited for."""
        wanted = Flag.told | Flag.closed
        return np.flatnonzero(self.columns["flags"] & wanted == wanted)

    def state(self) -> tuple[dict[str, NDArray[np.generic]], list[list[Any]]]:
        """Everything needed to go on: arrays, views, good until the next is told; partitions with their clocks."""
        used = min(max(self._place_of.values(), default=-1) + 1, len(self.columns["name"]))
        open_K = [(n, *each) for n, of in enumerate(self._clock_s) for each in self._open.get(of, ())]
        arrays: dict[str, NDArray[np.generic]] = {name: array[:used] for name, array in self.columns.items()}
        arrays["open"] = np.array(open_K, np.uint64).reshape(-1, 3)
        arrays["next"] = np.array([self._next], np.int64)
        return arrays, [[*source, clock_s] for source, clock_s in self._clock_s.items()]

    def restore(self, arrays: Arrays, clocks: Sequence[Sequence[Any]]) -> None:
        """Go on from a `state`."""
        held = {name: array for name, array in arrays.items() if name not in ("open", "next")}
        room = max(_FIRST, len(held["name"]))
        for name, array in held.items():
            self.columns[name] = np.zeros((room, *array.shape[1:]), array.dtype)
            self.columns[name][: len(array)] = array
        self._next = int(arrays["next"][0])
        names = self.columns["name"].tolist()
        self._place_of = {name: place for place, name in enumerate(names) if name}
        sources = [Source(topic, partition) for topic, partition, _ in clocks]
        self._clock_s = {source: clock[2] for source, clock in zip(sources, clocks, strict=True)}
        self._open = {}
        for n, place, name in arrays["open"].tolist():
            self._open.setdefault(sources[n], deque()).append((place, name))
