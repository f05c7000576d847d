"""The snapshot in use, scattered into this process's item rows: vectors, neighbours, index and ranker of one version.

A `LiveModel` is never changed; a new snapshot is built beside it and swapped in by one assignment, so a batch that took
it at its start sees one version to its end. New catalogue items are the exception that a version allows: they are added
to its index with a vector made from what the catalogue says of them.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embeddings.content import Content, blended
from embeddings.contexts import Popularity
from embeddings.eligibility import Mask, Viewer, ViewerClass
from embeddings.idtable import MAX_ROWS
from embeddings.index import ItemIndex, build_index
from embeddings.items import LONG, MID, SHORT, ItemCounts, ItemFacts, Items
from embeddings.snapshots import Snapshot
from embeddings.turnover import Era, Turnover
from ranking.ads.heads import AdHeads
from ranking.features import ItemRows
from ranking.ranker import Ranker
from streams.serving.offers import Offer, Offers
from streams.settings import Settings

BuildIndex = Callable[[NDArray[np.int32], NDArray[np.float32]], ItemIndex]
T = TypeVar("T", bound=np.generic)
_AT_ONCE = 512
"""Catalogue records that are let in at once; readers come between."""
_CHUNK = 1 << 16


def index_builder(settings: Settings) -> BuildIndex:
    """How an index is built under these settings."""
    s = settings.index
    return partial(
        build_index,
        kind=s.kind,
        device=s.device,
        nprobe=s.nprobe,
        threads=s.threads,
        memory_mb=s.memory_mb,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveModel:
    """One version by item row (N); `content` is what words say of target vectors, `row_S` are the rows of its items.

    The less an item was taken, the more of its target vector is what the catalogue says of it. Rows of sources and
    neighbours end with the snapshot's; targets have room for items that come later.
    """

    version: int
    created_ms: int
    row_S: NDArray[np.int32]
    source_ND: NDArray[np.float32]
    target_ND: NDArray[np.float32]
    neighbours_NM: NDArray[np.int32]
    weights_NM: NDArray[np.float32]
    content: Content
    contexts: Popularity
    index: ItemIndex
    ranker: Ranker
    ads: AdHeads = field(default_factory=AdHeads)

    @classmethod
    def empty(cls, items: Items, build: BuildIndex, width: int) -> "LiveModel":
        """What serves before the first snapshot: no vectors, no neighbours, an untaught ranker."""
        return cls(
            version=0,
            created_ms=0,
            row_S=np.empty(0, np.int32),
            source_ND=np.zeros((0, width), np.float32),
            target_ND=np.zeros((len(items.columns), width), np.float32),
            neighbours_NM=np.full((0, 1), -1, np.int32),
            weights_NM=np.zeros((0, 1), np.float32),
            content=Content.unlearned(width),
            contexts=Popularity.none(),
            index=build(np.empty(0, np.int32), np.empty((0, width), np.float32)),
            ranker=Ranker.untaught(),
        )

    @classmethod
    def of(cls, snapshot: Snapshot, items: Items, build: BuildIndex) -> "LiveModel":
        """Scatter a snapshot into the rows of `items` and build its index; takes seconds at a million items."""
        rows_S = np.empty(len(snapshot.ids_N), np.int32)
        for at in range(0, len(rows_S), _AT_ONCE):  # a row that has a name keeps it
            ids_S, names = snapshot.ids_N[at : at + _AT_ONCE], snapshot.names[at : at + _AT_ONCE]
            items.learn_names(dict(zip(ids_S.tolist(), names, strict=True)))
            rows_S[at : at + _AT_ONCE] = items.ensure(ids_S)
        columns, n = items.columns, len(items)
        catalogued = np.flatnonzero(columns.catalogued_N[:n]).astype(np.int32)
        removed_N, words_NW, ids_N = columns.removed_N[:n].copy(), columns.words_NW[:n], items.ids.ids_N
        learned, capacity = int(rows_S.max(initial=-1)) + 1, len(columns)
        source_ND = _scattered(snapshot.source_ND, rows_S, learned, 0)
        target_ND = _scattered(snapshot.target_ND, rows_S, capacity, 0)
        live_NM = _moved(snapshot.neighbours_NK, rows_S)
        content = Content.learned(words_NW[rows_S], snapshot.target_ND, snapshot.counts_N)
        learned_N = np.zeros(capacity, np.bool_)
        learned_N[rows_S[np.any(snapshot.target_ND, axis=1)]] = True
        served_N = learned_N.copy()
        served_N[catalogued] = True
        counts_N = _scattered(snapshot.counts_N, rows_S, capacity, 0)
        for some_R in _in_chunks(np.flatnonzero(served_N)):
            said_RD = content.vectors(words_NW[some_R], ids_N[some_R])
            target_ND[some_R] = blended(target_ND[some_R], said_RD, counts_N[some_R])
        served_N[: len(removed_N)] &= ~removed_N
        rows_R = np.flatnonzero(served_N).astype(np.int32)
        return cls(
            version=snapshot.version,
            created_ms=snapshot.created_ms,
            row_S=rows_S,
            source_ND=source_ND,
            target_ND=target_ND,
            neighbours_NM=_scattered(live_NM, rows_S, learned, -1),
            weights_NM=_scattered(snapshot.weights_NK, rows_S, learned, 0),
            content=content,
            contexts=snapshot.contexts._replace(row_CK=_moved(snapshot.contexts.row_CK, rows_S)),
            index=build(rows_R, target_ND[rows_R]),
            ranker=Ranker.from_tensors(snapshot.ranker, version=snapshot.version),
            ads=AdHeads.from_tensors(snapshot.ranker),
        )

    def fitted(self, items: Items) -> "LiveModel":
        """This model, with room for a target vector of every row that `items` has room for."""
        if len(items.columns) <= len(self.target_ND):
            return self
        target_ND = np.zeros((len(items.columns), self.target_ND.shape[1]), np.float32)
        target_ND[: len(self.target_ND)] = self.target_ND
        return replace(self, target_ND=target_ND)

    def admit(self, rows_R: NDArray[np.int32], items: Items) -> None:
        """Make catalogue items searchable that are not, new ones by what their records say."""
        rows_R = rows_R[~self.index.holds(rows_R)]
        new_R = rows_R[~np.any(self.target_ND[rows_R], axis=1)]
        self.target_ND[new_R] = self.content.vectors(items.columns.words_NW[new_R], items.ids.ids_N[new_R])
        self.index.add(rows_R, self.target_ND[rows_R])

    def forget(self, rows_R: NDArray[np.int32]) -> None:
        """Leave nothing of rows that are none of its items': others get them."""
        self.index.remove(rows_R)
        self.target_ND[rows_R[rows_R < len(self.target_ND)]] = 0

    def follow(self, rows_R: NDArray[np.int32], items: Items) -> None:
        """Take over what the catalogue says of rows that may have changed while this was built."""
        columns = items.columns
        self.index.remove(rows_R[columns.removed_N[rows_R]])
        self.admit(rows_R[columns.catalogued_N[rows_R] & ~columns.removed_N[rows_R]], items)


