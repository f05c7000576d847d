"""Retrieve: what the sources propose for each position, best first, more of it than is wanted.

A source is given the query and the stock, which says too what may be shown to nobody. How what they propose becomes one
list is `embeddings.candidates.gather`.
"""

import numpy as np
from numpy.typing import NDArray

from embeddings.candidates import Retrieved, gather
from embeddings.contexts import PRIOR, shrunk
from ranking.features import dots
from streams.serving.live_model import Stock
from streams.serving.policies import Policy
from streams.serving.values import Query
from streams.settings import Settings

_BY_SCORE = {"vector", "neighbours", "popular"}


def retrieve(query: Query, policy: Policy, stock: Stock, settings: Settings) -> Retrieved:
    """What the sources of a policy propose; not all may be shown.

    Content near each position's taste, or popular, beside what it holds, trending and new; and what was begun. Where
    lists alone propose, as many are taken of them as are ranked.
    """
    s, sources = settings.retrieval, policy.sources
    least = 0 if _BY_SCORE & set(sources) else policy.candidates
    trending_P = np.maximum(query.trending_P, least).astype(np.int32)
    return gather(
        query.row_PH,
        query.weight_PH,
        found(query, policy, stock),
        (stock.model.neighbours_NM, stock.model.weights_NM),
        trending_T=stock.offer.trending_T[: trending_P.max() if "trending" in sources else 0],
        fresh_PF=fresh(query, stock, max(s.fresh, least) if "fresh" in sources else 0),
        size_P=query.reach_P,
        trending_P=trending_P,
        popular_P=~_near(query, policy),
        begun_PH=query.begun_PH,
        blocked_N=stock.offer.blocked_N,
        latest=s.neighbour_items if "neighbours" in sources else 0,
        decay=settings.learner.taste_decay,
    )


def _near(query: Query, policy: Policy) -> NDArray[np.bool_]:
    """For which positions something near their taste is looked for."""
    near_P: NDArray[np.bool_] = query.tasteful_P & ("vector" in policy.sources)
    return near_P


def fresh(query: Query, stock: Stock, most: int) -> NDArray[np.int32]:
    """Of what is new, the rows nearest to each position's taste; the newest where there is none. (P, `most` or fewer).

    A catalogue brings thousands of items at once, and the newest alone would be the same few for everybody.
    """
    fresh_F = stock.offer.fresh_F
    fresh_PF = np.tile(fresh_F, (len(query.taste_PD), 1))
    if len(fresh_F) <= most:
        return fresh_PF
    order_PF = np.argsort(-dots(query.taste_PD, stock.model.target_ND, fresh_PF), axis=1, kind="stable")
    best_PF: NDArray[np.int32] = fresh_F[order_PF[:, :most]]
    return best_PF


def found(query: Query, policy: Policy, stock: Stock) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The vector search; where it has no taste or no say, what is popular in the context.

    Rows (P, V), -1 padded, and scores. One search, as far as the one that looks furthest. A search with no taste would
    find the lowest rows.
    """
    near_P = _near(query, policy)
    tasteful, strangers = np.flatnonzero(near_P), np.flatnonzero(~near_P & ("popular" in policy.sources))
    near = min(int(query.reach_P[tasteful].max(initial=0)), stock.model.index.size)
    popular = int(query.reach_P[strangers].max(initial=0))
    row_PV = np.full((len(near_P), max(near, popular, 1)), -1, np.int32)
    score_PV = np.zeros(row_PV.shape, np.float32)
    if near:
        nearest = stock.model.index.search(query.taste_PD[tasteful], near, stock.offer.mask)
        row_PV[tasteful, :near], score_PV[tasteful, :near] = nearest
    there: dict[bytes, tuple[NDArray[np.int32], NDArray[np.float32]]] = {}
    for p in strangers.tolist():
        keys = query.key_PC[p]
        if (said := keys.tobytes()) not in there:
            offer = stock.offer
            row_T, share_T = shrunk(keys, stock.model.contexts, offer.popular_T, offer.popularity_T, PRIOR)
            open_T = ~offer.blocked_N[row_T]
            there[said] = row_T[open_T], share_T[open_T]
        row_T, share_T = there[said]
        held = min(popular, len(row_T))
        row_PV[p, :held], score_PV[p, :held] = row_T[:held], share_T[:held]
    return row_PV, score_PV
