"""Retrieve: what the sources propose for each position, best first, more of it than is wanted.

A source is given the query and the stock, which says too what may be shown to nobody. How what they propose becomes one
list is `embeddings.candidates.gather`.
"""

import numpy as np
from numpy.typing import NDArray

from embeddings.candidates import Retrieved, gather
from streams.serving.live_model import Stock
from streams.serving.values import Query
from streams.settings import Settings


def retrieve(query: Query, stock: Stock, settings: Settings) -> Retrieved:
    """Content near each position's taste, beside what it holds, trending and new; not all of it may be shown."""
    s = settings.retrieval
    return gather(
        query.row_PH,
        query.weight_PH,
        nearest(query, stock),
        (stock.model.neighbours_NM, stock.model.weights_NM),
        trending_T=stock.offer.trending_T[: query.trending_P.max()],
        fresh_F=stock.offer.fresh_F[: s.fresh],
        size_P=query.reach_P,
        trending_P=query.trending_P,
        blocked_N=stock.offer.blocked_N,
        latest=s.neighbour_items,
        decay=settings.learner.taste_decay,
    )


def nearest(query: Query, stock: Stock) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The vector search: rows (P, V), -1 padded, and scores; one search, as far as the one that looks furthest."""
    index = stock.model.index
    reach = min(int(query.reach_P.max()), max(index.size, 1))
    row_PV, score_PV = index.search(query.taste_PD, reach, stock.offer.mask)
    row_PV[~query.personal_P] = -1
    return row_PV, score_PV
