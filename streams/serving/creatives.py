"""Creatives as the heads of ads see them, kept in step with the house and with the live model.

A creative lies in the space of items: by its words as a new item does, and by the item that it is about, where it names
one. It is no item: nothing that offers items can find it.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xxhash
from numpy.typing import NDArray

from embeddings.content import WORDS, words_of
from embeddings.ids import item_id, item_ids
from embeddings.item_columns import CATEGORIES
from embeddings.items import Items
from ranking.ads.campaigns import Creative
from ranking.ads.features import OUTCOMES, CreativeRows
from ranking.ads.heads import AdHeads, numbers, smoothed
from ranking.ads.inventory import House
from ranking.ads.prediction import UNKNOWN
from streams.serving.live_model import LiveModel, Serving

_FORGOTTEN = 1_000
"""Facts of so many creatives that are gone, and as many as there are, are kept in case they come back."""


def creative_id(key: str) -> int:
    """What stands for a creative where items have ids: that of an item `ad:KEY`, which there is none of."""
    return item_id(f"ad:{key}")


def name_hash(name: str) -> int:
    """32 bits for a placement or an advertiser, 0 where there is no name."""
    return xxhash.xxh32_intdigest(name.encode()) or 1 if name else 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Creatives:
    """The N creatives of a house under one model, by their numbers in the house.

    Attributes:
        house: whose they are.
        model: under which they are seen.
        rows: what the heads see of them.
        item_N: their ids (`creative_id`).
        shown_N: how often each was shown lately.
        advertiser_N: numbers of their advertisers as the heads know them, `UNKNOWN` where they do not.
    """

    house: House
    model: LiveModel
    rows: CreativeRows
    item_N: NDArray[np.uint64]
    shown_N: NDArray[np.float32]
    advertiser_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.item_N)


@dataclass(slots=True)
class CreativeBook:
    """What is known of creatives without a model, in slots that stay: only what changed is read anew."""

    items: Items
    _slots: dict[str, tuple[Creative, int]] = field(default_factory=dict)
    _words_SW: NDArray[np.int16] = field(default_factory=lambda: np.empty((0, WORDS), np.int16))
    _category_SC: NDArray[np.int16] = field(default_factory=lambda: np.empty((0, CATEGORIES), np.int16))
    _item_S: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    _landing_S: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    _vocabulary: int = 0

    def slots(self, creatives: Sequence[Creative]) -> NDArray[np.intp]:
        """The slots of creatives, in which all that is known of them is up to date."""
        if len(self._slots) > 2 * len(creatives) + _FORGOTTEN:
            self._slots.clear()
        held = [self._slots.get(creative.key) for creative in creatives]
        changed = [new for new, old in zip(creatives, held, strict=True) if old is None or old[0] is not new]
        if changed:
            self._take(changed)
            held = [self._slots[creative.key] for creative in creatives]
        if len(self.items.categories) != self._vocabulary:
            self._code([creative for creative, _ in self._slots.values()])
        return np.fromiter((found[1] for found in held if found), np.intp, len(creatives))

    def _take(self, creatives: Sequence[Creative]) -> None:
        for creative in creatives:
            slot = self._slots[creative.key][1] if creative.key in self._slots else len(self._slots)
            self._slots[creative.key] = creative, slot
        self._make_room(len(self._slots))
        slots = [self._slots[creative.key][1] for creative in creatives]
        self._words_SW[slots] = [_words(creative) for creative in creatives]
        self._item_S[slots] = [creative_id(creative.key) for creative in creatives]
        about = [(slot, c.item_id) for slot, c in zip(slots, creatives, strict=True) if c.item_id]
        with self.items.writing:  # nobody takes a row back between its being given and held
            self._landing_S[slots] = -1
            self._landing_S[[slot for slot, _ in about]] = self.items.ensure(item_ids([name for _, name in about]))
        self._code(creatives)

    def _code(self, creatives: Sequence[Creative]) -> None:
        """Put down the codes of categories that items have; others say nothing of anybody's history."""
        known, self._vocabulary = self.items.categories, len(self.items.categories)
        for creative in creatives:
            codes = [known[name] for name in dict.fromkeys(creative.categories) if name in known][:CATEGORIES]
            self._category_SC[self._slots[creative.key][1]] = codes + [-1] * (CATEGORIES - len(codes))

    def _make_room(self, count: int) -> None:
        more = max(count, 2 * len(self._item_S)) - len(self._item_S) if count > len(self._item_S) else 0
        if more:
            self._words_SW = np.concatenate((self._words_SW, np.full((more, WORDS), -1, np.int16)))
            self._category_SC = np.concatenate((self._category_SC, np.full((more, CATEGORIES), -1, np.int16)))
            self._item_S = np.append(self._item_S, np.zeros(more, np.uint64))
            self._landing_S = np.append(self._landing_S, np.full(more, -1, np.int32))

    def landings(self) -> NDArray[np.int32]:
        """The rows of items that creatives are about: nobody may take them back."""
        return self._landing_S[self._landing_S >= 0]

    def seen(self, house: House, model: LiveModel) -> Creatives:
        """The creatives of a house under a model."""
        slot_N = self.slots(house.creatives)
        item_N, landing_N, heads = self._item_S[slot_N], self._landing_S[slot_N], model.ads
        line_N = np.repeat(np.arange(house.rows), np.diff(house.creative_start_L1))
        advertiser_L = np.array([name_hash(line.advertiser) if line else 0 for line in house.lines], np.uint64)
        count_NO, shown_N, learned_ND = _told(heads, item_N, model.target_ND.shape[1])
        rows = CreativeRows(
            vector_ND=self._vectors(self._words_SW[slot_N], item_N, landing_N, model),
            learned_ND=learned_ND,
            landing_N=landing_N,
            category_NC=self._category_SC[slot_N],
            rate_NO=smoothed(count_NO, shown_N, heads.rate_O),
            shown_N=np.log1p(shown_N),
            seconds_N=np.log1p(house.creative_N["duration_s"].astype(np.float32)),
            format_N=house.creative_N["format"].astype(np.uint8),
        )
        return Creatives(
            house=house,
            model=model,
            rows=rows,
            item_N=item_N,
            shown_N=shown_N,
            advertiser_N=numbers(heads.advertiser_G, advertiser_L)[line_N],
        )

    def _vectors(
        self, words_NW: NDArray[np.int16], item_N: NDArray[np.uint64], landing_N: NDArray[np.int32], model: LiveModel
    ) -> NDArray[np.float32]:
        """Where creatives lie: half where their words say, half where the item is that they are about."""
        vector_ND = model.content.vectors(words_NW, item_N)
        with self.items.lock:
            known_N = np.flatnonzero((landing_N >= 0) & (landing_N < len(model.target_ND)))
            target_KD = model.target_ND[landing_N[known_N]]
        learned_K = np.any(target_KD, axis=1)
        at = known_N[learned_K]
        vector_ND[at] = (vector_ND[at] + target_KD[learned_K]) / 2
        return vector_ND


