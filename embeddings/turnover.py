"""Rows of items that nobody knows any more are given to others, so that years of turnover leave a table as it was.

A row is taken back in two steps, because whoever looks at a batch holds rows and no ids. First it is *retired*: its id
is forgotten by an atomic write of one word, and it is blocked, so nobody can come upon it from then on, while its name,
its facts and what `ids_N` says of it stay as they are for those who hold it. It is *reclaimed*, cleared and given to
others, when nobody can hold it any more. Who looks rows up does so under the lock of the item table and takes the `era`
of that moment along with them, or is done before the lock is released. Retiring ends an era, so once it, and all eras
before it, are garbage, nobody is left who saw a retired row as that of its item; the garbage collector is the proof,
however long a batch waits for a broker.

A row is of no use when the model that serves does not hold it (`held`), nobody counted its item, and the catalogue that
was read to its end lacks it, for an hour: who publishes a catalogue by removing and adding all of it makes nothing new.
Without such a catalogue, items that events alone name may be shown as well; beyond `strangers` of them, those go that
were named least recently, and beyond twice as many a new name finds no row before some went.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from embeddings.idtable import MAX_ROWS
from embeddings.item_columns import Columns
from embeddings.items import Items

Rows = NDArray[np.int32]
GRACE_S = 3_600
"""What is of no use for so long goes."""
_CHUNK = 2_048
"""So many rows change at once; readers and writers may come between."""
_SCANNED = 1 << 16
_DATES = 3
"""Of an item: when it opens and closes, and since when it is new."""
_LEAST, _MOST = 256, 1 << 15
"""So many rows are retired at once at least, and at most: readers of what is offered follow no more, one by one."""


class Era:
    """A stretch of time in which no row was retired, alive as long as anybody holds rows of it."""

    __slots__ = ("__weakref__",)


@dataclass(slots=True)
class Turnover:
    """Which names of events take rows, and which rows are taken back.

    Attributes:
        items: whose rows they are.
        strangers: so many items may be known by nothing but events.
        era: of now. Who keeps rows beyond `items.lock` keeps it, as it was while the lock was held.
    """

    items: Items
    strangers: int = MAX_ROWS
    era: Era = field(init=False, default_factory=Era)
    _room: int = field(init=False)
    """So many new names of events find a row until the next sweep."""
    _retired: deque[tuple["ref[Era]", Rows]] = field(init=False, default_factory=deque)
    """The rows that were retired at the end of each era."""

    def __post_init__(self) -> None:
        self._room = 2 * self.strangers

    def hear(self, names: dict[int, str], now_s: int) -> None:
        """Take over what events call items, by 40-bit id; a row that has a name keeps it.

        What a catalogue that was read to its end lacks takes no row: it could not be shown. It comes with its record,
        its counts or a snapshot, if it ever does.
        """
        items, ids_R = self.items, np.fromiter(names, np.uint64, len(names))
        rows_R = items.ids.rows(ids_R)
        nameless_R = items.unnamed(ids_R)
        if items.binding:
            nameless_R &= rows_R >= 0
        else:
            self._use(rows_R, now_s)
        if nameless_R.any():
            with items.writing:
                self._name(ids_R, names, now_s)

    def _name(self, ids_R: NDArray[np.uint64], names: dict[int, str], now_s: int) -> None:
        items = self.items
        nameless_R, unknown = items.unnamed(ids_R), np.flatnonzero(items.ids.rows(ids_R) < 0)
        room = 0 if items.binding else self._room
        nameless_R[unknown[room:]] = False
        self._room -= min(len(unknown), room)
        told_R = ids_R[nameless_R]
        self._use(items.ensure(told_R, [names[item] for item in told_R.tolist()]), now_s)

    def _use(self, rows_R: Rows, now_s: int) -> None:
        used_s_N = self.items.columns.used_s_N
        used_s_N[rows_R[(rows_R >= 0) & (rows_R < len(used_s_N))]] = now_s

    def sweep(
        self,
        held_R: Rows,
        now_s: int,
        forget: Callable[[Rows], None] = lambda rows_R: None,
        holders: Sequence[Callable[[], Rows]] = (),
    ) -> tuple[int, int]:
        """Reclaim what can be, then retire what is of no use. Returns how many rows were retired and reclaimed.

        Nothing keeps `items.lock`, or writers off, for longer than some thousand rows take.

        Args:
            held_R: rows that somebody uses by number, whatever is known of them; they stay the same meanwhile.
            now_s: epoch seconds.
            forget: is called for rows before others get them.
            holders: return rows that others use likewise, who hold `items.writing` while these change.
        """
        if self.items.catalogue_unread:
            return 0, 0
        reclaimed = self._reclaim(forget)
        self._forget_moments()
        idle = self._idle([held_R, *(holder() for holder in holders)], now_s)
        used_s_I = self.items.columns.used_s_N[idle]
        if self.items.binding:
            old = idle[used_s_I <= now_s - GRACE_S]
        else:
            beyond = max(len(idle) - self.strangers, 0)
            old = idle[np.argpartition(used_s_I, beyond - 1)[:beyond]] if beyond else idle[:0]
        retired = self._retire(old[:_MOST], holders) if len(old) >= _LEAST else 0
        self._room = max(2 * self.strangers - len(idle) + retired, 0)
        return retired, reclaimed

    def _idle(self, held: Iterable[Rows], now_s: int) -> Rows:
        """The rows that nobody has a use for; takes down that the others are used now, and since when these are not."""
        items, c, idle = self.items, self.items.columns, [np.empty(0, np.int32)]
        held_N = np.zeros(len(c), np.bool_)
        for rows_R in held:
            held_N[rows_R] = True
        for begin in range(0, min(len(items), len(c)), _SCANNED):
            at = slice(begin, min(begin + _SCANNED, len(items), len(c)))
            idle_R, used_s_R = items.ids.given(at) & ~held_N[at] & _useless(c, at), c.used_s_N[at]
            used_s_R[~idle_R | (used_s_R == 0)] = now_s
            idle.append((begin + np.flatnonzero(idle_R)).astype(np.int32))
        return np.concatenate(idle)

    def _retire(self, rows_R: Rows, holders: Sequence[Callable[[], Rows]]) -> int:
        items, binding, retired = self.items, self.items.binding, [np.empty(0, np.int32)]
        last_s = int(items.columns.used_s_N[rows_R].max(initial=0))
        for some_R in _in_chunks(rows_R):
            with items.writing:
                c = items.columns  # what got a use meanwhile stays
                gone_R = some_R[_useless(c, some_R) & (c.used_s_N[some_R] <= last_s)]
                for holder in holders:
                    gone_R = np.setdiff1d(gone_R, holder())
                if items.binding != binding:
                    break
                with items.lock:
                    for column in (c.named_N, c.counted_N, c.catalogued_N, c.removed_N):
                        column[gone_R] = False
                    items.ids.retire(gone_R)
                    if not binding:  # else nobody was shown them
                        items.offered.add(gone_R)
                retired.append(gone_R)
        with items.lock:
            self._retired.append((ref(self.era), np.concatenate(retired)))
            self.era = Era()
        return sum(map(len, retired))

    def _reclaim(self, forget: Callable[[Rows], None]) -> int:
        reclaimed = 0
        while self._retired and self._retired[0][0]() is None:
            _, rows_R = self._retired.popleft()
            for some_R in _in_chunks(rows_R):
                with self.items.writing:
                    forget(some_R)
                    self._clear(some_R)
            reclaimed += len(rows_R)
        return reclaimed

    def _clear(self, rows_R: Rows) -> None:
        items = self.items
        with items.lock:
            items.columns.clear(rows_R)
        for row in rows_R.tolist():
            items.names[row] = ""
            items.titles.pop(row, None)
        items.ids.reclaim(rows_R)

    def _forget_moments(self) -> None:
        """Leave out the dates that rows had before, where there are more of them than dates that hold."""
        items = self.items
        if len(items.windows) + len(items.news) > 2 * _DATES * max(items.ids.held, _CHUNK):
            with items.writing:
                c = items.columns
                items.windows.keep(lambda time_s, rows: (c.from_s_N[rows] == time_s) | (c.until_s_N[rows] == time_s))
                items.news.keep(lambda time_s, rows: c.fresh_s_N[rows] == time_s)


def _useless(c: Columns, at: Rows | slice) -> NDArray[np.bool_]:
    """Which rows are of items that no catalogue holds and nobody counted."""
    counted_R = (c.popularity_N4[at] > 0).any(1) | (c.reactions_N4[at] > 0).any(1) | (c.last_taken_s_N[at] > 0)
    useless_R: NDArray[np.bool_] = ~counted_R & (~c.catalogued_N[at] | c.removed_N[at])
    return useless_R


def _in_chunks(rows_R: Rows) -> Iterator[Rows]:
    yield from (rows_R[begin : begin + _CHUNK] for begin in range(0, len(rows_R), _CHUNK))
