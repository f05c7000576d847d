"""What this process knows about items: one append-only row per item, and a column per fact.

A row is private to the process; snapshots, counters and catalogue records are scattered into rows as they arrive, so
that the hot path indexes arrays and never looks at a string. Writers hold `Items.lock`; a reader holds it while it
computes on the columns, because a column is replaced when it grows.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embeddings.content import WORDS, words_of
from embeddings.eligibility import UNREADABLE_AGE, Viewer, ViewerClass, Words
from embeddings.errors import IdCollision
from embeddings.fading import HalfLives
from embeddings.ids import item_id, item_ids
from embeddings.idtable import IdTable

log = logging.getLogger(__name__)

CATEGORIES = 6
SHORT, MID, LONG, TRENDING = range(4)
"""Columns of `popularity_N4`."""
FOREVER_S = 1 << 40
_REACTIONS = "likes_N", "dislikes_N", "shown_N", "clicked_N"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFacts:
    """One catalogue record, as far as ranking needs it. Times are epoch seconds; `makers` are series and creators."""

    name: str
    title: str = ""
    categories: tuple[str, ...] = ()
    makers: tuple[str, ...] = ()
    language: str = ""
    year: int = 0
    available_from_s: int = 0
    available_until_s: int = FOREVER_S
    added_s: int = 0
    territories: tuple[str, ...] = ()
    surfaces: tuple[str, ...] = ()
    age: int = 0
    hidden: bool = False
    length_s: float = 0.0

    def words(self) -> list[int]:
        """What it says of what the item is like (`embeddings.content`)."""
        return words_of(
            categories=self.categories,
            makers=self.makers,
            language=self.language,
            year=self.year,
            title=self.title,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemCounts:
    """Absolute counts of N items, faded to the event time `clock_s`, of the learner's life `epoch`.

    `events` is how many rows were counted by then. `popularity_N4` is `fading.HalfLives.popularity_4`.
    """

    item_N: NDArray[np.uint64]
    popularity_N4: NDArray[np.float32]
    likes_N: NDArray[np.float32]
    dislikes_N: NDArray[np.float32]
    shown_N: NDArray[np.float32]
    clicked_N: NDArray[np.float32]
    last_taken_s_N: NDArray[np.int64]
    first_seen_s_N: NDArray[np.int64]
    clock_s: int
    epoch: int = 0
    events: float = 0.0


@dataclass(slots=True)
class Columns:
    """One array per fact, all of the same capacity; row r of each speaks of the same item."""

    popularity_N4: NDArray[np.float32]
    likes_N: NDArray[np.float32]
    dislikes_N: NDArray[np.float32]
    shown_N: NDArray[np.float32]
    clicked_N: NDArray[np.float32]
    last_taken_s_N: NDArray[np.int64]
    first_seen_s_N: NDArray[np.int64]
    categories_NC: NDArray[np.int16]
    words_NW: NDArray[np.int16]
    year_N: NDArray[np.int16]
    length_s_N: NDArray[np.float32]
    from_s_N: NDArray[np.int64]
    until_s_N: NDArray[np.int64]
    fresh_s_N: NDArray[np.int64]
    territory_N4: NDArray[np.uint64]
    surface_N4: NDArray[np.uint64]
    age_N: NDArray[np.uint8]
    hidden_N: NDArray[np.bool_]
    removed_N: NDArray[np.bool_]
    catalogued_N: NDArray[np.bool_]
    named_N: NDArray[np.bool_]
    counted_N: NDArray[np.bool_]

    @classmethod
    def empty(cls, capacity: int) -> "Columns":
        """Columns of items nobody knows anything about."""
        return cls(
            popularity_N4=np.zeros((capacity, 4), np.float32),
            likes_N=np.zeros(capacity, np.float32),
            dislikes_N=np.zeros(capacity, np.float32),
            shown_N=np.zeros(capacity, np.float32),
            clicked_N=np.zeros(capacity, np.float32),
            last_taken_s_N=np.zeros(capacity, np.int64),
            first_seen_s_N=np.zeros(capacity, np.int64),
            categories_NC=np.full((capacity, CATEGORIES), -1, np.int16),
            words_NW=np.full((capacity, WORDS), -1, np.int16),
            year_N=np.zeros(capacity, np.int16),
            length_s_N=np.zeros(capacity, np.float32),
            from_s_N=np.zeros(capacity, np.int64),
            until_s_N=np.full(capacity, FOREVER_S, np.int64),
            fresh_s_N=np.zeros(capacity, np.int64),
            territory_N4=np.full((capacity, 4), np.iinfo(np.uint64).max, np.uint64),
            surface_N4=np.full((capacity, 4), np.iinfo(np.uint64).max, np.uint64),
            age_N=np.zeros(capacity, np.uint8),
            hidden_N=np.zeros(capacity, np.bool_),
            removed_N=np.zeros(capacity, np.bool_),
            catalogued_N=np.zeros(capacity, np.bool_),
            named_N=np.zeros(capacity, np.bool_),
            counted_N=np.zeros(capacity, np.bool_),
        )

    def grown(self, capacity: int) -> "Columns":
        """A copy with room for `capacity` rows."""
        wider = Columns.empty(capacity)
        for name in self.__slots__:
            column = getattr(self, name)
            getattr(wider, name)[: len(column)] = column
        return wider


@dataclass(slots=True)
class Items:
    """The item table of one process: ids and names to rows, facts and counts by row."""

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
    catalogue_unread: bool = False
    """The catalogue is being read for the first time and its end is not reached."""
    rated: bool = field(init=False, default=False)
    changes: int = field(init=False, default=0)
    offers: int = field(init=False, default=0)
    """How often what may be shown changed, other than by time."""
    lock: threading.RLock = field(init=False, default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.ids = IdTable(self.capacity)
        self.columns = Columns.empty(self.capacity)

    def __len__(self) -> int:
        return len(self.ids)

    def ensure(self, ids_R: NDArray[np.uint64], names: Sequence[str] | None = None) -> NDArray[np.int32]:
        """Rows of R items, appended where they are new; an empty name stays unknown until somebody tells it.

        Raises:
            IdCollision: a known id comes with another name. The caller refuses the later item.
        """
        with self.lock:
            rows_R = self.ids.ensure(ids_R)
            if len(self.ids) > len(self.columns.year_N):
                self.columns = self.columns.grown(2 * len(self.ids))
            self.names.extend([""] * (len(self.ids) - len(self.names)))
            for row, name in zip(rows_R.tolist(), names or (), strict=False):
                if not name or (self.columns.named_N[row] and self.names[row] == name):
                    continue
                if self.columns.named_N[row]:
                    raise IdCollision(f"items {self.names[row]!r} and {name!r} share the id of row {row}")
                self.names[row] = name
                self.columns.named_N[row] = True
                self.offers += 1
            return rows_R

    def learn_names(self, names: dict[int, str]) -> None:
        """Make sure every (40-bit id, name) of a batch has a named row; a row that has a name keeps it."""
        ids_R = np.fromiter(names, np.uint64, len(names))
        with self.lock:
            rows_R = self.ids.rows(ids_R)
            unknown_R = (rows_R < 0) | ~self.columns.named_N[rows_R]
            if unknown_R.any():
                self.ensure(ids_R[unknown_R], [names[i] for i in ids_R[unknown_R].tolist()])

    def add(self, facts: Sequence[ItemFacts]) -> NDArray[np.int32]:
        """Write catalogue records into their rows; a removed item comes back to life. Returns their rows (R,).

        Raises:
            IdCollision: see `ensure`.
        """
        with self.lock:
            rows_R = self.ensure(np.array([item_id(f.name) for f in facts], np.uint64), [f.name for f in facts])
            columns = self.columns
            columns.words_NW[rows_R] = np.array([fact.words() for fact in facts], np.int16).reshape(-1, WORDS)
            for row, fact in zip(rows_R.tolist(), facts, strict=True):
                codes = self._categories(fact.categories)
                columns.categories_NC[row] = codes + [-1] * (CATEGORIES - len(codes))
                columns.year_N[row] = min(max(fact.year, 0), 32_767)
                columns.from_s_N[row], columns.until_s_N[row] = fact.available_from_s, fact.available_until_s
                columns.territory_N4[row] = self.territories.limits(fact.territories)
                columns.surface_N4[row] = self.surfaces.limits(fact.surfaces)
                columns.age_N[row], columns.hidden_N[row] = fact.age, fact.hidden
                columns.length_s_N[row] = fact.length_s
                self.rated |= fact.age > 0
                self._date(row, fact)
                columns.removed_N[row], columns.catalogued_N[row] = False, True
                self.titles[row] = fact.title or fact.name
            self.changes += 1
            self.offers += 1
            return rows_R

    def _date(self, row: int, fact: ItemFacts) -> None:
        """Since when an item is new: since it opened; one without a date, since it came to a catalogue that was read.

        A catalogue that is read from its beginning says when its records were published, last, and not when first.
        """
        columns = self.columns
        new = not columns.first_seen_s_N[row]
        if new:
            columns.first_seen_s_N[row] = fact.available_from_s or fact.added_s
        if fact.available_from_s:
            columns.fresh_s_N[row] = fact.available_from_s
        elif new and not self.catalogue_unread:
            columns.fresh_s_N[row] = fact.added_s

    def _categories(self, names: Sequence[str]) -> list[int]:
        """Codes of an item's categories; those beyond 32,000 different ones are left out."""
        known = self.categories
        for name in names[:CATEGORIES]:
            if name not in known and len(known) < 32_000:
                known[name] = len(known)
                self.category_names.append(name)
        return [known[name] for name in names[:CATEGORIES] if name in known]

    def known(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Which of N names are those of items. Shape (N,)."""
        with self.lock:
            rows_N = self.ids.rows(item_ids(names))
            known_N: NDArray[np.bool_] = (rows_N >= 0) & self.columns.named_N[rows_N]
            return known_N

    def lengths_s(self, ids_R: NDArray[np.uint64]) -> NDArray[np.float32]:
        """How long each of R items is, in seconds, 0 where nobody said it. Shape (R,)."""
        with self.lock:
            rows_R = self.ids.rows(ids_R)
            return np.where(rows_R >= 0, self.columns.length_s_N[rows_R], np.float32(0))

    def remove(self, name: str) -> int:
        """Mark an item as gone; it is never a candidate again until it is added anew. Returns its row."""
        with self.lock:
            row = int(self.ensure(np.array([item_id(name)], np.uint64), [name])[0])
            self.columns.removed_N[row] = True
            self.changes += 1
            self.offers += 1
            return row

    def blocked(self, now_s: int) -> NDArray[np.bool_]:
        """Which rows must not be shown at `now_s`: removed, not yet or no longer available, or without a name.

        Once a catalogue was read to its end, only what it holds may be shown: of a removal that compaction took away
        there is no other trace. Without a catalogue a name that events, a snapshot or counts told is good.
        """
        columns = self.columns
        gone_N = columns.removed_N | columns.hidden_N | (columns.from_s_N > now_s) | (columns.until_s_N <= now_s)
        if not columns.catalogued_N.any():
            return gone_N | ~(columns.named_N | columns.counted_N)
        return gone_N | ~(columns.named_N if self.catalogue_unread else columns.catalogued_N)

    def catalogue_read(self) -> None:
        """The catalogue was read to its end: from now on what it lacks is not shown."""
        with self.lock:
            self.catalogue_unread = False
            self.offers += 1
            self.changes += 1
            held, known = int(self.columns.catalogued_N.sum()), int(self.columns.named_N.sum())
            if 0 < held < known // 2:
                log.warning(
                    "the catalogue has %d items and %d are known by name: the others are not shown", held, known
                )

    def class_of(self, viewer: Viewer) -> ViewerClass:
        """The class of a viewer, as far as any item's limits tell viewers apart."""
        limit = UNREADABLE_AGE if viewer.limit is None or not self.rated else min(viewer.limit, UNREADABLE_AGE - 1)
        return ViewerClass(self.territories.bit(viewer.country), limit, self.surfaces.bit(viewer.surface))

    def barred(self, blocked_N: NDArray[np.bool_], whose: ViewerClass) -> NDArray[np.bool_]:
        """Which rows must not be shown to a class of viewers, given those that nobody is shown. Shape (N,)."""
        c = self.columns
        admitted = Words.admitted(c.territory_N4, whose.country) & Words.admitted(c.surface_N4, whose.surface)
        barred_N: NDArray[np.bool_] = blocked_N | ~(admitted & (c.age_N <= whose.limit))
        return barred_N

    def fresh(self, size: int, now_s: int, fresh_for_s: int, blocked_N: NDArray[np.bool_]) -> NDArray[np.int32]:
        """The `size` newest rows that may be shown, newest first, of those that are new at `now_s`. Ties by id."""
        since_s_N = self.columns.fresh_s_N
        rows = np.flatnonzero(~blocked_N & (since_s_N > max(now_s - fresh_for_s, 0)) & (since_s_N <= now_s))
        return rows[np.lexsort((self.ids.ids_N[rows], -since_s_N[rows]))][:size].astype(np.int32)

    def good_until_s(self, now_s: int, fresh_for_s: int) -> int:
        """The next second at which time alone changes what may be shown or what is new."""
        c = self.columns
        times = np.concatenate([c.from_s_N, c.until_s_N, c.fresh_s_N, c.fresh_s_N + fresh_for_s])
        return int(times[times > now_s].min(initial=FOREVER_S))

    def count(self, counts: ItemCounts, names: Sequence[str] = ()) -> None:
        """Take over the counts of some items, and their names; all other rows fade by the time that passed since.

        The first counts of a later life of the learner end those of the life before, and counts of an earlier life are
        passed over: what one counts says nothing beside what another does.
        """
        with self.lock:
            if counts.epoch < self.epoch:
                return
            if counts.epoch > self.epoch:
                self._forget_counts(counts.epoch)
            rows_R = self.ensure(counts.item_N)
            columns = self.columns
            for row, name in zip(rows_R.tolist(), names, strict=False):
                if not columns.named_N[row]:
                    self.names[row], columns.counted_N[row] = name, True
                    self.offers += 1
            kept_5 = self.half_lives.kept(float(max(counts.clock_s - self.clock_s, 0))).astype(np.float32)
            late_5 = self.half_lives.kept(float(max(self.clock_s - counts.clock_s, 0))).astype(np.float32)
            self.clock_s = max(self.clock_s, counts.clock_s)
            columns.popularity_N4 *= kept_5[:4]
            columns.popularity_N4[rows_R] = counts.popularity_N4 * late_5[:4]
            for name in _REACTIONS:
                column = getattr(columns, name)
                column *= kept_5[4]
                column[rows_R] = getattr(counts, name) * late_5[4]
            columns.last_taken_s_N[rows_R] = counts.last_taken_s_N
            columns.first_seen_s_N[rows_R] = counts.first_seen_s_N

    def _forget_counts(self, epoch: int) -> None:
        self.epoch, self.clock_s = epoch, 0
        for name in ("popularity_N4", *_REACTIONS, "last_taken_s_N"):
            getattr(self.columns, name)[:] = 0

    def popular(self, size: int, blocked_N: NDArray[np.bool_], half_life: int = MID) -> NDArray[np.int32]:
        """The `size` most taken rows at one of the half-lives, best first, none blocked. Ties by id."""
        n = len(self.ids)
        popularity_N = np.where(blocked_N[:n], -1.0, self.columns.popularity_N4[:n, half_life])
        size = min(size, n)
        top = np.argpartition(-popularity_N, size - 1)[:size] if size else np.empty(0, np.int64)
        top = top[np.lexsort((self.ids.ids_N[top], -popularity_N[top]))]
        return top[popularity_N[top] >= 0].astype(np.int32)
