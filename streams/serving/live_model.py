"""The snapshot in use, scattered into this process's item rows: vectors, neighbours, index and ranker of one version.

A `LiveModel` is never changed; a new snapshot is built beside it and swapped in by one assignment, so a batch that took
it at its start sees one version to its end. New catalogue items are the exception that a version allows: they are added
to its index with a vector made from what the catalogue says of them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embeddings.content import Content, blended
from embeddings.contexts import Popularity
from embeddings.eligibility import Mask, Viewer, ViewerClass
from embeddings.ids import item_ids
from embeddings.index import ItemIndex
from embeddings.items import LONG, MID, TRENDING, ItemCounts, ItemFacts, Items
from embeddings.snapshots import Snapshot
from ranking.features import ItemColumns, ItemRows
from ranking.ranker import Ranker

BuildIndex = Callable[[NDArray[np.int32], NDArray[np.float32]], ItemIndex]
T = TypeVar("T", bound=np.generic)
_HEADROOM = 1024
_CHUNK = 1 << 16
_SHARED = 200
_POPULAR = 1_000
_CLASSES = 256
"""How many classes of viewers are remembered; more take turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveModel:
    """One version by item row (N, with room for items that come later); `content` is what words say of target vectors.

    The less an item was taken, the more of its target vector is what the catalogue says of it.
    """

    version: int
    created_ms: int
    source_ND: NDArray[np.float32]
    target_ND: NDArray[np.float32]
    neighbours_NM: NDArray[np.int32]
    weights_NM: NDArray[np.float32]
    content: Content
    contexts: Popularity
    index: ItemIndex
    ranker: Ranker

    @classmethod
    def empty(cls, items: Items, build: BuildIndex, width: int) -> "LiveModel":
        """What serves before the first snapshot: no vectors, no neighbours, an untaught ranker."""
        capacity = len(items.columns.year_N) + _HEADROOM
        return cls(
            version=0,
            created_ms=0,
            source_ND=np.zeros((capacity, width), np.float32),
            target_ND=np.zeros((capacity, width), np.float32),
            neighbours_NM=np.full((capacity, 1), -1, np.int32),
            weights_NM=np.zeros((capacity, 1), np.float32),
            content=Content.unlearned(width),
            contexts=Popularity.none(),
            index=build(np.empty(0, np.int32), np.empty((0, width), np.float32)),
            ranker=Ranker.untaught(),
        )

    @classmethod
    def of(cls, snapshot: Snapshot, items: Items, build: BuildIndex) -> "LiveModel":
        """Scatter a snapshot into the rows of `items` and build its index; takes seconds at a million items."""
        with items.lock:
            rows_S = items.ensure(snapshot.ids_N)
            nameless_S = np.flatnonzero(~items.columns.named_N[rows_S])  # a row that has a name keeps it
            items.ensure(snapshot.ids_N[nameless_S], [snapshot.names[s] for s in nameless_S.tolist()])
            capacity = len(items.columns.year_N) + _HEADROOM
            catalogued = np.flatnonzero(items.columns.catalogued_N[: len(items)]).astype(np.int32)
            removed_N = items.columns.removed_N[: len(items)].copy()
            words_NW, ids_N = items.columns.words_NW[: len(items)], items.ids.ids_N
        source_ND = _scattered(snapshot.source_ND, rows_S, capacity, 0)
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
            source_ND=source_ND,
            target_ND=target_ND,
            neighbours_NM=_scattered(live_NM, rows_S, capacity, -1),
            weights_NM=_scattered(snapshot.weights_NK, rows_S, capacity, 0),
            content=content,
            contexts=snapshot.contexts._replace(row_CK=_moved(snapshot.contexts.row_CK, rows_S)),
            index=build(rows_R, target_ND[rows_R]),
            ranker=Ranker.from_tensors(snapshot.ranker, version=snapshot.version),
        )

    def fitted(self, items: Items) -> "LiveModel":
        """This model, with room for every row that `items` has by now."""
        if len(items) <= len(self.source_ND):
            return self
        more = len(items) + _HEADROOM
        rows = np.arange(len(self.source_ND), dtype=np.int32)
        return replace(
            self,
            source_ND=_scattered(self.source_ND, rows, more, 0),
            target_ND=_scattered(self.target_ND, rows, more, 0),
            neighbours_NM=_scattered(self.neighbours_NM, rows, more, -1),
            weights_NM=_scattered(self.weights_NM, rows, more, 0),
        )

    def admit(self, rows_R: NDArray[np.int32], items: Items) -> None:
        """Make new catalogue items searchable at once, by what their records say."""
        new_R = rows_R[(rows_R < len(self.target_ND))]
        new_R = new_R[~np.any(self.target_ND[new_R], axis=1)]
        if len(new_R):
            self.target_ND[new_R] = self.content.vectors(items.columns.words_NW[new_R], items.ids.ids_N[new_R])
            self.index.add(new_R, self.target_ND[new_R])


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


