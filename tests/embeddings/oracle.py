"""What a user's state must be after a log: lists, sorting and nothing of the code under test.

Events are (source, offset, time_s, item, action, dedupe), one user's, in the order of arrival; refused ones left out.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

HISTORY, RING = 50, 8
TOUCHING = {1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13}
VIEW, PROGRESS, COMPLETE, LIKE, UNLIKE, ADD, REMOVE = 1, 3, 4, 6, 8, 9, 10
LIKES, DISLIKES, TAKING_BACK = {LIKE, ADD, 11, 12}, {5, 7, 13}, {UNLIKE, REMOVE}
SITTING_S = 4 * 3600 - 32
IMPRESSION, CLICK = 16, 18
SHOWN, SHOWN_HALF_LIFE_S = 64, 3 * 86_400


class Event(NamedTuple):
    source: int
    offset: int
    time_s: int
    item: int
    action: int
    dedupe: int
    share: int = 0


@dataclass
class Person:
    """All that is known, nothing forgotten; what a state keeps of it is derived below."""

    applied: list[Event] = field(default_factory=list)
    last_s: int = 0
    marks: list[tuple[int, int]] = field(default_factory=list)
    entries: dict[int, tuple[int, int, Event]] = field(default_factory=dict)
    """By item: event time, arrival, and the event that put it there, with the action that its entry says."""
    unanswered: dict[int, int] = field(default_factory=dict)
    """By item: the second at which its impressions come to one."""

    def meet(self, event: Event, lateness_s: int) -> str:
        """The fate of one more event."""
        known = dict(self.marks)
        if event.offset <= known.get(event.source, -1):
            return "replayed"
        self.marks = [(event.source, event.offset), *(mark for mark in self.marks if mark[0] != event.source)][:2]
        if event.dedupe and event.dedupe in [past.dedupe for past in self.applied if past.dedupe][-RING:]:
            return "duplicate"
        if event.time_s < self.last_s - lateness_s:
            return "late"
        self._touch(event)
        self.applied.append(event)
        self.last_s = max(self.last_s, event.time_s)
        self.unanswered = self.shown()
        if event.action == IMPRESSION and event.item:
            self._show(event.item, event.time_s)
        elif event.action in TOUCHING | {CLICK}:
            self.unanswered.pop(event.item, None)
        return "applied"

    def shown(self) -> dict[int, int]:
        """What was shown and not answered, without what has faded to less than a sixteenth."""
        return {i: once for i, once in self.unanswered.items() if once >= self.last_s - 4 * SHOWN_HALF_LIFE_S}

    def _show(self, item: int, time_s: int) -> None:
        shown, half = self.unanswered, SHOWN_HALF_LIFE_S
        if item in shown:
            early, late = sorted((shown[item], time_s))
            shown[item] = min(late + round(half * math.log2(1 + 2 ** ((early - late) / half))), 2**32 - 1)
            return
        if len(shown) == SHOWN:
            least = min(shown, key=lambda held: shown[held])
            if shown[least] >= time_s - half:
                shown[least] = max(shown[least] - half, 0)
                return
            del shown[least]
        shown[item] = time_s

    def _touch(self, event: Event) -> None:
        held = next((entry for entry in self.all_items()[:HISTORY] if entry.item == event.item), None)
        if held is None:
            if event.action in TOUCHING and event.item:
                older = self.entries.get(event.item)
                self.entries[event.item] = max(older or (-1, -1, event), (event.time_s, len(self.applied), event))
            return
        same = abs(event.time_s - stored(held.time_s, self.last_s)) < SITTING_S
        place = self.entries[event.item][:2]
        if event.time_s < held.time_s:
            said = says(event.action, held.action, same) if event.action in TOUCHING else held.action
            self.entries[event.item] = (*place, held._replace(action=said))
        elif event.action in TAKING_BACK:
            self.entries[event.item] = (*place, held._replace(action=says(held.action, event.action, same)))
        elif event.action in TOUCHING:
            said = says(held.action, event.action, same)
            said_event = event._replace(action=said, share=event.share or held.share)
            self.entries[event.item] = event.time_s, len(self.applied), said_event

    def all_items(self) -> list[Event]:
        """Every item that was touched and what is said of it, latest first; of equal times the last to arrive."""
        return [event for _, _, event in sorted(self.entries.values(), reverse=True)]

    def history(self) -> list[tuple[int, int, int, int]]:
        """(item, action, stored time, share watched) of the last 50."""
        return [
            (event.item, event.action, stored(event.time_s, self.last_s), event.share)
            for event in self.all_items()[:HISTORY]
        ]

    def ring(self) -> list[int]:
        """The last eight ids, latest first, filled with zeros."""
        return ([event.dedupe for event in self.applied if event.dedupe][::-1] + [0] * RING)[:RING]


def stored(time_s: int, last_s: int) -> int:
    """A time as a state keeps it: 4,096 steps back from the latest, of the smallest power of two that reaches."""
    for k in range(16):
        back = last_s // 2**k - time_s // 2**k
        if back < 4096:
            return (last_s // 2**k - back) * 2**k
    return (last_s // 2**15 - 4095) * 2**15


def says(earlier: int, later: int, same_sitting: bool) -> int:
    """What an item's entry says after two actions."""
    if later in TAKING_BACK:
        return VIEW if (earlier, later) in {(LIKE, UNLIKE), (ADD, REMOVE)} else earlier
    liked = earlier in LIKES and later not in LIKES | DISLIKES
    liked = liked or (earlier in {LIKE, ADD} and later in LIKES - {LIKE, ADD})
    return earlier if liked or (earlier in DISLIKES and later in {PROGRESS, COMPLETE} and same_sitting) else later


def lives(log: list[tuple[str, Event]], lateness_s: int) -> tuple[dict[str, Person], list[str]]:
    """Every user's `Person` after a log, and the fate of every event."""
    people: dict[str, Person] = {}
    fates = [people.setdefault(user, Person()).meet(event, lateness_s) for user, event in log]
    return people, fates
