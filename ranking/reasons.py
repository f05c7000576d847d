"""Why an item stands in a slate: something that a person can check, told of what carries most of its score.

What carries a score is found by the first-order share of each column (`Ranker.shares`): by how much the item's log-odds
of being taken next would fall if the column said of it what it says of the mean candidate. The shares of the columns
that speak for the same reason are added; of the reasons that are *true* of the item the one with the largest share is
told. What was told before in the same slate counts half, a third … of its share, and another item or category for the
same reason a little less than its own, so that reasons vary where several carry about as much.

P slates of N places, K candidates, F columns, H items of history.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.features import CARRIES, COLUMNS, Feature, Histories
from ranking.jit import kernel, summing_kernel

Floats = NDArray[np.float32]


class Reason(IntEnum):
    """What can be said of an item in a slate."""

    none = 0
    similar_to_recent = 1  # goes with an item that the person took, named by `held_PN`
    taste = 2  # near to what the person takes, and no single item or category can be named for it
    popular = 3  # among the most taken
    trending = 4  # among what is taken most at present
    fresh = 5  # new
    category = 6  # of a category that the person takes, named by `category_PN`
    explored = 7  # put there by chance, and nothing else can be said of it


REASONS = 7
"""Those before it are told by share."""
_CODES = 1 << 15
_OF_ANOTHER = 0.25
"""How much of a repetition the same reason with another item or category is."""
_CATEGORY_AT_LEAST = 2
"""More takes than dislikes of a category that it can be named for."""

#: Which columns speak for which reason.
SPEAK_FOR: dict[Reason, tuple[Feature, ...]] = {
    Reason.similar_to_recent: (
        Feature.cooc_last, Feature.cooc_last3, Feature.cooc_decayed, Feature.cooc_flat, Feature.cooc_liked,
        Feature.cooc_session, Feature.cooc_best, Feature.cooc_share, Feature.dot, Feature.from_vector,
        Feature.from_neighbours,
    ),
    Reason.popular: (
        Feature.popularity_short, Feature.popularity_mid, Feature.popularity_long, Feature.like_rate,
        Feature.click_rate, Feature.since_taken,
    ),
    Reason.trending: (Feature.popularity_short, Feature.from_trending, Feature.since_taken),
    Reason.fresh: (Feature.age, Feature.from_fresh),
    Reason.category: (Feature.category_affinity, Feature.category_recent),
}  # fmt: skip
_SPEAK_FOR_FR = np.zeros((COLUMNS, REASONS), np.float32)
for _reason, _columns in SPEAK_FOR.items():
    _SPEAK_FOR_FR[list(_columns), _reason] = 1


class Evidence(NamedTuple):
    """What can be said of the items of P slates, all (P, N).

    Attributes:
        held_PN: place in the history (0 = latest) of the taken item that carries it, -1 where none does.
        category_PN: code of the category that the person takes most of those it has, -1 where they take none.
        true_PNR: which other reasons are true of it, (P, N, `REASONS`).
        given_PN: the reason of what is there for one that no column tells; `Reason.none` for the others.
        tasteful_P: who has a taste, (P,).
    """

    held_PN: NDArray[np.int16]
    category_PN: NDArray[np.int16]
    true_PNR: NDArray[np.bool_]
    given_PN: NDArray[np.uint8]
    tasteful_P: NDArray[np.bool_]


def reasons(share_PNF: Floats, index_PN: NDArray[np.int32], evidence: Evidence) -> NDArray[np.uint8]:
    """The `Reason` of each place, `none` past the end (index -1). Shape (P, N).

    Where no true reason carries anything the least bad is told; where none is true, `taste`, and nothing where none is.
    """
    true_PNR = evidence.true_PNR.copy()
    true_PNR[..., Reason.similar_to_recent] = evidence.held_PN >= 0
    true_PNR[..., Reason.category] = evidence.category_PN >= 0
    out_PN = np.zeros(index_PN.shape, np.uint8)
    share_PNR = share_PNF @ _SPEAK_FOR_FR[: share_PNF.shape[2]]
    _choose(share_PNR, index_PN, true_PNR, *evidence[:2], evidence.given_PN, evidence.tasteful_P, out_PN)
    return out_PN


@kernel
def _choose(
    share_PNR: Floats,
    index_PN: NDArray[np.int32],
    true_PNR: NDArray[np.bool_],
    held_PN: NDArray[np.int16],
    category_PN: NDArray[np.int16],
    given_PN: NDArray[np.uint8],
    tasteful_P: NDArray[np.bool_],
    out_PN: NDArray[np.uint8],
) -> None:
    P, N = index_PN.shape
    for p in range(P):
        for n in range(N):
            if index_PN[p, n] < 0:
                break
            if given_PN[p, n]:
                out_PN[p, n] = given_PN[p, n]
                continue
            best, reason = -np.inf, 2 if tasteful_P[p] else 0  # Reason.taste, Reason.none
            for r in range(1, share_PNR.shape[2]):
                if not true_PNR[p, n, r]:
                    continue
                told = 1.0
                for before in range(n):
                    if out_PN[p, before] == r:
                        same = r != 1 or held_PN[p, before] == held_PN[p, n]
                        same &= r != 6 or category_PN[p, before] == category_PN[p, n]
                        told += 1.0 if same else _OF_ANOTHER
                share = float(share_PNR[p, n, r])
                share = share / told if share > 0 else share * told
                if share > best:
                    best, reason = share, r
            out_PN[p, n] = reason


def carriers(
    history_PH: NDArray[np.int32],
    weight_PH: Floats,
    vectors: tuple[Floats, Floats],
    row_PN: NDArray[np.int32],
    because_PN: NDArray[np.int16],
    decay: float,
) -> NDArray[np.int16]:
    """`because_PN`, and where that is -1 the held item whose source vector carries the taste's product. Shape (P, N).

    Args:
        history_PH: rows held, latest first, -1 where none is.
        weight_PH: how much each says of taste: what was disliked or hidden says nothing, and is never named.
        vectors: source and target vectors by row.
        row_PN: the items.
        because_PN: whom co-occurrence names already.
        decay: as of the taste.
    """
    held_PN = because_PN.copy()
    _carriers(history_PH, weight_PH, *vectors, row_PN, decay, held_PN)
    return held_PN


@summing_kernel
def _product(one_D: Floats, other_D: Floats) -> float:
    total = np.float32(0)
    for d in range(len(one_D)):
        total += one_D[d] * other_D[d]
    return float(total)


@kernel
def _carriers(
    history_PH: NDArray[np.int32],
    weight_PH: Floats,
    source_ND: Floats,
    target_ND: Floats,
    row_PN: NDArray[np.int32],
    decay: float,
    held_PN: NDArray[np.int16],
) -> None:
    for p in range(len(row_PN)):
        for n in range(row_PN.shape[1]):
            row = row_PN[p, n]
            if row < 0 or held_PN[p, n] >= 0:
                continue
            fade, total, most, place = 1.0, 0.0, 0.0, -1
            for h in range(history_PH.shape[1]):
                held = history_PH[p, h]
                if weight_PH[p, h] <= 0 or held < 0 or held >= len(source_ND):
                    continue
                gives = fade * weight_PH[p, h] * _product(source_ND[held], target_ND[row])
                total += gives
                if gives > most:
                    most, place = gives, h
                fade *= decay
            if place >= 0 and most >= CARRIES * total:
                held_PN[p, n] = place


def categories_taken(
    histories: Histories, category_NC: NDArray[np.int16], row_PN: NDArray[np.int32]
) -> NDArray[np.int16]:
    """Of each item's categories the one that most of the history has, dislikes counted against it. Shape (P, N).

    -1 where the person took none of them at least two times more than they disliked it.
    """
    out_PN = np.full(row_PN.shape, -1, np.int16)
    taken_C = np.zeros(_CODES, np.int32)
    _categories_taken(histories.row_PH, histories.appeal_PH, category_NC, row_PN, taken_C, out_PN)
    return out_PN


@kernel
def _categories_taken(
    history_PH: NDArray[np.int32],
    appeal_PH: NDArray[np.int8],
    category_NC: NDArray[np.int16],
    row_PN: NDArray[np.int32],
    taken_C: NDArray[np.int32],
    out_PN: NDArray[np.int16],
) -> None:
    for p in range(len(row_PN)):
        for sign in (1, 0):  # count, read, then leave everything as it was
            for h in range(history_PH.shape[1]):
                if history_PH[p, h] < 0:
                    continue
                for x in range(category_NC.shape[1]):
                    code = category_NC[history_PH[p, h], x]
                    if code < 0:
                        break
                    taken_C[code] = (taken_C[code] + (1 if appeal_PH[p, h] >= 0 else -1)) * sign
            if sign == 0:
                break
            for n in range(row_PN.shape[1]):
                most = _CATEGORY_AT_LEAST - 1
                if row_PN[p, n] < 0:
                    continue
                for x in range(category_NC.shape[1]):
                    code = category_NC[row_PN[p, n], x]
                    if code < 0:
                        break
                    if taken_C[code] > most:
                        most = taken_C[code]
                        out_PN[p, n] = code
