"""What the ranker sees of a candidate: F numbers per pair of position and candidate, all from before the event.

A *position* is a state of one user (its history at that moment) for which K candidates are to be ranked. Items are
process-wide rows. Everything is computed by one kernel in one pass per position: the neighbour lists of the last
items are added onto the candidates through an array that says where a row stands among them, so the cost is that of the
lists (lists x M adds) plus K x F, whatever the size of the catalogue.

Every column is a smooth function that fp16 carries well (logs, shares, small integers), because the learner receives
the same columns as fp16.
"""

import threading
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.jit import kernel, summing_kernel


class Feature(IntEnum):
    """Columns of `features`. s(x) below is sum over history items j of weight(j, x), lists of the snapshot.

    The co-occurrence views differ in which history items they sum over and how these fade; each is log(s + .001).
    """

    cooc_last = 0  # the latest item alone
    cooc_last3 = 1  # the latest three
    cooc_decayed = 2  # all, the k-th latest with .9^(k-1): the retrieval score, exact up to the lists' length
    cooc_flat = 3  # all, alike, divided by their number
    cooc_liked = 4  # those liked, faded as above by their place among the liked
    cooc_session = 5  # those of the half hour before the latest, alike
    cooc_best = 6  # the largest single weight
    cooc_share = 7  # share of the history whose lists hold the candidate
    dot = 8  # taste . target of the snapshot's factors, as log(max(dot, 0) + .001)
    popularity_short = 9  # log(1 + decayed takes), three half-lives
    popularity_mid = 10
    popularity_long = 11
    like_rate = 12  # (likes + 10 x rate of all) / (likes + dislikes + 10)
    click_rate = 13  # (answered impressions + 50 x rate of all) / (impressions + 50), as log
    category_affinity = 14  # mean over the candidate's categories of the history's share in them
    category_recent = 15  # the same over the latest three items
    year_distance = 16  # |release year - mean release year of the latest ten|, decades, at most 5
    since_taken = 17  # log(1 + seconds since anybody took it), as of the counts
    age = 18  # log(1 + seconds since it was first seen), as of the counts
    from_vector = 19  # which source proposed it, 0 or 1: the bits of `source_PK`, lowest first
    from_neighbours = 20
    from_trending = 21
    from_fresh = 22
    history_length = 23  # log(1 + items)
    since_last = 24  # log(1 + seconds since the user's latest event, at most an hour)
    liked_share = 25  # share of the history that was liked
    disliked_share = 26
    context = 27  # a code 0..63 (surface x device); the model reads it as a category, not as a number


CONTEXTS = 64
FADE = 0.9
SESSION_S = 1800
AWAY_S = 3600
"""Who was away for longer has come back, whenever that is."""
EPS = np.float32(1e-3)
CARRIES = 0.2  # share of a score from the history that one item of it must give to be named
COLUMNS = 28  # len(Feature), as a number the kernel can hold
CATEGORY_SLOTS = 1024  # category codes are folded into these


class Histories(NamedTuple):
    """P positions: what each user held, latest first. `row_PH` is -1 past the end and for unknown items.

    `appeal_PH` is 1 where what the user did praises the item, -1 where it is blame, else 0.
    """

    row_PH: NDArray[np.int32]
    appeal_PH: NDArray[np.int8]
    time_PH: NDArray[np.int64]
    now_s_P: NDArray[np.int64]
    context_P: NDArray[np.int16]


class Candidates(NamedTuple):
    """K candidates per position. `row_PK` is -1 where there is none; `source_PK` has a bit for each source."""

    row_PK: NDArray[np.int32]
    source_PK: NDArray[np.uint8]
    dot_PK: NDArray[np.float32]


class Neighbours(NamedTuple):
    """The M strongest neighbours of each of N items, strongest first; rows -1 past the end.

    Weights are non-negative and already normalised: their sum over a fading history is the co-occurrence score.
    """

    row_NM: NDArray[np.int32]
    weight_NM: NDArray[np.float32]


