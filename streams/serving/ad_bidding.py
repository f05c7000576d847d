"""What candidates would show, and what that is worth: near and dear ones are looked at closely, one creative each."""

import numpy as np
from numpy.typing import NDArray

from embeddings.state_columns import Histories, UserStates
from ranking.ads import caps
from ranking.ads.bids import worth
from ranking.ads.campaigns import BidType, Type
from ranking.ads.exploration import shares
from ranking.ads.exposed import People as Exposed
from ranking.ads.features import Viewers
from ranking.ads.inventory import House
from ranking.ads.losses import Loss
from ranking.ads.market import Market
from ranking.ads.selection import chosen
from streams.serving.ad_contest import Bids, Contest, Predicted, drawn
from streams.serving.ad_scoring import AdCandidates, AdScorer, chance_for, expected, placement_of
from streams.serving.creatives import Creatives

_ROTATION, _EXPLORATION = 2, 3


def bids_of(
    contest: Contest,
    scorer: AdScorer,
    states: UserStates,
    personal_A: NDArray[np.bool_],
    exposed: Exposed,
    market: Market,
    bid_L: NDArray[np.int64],
) -> Bids:
    """Score what is left of a contest; who is further from the person than others and bids less leaves it.

    Args:
        contest: candidates with the creatives that fit.
        scorer: of the live model.
        states: of the people of A asks.
        personal_A: may they be looked at?
        exposed: what each was shown, for creatives in turn.
        market: what rows are of.
        bid_L: what line items bid, as `Market.bid_micros_L`.
    """
    house, asks = market.house, contest.asks
    era, creatives = scorer.serving.turnover.era, scorer.prepare(house)
    viewers = scorer.viewers(
        creatives,
        Histories(*states[:6]),
        np.array([ask.now_ms // 1000 for ask in asks], np.int64),
        np.array([ask.context for ask in asks], np.int16),
        personal_A,
    )
    placement_P = np.array([placement_of(place.tagid) for place in contest.places], np.uint32)
    _leave_near(contest, scorer, creatives, viewers, placement_P, house, bid_L)
    candidates, line_C, row_M = _candidates(contest, placement_P), contest.line_C, contest.row_M
    identity_C = np.repeat(contest.identity_P[contest.place_M], contest.creatives_M)
    draw_C = drawn(identity_C, _hash_C(contest, house), _EXPLORATION)
    chances = scorer.chances(creatives, viewers, candidates, draw_C)
    type_C = house.line_L["bid_type"][line_C]
    chance_C = chance_for(type_C, chances.bid_CO)
    worth_C = worth(type_C, bid_L[line_C], chance_C)
    turn_M = contest.draw_M(house.line_L["hash"][row_M], _ROTATION)
    shown_M = caps.times_shown(market.caps, exposed, contest.start_P1, row_M, contest.ask_P)
    creative_M = chosen(house, contest.fits, row_M, turn_M, worth_C.astype(np.float64), shown_M)
    at_M = np.flatnonzero(contest.fits.creative_N == np.repeat(creative_M, contest.creatives_M))
    type_M, own_M = type_C[at_M], bid_L[row_M]
    drawn_for_M = np.where(type_M == BidType.cpm, 0.0, chance_for(type_M, chances.spread_CO[at_M]))
    stood = shares(
        contest.start_P1,
        contest.slots_P,
        contest.tier_M(market),
        np.where(type_M == BidType.cpm, own_M // 1000, own_M).astype(np.float64),
        chance_for(type_M, chances.p_CO[at_M]),
        drawn_for_M,
        draw_C[at_M],
    )
    predicted = Predicted(era, creatives, viewers, candidates, chances)
    return Bids(creative_M, at_M, worth_C[at_M], chance_C[at_M], stood.propensity_C, ~stood.greedy_C, predicted)


def _leave_near(
    contest: Contest,
    scorer: AdScorer,
    creatives: Creatives,
    viewers: Viewers,
    placement_P: NDArray[np.uint32],
    house: House,
    bid_L: NDArray[np.int64],
) -> None:
    """Who is further from the person than others and bids less leaves the contest; what is sold by number stays."""
    line_C, candidates = contest.line_C, _candidates(contest, placement_P)
    booked_C = (house.line_L["type"][line_C] <= Type.standard) | (house.line_L["deal"][line_C] >= 0)
    rough_C = expected(creatives, candidates.creative_C, house.line_L["bid_type"][line_C], bid_L[line_C])
    who_C = house.line_L["advertiser"][line_C]
    near_C = scorer.near(creatives, viewers, candidates, rough_C, booked_C, who_C, contest.slots_P)
    contest.with_creatives(near_C, Loss.not_near)


def _candidates(contest: Contest, placement_P: NDArray[np.uint32]) -> AdCandidates:
    """The creatives that are left, by place."""
    fits = contest.fits
    return AdCandidates(fits.start_M1[contest.start_P1], fits.creative_N, contest.ask_P.astype(np.intp), placement_P)


def _hash_C(contest: Contest, house: House) -> NDArray[np.uint64]:
    """What names each creative for good: its line item, and where it stands in it. Shape (C,)."""
    place_C = contest.fits.creative_N - house.creative_start_L1[contest.line_C]
    hash_C: NDArray[np.uint64] = house.line_L["hash"][contest.line_C] + place_C.astype(np.uint64)
    return hash_C
