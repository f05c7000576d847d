"""A store's write-behind buffer: what was kept and is not stored yet, oldest first.

>>> behind = WriteBehind()
>>> behind.loaded([])
>>> first = behind.keep([Group([b"a", b"b"], [b"1", b"1"], 60)], {})
>>> behind.loaded([])
>>> second = behind.keep([Group([b"a"], [b"2"], 60)], {})
>>> behind.over([b"a", b"b", b"c"], [None, None, b"0"])
[b'2', b'1', b'0']
>>> behind.upto(first).groups
[Group(keys=[b'a', b'b'], values=[b'1', b'1'], ttl_s=60)]
>>> behind.stored(first)
>>> behind.over([b"a", b"b"], [b"1", b"1"])
[b'2', b'1']
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from embeddings.errors import Fenced, StoreUnavailable
from embeddings.events import Source
from embeddings.store import PartitionMark


class Group(NamedTuple):
    """Values that are written with one time to live."""

    keys: Sequence[Any]
    values: Sequence[bytes]
    ttl_s: int


class Kept(NamedTuple):
    """What batches wrote, how far their partitions are after them, and which partitions they were loaded for."""

    number: int
    groups: Sequence[Group]
    marks: Mapping[Source, PartitionMark]
    sources: AbstractSet[Source]


class WriteBehind:
    """Numbered batches of writes, and what a reader must see of them before they are stored."""

    def __init__(self) -> None:
        self._kept: deque[Kept] = deque()
        self._newest: dict[Any, tuple[int, bytes]] = {}
        self._number = self._void = 0
        self._loaded: AbstractSet[Source] | None = None

    def loaded(self, sources: Iterable[Source] | None) -> None:
        """Take down which partitions the next batch was loaded for; None while nothing is loaded."""
        self._loaded = None if sources is None else frozenset(sources)

    def keep(self, groups: Sequence[Group], marks: Mapping[Source, PartitionMark]) -> int:
        """Add the writes of the batch that was loaded; returns their number.

        Raises:
            StoreUnavailable: nothing was loaded since the last batch was kept, or everything was dropped since.
        """
        sources, self._loaded = self._loaded, None
        if sources is None:
            raise StoreUnavailable("nothing is loaded to save on top of: load the batch again")
        if not set(marks) <= sources:
            raise ValueError("marks of partitions that were not loaded")
        self._number += 1
        kept = Kept(self._number, [group for group in groups if group.keys], marks, sources)
        self._kept.append(kept)
        for group in kept.groups:
            for key, value in zip(group.keys, group.values, strict=True):
                self._newest[key] = self._number, value
        return self._number

    def over(self, keys: Sequence[Any], values: Sequence[bytes | None]) -> list[bytes | None]:
        """What was found under keys, with what was kept of them since."""
        if not self._newest:
            return list(values)
        nothing = 0, None
        kept = [self._newest.get(key, nothing) for key in keys]
        return [new if number else found for (number, new), found in zip(kept, values, strict=True)]

    def marks_over(self, found: dict[Source, PartitionMark]) -> dict[Source, PartitionMark]:
        """The marks found, or those kept since."""
        for kept in self._kept:
            found |= {source: mark for source, mark in kept.marks.items() if source in found}
        return found

    def upto(self, number: int) -> Kept:
        """The writes up to a number as one, each key once; of no partition where there are none.

        Raises:
            Fenced: they were dropped, because partitions were claimed anew.
        """
        if number <= self._void:
            raise Fenced("partitions were claimed anew since the batch was kept")
        some = [kept for kept in self._kept if kept.number <= number]
        if len(some) == 1:
            return some[0]
        by_ttl: dict[int, dict[Any, bytes]] = {}
        for group in (group for kept in some for group in kept.groups):
            by_ttl.setdefault(group.ttl_s, {}).update(zip(group.keys, group.values, strict=True))
        return Kept(
            number,
            [Group(list(held), list(held.values()), ttl_s) for ttl_s, held in by_ttl.items()],
            {source: mark for kept in some for source, mark in kept.marks.items()},
            {source for kept in some for source in kept.sources},
        )

    def stored(self, number: int) -> None:
        """Forget the writes up to a number: they are in the store."""
        while self._kept and self._kept[0].number <= number:
            for group in self._kept.popleft().groups:
                for key in group.keys:
                    if self._newest.get(key, (number + 1,))[0] <= number:
                        del self._newest[key]

    def drop(self, keys: Sequence[Any] | None = None) -> None:
        """Forget what was kept under some keys, or everything, unstored."""
        if keys is None:
            self._loaded = None
            self._kept.clear()
            self._newest.clear()
            self._void = self._number
            return
        gone = set(keys)
        for key in gone:
            self._newest.pop(key, None)
        for at, kept in enumerate(self._kept):
            groups = [_without(group, gone) for group in kept.groups]
            self._kept[at] = kept._replace(groups=[group for group in groups if group.keys])


def _without(group: Group, gone: set[Any]) -> Group:
    left = [(key, value) for key, value in zip(group.keys, group.values, strict=True) if key not in gone]
    return Group([key for key, _ in left], [value for _, value in left], group.ttl_s)
