"""From scores to slates: the weighted objective, fatigue, the first n of each position, and what chance puts there."""

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

    Equal scores stand in order of item id; past the end of a short slate are -1 and 0. Nothing is drawn by chance.

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


def explore(
    index_PN: NDArray[np.int32],
    mask_PK: NDArray[np.bool_],
    places_P: NDArray[np.int32],
    chance_PN: NDArray[np.float32],
    key_PS: NDArray[np.uint64],
    share: float,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Put, in a share of the places, a candidate there that stands below the slate: epsilon-greedy, place by place.

    A coin decides for each place alone (Watkins 1989). What it shows then is dealt, all alike and none twice, out of
    the M candidates below the N places that are filled; where there are fewer candidates than places, nothing is dealt
    instead of those that are missing, and the place stays as it was. Any one card of a shuffled pack is any one of them
    with the same probability, whatever the other places got, so that, with L = max(M, N), each candidate below stands
    in each place with probability `share` / L, and what ranking put there with 1 - `share` M / L: exactly.

    Returns these probabilities, 0 past the end and 1 where there was nothing to deal, and where chance decided; both
    (P, N). `index_PN` is changed in place; what is beyond `places_P` stays.

    Args:
        index_PN: of `best`: which of the K candidates.
        mask_PK: where there is one.
        places_P: how many places each slate has.
        chance_PN: the coins, uniform from 0 to 1.
        key_PS: what is dealt has the smallest of these, all drawn alike: K for the candidates, N for what is missing.
        share: of places, 0 to 1.
    """
    propensity_PN, explored_PN = (index_PN >= 0).astype(np.float64), np.zeros(index_PN.shape, np.bool_)
    _explore(index_PN, mask_PK, places_P, chance_PN, key_PS, share, propensity_PN, explored_PN)
    return propensity_PN, explored_PN


@kernel
def _explore(
    index_PN: NDArray[np.int32],
    mask_PK: NDArray[np.bool_],
    places_P: NDArray[np.int32],
    chance_PN: NDArray[np.float32],
    key_PS: NDArray[np.uint64],
    share: float,
    propensity_PN: NDArray[np.float64],
    explored_PN: NDArray[np.bool_],
) -> None:
    K = mask_PK.shape[1]
    card_S = np.empty(key_PS.shape[1], np.int32)
    for p in range(len(index_PN)):
        below_K = mask_PK[p].copy()
        filled = 0
        while filled < min(index_PN.shape[1], places_P[p]) and index_PN[p, filled] >= 0:
            below_K[index_PN[p, filled]] = False
            filled += 1
        below = 0
        for k in range(K):
            if below_K[k]:
                card_S[below] = k
                below += 1
        cards = max(below, filled)
        for s in range(below, cards):
            card_S[s] = K + s - below
        for n in range(filled):
            propensity_PN[p, n] = 1 - share * below / cards
        dealt = 0
        for n in range(filled):
            if below == 0 or chance_PN[p, n] >= share:
                continue
            least = dealt
            for s in range(dealt + 1, cards):
                if key_PS[p, card_S[s]] < key_PS[p, card_S[least]]:
                    least = s
            card = card_S[least]
            card_S[least], card_S[dealt] = card_S[dealt], card
            dealt += 1
            if card < K:
                index_PN[p, n] = card
                propensity_PN[p, n] = share / cards
                explored_PN[p, n] = True