@dataclass(slots=True)
class CreativeTable:
    """The creatives that are seen now; made anew where the house or the model is another one."""

    serving: Serving
    _book: CreativeBook = field(init=False)
    _now: Creatives | None = field(init=False, default=None)
    _vocabulary: int = field(init=False, default=0)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._book = CreativeBook(self.serving.items)
        self.serving.holders.append(self._book.landings)

    def of(self, house: House) -> Creatives:
        """The creatives of a house under the live model. The caller does not hold `items.lock`."""
        with self._lock:
            now, model, vocabulary = self._now, self.serving.live, len(self.serving.items.categories)
            if now is None or now.house is not house or now.model is not model or vocabulary != self._vocabulary:
                now, self._vocabulary = self._book.seen(house, model), vocabulary
                self._now = now
            return now


def _words(creative: Creative) -> list[int]:
    return words_of(categories=creative.categories, language=creative.language, title=creative.text)


def _told(
    heads: AdHeads, item_N: NDArray[np.uint64], width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """What heads know of creatives: what came of them, how often they were shown, whom they suit."""
    at_N = numbers(heads.creative_G, item_N)
    known_N = np.flatnonzero(at_N != UNKNOWN)
    at = at_N[known_N]
    count_NO, shown_N = np.zeros((len(item_N), len(OUTCOMES)), np.float32), np.zeros(len(item_N), np.float32)
    learned_ND = np.zeros((len(item_N), width), np.float32)
    count_NO[known_N], shown_N[known_N] = heads.count_GO[at], heads.shown_G[at]
    if heads.learned_GD.shape[1] == width:
        learned_ND[known_N] = heads.learned_GD[at]
    return count_NO, shown_N, learned_ND
