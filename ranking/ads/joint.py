"""The page: organic items and ads in one list, laid so that both together are worth most within the house's rules.

Organic items keep their order, and so do ads, which come in the order of their auction. `lay` decides how many ads
there are and where: it maximises the sum over places of weight x organic value, and of weight x revenue x `tradeoff`
(λ, what a micro is worth in organic value), by dynamic programming over what is placed so far.

>>> pages = Pages.of([[5.0, 4.0, 3.0, 2.0]], [[1_000, 900]], places=4)
>>> laid = lay(pages, PageRules(ad_load_max=0.5, first_slot=2, min_gap=1, tradeoff=0.01))
>>> laid.organic_PT.tolist(), laid.ad_PT.tolist()
([[0, -1, 1, -1]], [[-1, 0, -1, 1]])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.ads.gates import MEDIUM
from ranking.ads.losses import Loss
from ranking.ads.separation import Kinds
from ranking.jit import kernel

EMPTY = -1
MOST_ADS = 16
"""So many ads of a page are looked at, and so many at most are on it."""
_OUTBID, _ADJACENCY, _SEPARATION = int(Loss.outbid), int(Loss.adjacency_block), int(Loss.separation_block)
_STOP, _ORGANIC, _AD, _SKIP = 0, 1, 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRules:
    """What a house says of its pages.

    Attributes:
        ad_load_max: share of a page's places that may be ads.
        first_slot: the first place that may be an ad; 1 is the top.
        min_gap: organic items between two ads, at least.
        tradeoff: λ; goes into the record of each ad.
        collapse: the unfilled rule: does a page get shorter by the places that could be ads and are none? Where not,
            organic items stand there.
    """

    ad_load_max: float = 0.2
    first_slot: int = 1
    min_gap: int = 1
    tradeoff: float = 0.0
    collapse: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.ad_load_max <= 1:
            raise ValueError(f"ad_load_max = {self.ad_load_max}; allowed: a share from 0 to 1")
        if self.first_slot < 1 or self.min_gap < 0 or not 0 <= self.tradeoff < np.inf:
            said = f"first_slot = {self.first_slot}, min_gap = {self.min_gap}, tradeoff = {self.tradeoff}"
            raise ValueError(f"{said}; allowed: 1 or more, 0 or more, 0 or more")


class Pages(NamedTuple):
    """P pages of up to `places_P` places, with N organic items and A ads at most; what is not there is behind `_P`.

    Attributes:
        places_P: how many places a page has at most.
        items_P: how many organic items there are for it.
        value_PN: what each is worth in the first place of all (weight 1).
        ads_P: how many ads; of more than `MOST_ADS` the first are looked at.
        revenue_PA: what each brings, expected micros, in a place of weight 1.
        fits_PAG: may ad a stand before organic item g, that is between g - 1 and g? G = N + 1; see `neighbourly`.
        creative_PA: which creative each ad is, for separation; -1 is of no kind.
    """

    places_P: NDArray[np.int64]
    items_P: NDArray[np.int64]
    value_PN: NDArray[np.float64]
    ads_P: NDArray[np.int64]
    revenue_PA: NDArray[np.int64]
    fits_PAG: NDArray[np.bool_]
    creative_PA: NDArray[np.int32]

    @classmethod
    def of(cls, values: Sequence[Sequence[float]], revenues: Sequence[Sequence[int]], *, places: int) -> "Pages":
        """Pages whose ads may stand beside anything, and are of no kind."""
        P, N = len(values), max(map(len, values), default=0)
        A = max(map(len, revenues), default=0)
        value_PN, revenue_PA = np.zeros((P, N)), np.zeros((P, A), np.int64)
        for p in range(P):
            value_PN[p, : len(values[p])], revenue_PA[p, : len(revenues[p])] = values[p], revenues[p]
        return cls(
            np.full(P, places, np.int64),
            np.array([len(each) for each in values], np.int64),
            value_PN,
            np.array([len(each) for each in revenues], np.int64),
            revenue_PA,
            np.ones((P, A, N + 1), np.bool_),
            np.full((P, A), -1, np.int32),
        )


class Layout(NamedTuple):
    """P pages of T places.

    Attributes:
        organic_PT, ad_PT: which organic item or ad stands in each place, `EMPTY` where none does.
        value_P: what its organic items are worth, weighted.
        revenue_P: what its ads bring, weighted micros.
        code_PA: 0 where an ad is placed, else a `Loss`: `adjacency_block` (it may stand nowhere), `separation_block`
            (of a kind with an ad before it), `outbid` (what is organic is worth more, or there is no room).
    """

    organic_PT: NDArray[np.int32]
    ad_PT: NDArray[np.int32]
    value_P: NDArray[np.float64]
    revenue_P: NDArray[np.float64]
    code_PA: NDArray[np.int16]


def neighbourly(
    risk_PN: NDArray[np.uint8],
    items_P: NDArray[np.int64],
    own_PA: NDArray[np.uint8],
    tolerance: int = MEDIUM,
) -> NDArray[np.bool_]:
    """May each ad stand before each organic item? `Pages.fits_PAG`. Shape (P, A, N + 1).

    Of the organic items on both sides neither may be riskier than `tolerance`, nor tamer than the ad itself. The one
    that would follow counts even where the page ends before it: it is what the next page begins with.

    Args:
        risk_PN: `gates.risk` of the organic items.
        items_P: how many there are.
        own_PA: `gates.risk` of the ads.
        tolerance: the riskiest neighbour that advertisers put up with.
    """
    N = risk_PN.shape[1]
    there_PN = np.arange(N) < items_P[:, None]
    good_PAN = ~there_PN[:, None] | ((risk_PN <= tolerance)[:, None] & (risk_PN[:, None] >= own_PA[:, :, None]))
    fits_PAG = np.ones((*own_PA.shape, N + 1), np.bool_)
    fits_PAG[:, :, 1:] &= good_PAN
    fits_PAG[:, :, :-1] &= good_PAN
    return fits_PAG


def lay(
    pages: Pages,
    rules: PageRules,
    kinds: Kinds | None = None,
    weight_T: NDArray[np.float64] | None = None,
) -> Layout:
    """Lay P pages.

    Of two ads of a kind the earlier one stands, unless it may stand nowhere. Among equal pages the one with organic
    items first is laid. A page without room for an ad, or whose ads bring nothing, is all organic.

    Args:
        pages: see there.
        rules: the same for all of them.
        kinds: what keeps ads apart; without it nothing does.
        weight_T: how much each place counts (how often it is looked at); 1 without it. At least as long as the
            longest page.

    Raises:
        ValueError: weights for fewer places than a page has.
    """
    T = int(pages.places_P.max(initial=0))
    weight_T = np.ones(T) if weight_T is None else weight_T
    if len(weight_T) < T:
        raise ValueError(f"weights of {len(weight_T)} places for pages of {T}")
    P, A = pages.revenue_PA.shape
    kinds = kinds or Kinds(np.zeros(1, np.int64), np.zeros(0, np.int32), 0)
    made = Layout(
        np.full((P, T), EMPTY, np.int32),
        np.full((P, T), EMPTY, np.int32),
        np.zeros(P),
        np.zeros(P),
        np.full((P, A), _OUTBID, np.int16),
    )
    mark_T = np.full(kinds.total, -1, np.int64)
    said = float(rules.ad_load_max), rules.first_slot - 1, rules.min_gap, float(rules.tradeoff), rules.collapse
    pages = Pages._make(map(np.ascontiguousarray, pages))
    _lay(pages, *said, weight_T, kinds.start_N1, kinds.kind_M, mark_T, made)
    return made


@kernel
def _lay(
    pages: Pages,
    load: float,
    first: int,
    gap: int,
    tradeoff: float,
    collapse: bool,
    weight_T: NDArray[np.float64],
    start_N1: NDArray[np.int64],
    kind_M: NDArray[np.int32],
    mark_T: NDArray[np.int64],
    made: Layout,
) -> None:
    ad_S = np.empty(MOST_ADS, np.int64)
    for p in range(len(pages.places_P)):
        places = pages.places_P[p]
        items = min(pages.items_P[p], places)
        room = _room(load, places, items)
        if collapse:
            items = min(items, places - room)
        standing = _standing(p, items, pages, start_N1, kind_M, mark_T, ad_S, made.code_PA)
        chosen = _choose(p, items, min(room, standing), ad_S[:standing], first, gap, tradeoff, weight_T, pages)
        o, k, a, since, t = 0, 0, 0, gap, 0
        while True:
            step = chosen[o, k, a, since]
            if step == _STOP:
                break
            if step == _SKIP:
                a += 1
            elif step == _ORGANIC:
                made.organic_PT[p, t] = o
                made.value_P[p] += weight_T[t] * pages.value_PN[p, o]
                o, since, t = o + 1, min(since + 1, gap), t + 1
            else:
                ad = ad_S[a]
                made.ad_PT[p, t], made.code_PA[p, ad] = ad, 0
                made.revenue_P[p] += weight_T[t] * pages.revenue_PA[p, ad]
                k, a, since, t = k + 1, a + 1, 0, t + 1


@kernel
def _room(load: float, places: int, items: int) -> int:
    """The most ads that are at most a share of a page that has them."""
    room = 0
    while room < min(places, MOST_ADS) and room + 1 <= load * min(places, items + room + 1) + 1e-9:
        room += 1
    return room


@kernel
def _standing(
    p: int,
    items: int,
    pages: Pages,
    start_N1: NDArray[np.int64],
    kind_M: NDArray[np.int32],
    mark_T: NDArray[np.int64],
    ad_S: NDArray[np.int64],
    code_PA: NDArray[np.int16],
) -> int:
    """Ads that may stand somewhere and are of no kind with an earlier one: how many, and which, in `ad_S`."""
    standing = 0
    for a in range(min(pages.ads_P[p], MOST_ADS)):
        if not pages.fits_PAG[p, a, : items + 1].any():
            code_PA[p, a] = _ADJACENCY
            continue
        n = pages.creative_PA[p, a]
        if n >= 0:
            rival = False
            for m in range(start_N1[n], start_N1[n + 1]):
                rival |= mark_T[kind_M[m]] == p
            if rival:
                code_PA[p, a] = _SEPARATION
                continue
            for m in range(start_N1[n], start_N1[n + 1]):
                mark_T[kind_M[m]] = p
        ad_S[standing] = a
        standing += 1
    return standing


@kernel
def _choose(
    p: int,
    items: int,
    room: int,
    ad_S: NDArray[np.int64],
    first: int,
    gap: int,
    tradeoff: float,
    weight_T: NDArray[np.float64],
    pages: Pages,
) -> NDArray[np.uint8]:
    """What is best next, by organic items and ads placed, ads passed, and organic items since the last ad.

    Bellman's recursion from the end: the worth of what follows is the best of placing the next organic item, placing
    the next ad, and passing that ad over.
    """
    places, ads = pages.places_P[p], len(ad_S)
    best = np.zeros((items + 1, room + 1, ads + 1, gap + 1))
    step = np.zeros((items + 1, room + 1, ads + 1, gap + 1), np.uint8)
    for o in range(items, -1, -1):
        for k in range(min(room, places - o), -1, -1):
            t = o + k
            if t >= places:
                continue
            for a in range(ads, k - 1, -1):
                for since in range(gap, -1, -1):
                    most, what = 0.0, _STOP
                    if o < items:
                        following = best[o + 1, k, a, min(since + 1, gap)]
                        most, what = weight_T[t] * pages.value_PN[p, o] + following, _ORGANIC
                    if a < ads:
                        ad = ad_S[a]
                        if k < room and t >= first and since >= gap and pages.fits_PAG[p, ad, o]:
                            paid = tradeoff * weight_T[t] * pages.revenue_PA[p, ad] + best[o, k + 1, a + 1, 0]
                            if paid > most:
                                most, what = paid, _AD
                        if best[o, k, a + 1, since] > most:
                            most, what = best[o, k, a + 1, since], _SKIP
                    best[o, k, a, since], step[o, k, a, since] = most, what
    return step
