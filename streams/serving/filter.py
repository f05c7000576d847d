"""Filter: of what was retrieved, the first that each position has not seen and that may be shown."""

import numpy as np
from numpy.typing import NDArray

from embeddings.candidates import Retrieved, keep
from embeddings.events import REFUSES
from embeddings.ids import ids_of
from streams.serving.live_model import Stock
from streams.serving.policies import Policy
from streams.serving.values import Asked, Candidates, Dropped, Found, Query
from streams.settings import Settings


def drop(retrieved: Retrieved, query: Query, policy: Policy, asked: Asked, stock: Stock, settings: Settings) -> Found:
    """Drop what was seen, refused or is blocked; keep as many as are ranked, with places for what is new.

    What was shown beyond the limit without an answer is kept where there are not enough others.
    """
    id_PM = ids_of(retrieved.row_PM, stock.items.ids.ids_N)
    seen_PM = asked.seen(query.position_P, id_PM)
    if policy.repeats:
        seen_PM |= _refused(retrieved, query, asked)

    def but(these_PM: NDArray[np.bool_]) -> Retrieved:
        return keep(retrieved, these_PM, stock.offer.blocked_N, policy.candidates, reserve=settings.retrieval.fresh)

    sunk_PM = _sunk(asked, query, id_PM, settings.slates.fatigue_limit) if policy.fatigue else None
    kept = but(seen_PM) if sunk_PM is None else _followed(but(seen_PM | sunk_PM), but(seen_PM | ~sunk_PM))
    traced = asked.trace_P[query.position_P].any()
    dropped = _dropped(retrieved.row_PM, seen_PM, stock.offer.blocked_N) if traced else None
    return Found(query, policy, Candidates.content(kept.row_PM, kept.source_PM), dropped)


def _refused(retrieved: Retrieved, query: Query, asked: Asked) -> NDArray[np.bool_]:
    """Which candidates each position's person hid or disliked, as far as the history says. Shape (P, M)."""
    refused_PH = REFUSES[asked.histories.action_PH[query.position_P]] & (query.row_PH >= 0)
    row_PR = np.where(refused_PH, query.row_PH, -2)[:, refused_PH.any(0)]
    refused_PM: NDArray[np.bool_] = (retrieved.row_PM[:, :, None] == row_PR[:, None, :]).any(2)
    return refused_PM


def _sunk(asked: Asked, query: Query, id_PM: NDArray[np.uint64], limit: float) -> NDArray[np.bool_] | None:
    """What was shown beyond the limit without an answer; None where nothing was to anybody."""
    if not asked.shown.item_PW.size:
        return None
    shown = asked.shown.at(query.position_P)
    return shown.times(id_PM) >= limit if (shown.times_PW >= limit).any() else None


def _followed(first: Retrieved, then: Retrieved) -> Retrieved:
    """The first candidates, and others in the places that they leave."""
    order_PK = np.argsort(np.c_[first.row_PM, then.row_PM] < 0, axis=1, kind="stable")[:, : first.row_PM.shape[1]]
    return Retrieved(
        np.take_along_axis(np.c_[first.row_PM, then.row_PM], order_PK, 1),
        np.take_along_axis(np.c_[first.source_PM, then.source_PM], order_PK, 1),
        np.take_along_axis(np.c_[first.score_PM, then.score_PM], order_PK, 1),
    )


def _dropped(row_PM: NDArray[np.int32], seen_PM: NDArray[np.bool_], blocked_N: NDArray[np.bool_]) -> Dropped:
    there_PM, blocked_PM = row_PM >= 0, blocked_N[np.maximum(row_PM, 0)]
    return Dropped(there_PM.sum(1), (there_PM & seen_PM).sum(1), (there_PM & blocked_PM & ~seen_PM).sum(1))
