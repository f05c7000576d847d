"""From what is known of somebody to what is looked for: today by taste, the faded sum of what they wanted."""

import numpy as np
from numpy.typing import NDArray

from embeddings.candidates import BEGUN_SHARES, taste
from embeddings.events import TAKES
from embeddings.items import Items
from embeddings.state_columns import UserStates
from streams.serving.live_model import LiveModel, Stock
from streams.serving.values import Asked, Query
from streams.settings import Settings

_WEIGHT = TAKES.astype(np.float32)
"""How much an item says of its holder's taste, by the action that put it into the history."""


def query_of(asked: Asked, stock: Stock, settings: Settings) -> Query:
    """What to look for at all positions, from their histories.

    Looked for are as many as are wanted and half of what was seen: on ML-100K twice that finds nothing better; and as
    many as were shown too often.
    """
    size_P = np.array([policy.candidates for policy in asked.policies])
    row_PH, weight_PH = stock.items.ids.rows(asked.histories.item_PH), _WEIGHT[asked.histories.action_PH]
    row_PH[~asked.personal_P] = -1
    sunk_P = np.count_nonzero(asked.shown.times_PW >= settings.slates.fatigue_limit, axis=1)
    taste_PD = taste(row_PH, weight_PH, stock.model.source_ND, settings.learner.taste_decay)
    return Query(
        position_P=np.arange(len(row_PH)),
        row_PH=row_PH,
        weight_PH=weight_PH,
        taste_PD=taste_PD,
        tasteful_P=np.any(taste_PD, axis=1),
        key_PC=asked.key_PC,
        begun_PH=_begun(asked, row_PH, weight_PH),
        personal_P=asked.personal_P,
        reach_P=(size_P + np.minimum(asked.seen_P // 2, size_P) + sunk_P).astype(np.int32),
        trending_P=np.maximum(settings.retrieval.trending, 3 * asked.places_P).astype(np.int32),
    )


def _begun(asked: Asked, row_PH: NDArray[np.int32], weight_PH: NDArray[np.float32]) -> NDArray[np.int32]:
    """What each position has begun, not finished and not turned down."""
    wanted_P = np.array(["begun" in policy.sources for policy in asked.policies])
    if not wanted_P.any():
        return np.empty((len(row_PH), 0), np.int32)
    least, most = BEGUN_SHARES
    share_PH = asked.histories.share_PH
    begun_PH = (share_PH >= least) & (share_PH <= most) & (weight_PH > 0) & wanted_P[:, None]
    return np.where(begun_PH, row_PH, -1).astype(np.int32)


def tastes(states: UserStates, items: Items, model: LiveModel, decay: float) -> NDArray[np.float32]:
    """Taste vectors of U users from their histories, in the space of one model. Shape (U, D)."""
    return taste(items.ids.rows(states.item_UH), _WEIGHT[states.action_UH], model.source_ND, decay)
