"""Compose: the best of each position in their places, and why each is there."""

import numpy as np

from embeddings.candidates import Proposed
from ranking.slate import Reason
from ranking.slate import compose as choose
from streams.serving.values import Asked, Found, Ranked, Slates

_GIVEN = np.zeros(1 << len(Proposed), np.uint8)
_GIVEN[[Proposed.trending, Proposed.fresh]] = Reason.trending, Reason.fresh
"""By source bits: the reason of what nobody else proposed."""


def compose(asked: Asked, found: Found, ranked: Ranked) -> Slates:
    """Fill the slates of these positions; those with fewer places than others have them filled all the same."""
    query, candidates = found.query, found.candidates
    chosen = choose(
        ranked.score_PK,
        ranked.features,
        _GIVEN[candidates.source_PK],
        ranked.item_PK,
        candidates.row_PK >= 0,
        int(asked.places_P.max()),
    )
    here_QN, row_Q1 = np.maximum(chosen.index_PN, 0), np.arange(len(query.position_P))[:, None]
    told_QN = (chosen.reason_PN == Reason.similar_to_recent) & (chosen.because_PN >= 0)
    held_QN = query.row_PH[row_Q1, np.maximum(chosen.because_PN, 0)]
    return Slates(
        position_Q=query.position_P,
        kind_QN=candidates.kind_PK[row_Q1, here_QN],
        row_QN=np.where(chosen.index_PN >= 0, candidates.row_PK[row_Q1, here_QN], -1).astype(np.int32),
        score_QN=chosen.score_PN,
        source_QN=candidates.source_PK[row_Q1, here_QN],
        reason_QN=chosen.reason_PN,
        because_QN=np.where(told_QN, held_QN, -1).astype(np.int32),
        x_QNF=ranked.features.x_PKX[row_Q1, here_QN],
    )
