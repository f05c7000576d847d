"""What becomes of each ad if this person sees it: chances per impression of a click, a completed view, a conversion.

`AdScorer` takes people as they are (`viewers`), keeps of what may be shown to them what is worth a closer look (`near`)
and gives chances (`chances`): what the heads of the live snapshot say, calibrated by placement and advertiser. An ad
that was seldom shown bids what chance says it may be worth (`ranking.ads.exploration`); what advertisers were promised
too much of is held back. Who does not let the profile be used is nobody: everybody in this context gets the same
chances, and nothing is drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.candidates import taste
from embeddings.events import APPEAL, TAKES
from embeddings.state_columns import Histories
from ranking.ads import exploration
from ranking.ads.bids import worth
from ranking.ads.campaigns import BidType
from ranking.ads.features import OUTCOMES, Viewers, features, nearness
from ranking.ads.heads import numbers
from ranking.ads.inventory import House
from ranking.ads.prediction import UNKNOWN
from ranking.features import Histories as SeenHistories
from ranking.features import Neighbours
from ranking.jit import kernel
from streams.serving.creatives import Creatives, CreativeTable, name_hash
from streams.serving.live_model import Serving
from streams.settings import Settings

_WEIGHT = TAKES.astype(np.float32)
_FOR_A_SLOT = 4
"""So many candidates at least are looked at for each slot."""
_PAID_BY = np.full(len(BidType), -1)
_PAID_BY[[BidType.cpc, BidType.cpcv, BidType.cpa]] = [OUTCOMES.index(name) for name in OUTCOMES]
placement_of: Callable[[str], int] = name_hash
"""What a placement is called in arrays: 32 bits of its `tagid`, 0 where it has none."""


class AdCandidates(NamedTuple):
    """C creatives that may be shown in P auctions; those of an auction lie side by side.

    Attributes:
        start_P1: where each auction's begin.
        creative_C: numbers in the house.
        viewer_P: which of the people looks.
        placement_P: `placement_of`.
    """

    start_P1: NDArray[np.int64]
    creative_C: NDArray[np.int32]
    viewer_P: NDArray[np.intp]
    placement_P: NDArray[np.uint32]

    @property
    def auction_C(self) -> NDArray[np.intp]:
        """Which auction each candidate is of."""
        return np.repeat(np.arange(len(self.viewer_P)), np.diff(self.start_P1))

    def at(self, keep_C: NDArray[np.bool_]) -> "AdCandidates":
        """Some of the candidates, of the same auctions."""
        start_P1 = np.append(0, np.cumsum(keep_C))[self.start_P1]
        return self._replace(start_P1=start_P1, creative_C=self.creative_C[keep_C])


class Chances(NamedTuple):
    """What is expected of C candidates, per impression; O is `ranking.ads.features.OUTCOMES`.

    Attributes:
        p_CO: chances as the calibrated heads see them: what decisions are told with.
        bid_CO: chances to bid with: drawn where the creative was seldom shown, less where too much was promised.
        spread_CO: of the log-odds that were drawn from, 0 where nothing was.
        x_CF: what the heads saw.
    """

    p_CO: NDArray[np.float64]
    bid_CO: NDArray[np.float64]
    spread_CO: NDArray[np.float64]
    x_CF: NDArray[np.float32]


@dataclass(slots=True)
class AdScorer:
    """Scores ads with the live model, for any number of threads.

    Attributes:
        exploration: `ads.exploration`; 0 draws nothing.
        most: `ads.max_candidates`.
    """

    serving: Serving
    settings: Settings
    exploration: float = field(init=False)
    most: int = field(init=False)
    _table: CreativeTable = field(init=False)

    def __post_init__(self) -> None:
        self.exploration, self.most = self.settings.ads.exploration, self.settings.ads.max_candidates
        self._table = CreativeTable(self.serving)

    def prepare(self, house: House) -> Creatives:
        """The creatives of a house under the live model; made where either is new, some 20 ms for 10,000.

        Any thread may do so beforehand. The caller does not hold `items.lock`.
        """
        return self._table.of(house)

    def viewers(
        self,
        creatives: Creatives,
        histories: Histories,
        now_s_U: NDArray[np.int64],
        context_U: NDArray[np.integer],
        personal_U: NDArray[np.bool_],
    ) -> Viewers:
        """U people as the heads may see them.

        Args:
            creatives: of which model.
            histories: of U people.
            now_s_U: the moments, epoch seconds.
            context_U: context codes of `ranking.features`.
            personal_U: may the profile be used for ads?
        """
        row_UH = self.serving.items.ids.rows(histories.item_PH)
        row_UH[~personal_U] = -1
        taste_UD = taste(
            row_UH, _WEIGHT[histories.action_PH], creatives.model.source_ND, self.settings.learner.taste_decay
        )
        seen = SeenHistories(
            row_UH, APPEAL[histories.action_PH], histories.time_PH, now_s_U, context_U.astype(np.int16)
        )
        return Viewers(seen, taste_UD, personal_U)

    def near(
        self,
        creatives: Creatives,
        viewers: Viewers,
        candidates: AdCandidates,
        worth_C: NDArray[np.integer | np.floating] | None = None,
        always_C: NDArray[np.bool_] | None = None,
        advertiser_C: NDArray[np.integer] | None = None,
        slots_P: NDArray[np.int64] | None = None,
    ) -> NDArray[np.bool_]:
        """Which candidates are worth a closer look: `most` of an auction, some by nearness, the others by worth. (C,).

        Who has no taste gets all by worth. Of one advertiser there are a quarter of them at most, for its ads never
        stand beside each other; where there are many slots there are four for each.

        Args:
            creatives: see `prepare`.
            viewers: see `viewers`.
            candidates: what may be shown.
            worth_C: what an impression may bring (`expected`); the creative's click rate where nobody says.
            always_C: what is looked at beside those, as what was sold by number has to be.
            advertiser_C: numbers of advertisers, where these are to share the places.
            slots_P: of each auction; one where nobody says.
        """
        rows = creatives.rows
        near_C = nearness(viewers, rows, candidates.start_P1, candidates.viewer_P, candidates.creative_C)
        if worth_C is None:
            worth_C = rows.rate_NO[candidates.creative_C, 0]
        if always_C is None:
            always_C = np.zeros(len(near_C), np.bool_)
        tasteful_P = np.any(viewers.taste_UD, axis=1)[candidates.viewer_P]
        near = round(self.settings.ads.near_share * self.most)
        most_P = np.full(len(tasteful_P), self.most)
        if slots_P is not None and self.most:
            most_P = np.maximum(most_P, _FOR_A_SLOT * slots_P)
        if advertiser_C is None:
            advertiser_C = np.arange(len(near_C))
        columns = near_C, worth_C.astype(np.float32), always_C, advertiser_C.astype(np.int64)
        return _kept(candidates.start_P1, *columns, tasteful_P, near, most_P)

    def chances(
        self, creatives: Creatives, viewers: Viewers, candidates: AdCandidates, draw_C: NDArray[np.uint64]
    ) -> Chances:
        """What is expected of each candidate.

        Args:
            creatives: see `prepare`.
            viewers: see `viewers`.
            candidates: few of each auction (`near`).
            draw_C: what is drawn by: a hash of the request and the creative, so that a request that comes again is
                decided alike. Not looked at where the profile may not be used.
        """
        heads, number_C = creatives.model.ads, candidates.creative_C
        creative_PK = _side_by_side(candidates.start_P1, number_C)
        mask_PK = creative_PK >= 0
        x_PKX = self._features(creatives, viewers, candidates, creative_PK)
        item_PK = creatives.item_N.view(np.int64)[np.maximum(creative_PK, 0)] if len(creatives) else creative_PK
        logit_CO = heads.logits(x_PKX, item_PK.astype(np.int64), mask_PK)[mask_PK]
        auction_C, advertiser_C = candidates.auction_C, creatives.advertiser_N[number_C]
        placement_C = _numbered(heads.placement_G, candidates.placement_P)[auction_C]
        p_CO = heads.calibrated(logit_CO, placement_C, advertiser_C)
        spread_CO = exploration.spreads(p_CO, creatives.shown_N[number_C], self.exploration)
        spread_CO *= viewers.personal_U[candidates.viewer_P][auction_C][:, None]
        bid_CO = exploration.drawn(p_CO, spread_CO, draw_C) * heads.factors(advertiser_C)
        return Chances(p_CO, bid_CO, spread_CO, x_PKX[mask_PK])

    def _features(
        self, creatives: Creatives, viewers: Viewers, candidates: AdCandidates, creative_PK: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        model, lists = creatives.model, self.settings.retrieval.neighbour_items
        with self.serving.items.lock:
            return features(
                viewers,
                creatives.rows,
                Neighbours(model.neighbours_NM, model.weights_NM),
                self.serving.item_rows(),
                candidates.viewer_P,
                creative_PK,
                lists=max(lists, 1),
            )


def chance_for(bid_type_C: NDArray[np.integer], chance_CO: NDArray[np.floating]) -> NDArray[np.float64]:
    """The chance of what each of C bids is for, 1 for a bid for impressions. Shape (C,).

    >>> chance_for(np.array([BidType.cpm, BidType.cpc, BidType.cpa]), np.array([[0.02, 0.5, 0.001]] * 3)).tolist()
    [1.0, 0.02, 0.001]
    """
    paid_C = _PAID_BY[bid_type_C]
    chance_C = np.take_along_axis(chance_CO, np.maximum(paid_C, 0)[:, None], 1)[:, 0]
    return np.where(paid_C < 0, 1.0, chance_C)


def expected(
    creatives: Creatives, creative_C: NDArray[np.int32], bid_type_C: NDArray[np.integer], bid_C: NDArray[np.int64]
) -> NDArray[np.int64]:
    """What an impression of each of C creatives brings whoever sees it, by its own rates: micros. Shape (C,)."""
    paid_C = _PAID_BY[bid_type_C]
    rate_C = np.exp(creatives.rows.rate_NO[creative_C, np.maximum(paid_C, 0)])
    return worth(bid_type_C, bid_C, np.where(paid_C < 0, 1.0, rate_C))


def _numbered(names_G: NDArray[np.uint64], name_P: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    return np.where(name_P == 0, UNKNOWN, numbers(names_G, name_P))


def _side_by_side(start_P1: NDArray[np.int64], creative_C: NDArray[np.int32]) -> NDArray[np.int32]:
    """The candidates of P auctions as rows of a table, -1 past the end. Shape (P, K), K the most that one has."""
    size_P = np.diff(start_P1)
    creative_PK = np.full((len(size_P), int(size_P.max(initial=0))), -1, np.int32)
    creative_PK[np.arange(creative_PK.shape[1]) < size_P[:, None]] = creative_C
    return creative_PK


@kernel
def _kept(
    start_P1: NDArray[np.int64],
    near_C: NDArray[np.float32],
    worth_C: NDArray[np.float32],
    always_C: NDArray[np.bool_],
    advertiser_C: NDArray[np.int64],
    tasteful_P: NDArray[np.bool_],
    near: int,
    most_P: NDArray[np.int64],
) -> NDArray[np.bool_]:
    kept_C = always_C.copy()
    held_A = np.zeros(advertiser_C.max() + 2 if len(advertiser_C) else 1, np.int64)
    for p in range(len(tasteful_P)):
        first, last, most = start_P1[p], start_P1[p + 1], most_P[p]
        if last - first <= most:
            kept_C[first:last] = True
            continue
        passed_K = always_C[first:last] | _crowd(worth_C[first:last], advertiser_C[first:last], most // 4, held_A)
        _keep(near_C[first:last], near if tasteful_P[p] else 0, passed_K, kept_C[first:last])
        for others_K in (passed_K, always_C[first:last]):  # those of a crowd only where there is room
            left = most - int((kept_C[first:last] & ~always_C[first:last]).sum())
            _keep(worth_C[first:last], left, kept_C[first:last] | others_K, kept_C[first:last])
    return kept_C


@kernel
def _crowd(
    worth_K: NDArray[np.float32], advertiser_K: NDArray[np.int64], each: int, held_A: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which candidates have so many dearer ones of their own advertiser before them; 0 is no limit."""
    crowd_K = np.zeros(len(worth_K), np.bool_)
    if each <= 0:
        return crowd_K
    for advertiser in advertiser_K:
        held_A[advertiser] += 1
    many_X = np.flatnonzero(held_A[advertiser_K] > each)  # of all others nobody is one too many
    for advertiser in advertiser_K:
        held_A[advertiser] = 0
    for x in np.argsort(-worth_K[many_X], kind="mergesort"):
        k = many_X[x]
        held_A[advertiser_K[k]] += 1
        crowd_K[k] = held_A[advertiser_K[k]] > each
    for k in many_X:
        held_A[advertiser_K[k]] = 0
    return crowd_K


@kernel
def _keep(score_K: NDArray[np.float32], count: int, passed_K: NDArray[np.bool_], kept_K: NDArray[np.bool_]) -> None:
    """Mark the `count` best of those that are not passed over; of equal ones the first."""
    free = int((~passed_K).sum())
    if count <= 0 or free == 0:
        return
    count = min(count, free)
    score_F = score_K[~passed_K]
    least = np.partition(score_F, free - count)[free - count]
    above = int((score_F > least).sum())
    ties = count - above
    for k in range(len(score_K)):
        if passed_K[k]:
            continue
        if score_K[k] > least:
            kept_K[k] = True
        elif score_K[k] == least and ties > 0:
            kept_K[k] = True
            ties -= 1