@dataclass(frozen=True, slots=True)
class Offer:
    """What may be shown to a class of viewers: `trending_T`, `popular_T` and `fresh_F` are rows, best and newest first.

    `popularity_T` is how popular, as shares of all takes. A row of `blocked_N` may not be shown to them, or to nobody;
    `mask` says the same to the index.
    """

    trending_T: NDArray[np.int32]
    popular_T: NDArray[np.int32]
    popularity_T: NDArray[np.float32]
    fresh_F: NDArray[np.int32]
    blocked_N: NDArray[np.bool_]
    mask: Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """What there is to offer at a moment: the items as one model has them; `item_rows` is what the ranker reads."""

    model: LiveModel
    items: Items
    item_rows: ItemRows
    offer: Offer


@dataclass(slots=True)
class Offers:
    """What may be shown to each class of viewers, kept until the catalogue changes or a window opens or closes."""

    items: Items
    fresh_for_s: int = 0
    _of: dict[ViewerClass, Offer] = field(init=False, default_factory=dict)
    _counted: dict[ViewerClass, int] = field(init=False, default_factory=dict)
    _blocked_N: NDArray[np.bool_] = field(init=False, default_factory=lambda: np.ones(1, np.bool_))
    _as_of: tuple[int, int, int] = (-1, -1, -1)
    _good: range = range(0)

    def renew(self, now_s: int, fresh_for_s: int) -> None:
        """Forget what no longer holds. The caller holds `items.lock`."""
        items = self.items
        as_of = items.offers, len(items.columns.year_N), fresh_for_s
        self.fresh_for_s = fresh_for_s
        if as_of != self._as_of or now_s not in self._good:
            self._as_of, self._good = as_of, range(now_s, items.good_until_s(now_s, self.fresh_for_s))
            self._blocked_N = items.blocked(now_s)
            self._of.clear()
            self._counted.clear()

    def of(self, whose: ViewerClass, now_s: int) -> Offer:
        """The offer of a class; what is popular is looked up again when counts have come. `renew` comes first."""
        found = self._of.get(whose)
        if found is None:
            barred_N = self.items.barred(self._blocked_N, whose)
            fresh_F = self.items.fresh(_SHARED, now_s, self.fresh_for_s, barred_N)
            nothing = fresh_F[:0]
            found = Offer(nothing, nothing, nothing.astype(np.float32), fresh_F, barred_N, Mask(~barred_N))
        if self._counted.get(whose) != self.items.changes:
            self._counted[whose] = self.items.changes
            found = self._with_counts(found)
            if len(self._of) >= _CLASSES:
                self._of.clear()
            self._of[whose] = found
        return found

    def _with_counts(self, offer: Offer) -> Offer:
        items, takes_N = self.items, self.items.columns.popularity_N4[:, MID]
        popular_T = items.popular(_POPULAR, offer.blocked_N, MID)
        return replace(
            offer,
            trending_T=items.popular(_SHARED, offer.blocked_N, TRENDING),
            popular_T=popular_T,
            popularity_T=takes_N[popular_T] / max(float(takes_N.sum()), 1e-9),
        )


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
    _stock: Stock = field(init=False)
    _offers: Offers = field(init=False)
    _packed_at: tuple[int, int] = (-1, -1)

    def __post_init__(self) -> None:
        self._offers = Offers(self.items)
        with self.items.lock:
            self._offers.renew(self.now_s(), self.fresh_for_s)
            offer = self._offers.of(ViewerClass(), self.now_s())
        self._stock = Stock(model=self.live, items=self.items, item_rows=self._packed(), offer=offer)

    def stock(self) -> Stock:
        """What there is to offer, as it was when a slate was made last, under the model that is live now."""
        return replace(self._stock, model=self.live)

    def current(self) -> Stock:
        """What to use for a batch, with the shared lists brought up to date. The caller holds `items.lock`."""
        items = self.items
        facts = items.changes, len(items.columns.year_N)
        if facts != self._packed_at:
            self._packed_at = facts
            self._stock = replace(self._stock, item_rows=self._packed())
        now_s = self.now_s()
        self._offers.renew(now_s, self.fresh_for_s)
        self._stock = replace(self._stock, offer=self._offers.of(ViewerClass(), now_s))
        self.live = self.live.fitted(items)
        return self.stock()

    def for_class(self, stock: Stock, whose: ViewerClass) -> Stock:
        """A stock of `current` as one class of viewers is offered it. The caller holds `items.lock` since."""
        return replace(stock, offer=self._offers.of(whose, self.now_s()))

    def barred(self, viewer: Viewer) -> NDArray[np.bool_]:
        """Which rows must not be shown to a viewer now. The caller holds `items.lock`."""
        now_s = self.now_s()
        self._offers.renew(now_s, self.fresh_for_s)
        return self._offers.of(self.items.class_of(viewer), now_s).blocked_N

    def _packed(self) -> ItemRows:
        """Counts and attributes of all items, as the ranker reads them."""
        c = self.items.columns
        columns = ItemColumns(
            popularity_N3=c.popularity_N4[:, :3],
            likes_N=c.likes_N,
            dislikes_N=c.dislikes_N,
            impressions_N=c.shown_N,
            clicks_N=c.clicked_N,
            last_taken_s_N=c.last_taken_s_N,
            first_seen_s_N=c.first_seen_s_N,
            category_NC=c.categories_NC,
            year_N=c.year_N,
        )
        return columns.packed(like_rate=self.like_rate, click_rate=self.click_rate)

    def catalogue(self, facts: Sequence[ItemFacts], removed: Sequence[str]) -> None:
        """Take over catalogue records: new items can be found at once, removed ones are not shown any more.

        Raises:
            IdCollision: an item's id is taken by another name; the items before it are in.
        """
        with self.items.lock:
            for name in removed:
                self.live.index.remove(np.array([self.items.remove(name)], np.int32))
            if facts:
                known_R = self.items.ids.rows(item_ids([fact.name for fact in facts]))
                back_R = known_R[(known_R >= 0) & self.items.columns.removed_N[known_R]]
                rows_R = self.items.add(facts)
                self.live = self.live.fitted(self.items)
                self.live.admit(rows_R, self.items)
                self.live.index.add(back_R, self.live.target_ND[back_R])

    def count(self, counts: ItemCounts, names: Sequence[str] = ()) -> None:
        """Take over item counts; with names, what is popular can be offered where there is no catalogue."""
        with self.items.lock:
            self.items.count(counts, names)
            self.items.changes += 1
            likes, dislikes = self.items.columns.likes_N.sum(), self.items.columns.dislikes_N.sum()
            takes = self.items.columns.popularity_N4[:, LONG].sum()
            self.like_rate = float((likes + 7) / (max(likes + dislikes, takes) + 10))
            shown, answered = self.items.columns.shown_N.sum(), self.items.columns.clicked_N.sum()
            self.click_rate = float((answered + 2.5) / (shown + 50))

    def swap(self, snapshot: Snapshot) -> LiveModel:
        """Build the next model beside the one in use, then put it in its place. Returns it."""
        model = LiveModel.of(snapshot, self.items, self.build)
        with self.items.lock:
            model = model.fitted(self.items)
            columns = self.items.columns
            model.admit(np.flatnonzero(columns.catalogued_N & ~columns.removed_N).astype(np.int32), self.items)
            model.index.remove(np.flatnonzero(columns.removed_N).astype(np.int32))
            self.live = model
            self.items.changes += 1
        return model
