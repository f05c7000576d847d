"""What a bid is worth an impression, in whole micros, and what the event behind it then costs."""

import numpy as np
from numpy.typing import NDArray

from ranking.ads.campaigns import BidType


def worth(type_C: NDArray[np.integer], bid_C: NDArray[np.int64], chance_C: NDArray[np.floating]) -> NDArray[np.int64]:
    """Expected micros per impression, rounded down: nobody bids more than they said. Shape (C,).

    >>> bids = np.array([5_000_000, 800_000])
    >>> worth(np.array([BidType.cpm, BidType.cpc]), bids, np.array([0.0, 0.01])).tolist()
    [5000, 8000]

    Args:
        type_C: members of `BidType`.
        bid_C: micros per thousand impressions (CPM) or per event (the others).
        chance_C: probability of the event per impression; a CPM bid does not look at it, one that is not a
            probability makes the bid 0.
    """
    chance_C = np.where((chance_C >= 0) & (chance_C <= 1), chance_C, 0.0)  # NaN too
    return np.where(type_C == BidType.cpm, bid_C // 1000, np.floor(bid_C * chance_C).astype(np.int64))


def per_event(
    type_C: NDArray[np.integer],
    paid_C: NDArray[np.int64],
    bid_C: NDArray[np.int64],
    chance_C: NDArray[np.floating],
) -> NDArray[np.int64]:
    """What the event costs if an impression costs `paid_C` micros: at most the bid, rounded down. Shape (C,).

    For CPM it is the price of a thousand impressions. `chance_C` is the one that `worth` was told.
    """
    known_C = np.where(chance_C > 0, chance_C, 1.0)
    with np.errstate(over="ignore"):  # where the chance is next to nothing the bid is what it costs
        event_C = np.floor(paid_C / known_C)
    each_C = np.where(type_C == BidType.cpm, paid_C * 1000, np.minimum(event_C, bid_C).astype(np.int64))
    return np.minimum(each_C, bid_C)