class ItemRows(NamedTuple):
    """Counters and attributes of N items, as of before the batch, and what makes now of them. Non-negative.

    A candidate lies anywhere in the table, so these should be parts of one line of memory per item; a count is as of
    `clock_s_N`, and only a candidate's is faded to `clock_s`.

    Attributes:
        popularity_N3: takes with a short, a middle and a long half-life; more columns may follow.
        reactions_N4: likes, dislikes, times shown and clicked.
        clock_s_N: for which moment the counts were told, epoch seconds.
        last_taken_s_N: epoch seconds, 0 = never; likewise `first_seen_s_N`.
        year_N: 0 where unknown.
        category_NC: -1 past the end.
        clock_s: the moment, epoch seconds.
        half_life_4: of the popularities and of the reactions, seconds.
        like_rate: prior of the smoothed like rate, the share of likes over all items.
        click_rate: prior of the smoothed click rate.
    """

    popularity_N3: NDArray[np.float32]
    reactions_N4: NDArray[np.float32]
    clock_s_N: NDArray[np.integer]
    last_taken_s_N: NDArray[np.integer]
    first_seen_s_N: NDArray[np.integer]
    year_N: NDArray[np.int16]
    category_NC: NDArray[np.int16]
    clock_s: int
    half_life_4: NDArray[np.float64]
    like_rate: float = 0.7
    click_rate: float = 0.05


class Features(NamedTuple):
    """`x_PKX`, columns `Feature`, and whom to thank for each candidate.

    `because_PK` is the place in the history (0 = latest) of the item that gave most to the faded co-occurrence of those
    that the person did not blame, -1 where none gave a fifth of it.
    """

    x_PKX: NDArray[np.float32]
    because_PK: NDArray[np.int16]


def features(
    histories: Histories,
    candidates: Candidates,
    neighbours: Neighbours,
    items: ItemRows,
    *,
    lists: int = 50,
) -> Features:
    """Columns `Feature` for every pair, finite; rows of absent candidates are zero.

    Args:
        histories: P positions, latest item first.
        candidates: K candidates each.
        neighbours: lists of the snapshot in use.
        items: counters from strictly before the events.
        lists: how many of the latest items have their lists added.
    """
    place_N = places(max(len(neighbours.row_NM), 1 + int(candidates.row_PK.max(initial=-1))))
    x_PKX, because_PK, log_PKL = _features(histories, candidates, neighbours, items, lists, place_N)
    np.log(log_PKL, out=log_PKL)  # NumPy's takes a fifth of the time of a logarithm inside the loop
    x_PKX[..., :7], x_PKX[..., 8], x_PKX[..., 17:19] = log_PKL[..., :7], log_PKL[..., 7], log_PKL[..., 8:10]
    x_PKX[..., 13] = np.where(candidates.row_PK >= 0, log_PKL[..., 10], np.float32(0))
    x_PKX[..., 9:12] = log_PKL[..., 11:]
    return Features(x_PKX, because_PK)


