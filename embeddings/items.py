"""What this process knows about items: one row per item, and a column per fact.

A row is private to the process; snapshots, counters and catalogue records are scattered into rows as they arrive, so
that the hot path indexes arrays and never looks at a string. Nothing that arrives costs more than the rows that it is
about: they are written in place, what fades is faded when it is read, what opens and closes is kept by its time.
"""

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from embeddings.content import WORDS
from embeddings.eligibility import UNREADABLE_AGE, Viewer, ViewerClass, Words
from embeddings.errors import IdCollision
from embeddings.fading import HalfLives
from embeddings.ids import item_id, item_ids
from embeddings.idtable import IdTable
from embeddings.item_columns import CATEGORIES, Columns
from embeddings.item_facts import ItemCounts, ItemFacts
from embeddings.leaders import Leaders, keys_of
from embeddings.times import Changes, Times

__all__ = "LONG", "MID", "SHORT", "TRENDING", "ItemCounts", "ItemFacts", "Items"
log = logging.getLogger(__name__)

Which = NDArray[np.int32] | slice
SHORT, MID, LONG, TRENDING = range(4)
"""Columns of `popularity_N4`."""
_ALL = slice(None)
_CHUNK = 4_096
"""So many rows change at once; readers may come between."""
_LATEST_S = (1 << 32) - 1


