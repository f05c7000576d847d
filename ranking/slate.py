"""From scores to slates: the weighted objective, the first n of each position, and why each item is there."""

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.features import Feature, Features
from ranking.jit import kernel
from ranking.ranker import Scores


class Reason(IntEnum):
    """Why an item stands in a slate, told from what sets it apart from the other candidates."""

    none = 0
    similar_to_recent = 1  # co-occurs with an item of the history, named by `because_PN`
    taste = 2  # near the user's vector
    popular = 3
    trending = 4  # only the trending source proposed it
    fresh = 5  # only the source of new items proposed it
    category = 6  # of the categories the history is made of


#: Columns an ordinary item's reason is told from, and the reason each stands for.
TOLD_COLUMNS = np.array([Feature.cooc_decayed, Feature.dot, Feature.popularity_mid, Feature.category_affinity])
TOLD_REASONS = np.array([Reason.similar_to_recent, Reason.taste, Reason.popular, Reason.category], np.uint8)


class SlateRows(NamedTuple):
    """P slates of N places, best first; all arrays (P, N), and -1, 0 or `Reason.none` past a short slate's end.

    `index_PN` points into the K candidates. `because_PN` is the place in the history (0 = latest) that speaks for the
    item, set with `Reason.similar_to_recent` only. The order is deterministic, so there is no propensity.
    """

    index_PN: NDArray[np.int32]
    score_PN: NDArray[np.float32]
    reason_PN: NDArray[np.uint8]
    because_PN: NDArray[np.int16]


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


def compose(
    score_PK: NDArray[np.float32],
    features: Features,
    given_PK: NDArray[np.uint8],
    item_PK: NDArray[np.int64],
    mask_PK: NDArray[np.bool_],
    size: int,
) -> SlateRows:
    """The best `size` candidates of each position; equal scores stand in order of item id.

    Args:
        score_PK: what to order by; a score that is not a number stands last.
        features: what the scores were made from; reasons are read off it.
        given_PK: the `Reason` of what is there for one that no feature tells; `Reason.none` for the others.
        item_PK: item ids, for ties.
        mask_PK: where there is a candidate that may be shown.
        size: N.
    """
    index_PN, score_PN = _best(score_PK, item_PK, mask_PK, size)
    reason_PN, because_PN = _reasons(index_PN, features.x_PKX, features.because_PK, given_PK, mask_PK)
    return SlateRows(index_PN, score_PN, reason_PN, because_PN)


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


@kernel
def _reasons(
    index_PN: NDArray[np.int32],
    x_PKX: NDArray[np.float32],
    because_PK: NDArray[np.int16],
    given_PK: NDArray[np.uint8],
    mask_PK: NDArray[np.bool_],
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """The column in which an item lies furthest above the mean of its candidates, in their standard deviations."""
    P, N = index_PN.shape
    reason_PN = np.zeros((P, N), np.uint8)
    because_PN = np.full((P, N), -1, np.int16)
    mean_T = np.empty(4)
    spread_T = np.empty(4)
    for p in range(P):
        for t in range(4):
            total, squares, count = 0.0, 0.0, 0
            for k in range(mask_PK.shape[1]):
                if mask_PK[p, k]:
                    x = x_PKX[p, k, TOLD_COLUMNS[t]]
                    total += x
                    squares += x * x
                    count += 1
            mean_T[t] = total / max(count, 1)
            spread_T[t] = np.sqrt(max(squares / max(count, 1) - mean_T[t] ** 2, 0.0)) + 1e-3
        for n in range(N):
            k = index_PN[p, n]
            if k < 0:
                break
            reason_PN[p, n] = given_PK[p, k]
            if given_PK[p, k]:
                continue
            furthest = -np.inf
            for t in range(4):
                if t == 0 and because_PK[p, k] < 0:
                    continue
                apart = (x_PKX[p, k, TOLD_COLUMNS[t]] - mean_T[t]) / spread_T[t]
                if apart > furthest:
                    furthest = apart
                    reason_PN[p, n] = TOLD_REASONS[t]
            if reason_PN[p, n] == TOLD_REASONS[0]:
                because_PN[p, n] = because_PK[p, k]
    return reason_PN, because_PN
