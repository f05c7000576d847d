"""What the heads of ads see of a creative: F numbers per pair of viewer and creative, all from before the decision.

As many columns as those of `ranking.features`, and where both know a thing, in the same place; what an ad has and an
item has not (its rates, its length, its format) stands where items have popularity and sources. What goes with the
history is looked up for the item that the ad is about, where it has one.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.features import CATEGORY_SLOTS, COLUMNS, EPS, Histories, ItemRows, Neighbours, add_lists, person_of, places
from ranking.jit import kernel, summing_kernel

OUTCOMES = ("click", "complete", "conversion")
"""What may become of an impression, in the order of every axis O: each per impression, whatever came before it."""


class AdFeature(IntEnum):
    """Columns of `features`."""

    cooc_last = 0  # to `cooc_share` as in `ranking.features.Feature`, of the item that the ad is about
    cooc_last3 = 1
    cooc_decayed = 2
    cooc_flat = 3
    cooc_liked = 4
    cooc_session = 5
    cooc_best = 6
    cooc_share = 7
    dot = 8  # taste . vector of the creative, as log(max(dot, 0) + .001)
    complete_rate = 9  # smoothed, as log; of the creative
    conversion_rate = 10
    shown = 11  # log(1 + impressions of the creative)
    learned = 12  # direction of the taste . what clicks taught of the creative, in log-odds
    click_rate = 13
    category_affinity = 14
    category_recent = 15
    seconds = 16  # log(1 + length)
    banner = 17  # which format it has, 0 or 1
    video = 18
    audio = 19
    native = 20
    landing = 21  # is it about an item?
    personal = 22  # may the profile be used?
    history_length = 23  # these as in `ranking.features.Feature`
    since_last = 24
    liked_share = 25
    disliked_share = 26
    context = 27


RATES = (int(AdFeature.click_rate), int(AdFeature.complete_rate), int(AdFeature.conversion_rate))
"""Where the smoothed rate of each of `OUTCOMES` stands."""


class Viewers(NamedTuple):
    """U people as far as ads may know them; of who is not `personal_U` nothing is said but the context.

    Attributes:
        histories: rows of what they held, -1 where it may not be used.
        taste_UD: what they want, in the space of the item vectors; zeros where nothing is known.
        personal_U: may the profile be used?
    """

    histories: Histories
    taste_UD: NDArray[np.float32]
    personal_U: NDArray[np.bool_]


class CreativeRows(NamedTuple):
    """N creatives: what they are like and how they did. Rates and counts are logarithms, as columns have them.

    Attributes:
        vector_ND: in the space of the item vectors.
        learned_ND: by how much a taste in a direction lifts the log-odds of a click.
        landing_N: row of the item that it is about, -1 where there is none.
        category_NC: codes of the item table, -1 past the end.
        rate_NO: log of the smoothed rates of `OUTCOMES`.
        shown_N: log(1 + impressions).
        seconds_N: log(1 + length).
        format_N: a place in `ranking.ads.inventory.FORMATS`.
    """

    vector_ND: NDArray[np.float32]
    learned_ND: NDArray[np.float32]
    landing_N: NDArray[np.int32]
    category_NC: NDArray[np.int16]
    rate_NO: NDArray[np.float32]
    shown_N: NDArray[np.float32]
    seconds_N: NDArray[np.float32]
    format_N: NDArray[np.uint8]


def features(
    viewers: Viewers,
    creatives: CreativeRows,
    neighbours: Neighbours,
    items: ItemRows,
    viewer_P: NDArray[np.integer],
    creative_PK: NDArray[np.int32],
    *,
    lists: int = 10,
) -> NDArray[np.float32]:
    """Columns `AdFeature` of K creatives for each of P auctions, finite; rows of -1 are zero. Shape (P, K, F).

    Args:
        viewers: U people.
        creatives: N creatives.
        neighbours: lists of the snapshot in use.
        items: the item table, for the categories of histories.
        viewer_P: who looks.
        creative_PK: numbers of creatives, -1 where there is none.
        lists: how many of the latest items have their lists added.
    """
    place_N = places(max(len(neighbours.row_NM), 1 + int(creatives.landing_N.max(initial=-1))))
    who_P: NDArray[np.int64] = np.ascontiguousarray(viewer_P, np.int64)
    x_PKX, log_PKL = _features(viewers, creatives, neighbours, items, who_P, creative_PK, lists, place_N)
    np.log(log_PKL, out=log_PKL)
    x_PKX[..., :7], x_PKX[..., 8] = log_PKL[..., :7], log_PKL[..., 7]
    return x_PKX


@kernel
def _features(
    viewers: Viewers,
    creatives: CreativeRows,
    neighbours: Neighbours,
    items: ItemRows,
    viewer_P: NDArray[np.int64],
    creative_PK: NDArray[np.int32],
    lists: int,
    place_N: NDArray[np.int32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The columns, and what columns 0-6 and 8 are the logarithms of.

    What it has of the person is written as in `ranking.features`: one loop for both took half as long again.
    """
    P, K = creative_PK.shape
    x_PKX, log_PKL = np.zeros((P, K, COLUMNS), np.float32), np.ones((P, K, 8), np.float32)
    all_share, recent_share = np.empty(CATEGORY_SLOTS, np.float32), np.empty(CATEGORY_SLOTS, np.float32)
    sum_KV, most_K, because_K = np.zeros((K, 8), np.float32), np.zeros(K, np.float32), np.zeros(K, np.int16)
    histories = viewers.histories
    for p in range(P):
        u = viewer_P[p]
        landings = 0
        for k in range(K):
            row = creatives.landing_N[creative_PK[p, k]] if creative_PK[p, k] >= 0 else -1
            if row >= 0:
                place_N[row] = k
                landings += 1
        if landings:
            sum_KV[:] = 0
            most_K[:] = 0
            add_lists(histories, u, neighbours, lists, place_N, sum_KV, most_K, because_K)
        person = person_of(histories, u, items, all_share, recent_share)
        taste_D = viewers.taste_UD[u]
        length = np.float32(0)
        for d in range(len(taste_D)):
            length += taste_D[d] * taste_D[d]
        unit = np.float32(1) / np.sqrt(length) if length > 0 else np.float32(0)
        for k in range(K):
            n = creative_PK[p, k]
            if n < 0:
                continue
            x, log_L = x_PKX[p, k], log_PKL[p, k]
            row = creatives.landing_N[n]
            for v in range(7):
                log_L[v] = EPS
            if row >= 0:
                same = sum_KV[place_N[row]]  # several ads may be about one item
                for v in range(6):
                    log_L[v] += same[v] * person.held if v == 3 else same[v]
                log_L[6] += same[7]
                x[7], x[21] = same[6] * person.held, 1
            near, fit = np.float32(0), np.float32(0)
            for d in range(len(taste_D)):
                near += taste_D[d] * creatives.vector_ND[n, d]
                fit += taste_D[d] * creatives.learned_ND[n, d]
            log_L[7] = max(near, np.float32(0)) + EPS
            x[12] = fit * unit
            x[13], x[9], x[10] = creatives.rate_NO[n]
            x[11], x[16] = creatives.shown_N[n], creatives.seconds_N[n]
            x[17 + creatives.format_N[n]] = 1
            x[22] = viewers.personal_U[u]
            tagged = 0
            for c in range(creatives.category_NC.shape[1]):
                code = creatives.category_NC[n, c]
                if code < 0:
                    break
                tagged += 1
                x[14] += all_share[code & (CATEGORY_SLOTS - 1)]
                x[15] += recent_share[code & (CATEGORY_SLOTS - 1)]
            if tagged:
                x[14] *= person.held / np.float32(tagged)
                x[15] *= person.recent / np.float32(tagged)
            x[23], x[24] = person.history_length, person.since_last
            x[25], x[26] = person.liked_share, person.disliked_share
            x[27] = person.context
        for k in range(K):
            if creative_PK[p, k] >= 0 and creatives.landing_N[creative_PK[p, k]] >= 0:
                place_N[creatives.landing_N[creative_PK[p, k]]] = -1
    return x_PKX, log_PKL


@summing_kernel
def nearness(
    viewers: Viewers,
    creatives: CreativeRows,
    start_P1: NDArray[np.int64],
    viewer_P: NDArray[np.int64],
    creative_C: NDArray[np.int32],
) -> NDArray[np.float32]:
    """How near each of C candidates is to the taste of who looks: a product of vectors, 0 without a taste. (C,)."""
    out_C = np.zeros(len(creative_C), np.float32)
    for p in range(len(viewer_P)):
        taste_D = viewers.taste_UD[viewer_P[p]]
        for c in range(start_P1[p], start_P1[p + 1]):
            vector_D, total = creatives.vector_ND[creative_C[c]], np.float32(0)
            for d in range(len(taste_D)):
                total += taste_D[d] * vector_D[d]
            out_C[c] = total
    return out_C
