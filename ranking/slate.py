"""From scores to slates: the weighted objective, fatigue, and the first n of each position."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ranking.jit import kernel
from ranking.ranker import Scores


def objective(scores: Scores, weights: Mapping[str, float]) -> NDArray[np.float32]:
    """Weighted sum of the heads' probabilities, keys `next`, `click`, `complete`. Shape (P, K).

    >>> half = np.full((1, 2), 0.5, np.float32)
    >>> objective(Scores(half, half, half), {"next": 1.0, "click": 0.5})
    array([[0.75, 0.75]], dtype=float32)

    Raises:
        KeyError: an unknown head; settings are checked at start, so no message is concerned.
    """
    heads = {"next": scores.next_PK, "click": scores.click_PK, "complete": scores.complete_PK}
    total_PK = np.zeros_like(scores.next_PK)
    for head, weight in weights.items():
        if weight:
            total_PK += np.float32(weight) * heads[head]
    return total_PK


def tired(
    score_PK: NDArray[np.float32], shown_PK: NDArray[np.float32], fatigue: float, limit: float
) -> NDArray[np.float32]:
    """Scores of candidates that were shown so often without an answer. Shape (P, K).

    A probability is divided by 1 + `fatigue` · times: the mean of a beta prior that is worth 1 / `fatigue` impressions,
    after so many without success; the inverse decay of Li, Lakshmanan, Tiwari, Shah (2014). Of a small one the log-odds
    fall by log(1 + `fatigue` · times). From `limit` times on the score is minus the times: below all others, that first
    which was shown least.

    >>> tired(np.full((1, 3), 0.5, np.float32), np.array([[0, 2, 9]], np.float32), 0.5, 8.0)
    array([[ 0.5 ,  0.25, -9.  ]], dtype=float32)

    Args:
        score_PK: what `objective` gives, not below 0.
        shown_PK: impressions without an answer, faded; not below 0.
        fatigue: how fast a score falls.
        limit: above 0.
    """
    faded_PK = score_PK / (1 + np.float32(fatigue) * shown_PK)
    return np.where(shown_PK < limit, faded_PK, -shown_PK)


def best(
    score_PK: NDArray[np.float32], item_PK: NDArray[np.int64], mask_PK: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The best `size` candidates of each position: which of the K, and their scores, both (P, N), best first.

    Equal scores stand in order of item id; past the end of a short slate are -1 and 0. The order is deterministic, so
    there is no propensity.

    Args:
        score_PK: what to order by; a score that is not a number stands last.
        item_PK: item ids, for ties.
        mask_PK: where there is a candidate that may be shown.
        size: N.
    """
    return _best(score_PK, item_PK, mask_PK, size)


@kernel
def _best(
    score_PK: NDArray[np.float32], item_PK: NDArray[np.int64], mask_PK: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    P, K = score_PK.shape
    index_PN = np.full((P, size), -1, np.int32)
    score_PN = np.zeros((P, size), np.float32)
    for p in range(P):
        held = 0
        for k in range(K):
            if not mask_PK[p, k]:
                continue
            score = score_PK[p, k]
            if np.isnan(score):
                score = np.float32(-np.inf)
            at = held  # insertion into the sorted places: most candidates fail at the last one
            while at > 0:
                above = index_PN[p, at - 1]
                ahead = score_PN[p, at - 1]
                if ahead > score or (ahead == score and item_PK[p, above] < item_PK[p, k]):
                    break
                if at < size:
                    index_PN[p, at] = above
                    score_PN[p, at] = ahead
                at -= 1
            if at < size:
                index_PN[p, at] = k
                score_PN[p, at] = score
                held = min(held + 1, size)
    return index_PN, score_PN
