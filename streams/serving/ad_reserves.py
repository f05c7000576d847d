"""What candidates must bid at least: floors of the request and of the house, and deals on their own terms."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ranking.ads.auction import At
from ranking.ads.floors import Floors, reserves
from ranking.ads.inventory import FORMATS
from ranking.ads.losses import Loss
from ranking.ads.market import Market
from ranking.ads.predicates import fold
from streams.serving.ad_contest import Contest
from streams.serving.ad_values import AdPlace


def reserves_of(
    contest: Contest, creative_M: NDArray[np.int32], floors: Floors, market: Market
) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    """What each candidate must bid at least, in micros, and the `Loss` of who may not use its deal. Shapes (M,).

    A fixed deal has one price: where the request asks for more than was agreed it is `below_deal_floor`.

    Args:
        contest: candidates.
        creative_M: what each would show: a floor of a format is one of what fills the place.
        floors: of the house.
        market: what rows are of.
    """
    shown_M, places, place_M = market.house.creative_N[creative_M], contest.places, contest.place_M
    floor_M = np.array([place.floor_micros for place in places], np.int64)[place_M]
    floor_M = np.maximum(floor_M, _of_house(floors, places)[place_M, shown_M["format"]])
    per_second_P = np.array([place.per_second_micros for place in places], np.int64)
    deal_M, barred_M = market.deal_at_L[contest.row_M], np.zeros(len(place_M), np.int16)
    price_M = market.deal_micros_L[contest.row_M].copy()
    for m in np.flatnonzero(deal_M != At.market).tolist():
        line = market.lines[contest.row_M[m]]
        if line is None or line.deal is None or (offer := places[place_M[m]].offers.get(line.deal.id)) is None:
            continue
        barred_M[m] = offer.loss(line.advertiser, market.house.creatives[creative_M[m]].adomain)
        if deal_M[m] != At.fixed:
            price_M[m] = max(price_M[m], offer.floor_micros)
        elif offer.floor_micros > price_M[m] and not barred_M[m]:
            barred_M[m] = Loss.below_deal_floor
    return reserves(floor_M, per_second_P[place_M], shown_M["duration_s"], deal_M, price_M), barred_M


def _of_house(floors: Floors, places: Sequence[AdPlace]) -> NDArray[np.int64]:
    """The floor of the house for each place, filled by each of `FORMATS`. Shape (P, 4)."""
    formats = FORMATS if "format" in floors.fields else FORMATS[:1]
    said = [_said(floors, place, name) for place in places for name in formats]
    floor_PX = floors.of_requests(floors.codes(said)).reshape(len(places), len(formats))
    return np.broadcast_to(floor_PX, (len(places), len(FORMATS)))


def _said(floors: Floors, place: AdPlace, format_: str) -> tuple[str, ...]:
    """What floors are judged by: placement and format, and words of the opportunity that a floor names."""
    own = {"tagid": [place.tagid], "format": [format_]}
    said = ([fold(word) for word in own.get(name) or place.opportunity.words.get(name, ())] for name in floors.fields)
    return tuple(
        next((word for word in some if word in known), "") for some, known in zip(said, floors.code_of, strict=True)
    )