@dataclass(slots=True)
class Items:
    """The item table of one process: ids and names to rows, facts and counts by row.

    One thread writes at a time (`writing`), and prepares what it writes while others read; `lock` is held for the
    moment in which some rows change, and by readers while they compute. Who holds `lock` never waits for `writing`.
    """

    capacity: int = 4096
    half_lives: HalfLives = field(default_factory=HalfLives)
    ids: IdTable = field(init=False)
    columns: Columns = field(init=False)
    names: list[str] = field(init=False, default_factory=list)
    titles: dict[int, str] = field(init=False, default_factory=dict)
    categories: dict[str, int] = field(init=False, default_factory=dict)
    category_names: list[str] = field(init=False, default_factory=list)
    clock_s: int = field(init=False, default=0)
    epoch: int = field(init=False, default=0)
    territories: Words = field(init=False, default_factory=Words)
    surfaces: Words = field(init=False, default_factory=Words)
    languages: Words = field(init=False, default_factory=Words)
    catalogue_unread: bool = False
    """The catalogue is being read for the first time and its end is not reached."""
    catalogued: bool = field(init=False, default=False)
    """Was there ever a catalogue record?"""
    rated: bool = field(init=False, default=False)
    changes: int = field(init=False, default=0)
    offered: Changes = field(init=False, default_factory=Changes)
    """The rows of which that changed, other than by time, which decides who may be shown them."""
    windows: Times = field(init=False, default_factory=Times)
    """When rows open and close."""
    news: Times = field(init=False, default_factory=Times)
    """Since when rows are new."""
    lock: threading.RLock = field(init=False, default_factory=threading.RLock)
    writing: threading.RLock = field(init=False, default_factory=threading.RLock)
    _leaders: dict[int, Leaders] = field(init=False)
    _totals_8: NDArray[np.float64] = field(init=False, default_factory=lambda: np.zeros(8))

    def __post_init__(self) -> None:
        self.ids = IdTable(self.capacity)
        self.columns = Columns(self.capacity)
        self._leaders = {half_life: Leaders() for half_life in (MID, TRENDING)}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def binding(self) -> bool:
        """Was a catalogue read to its end, so that only what it holds may be shown?"""
        return self.catalogued and not self.catalogue_unread

    def ensure(self, ids_R: NDArray[np.uint64], names: Sequence[str] | None = None) -> NDArray[np.int32]:
        """Rows of R items, appended where they are new; an empty name stays unknown until somebody tells it.

        Raises:
            IdCollision: a known id comes with another name. The caller refuses the later item.
        """
        with self.writing:
            rows_R = self.ids.rows(ids_R)
            if unknown := int((rows_R < 0).sum()):
                self._reserve(len(self.ids) + max(unknown - self.ids.free_rows, 0))
                rows_R = self.ids.ensure(ids_R)
            if names is not None:
                self._name(rows_R, names)
            return rows_R

    def _reserve(self, count: int) -> None:
        """Make room before anybody can see a row. Readers keep the columns that they have while these are copied."""
        if count > len(self.columns):
            wider = self.columns.grown(2 * count)
            with self.lock:
                self.columns = wider
        self.names.extend([""] * (count - len(self.names)))

    def _name(self, rows_R: NDArray[np.int32], names: Sequence[str]) -> None:
        named_R, told = self.columns.named_N[rows_R].tolist(), list[int]()
        here: set[int] = set()
        try:
            for row, name, named in zip(rows_R.tolist(), names, named_R, strict=False):
                if not name or ((named or row in here) and self.names[row] == name):
                    continue
                if named or row in here:
                    raise IdCollision(f"items {self.names[row]!r} and {name!r} share the id of row {row}")
                self.names[row] = name
                here.add(row)
                told.append(row)
        finally:
            if told:
                with self.lock:
                    self.columns.named_N[told] = True
                    self.offered.add(np.array(told, np.int32))

    def learn_names(self, names: dict[int, str]) -> None:
        """Make sure every (40-bit id, name) of a batch has a named row; a row that has a name keeps it."""
        ids_R = np.fromiter(names, np.uint64, len(names))
        if self.unnamed(ids_R).any():
            with self.writing:
                unknown_R = self.unnamed(ids_R)
                self.ensure(ids_R[unknown_R], [names[i] for i in ids_R[unknown_R].tolist()])

    def unnamed(self, ids_R: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of R ids have no named row; a name that is being told may be passed over for the last time."""
        rows_R, named_N = self.ids.rows(ids_R), self.columns.named_N
        unnamed_R: NDArray[np.bool_] = (rows_R < 0) | (rows_R >= len(named_N))
        return unnamed_R | ~named_N[np.where(unnamed_R, 0, rows_R)]

    def add(self, facts: Sequence[ItemFacts]) -> NDArray[np.int32]:
        """Write catalogue records into their rows; a removed item comes back to life. Returns their rows (R,).

        Raises:
            IdCollision: see `ensure`.
        """
        if not facts:
            return np.empty(0, np.int32)
        with self.writing:
            rows_R = self.ensure(np.array([item_id(f.name) for f in facts], np.uint64), [f.name for f in facts])
            codes = [self._categories(fact.categories) for fact in facts]
            codes_RC = _table((some + [-1] * (CATEGORIES - len(some)) for some in codes), len(facts), CATEGORIES)
            words_RW = _table((fact.words() for fact in facts), len(facts), WORDS)
            length_s_R = np.array([fact.length_s for fact in facts], np.float32)
            years_R = np.array([min(max(fact.year, 0), 32_767) for fact in facts], np.int16)
            from_s_R = np.array([fact.available_from_s for fact in facts], np.int64)
            until_s_R = np.array([fact.available_until_s for fact in facts], np.int64)
            added_s_R = np.array([fact.added_s for fact in facts], np.int64)
            territory_R4 = self.territories.limits_of(fact.territories for fact in facts)
            surface_R4 = self.surfaces.limits_of(fact.surfaces for fact in facts)
            language_R4 = self.languages.limits_of(fact.languages for fact in facts)
            age_R, hidden_R = np.array([f.age for f in facts], np.uint8), np.array([f.hidden for f in facts], np.bool_)
            first_s_R, fresh_s_R = self._dates(rows_R, from_s_R, added_s_R)
            c = self.columns
            self.windows.add(np.append(from_s_R, until_s_R), np.append(rows_R, rows_R))
            self.news.add(fresh_s_R, rows_R)
            self.titles.update((row, f.title or f.name) for row, f in zip(rows_R.tolist(), facts, strict=True))
            with self.lock:
                c.categories_NC[rows_R], c.year_N[rows_R] = codes_RC, years_R
                c.words_NW[rows_R], c.length_s_N[rows_R] = words_RW, length_s_R
                c.from_s_N[rows_R], c.until_s_N[rows_R] = from_s_R, until_s_R
                c.territory_N4[rows_R], c.surface_N4[rows_R] = territory_R4, surface_R4
                c.language_N4[rows_R], c.rated_N[rows_R] = language_R4, [fact.rated for fact in facts]
                c.age_N[rows_R], c.hidden_N[rows_R] = age_R, hidden_R
                c.first_seen_s_N[rows_R], c.fresh_s_N[rows_R] = first_s_R, fresh_s_R
                c.removed_N[rows_R], c.catalogued_N[rows_R] = False, True
                self.rated |= bool(age_R.any())
                self.catalogued = True
                self.offered.add(rows_R)
                self.changes += 1
            return rows_R

    def _dates(
        self, rows_R: NDArray[np.int32], from_s_R: NDArray[np.int64], added_s_R: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Since when items are known, and since when they are new: since they opened.

        One without a date is new since it came to a catalogue that was read: a catalogue that is read from its
        beginning says when its records were published, last, and not when first.
        """
        first_s_R = self.columns.first_seen_s_N[rows_R].astype(np.int64)
        new_R, dated_R = first_s_R == 0, from_s_R != 0
        told_s_R = np.where(dated_R, from_s_R, added_s_R)
        known_R = ~dated_R & ~(new_R & (not self.catalogue_unread))
        fresh_s_R = np.where(known_R, self.columns.fresh_s_N[rows_R], told_s_R)
        return np.where(new_R, np.clip(told_s_R, 0, _LATEST_S), first_s_R), fresh_s_R

    def _categories(self, names: Sequence[str]) -> list[int]:
        """Codes of an item's categories, each once; those beyond 32,000 different ones are left out."""
        known, names = self.categories, list(dict.fromkeys(names))[:CATEGORIES]
        for name in names:
            if name not in known and len(known) < 32_000:
                known[name] = len(known)
                self.category_names.append(name)
        return [known[name] for name in names if name in known]

    def known(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Which of N names are those of items. Shape (N,)."""
        return ~self.unnamed(item_ids(names))

    def lengths_s(self, ids_R: NDArray[np.uint64]) -> NDArray[np.float32]:
        """How long each of R items is, in seconds, 0 where nobody said it. Shape (R,)."""
        with self.lock:
            rows_R = self.ids.rows(ids_R)
            return np.where(rows_R >= 0, self.columns.length_s_N[rows_R], np.float32(0))

    def remove(self, name: str) -> int:
        """Mark an item as gone until it is added anew. Its row; -1 where it needs none: the catalogue lacked it."""
        with self.writing:
            id_1 = np.array([item_id(name)], np.uint64)
            if self.binding and self.ids.rows(id_1)[0] < 0:
                return -1
            row_1 = self.ensure(id_1, [name])
            with self.lock:
                self.columns.removed_N[row_1] = True
                self.offered.add(row_1)
                self.changes += 1
            return int(row_1[0])

    def blocked(self, now_s: int, at: Which = _ALL) -> NDArray[np.bool_]:
        """Which rows must not be shown at `now_s`: removed, not yet or no longer available, or without a name.

        Once a catalogue was read to its end, only what it holds may be shown: of a removal that compaction took away
        there is no other trace. Without a catalogue a name that events, a snapshot or counts told is good.
        """
        c = self.columns
        gone_N = c.removed_N[at] | c.hidden_N[at] | (c.from_s_N[at] > now_s) | (c.until_s_N[at] <= now_s)
        if self.binding:
            return gone_N | ~c.catalogued_N[at]
        return gone_N | ~(c.named_N[at] | (c.counted_N[at] & (not self.catalogued)))

    def catalogue_read(self) -> None:
        """The catalogue was read to its end: from now on what it lacks is not shown."""
        with self.lock:
            self.catalogue_unread = False
            self.changes += 1
        held, known = int(self.columns.catalogued_N.sum()), int(self.columns.named_N.sum())
        if 0 < held < known // 2:
            log.warning("the catalogue has %d items and %d are known by name: the others are not shown", held, known)

    def class_of(self, viewer: Viewer) -> ViewerClass:
        """The class of a viewer, as far as any item's limits tell viewers apart."""
        limit = UNREADABLE_AGE if viewer.limit is None or not self.rated else min(viewer.limit, UNREADABLE_AGE - 1)
        country, surface = self.territories.bit(viewer.country), self.surfaces.bit(viewer.surface)
        return ViewerClass(country, limit, surface, self.languages.bit(viewer.language))

    def barred(self, blocked_N: NDArray[np.bool_], whose: ViewerClass, at: Which = _ALL) -> NDArray[np.bool_]:
        """Which rows must not be shown to a class of viewers, given those that nobody is shown. As `blocked_N`."""
        c = self.columns
        admitted = Words.admitted(c.territory_N4[at], whose.country) & Words.admitted(c.surface_N4[at], whose.surface)
        admitted = admitted & Words.admitted(c.language_N4[at], whose.language)
        barred_N: NDArray[np.bool_] = blocked_N | ~(admitted & (c.age_N[at] <= whose.limit))
        return barred_N

    def due(self, after_s: int, until_s: int) -> NDArray[np.int32]:
        """Rows that may have opened, closed or become new after one moment and not after another."""
        return np.unique(np.concatenate([t.between(after_s, until_s) for t in (self.windows, self.news)]))

    def fresh(self, size: int, now_s: int, fresh_for_s: int, blocked_N: NDArray[np.bool_]) -> NDArray[np.int32]:
        """The `size` newest rows that may be shown, newest first, of those that are new at `now_s`.

        Ties by id; of some ten thousands that came at once, among the latest rows of them.
        """
        looked = 4 * size
        while True:
            since_s, rows, whole = self.news.latest(max(now_s - fresh_for_s, 0), now_s, looked)
            good = (self.columns.fresh_s_N[rows] == since_s) & ~blocked_N[rows]
            since_s, rows = since_s[good], rows[good]
            if whole or (len(rows) > size and (since_s[size - 1] > since_s[-1] or looked > _CHUNK)):
                newest: NDArray[np.int32] = rows[np.lexsort((self.ids.ids_N[rows], -since_s))][:size]
                return newest
            looked *= 4

    def count(self, counts: ItemCounts, names: Sequence[str] = ()) -> None:
        """Take over the counts of some items, and their names; nothing else is touched: counts fade when they are read.

        The first counts of a later life of the learner end those of the life before, and counts of an earlier life are
        passed over: what one counts says nothing beside what another does.
        """
        with self.writing:
            if counts.epoch < self.epoch:
                return
            if counts.epoch > self.epoch:
                self._forget_counts(counts.epoch)
            rows_R = self.ensure(counts.item_N)
            self._name_counted(rows_R, names)
            last_R = len(rows_R) - 1 - np.unique(rows_R[::-1], return_index=True)[1]
            clock_s = max(self.clock_s, counts.clock_s)
            totals_8 = self._totals_8 * self.half_lives.kept(clock_s - self.clock_s)[[0, 1, 2, 3, 4, 4, 4, 4]]
            for begin in range(0, len(last_R), _CHUNK):
                some = last_R[begin : begin + _CHUNK]
                totals_8 -= self._left(rows_R[some], clock_s)
                with self.lock:
                    self._write_counts(rows_R[some], counts, some)
                totals_8 += self._left(rows_R[some], clock_s)
            with self.lock:
                self.clock_s, self._totals_8 = clock_s, np.maximum(totals_8, 0)
                self.changes += 1
            self._lead(rows_R[last_R])

    def _name_counted(self, rows_R: NDArray[np.int32], names: Sequence[str]) -> None:
        nameless_R = ~self.columns.named_N[rows_R]
        told = [(row, name) for row, name, new in zip(rows_R.tolist(), names, nameless_R, strict=False) if new]
        for row, name in told:
            self.names[row] = name
        if told:
            rows = np.array([row for row, _ in told], np.int32)
            with self.lock:
                self.columns.counted_N[rows] = True
                self.offered.add(rows)

    def _write_counts(self, rows_R: NDArray[np.int32], counts: ItemCounts, at_R: NDArray[np.intp]) -> None:
        c = self.columns
        c.popularity_N4[rows_R] = counts.popularity_N4[at_R]
        for column, told_N in enumerate((counts.likes_N, counts.dislikes_N, counts.shown_N, counts.clicked_N)):
            c.reactions_N4[rows_R, column] = told_N[at_R]
        c.clock_s_N[rows_R] = min(max(counts.clock_s, 0), _LATEST_S)
        c.last_taken_s_N[rows_R] = np.clip(counts.last_taken_s_N[at_R], 0, _LATEST_S)
        told_R = counts.first_seen_s_N[at_R] > 0  # what was only shown since it came again was not seen to come
        c.first_seen_s_N[rows_R[told_R]] = np.minimum(counts.first_seen_s_N[at_R[told_R]], _LATEST_S)

    def _left(self, rows_R: NDArray[np.int32], clock_s: int) -> NDArray[np.float64]:
        """The sums of what some rows' takes, four ways, and reactions come to at a moment. Shape (8,)."""
        c = self.columns
        kept_R5 = self.half_lives.kept(np.maximum(clock_s - c.clock_s_N[rows_R].astype(np.float64), 0))
        reactions_4 = (c.reactions_N4[rows_R] * kept_R5[:, 4:]).sum(0)
        return np.append((c.popularity_N4[rows_R] * kept_R5[:, :4]).sum(0), reactions_4)

    def _lead(self, rows_R: NDArray[np.int32]) -> None:
        """Put rows whose counts changed in their places among the most taken."""
        c = self.columns
        for half_life, leaders in list(self._leaders.items()):
            length_s = self.half_lives[half_life]
            if not leaders.take(rows_R, keys_of(c.popularity_N4[rows_R, half_life], c.clock_s_N[rows_R], length_s)):
                rows, anew = np.flatnonzero(c.popularity_N4[:, half_life] > 0).astype(np.int32), Leaders()
                anew.take(rows, keys_of(c.popularity_N4[rows, half_life], c.clock_s_N[rows], length_s))
                self._leaders[half_life] = anew

    def _forget_counts(self, epoch: int) -> None:
        self._leaders = {half_life: Leaders() for half_life in self._leaders}
        self._totals_8 = np.zeros(8)
        c = self.columns
        for begin in range(0, len(self), 16 * _CHUNK):
            with self.lock:
                for column in (c.popularity_N4, c.reactions_N4, c.clock_s_N, c.last_taken_s_N):
                    column[begin : begin + 16 * _CHUNK] = 0
        self.epoch, self.clock_s = epoch, 0

    def takes(self, rows_R: NDArray[np.int32], half_life: int = MID) -> NDArray[np.float32]:
        """What the takes of rows have come to by now, at one of the half-lives. Shape (R,)."""
        c = self.columns
        age_s_R = np.maximum(self.clock_s - c.clock_s_N[rows_R].astype(np.float64), 0)
        kept_R = self.half_lives.kept(age_s_R)[:, half_life]
        takes_R: NDArray[np.float32] = c.popularity_N4[rows_R, half_life] * kept_R.astype(np.float32)
        return takes_R

    def all_takes(self, half_life: int = MID) -> float:
        """The takes of all items by now."""
        return float(self._totals_8[half_life])

    def reactions(self) -> NDArray[np.float64]:
        """Likes, dislikes, times shown and clicked of all items by now. Shape (4,)."""
        return self._totals_8[4:]

    def popular(self, size: int, blocked_N: NDArray[np.bool_], half_life: int = MID) -> NDArray[np.int32]:
        """The `size` most taken rows at one of the half-lives, best first, none blocked; ties by id.

        Where fewer were ever taken, the first rows that were not follow.
        """
        popularity_N = self.columns.popularity_N4[: len(blocked_N), half_life]
        top = self._leaders[half_life].best(size, blocked_N)
        if top is None:
            rows = np.flatnonzero(~blocked_N & (popularity_N > 0)).astype(np.int32)
            top = rows[np.argsort(-self.takes(rows, half_life), kind="stable")[:size]]
        begin, n = 0, len(self)
        while len(top) < size and begin < n:
            end = min(begin + 16 * _CHUNK, n)
            untaken = begin + np.flatnonzero(~blocked_N[begin:end] & (popularity_N[begin:end] <= 0))
            top, begin = np.append(top, untaken[: size - len(top)].astype(np.int32)), end
        return top[np.lexsort((self.ids.ids_N[top], -self.takes(top, half_life)))]


def _table(rows: Iterable[list[int]], count: int, width: int) -> NDArray[np.int16]:
    """Rows of small numbers as an array; a fourth of the time of `np.array`. Shape (`count`, `width`)."""
    return np.fromiter(chain.from_iterable(rows), np.int16, count * width).reshape(count, width)