@summing_kernel
def dots(
    taste_PD: NDArray[np.float32], target_ND: NDArray[np.float32], row_PK: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Inner product of each position's taste with each candidate's target vector, 0 where there is none. (P, K)."""
    P, K = row_PK.shape
    out_PK = np.zeros((P, K), np.float32)
    for p in range(P):
        for k in range(K):
            row = row_PK[p, k]
            if 0 <= row < len(target_ND):
                total = np.float32(0)
                for d in range(taste_PD.shape[1]):
                    total += taste_PD[p, d] * target_ND[row, d]
                out_PK[p, k] = total
    return out_PK


_LOGS = 14
_scratch = threading.local()


def places(rows: int) -> NDArray[np.int32]:
    """An array of -1 for at least as many rows, this thread's own; the kernel leaves it as it found it.

    It says where a row stands among a position's candidates. A hash table takes less room and twice the time: the
    processor cannot guess where a probe ends.
    """
    place_N: NDArray[np.int32] | None = getattr(_scratch, "place_N", None)
    if place_N is None or len(place_N) < rows:
        place_N = _scratch.place_N = np.full(2 * rows, -1, np.int32)
    return place_N


@kernel
def add_lists(
    histories: Histories,
    p: int,
    neighbours: Neighbours,
    lists: int,
    place_N: NDArray[np.int32],
    sum_KV: NDArray[np.float32],
    most_K: NDArray[np.float32],
    because_K: NDArray[np.int16],
) -> None:
    """Add the lists of one history onto the candidates.

    Fills per candidate six sums, the count and the largest weight, and the place of the item to thank. Which
    neighbours are candidates is found out first, without a branch, and then added.
    """
    M = neighbours.row_NM.shape[1]
    fade_V = np.zeros(7, np.float32)
    hit_M, weight_M = np.empty(M + 1, np.int32), np.empty(M + 1, np.float32)
    liked = np.float32(1.0)
    faded = np.float32(1.0)
    for h in range(min(lists, histories.row_PH.shape[1])):
        row = histories.row_PH[p, h]
        fade_V[0] = h == 0
        fade_V[1] = h < 3
        fade_V[2] = faded
        fade_V[3] = 1.0
        fade_V[4] = liked if histories.appeal_PH[p, h] > 0 else 0.0
        fade_V[5] = histories.time_PH[p, 0] - histories.time_PH[p, h] <= SESSION_S
        gives = faded if histories.appeal_PH[p, h] >= 0 else np.float32(0)
        faded *= np.float32(FADE)
        if fade_V[4] > 0:
            liked *= np.float32(FADE)
        if row < 0 or row >= len(neighbours.row_NM):  # it came after the snapshot
            continue
        hits = 0
        for m in range(M):
            near = neighbours.row_NM[row, m]
            if near < 0:
                break
            hit_M[hits], weight_M[hits] = place_N[near], neighbours.weight_NM[row, m]
            hits += int(place_N[near] >= 0)
        for m in range(hits):
            k, weight = hit_M[m], weight_M[m]
            for v in range(6):
                sum_KV[k, v] += weight * fade_V[v]
            sum_KV[k, 6] += np.float32(1.0)
            sum_KV[k, 7] = max(sum_KV[k, 7], weight)
            most = gives * weight > most_K[k]
            because_K[k] = h if most else because_K[k]
            most_K[k] = max(most_K[k], gives * weight)
    for k in range(len(most_K)):
        if most_K[k] < np.float32(CARRIES) * sum_KV[k, 2]:
            because_K[k] = -1


class Person(NamedTuple):
    """What is the same for all candidates of a position.

    `held` and `recent` are what one item of the history, or of its latest three, counts in a share; `year` is the mean
    year, 0 where unknown; the others are columns.
    """

    held: np.float32
    recent: np.float32
    year: float
    history_length: np.float32
    since_last: np.float32
    liked_share: np.float32
    disliked_share: np.float32
    context: np.float32


@kernel
def _log1p(value: float) -> np.float32:
    return np.float32(np.log(np.float32(1.0) + np.float32(max(value, 0))))


@kernel
def person_of(
    histories: Histories, p: int, items: ItemRows, all_share: NDArray[np.float32], recent_share: NDArray[np.float32]
) -> Person:
    """Fill the history's count per category; returns what else is to be known of it."""
    all_share[:] = 0
    recent_share[:] = 0
    length, liked, disliked, dated, years = 0, 0, 0, 0, 0.0
    for h in range(histories.row_PH.shape[1]):
        row = histories.row_PH[p, h]
        if row < 0:
            continue
        length += 1
        liked += histories.appeal_PH[p, h] > 0
        disliked += histories.appeal_PH[p, h] < 0
        for c in range(items.category_NC.shape[1]):
            code = items.category_NC[row, c]
            if code < 0:
                break
            all_share[code & (CATEGORY_SLOTS - 1)] += 1
            if length <= 3:
                recent_share[code & (CATEGORY_SLOTS - 1)] += 1
        if length <= 10 and items.year_N[row] > 0:
            dated += 1
            years += items.year_N[row]
    now_s = histories.now_s_P[p]
    held = np.float32(1.0 / max(length, 1))
    recent = np.float32(1.0 / min(max(length, 1), 3))
    last_s = histories.time_PH[p, 0] if histories.row_PH[p, 0] >= 0 else now_s
    year = years / dated if dated else 0.0
    shares = liked * held, disliked * held
    away, context = _log1p(min(now_s - last_s, AWAY_S)), np.float32(histories.context_P[p])
    return Person(held, recent, year, _log1p(length), away, *shares, context)


@kernel
def _since(now_s: int, then_s: int) -> int:
    return max(now_s - np.int64(then_s), 0)  # type: ignore[return-value]


@kernel
def _left(age_s: int, half_life_4: NDArray[np.float64], left_4: NDArray[np.float32]) -> None:
    """How much is left of counts of an age, by half-life."""
    for t in range(4):
        left_4[t] = np.float32(np.exp2(-age_s / half_life_4[t]))


@kernel
def _features(
    histories: Histories,
    candidates: Candidates,
    neighbours: Neighbours,
    items: ItemRows,
    lists: int,
    place_N: NDArray[np.int32],
) -> tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.float32]]:
    """The columns, whom to thank, and what columns 0-6, 8, 17, 18 and 13 are the logarithms of."""
    P, K = candidates.row_PK.shape
    x_PKX, log_PKL = np.zeros((P, K, COLUMNS), np.float32), np.ones((P, K, _LOGS), np.float32)
    because_PK = np.full((P, K), -1, np.int16)
    most_K, sum_KV = np.empty(K, np.float32), np.empty((K, 8), np.float32)
    all_share, recent_share = np.empty(CATEGORY_SLOTS, np.float32), np.empty(CATEGORY_SLOTS, np.float32)
    left_4, of_s = np.ones(4, np.float32), items.clock_s
    likes_prior, clicks_prior = np.float32(10 * items.like_rate), np.float32(50 * items.click_rate)
    for p in range(P):
        sum_KV[:] = 0
        most_K[:] = 0
        for k in range(K):
            row = candidates.row_PK[p, k]
            if row >= 0:
                place_N[row] = k
        add_lists(histories, p, neighbours, lists, place_N, sum_KV, most_K, because_PK[p])
        person = person_of(histories, p, items, all_share, recent_share)
        for k in range(K):
            row = candidates.row_PK[p, k]
            if row < 0:
                continue
            place_N[row] = -1
            x, log_L = x_PKX[p, k], log_PKL[p, k]
            for v in range(6):
                log_L[v] = (sum_KV[k, v] * person.held if v == 3 else sum_KV[k, v]) + EPS
            log_L[6] = sum_KV[k, 7] + EPS
            log_L[7] = max(candidates.dot_PK[p, k], np.float32(0)) + EPS
            x[7] = sum_KV[k, 6] * person.held
            told_s = items.clock_s_N[row]
            if told_s != of_s:  # most have the same
                of_s = told_s
                _left(_since(items.clock_s, of_s), items.half_life_4, left_4)
            for t in range(3):
                log_L[11 + t] = np.float32(1.0) + items.popularity_N3[row, t] * left_4[t]
            likes, dislikes = items.reactions_N4[row, 0] * left_4[3], items.reactions_N4[row, 1] * left_4[3]
            shown, clicked = items.reactions_N4[row, 2] * left_4[3], items.reactions_N4[row, 3] * left_4[3]
            x[12] = (likes + likes_prior) / (likes + dislikes + np.float32(10))
            log_L[10] = (clicked + clicks_prior) / (shown + np.float32(50))
            tagged = 0
            for c in range(items.category_NC.shape[1]):
                code = items.category_NC[row, c]
                if code < 0:
                    break
                tagged += 1
                x[14] += all_share[code & (CATEGORY_SLOTS - 1)]
                x[15] += recent_share[code & (CATEGORY_SLOTS - 1)]
            if tagged:
                x[14] *= person.held / np.float32(tagged)
                x[15] *= person.recent / np.float32(tagged)
            if person.year > 0 and items.year_N[row] > 0:
                x[16] = min(abs(items.year_N[row] - person.year) / 10, 5.0)
            log_L[8] = 1 + _since(items.clock_s, items.last_taken_s_N[row])
            log_L[9] = 1 + _since(items.clock_s, items.first_seen_s_N[row])
            for bit in range(4):
                x[19 + bit] = (candidates.source_PK[p, k] >> bit) & 1
            x[23], x[24] = person.history_length, person.since_last
            x[25], x[26] = person.liked_share, person.disliked_share
            x[27] = person.context
    return x_PKX, because_PK, log_PKL
