"""What may be shown to each class of viewers, kept up to date row by row.

An offer follows the item table: what changed since it was looked at last and what opened or closed meanwhile are looked
at again, and nothing else, so a batch of catalogue records costs what it holds and not what there is.
"""

from collections import OrderedDict
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from embeddings.eligibility import Mask, ViewerClass
from embeddings.item_columns import FOREVER_S
from embeddings.items import MID, TRENDING, Items

_SHARED = 200
_POPULAR = 1_000
_MOST = 200
"""So many of the most taken items are called popular."""
_CLASSES = 256
"""How many classes of viewers are remembered, those that came last."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What may be shown to a class of viewers: `trending_T`, `popular_T` and `fresh_F` are rows, best and newest first.

    `popularity_T` is how popular, as shares of all takes; rows of `most_N` are called that. A row of `blocked_N` may
    not be shown to them, or to nobody; `mask` says the same to the index. Both change in place as the catalogue does.
    """

    trending_T: NDArray[np.int32]
    popular_T: NDArray[np.int32]
    popularity_T: NDArray[np.float32]
    fresh_F: NDArray[np.int32]
    most_N: NDArray[np.bool_]
    blocked_N: NDArray[np.bool_]
    mask: Mask


@dataclass(slots=True)
class _Kept:
    """An offer and how far it has followed: changes, the moment, counts; until when its new items are that."""

    offer: Offer
    rules: tuple[bool, bool]
    changes: int
    now_s: int
    counted: int = -1
    fresh_for_s: int = -1
    fresh_until_s: int = 0


@dataclass(slots=True)
class Offers:
    """The offers of all classes that came lately."""

    items: Items
    _of: OrderedDict[ViewerClass, _Kept] = field(init=False, default_factory=OrderedDict)

    def of(self, whose: ViewerClass, now_s: int, fresh_for_s: int) -> Offer:
        """The offer of a class at a moment. The caller holds `items.lock`."""
        kept = self._of.get(whose)
        if kept is None or kept.rules != self._rules or now_s < kept.now_s or not self._followed(kept, whose, now_s):
            kept = self._of[whose] = self._made(whose, now_s)
        self._latest(whose)
        if fresh_for_s != kept.fresh_for_s or now_s >= kept.fresh_until_s:
            self._renew(kept, now_s, fresh_for_s)
        if kept.counted != self.items.changes:
            kept.counted, kept.offer = self.items.changes, self._with_counts(kept.offer)
        return kept.offer

    def masks(self) -> list[Mask]:
        """The masks of all of them."""
        return [kept.offer.mask for kept in list(self._of.values())]

    def prepare(self, whose: ViewerClass, now_s: int) -> Mask | None:
        """Make the offer of a class that is not known yet, while others use the item table; its mask if it is new."""
        if whose in self._of:
            return None
        with self.items.lock:
            changes, rules = self.items.offered.end, self._rules
        made = self._made(whose, now_s)
        made.changes, made.rules = changes, rules  # what changed meanwhile is looked at again
        with self.items.lock:
            kept = self._of.setdefault(whose, made)
            self._latest(whose)
            return kept.offer.mask

    def _latest(self, whose: ViewerClass) -> None:
        """This class came last; where there are too many, that goes which came longest ago."""
        self._of.move_to_end(whose)
        if len(self._of) > _CLASSES:
            self._of.popitem(last=False)

    @property
    def _rules(self) -> tuple[bool, bool]:
        return self.items.catalogued, self.items.catalogue_unread

    def _made(self, whose: ViewerClass, now_s: int) -> _Kept:
        items = self.items
        changes, rules = items.offered.end, self._rules
        rows = slice(len(items.columns))  # others may come meanwhile
        blocked_N = items.barred(items.blocked(now_s, rows), whose, rows)
        none = np.empty(0, np.int32)
        offer = Offer(none, none, none.astype(np.float32), none, none.astype(np.bool_), blocked_N, Mask(~blocked_N))
        return _Kept(offer, rules, changes, now_s)

    def _followed(self, kept: _Kept, whose: ViewerClass, now_s: int) -> bool:
        """Look again at rows that changed, opened or closed; False where too much did."""
        items, blocked_N = self.items, kept.offer.blocked_N
        if kept.changes == items.offered.end and kept.now_s == now_s:
            return len(blocked_N) == len(items.columns) or self._widened(kept)
        rows = items.offered.since(kept.changes)
        if rows is None:
            return False
        if len(blocked_N) < len(items.columns):
            self._widened(kept)
            blocked_N = kept.offer.blocked_N
        if kept.now_s < now_s:
            rows = np.union1d(rows, items.due(kept.now_s, now_s))
        kept.changes, kept.now_s = items.offered.end, now_s
        if len(rows):
            barred_R = items.barred(items.blocked(now_s, rows), whose, rows)
            turned_R = rows[barred_R != blocked_N[rows]]
            blocked_N[rows] = barred_R
            kept.offer.mask.allow(turned_R, ~blocked_N[turned_R])
            kept.fresh_until_s, kept.counted = 0, -1
        return True

    def _widened(self, kept: _Kept) -> bool:
        """Make room for rows that the table has room for; nobody has looked at them yet."""
        blocked_N = np.ones(len(self.items.columns), np.bool_)
        blocked_N[: len(kept.offer.blocked_N)] = kept.offer.blocked_N
        kept.offer.mask.allowed_N = ~blocked_N
        kept.offer, kept.counted = replace(kept.offer, blocked_N=blocked_N), -1
        return True

    def _renew(self, kept: _Kept, now_s: int, fresh_for_s: int) -> None:
        """Look up what is new; that holds until the first of it is not."""
        fresh_F = self.items.fresh(_SHARED, now_s, fresh_for_s, kept.offer.blocked_N)
        since_s = self.items.columns.fresh_s_N[fresh_F]
        kept.fresh_for_s, kept.fresh_until_s = fresh_for_s, int(since_s.min(initial=FOREVER_S)) + fresh_for_s
        kept.offer = replace(kept.offer, fresh_F=fresh_F)

    def _with_counts(self, offer: Offer) -> Offer:
        items = self.items
        popular_T = items.popular(_POPULAR, offer.blocked_N, MID)
        most_N = np.zeros(len(offer.blocked_N), np.bool_)
        most_N[popular_T[:_MOST]] = True
        return replace(
            offer,
            trending_T=items.popular(_SHARED, offer.blocked_N, TRENDING),
            popular_T=popular_T,
            most_N=most_N,
            popularity_T=(items.takes(popular_T, MID) / max(items.all_takes(MID), 1e-9)).astype(np.float32),
        )
