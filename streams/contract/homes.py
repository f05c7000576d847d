"""By how many partitions records were judged: a person's partition is murmur2 of the id by a count that may grow.

A record that was right when it was written is foreign after its topic grew. Where it waits unread it is sent home.
Where it was folded long ago and the store has lost that, it is read again below the committed offset, where nothing is
sent home, because what was foreign then left then. So each partition keeps by which counts it was judged, from which
offset on, with its committed offset (`8@0 16@1200`): what never left is sent home now, what left is not folded here.

>>> homes, here = Homes(), Source("events", 1)
>>> homes.take(here, note="8@0", count=16, after=0, committed=1200)     # the store lost everything
>>> homes.note(here), homes.left(here, np.array([3, 3, 1200]), np.array([9, 2, 9])).tolist()
('8@0 16@1200', [False, True, True])
>>> homes.stored(here, 1199), homes.note(here)                          # it was sent home: it left
(None, '8+16@0 16@1200')
"""

import re
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from embeddings.events import Source

_NOTE = re.compile(r"[\d+]*\d@\d+( [\d+]*\d@\d+)*")
_Spans = list[tuple[int, tuple[int, ...]]]


@dataclass(slots=True)
class Homes:
    """The counts that the records of each partition were judged by."""

    _spans: dict[Source, _Spans] = field(default_factory=dict)
    """By partition: the offset from which on records were judged by some counts, and these; both ascending."""
    _again: dict[Source, tuple[int, int]] = field(default_factory=dict)
    """What is read and judged again: from this offset up to before that one."""

    def take(self, source: Source, *, note: str, count: int, after: int, committed: int) -> None:
        """A partition was assigned.

        Args:
            source: the partition.
            note: what was committed with its offset.
            count: how many partitions its topic has now.
            after: the offset after the last record that the store has.
            committed: the committed offset.
        """
        spans = _read(note)
        if not spans or spans[-1][1] != (count,):
            spans.append((max(after, committed, 0), (count,)))
        self._spans[source] = spans
        self._again.pop(source, None)
        if after < committed:
            self._again[source] = after, committed

    def note(self, source: Source) -> str:
        """What is to be committed with the partition's offset."""
        return " ".join(f"{'+'.join(map(str, by))}@{start}" for start, by in self._spans.get(source, ()))

    def changed(self, source: Source) -> bool:
        """Whether some records of a partition were judged by another count than today's."""
        spans = self._spans.get(source, [])
        return len(spans) > 1 or any(start > 0 for start, _ in spans)

    def left(self, source: Source, offset_B: NDArray[np.int64], hash_B: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which records were foreign when they were judged, and so were sent home; `hash_B` is murmur2 of the user.

        Of what was judged before anything was noted, a count that it is right by is taken for that of its time.
        """
        spans, here = self._spans.get(source, []), source.partition
        if not spans:
            return np.ones(len(offset_B), np.bool_)
        span_B = np.searchsorted([start for start, _ in spans], offset_B, "right") - 1
        left_B = np.zeros(len(offset_B), np.bool_)
        for n, (_, counts) in enumerate(spans):
            for count in counts:
                left_B |= (span_B == n) & (hash_B % count != here)
        if (span_B < 0).any():
            today = spans[-1][1][-1]
            any_B = [hash_B % (today >> n) == here for n in range(today.bit_length())]
            left_B |= (span_B < 0) & ~np.logical_or.reduce(any_B)
        return left_B

    def stored(self, source: Source, offset: int) -> None:
        """Everything up to an offset is stored: what was judged again by then was judged by today's count as well."""
        start, end = self._again.get(source, (0, 0))
        if not end or offset < end - 1:
            return
        del self._again[source]
        spans = self._spans[source]
        today = spans[-1][1][-1]
        cut = sorted({*(at for at, _ in spans), start})
        by = {at: next((counts for begin, counts in reversed(spans) if begin <= at), ()) for at in cut}
        again = {at: tuple(sorted({*counts, today})) for at, counts in by.items() if start <= at < end and counts}
        spans = [(at, counts) for at, counts in sorted({**by, **again}.items()) if counts]
        # a note holds 4,096 bytes: what was judged alike is one span, however often the store loses something
        self._spans[source] = [next(alike) for _, alike in groupby(spans, key=itemgetter(1))]


def _read(note: str) -> _Spans:
    """What `Homes.note` wrote; nothing where something else did."""
    if not _NOTE.fullmatch(note):
        return []
    spans = [each.partition("@") for each in note.split()]
    return sorted((int(at), tuple(max(int(n), 1) for n in counts.split("+") if n)) for counts, _, at in spans)
