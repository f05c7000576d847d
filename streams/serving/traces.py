"""How a slate came about, for the `traces` topic: what was proposed, what was dropped and why, and every score."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embeddings.items import Items
from ranking.features import Feature
from streams.contract import records
from streams.serving.slates import PublishedSlate, source_name
from streams.serving.values import Asked, Found, Ranked, Scored, Traced

_NAMES = tuple(feature.name for feature in Feature)
_PLACES = 6


def is_traced(slate_id: str, rate: float) -> bool:
    """Is this slate in the sample? The same answer wherever and however often it is asked."""
    return int(slate_id[6:12], 16) < rate * (1 << 24)


def traced(asked: Asked, found: Found, ranked: Ranked) -> dict[int, Traced]:
    """What to keep of those of these positions that are traced."""
    if (dropped := found.dropped) is None:
        return {}
    query, candidates = found.query, found.candidates
    return {
        int(query.position_P[p]): Traced(
            proposed=int(dropped.proposed_P[p]),
            seen=int(dropped.seen_P[p]),
            blocked=int(dropped.blocked_P[p]),
            row_K=candidates.row_PK[p],
            source_K=candidates.source_PK[p],
            score_K=ranked.score_PK[p],
            x_KF=ranked.features.x_PKX[p],
            shown_K=None if ranked.shown_PK is None else ranked.shown_PK[p],
        )
        for p in np.flatnonzero(asked.trace_P[query.position_P]).tolist()
    }


def traces_of(
    slates: Sequence[PublishedSlate], scored: Scored, at_Q: NDArray[np.intp], items: Items
) -> list[records.Trace]:
    """The traces of the slates whose positions (`at_Q`) were traced."""
    return [
        trace_of(slate, scored.traces[at], scored, items)
        for slate, at in zip(slates, at_Q.tolist(), strict=True)
        if at in scored.traces
    ]


def trace_of(slate: PublishedSlate, traced: Traced, scored: Scored, items: Items) -> records.Trace:
    """The record of a traced slate; candidates stand best first."""
    share = slate.trigger.policy.exploration
    size = slate.trigger.size if share else 0
    laid = int(np.count_nonzero(slate.item_N[:size]))  # ads may stand between
    held = np.flatnonzero(traced.row_K >= 0)
    best = held[np.argsort(-traced.score_K[held], kind="stable")]
    return records.Trace(
        slate_id=slate.slate_id,
        user_id=slate.trigger.user_id,
        model_version=str(scored.model.version),
        policy=slate.trigger.policy.label,
        counts={"proposed": traced.proposed, "ranked": len(held), "shown": int(np.count_nonzero(slate.item_N))},
        filtered={"seen": traced.seen, "blocked": traced.blocked},
        feature_names=_NAMES,
        candidates=tuple(items.names[row] for row in traced.row_K[best].tolist()),
        sources=tuple(source_name(bits) for bits in traced.source_K[best].tolist()),
        scores=tuple(traced.score_K[best].tolist()),
        shown=()
        if traced.shown_K is None
        else tuple(np.round(traced.shown_K[best].astype(np.float64), _PLACES).tolist()),
        features=tuple(map(tuple, np.round(traced.x_KF[best].astype(np.float64), _PLACES).tolist())),
        exploration=share or None,
        places=tuple(items.names[row] for row in scored.slates.row_QN[slate.at][:laid].tolist()),
        propensities=tuple(p for p in slate.propensity_N[:size].tolist() if p),
    )