def _moved(places: NDArray[np.int32], rows_S: NDArray[np.int32]) -> NDArray[np.int32]:
    """Places in a snapshot as rows of this process, -1 where there is none."""
    return np.where(places >= 0, rows_S[places], -1).astype(np.int32) if len(rows_S) else np.full_like(places, -1)


def _in_chunks(rows_R: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Rows by the ten thousand, so that what is made of them takes little room beside them."""
    yield from (rows_R[begin : begin + _CHUNK] for begin in range(0, len(rows_R), _CHUNK))


def _scattered(array: NDArray[T], rows_R: NDArray[np.int32], capacity: int, empty: float) -> NDArray[T]:
    out = np.full((capacity, *array.shape[1:]), empty, array.dtype)
    out[rows_R] = array
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """What there is to offer at a moment: the items as one model has them; `item_rows` is what the ranker reads.

    Rows that are found in it are what they are as long as `era` is kept.
    """

    model: LiveModel
    items: Items
    item_rows: ItemRows
    offer: Offer
    era: Era | None = None


@dataclass(slots=True)
class Serving:
    """What a worker serves with: the item table, the live model, and the lists that all users share."""

    items: Items
    build: BuildIndex
    live: LiveModel
    now_s: Callable[[], int] = lambda: int(time.time())
    fresh_for_s: int = 7 * 86_400
    like_rate: float = 0.7
    click_rate: float = 0.05
    strangers: int = MAX_ROWS
    """So many items may be known by nothing but events."""
    holders: list[Callable[[], NDArray[np.int32]]] = field(default_factory=list)
    """What else keeps rows of items for longer than a batch: each returns those that it has. Who takes others into it
    holds `items.writing` meanwhile."""
    turnover: Turnover = field(init=False)
    _stock: Stock = field(init=False)
    _offers: Offers = field(init=False)
    _turn: threading.Lock = field(init=False, default_factory=threading.Lock)
    """Held while a snapshot gets rows, which nobody takes back meanwhile."""

    def __post_init__(self) -> None:
        self.turnover, self._offers = Turnover(self.items, self.strangers), Offers(self.items)
        with self.items.lock:
            offer = self._offers.of(ViewerClass(), self.now_s(), self.fresh_for_s)
        self._stock = Stock(model=self.live, items=self.items, item_rows=self.item_rows(), offer=offer)

    def stock(self) -> Stock:
        """What there is to offer, as it was when a slate was made last, under the model that is live now.

        The caller holds `items.lock`.
        """
        return replace(self._stock, model=self.live, era=self.turnover.era)

    def current(self) -> Stock:
        """What to use for a batch, with the shared lists brought up to date. The caller holds `items.lock`."""
        offer = self._offers.of(ViewerClass(), self.now_s(), self.fresh_for_s)
        self._stock = replace(self._stock, item_rows=self.item_rows(), offer=offer)
        return self.stock()

    def prepare(self, viewers: Iterable[Viewer]) -> None:
        """Make what is offered to viewers of classes that never came, before a batch holds `items.lock` for it."""
        for viewer in viewers:
            mask = self._offers.prepare(self.items.class_of(viewer), self.now_s())
            if mask is not None:
                _rehearse(self.live, mask)

    def for_class(self, stock: Stock, whose: ViewerClass) -> Stock:
        """A stock of `current` as one class of viewers is offered it. The caller holds `items.lock` since."""
        return replace(stock, offer=self._offers.of(whose, self.now_s(), self.fresh_for_s))

    def barred(self, viewer: Viewer) -> NDArray[np.bool_]:
        """Which rows must not be shown to a viewer now. The caller holds `items.lock`."""
        return self._offers.of(self.items.class_of(viewer), self.now_s(), self.fresh_for_s).blocked_N

    def item_rows(self) -> ItemRows:
        """Counts and attributes of all items where they lie, as rankers read them. The caller holds `items.lock`."""
        c, half_lives = self.items.columns, self.items.half_lives
        return ItemRows(
            popularity_N3=c.popularity_N4,
            reactions_N4=c.reactions_N4,
            clock_s_N=c.clock_s_N,
            last_taken_s_N=c.last_taken_s_N,
            first_seen_s_N=c.first_seen_s_N,
            year_N=c.year_N,
            category_NC=c.categories_NC,
            clock_s=self.items.clock_s,
            half_life_4=np.array(half_lives)[[SHORT, MID, LONG, 4]],
            like_rate=self.like_rate,
            click_rate=self.click_rate,
        )

    def catalogue(self, facts: Sequence[ItemFacts], removed: Sequence[str]) -> None:
        """Take over catalogue records: new items can be found at once, removed ones are not shown any more.

        Raises:
            IdCollision: an item's id is taken by another name; the items before it are in.
        """
        for name in removed:
            with self.items.writing:
                if (row := self.items.remove(name)) >= 0:
                    with self.items.lock:
                        self.live.index.remove(np.array([row], np.int32))
        for begin in range(0, len(facts), _AT_ONCE):
            with self.items.writing:
                rows_R = self.items.add(facts[begin : begin + _AT_ONCE])
                model = self.live.fitted(self.items)
                with self.items.lock:
                    self.live = model
                    model.admit(rows_R, self.items)

    def count(self, counts: ItemCounts, names: Sequence[str] = ()) -> None:
        """Take over item counts; with names, what is popular can be offered where there is no catalogue."""
        with self.items.writing:
            self.items.count(counts, names)
            likes, dislikes, shown, answered = self.items.reactions().tolist()
            self.like_rate = (likes + 7) / (max(likes + dislikes, self.items.all_takes(LONG)) + 10)
            self.click_rate = (answered + 2.5) / (shown + 50)

    def hear(self, names: dict[int, str]) -> None:
        """Take over what the events of a batch call items, by id."""
        self.turnover.hear(names, self.now_s())

    def turn_over(self) -> tuple[int, int]:
        """Take back rows of items that nobody knows any more. Returns how many were retired and reclaimed.

        Waits while a snapshot is taken over. To be called now and then.
        """
        with self._turn:
            return self.turnover.sweep(
                self.live.row_S, self.now_s(), lambda rows_R: self.live.forget(rows_R), self.holders
            )

    def swap(self, snapshot: Snapshot) -> LiveModel:
        """Build the next model beside the one in use, then put it in its place. Returns it."""
        with self._turn:
            return self._swap(snapshot)

    def _swap(self, snapshot: Snapshot) -> LiveModel:
        with self.items.lock:
            seen = self.items.offered.end
        model = LiveModel.of(snapshot, self.items, self.build)
        with self.items.writing:
            model = model.fitted(self.items)
            rows = self.items.offered.since(seen)
            if rows is None:
                rows = np.arange(len(self.items), dtype=np.int32)
            model.follow(rows, self.items)  # nobody uses it yet
            for mask in self._offers.masks():
                _rehearse(model, mask)
            with self.items.lock:
                self.live = model
                self.items.changes += 1
        return model


def _rehearse(model: LiveModel, mask: Mask) -> None:
    """Search once under a mask, so that what this takes to prepare is there before a batch waits for it."""
    model.index.search(np.zeros((1, model.target_ND.shape[1]), np.float32), 1, mask)
