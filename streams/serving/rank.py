"""Rank: what the ranker sees of the candidates, the weighted sum of what it makes of it, and who is tired of what."""

import numpy as np

from embeddings.events import APPEAL
from embeddings.ids import ids_of
from ranking import features as ranking
from ranking.slate import objective, tired
from streams.serving.live_model import Stock
from streams.serving.values import Asked, Found, Query, Ranked
from streams.settings import Settings


def rank(asked: Asked, found: Found, stock: Stock, settings: Settings) -> Ranked:
    """Score every candidate of these positions."""
    w = found.policy
    item_PK = ids_of(found.candidates.row_PK, stock.items.ids.ids_N).view(np.int64)
    features = features_of(asked, found, stock, settings)
    scores = stock.model.ranker.score(
        features.x_PKX, item_PK, found.candidates.row_PK >= 0, outcomes=bool(w.engage or w.complete)
    )
    score_PK = objective(scores, {"next": w.next_item, "click": w.engage, "complete": w.complete})
    if not w.fatigue or not asked.shown.item_PW.size:
        return Ranked(item_PK, features, score_PK)
    shown_PK = asked.shown.at(found.query.position_P).times(item_PK.view(np.uint64))
    score_PK = tired(score_PK, shown_PK, w.fatigue, settings.slates.fatigue_limit)
    return Ranked(item_PK, features, score_PK, shown_PK if shown_PK.any() else None)


def features_of(asked: Asked, found: Found, stock: Stock, settings: Settings) -> ranking.Features:
    """What the ranker sees of the candidates of these positions."""
    query, c = found.query, found.candidates
    return ranking.features(
        histories_of(asked, query),
        ranking.Candidates(c.row_PK, c.source_PK, ranking.dots(query.taste_PD, stock.model.target_ND, c.row_PK)),
        ranking.Neighbours(stock.model.neighbours_NM, stock.model.weights_NM),
        stock.item_rows,
        lists=max(settings.retrieval.neighbour_items, 1),
    )


def histories_of(asked: Asked, query: Query) -> ranking.Histories:
    """What the people of these positions held, as the ranker sees it."""
    h, at = asked.histories, query.position_P
    return ranking.Histories(
        query.row_PH, APPEAL[h.action_PH[at]], h.time_PH[at], asked.now_s_P[at], asked.context_P[at]
    )
