"""Compose: the best of each position in their places, what chance puts there instead, and why each is there."""

import numpy as np
from numpy.typing import NDArray

from embeddings.candidates import Proposed
from embeddings.contexts import COUNTRY
from ranking.reasons import REASONS, Evidence, Reason, carriers, categories_taken, reasons
from ranking.slate import best, explore
from streams.serving.draws import keys, uniform
from streams.serving.live_model import Stock
from streams.serving.rank import histories_of
from streams.serving.values import Asked, Found, Query, Ranked, Slates
from streams.settings import Settings

_GIVEN = np.zeros(1 << len(Proposed), np.uint8)
_GIVEN[[Proposed.trending, Proposed.fresh]] = Reason.trending, Reason.fresh
"""By source bits: the reason of what nobody else proposed."""
_MOST_THERE = 50
"""So many of the most taken of one country are called popular there."""


def compose(asked: Asked, found: Found, ranked: Ranked, stock: Stock, settings: Settings) -> Slates:
    """Fill the slates of these positions; those with fewer places than others have them filled all the same."""
    query, candidates, x_PKX = found.query, found.candidates, ranked.features.x_PKX
    there_PK, places = candidates.row_PK >= 0, int(asked.places_P.max())
    index_QN, score_QN = best(ranked.score_PK, ranked.item_PK, there_PK, places)
    propensity_QN, explored_QN = _explored(asked, found, ranked, index_QN)
    here_QN, row_Q1 = np.maximum(index_QN, 0), np.arange(len(query.position_P))[:, None]
    score_QN = np.where(explored_QN, ranked.score_PK[row_Q1, here_QN], score_QN)
    row_QN = np.where(index_QN >= 0, candidates.row_PK[row_Q1, here_QN], -1).astype(np.int32)
    source_QN = candidates.source_PK[row_Q1, here_QN]
    own_QN = _most_there(query, stock, row_QN)
    taken_QN = stock.item_rows.last_taken_s_N[row_QN] > 0
    given_QN = _GIVEN[source_QN]
    evidence = Evidence(
        held_PN=carriers(
            query.row_PH,
            query.weight_PH,
            (stock.model.source_ND, stock.model.target_ND),
            row_QN,
            ranked.features.because_PK[row_Q1, here_QN],
            settings.learner.taste_decay,
        ),
        category_PN=categories_taken(histories_of(asked, query), stock.item_rows.category_NC, row_QN),
        true_PNR=_true(source_QN, row_QN, own_QN, taken_QN, stock),
        given_PN=np.where(taken_QN | (given_QN != Reason.trending), given_QN, np.uint8(Reason.none)),
        tasteful_P=query.tasteful_P,
    )
    share_QNF = stock.model.ranker.shares(x_PKX, ranked.item_PK, there_PK, index_QN)
    reason_QN = reasons(share_QNF, index_QN, evidence)
    unsaid_QN = (reason_QN == Reason.taste) | (reason_QN == Reason.none)  # nobody says that it is near to theirs
    reason_QN[explored_QN & unsaid_QN] = Reason.explored
    because_QN = query.row_PH[row_Q1, np.maximum(evidence.held_PN, 0)]
    return Slates(
        position_Q=query.position_P,
        kind_QN=candidates.kind_PK[row_Q1, here_QN],
        row_QN=row_QN,
        score_QN=score_QN,
        source_QN=source_QN,
        reason_QN=reason_QN,
        because_QN=np.where(reason_QN == Reason.similar_to_recent, because_QN, -1).astype(np.int32),
        category_QN=np.where(reason_QN == Reason.category, evidence.category_PN, -1).astype(np.int16),
        there_QN=own_QN & ((reason_QN == Reason.popular) | (reason_QN == Reason.trending)),
        propensity_QN=propensity_QN,
        explored_QN=explored_QN,
        x_QNF=x_PKX[row_Q1, here_QN],
    )


def _explored(
    asked: Asked, found: Found, ranked: Ranked, index_QN: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Let chance fill the share of places that the policy leaves to it, in place; propensities, and where it did.

    What was shown too often without an answer (`tired`: it scores below 0) is not brought back by chance.
    """
    share, at, places = found.policy.exploration, found.query.position_P, index_QN.shape[1]
    if not share:
        return (index_QN >= 0).astype(np.float64), np.zeros(index_QN.shape, np.bool_)
    item_PK, nobody_1N = ranked.item_PK.view(np.uint64), np.arange(places, dtype=np.uint64)[None]
    things_PS = np.concatenate([item_PK, np.broadcast_to(nobody_1N, (len(at), places))], axis=1)
    chance_P = asked.chance_P[at]
    return explore(
        index_QN,
        (found.candidates.row_PK >= 0) & (ranked.score_PK >= 0),
        asked.places_P[at],
        uniform(chance_P, places),
        keys(~chance_P, things_PS),
        share,
    )


def _true(
    source_QN: NDArray[np.uint8],
    row_QN: NDArray[np.int32],
    there_QN: NDArray[np.bool_],
    taken_QN: NDArray[np.bool_],
    stock: Stock,
) -> NDArray[np.bool_]:
    """Which of the reasons that are not of the person's own history are true of each place. (Q, N, `REASONS`).

    The lists of what is popular are filled up with what nobody took; of that it is not said.
    """
    true_QNR = np.zeros((*row_QN.shape, REASONS), np.bool_)
    most_QN = stock.offer.most_N[row_QN] | there_QN | ((source_QN & Proposed.popular) != 0)
    true_QNR[..., Reason.popular] = most_QN & taken_QN
    true_QNR[..., Reason.trending] = ((source_QN & Proposed.trending) != 0) & taken_QN
    true_QNR[..., Reason.fresh] = (source_QN & Proposed.fresh) != 0
    return true_QNR


def _most_there(query: Query, stock: Stock, row_QN: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which items are among the most taken of the country that the viewer is known to be in. Shape (Q, N)."""
    country_Q, contexts = query.key_PC[:, COUNTRY], stock.model.contexts
    out_QN = np.zeros(row_QN.shape, np.bool_)
    for key in np.unique(country_Q[country_Q != 0]).tolist():
        if (place := contexts.place(key)) >= 0:
            at, most_T = np.flatnonzero(country_Q == key), contexts.row_CK[place, :_MOST_THERE]
            out_QN[at] = (row_QN[at][..., None] == most_T[most_T >= 0]).any(2)
    return out_QN
