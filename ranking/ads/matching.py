"""The compiled loop over opportunities: which line items each of them is for.

Every conjunction hangs on one of its wanted leaves, its *access predicate*: under each of that leaf's words, under each
square degree that its place reaches into. It is looked at only when an opportunity has one of these (Fabret et al.,
"Filtering Algorithms and Implementation for Very Fast Publish/Subscribe Systems", SIGMOD 2001). What wants none of them
(ranges, hours, large circles, nothing) is looked at in any case, as conjunctions of size 0 are in Whang et al.,
"Indexing Boolean Expressions", VLDB 2009. Then the leaves are asked, the rarest first, up to the first that is not as
wanted; each is worked out at most once per opportunity.

Lists are chains: a new one is put before the old ones, so that whoever starts at an older head never meets it.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.ads.opportunities import MISSING, Encoded, Histories
from ranking.ads.predicates import EARTH_KM
from ranking.jit import kernel

Bits = NDArray[np.uint64]
NO_TOKEN = np.int32(2**31 - 1)
WORDS, RANGE, PLACE, HOURS, SEEN = range(5)
"""Kinds of leaves."""
_DEGREES_OF_KM = 180 / (math.pi * EARTH_KM) * 1.000001
_MISSING = MISSING
_EARTH_KM = EARTH_KM


class Compiled(NamedTuple):
    """Targeting of line items as arrays. T tokens, N links, C conjunctions, M literals, F leaves, E watched.

    Attributes:
        head_T: first link of a token, -1 where nothing hangs there.
        link_N2: the conjunction that a link leads to, and the link after it.
        conjunction_C3: the line item that it lets in, -1 where that is gone; its literals, from and until.
        literal_M: twice a leaf, and one more where it has to be false.
        leaf_F3: its kind; its tokens in `part_N`, from and until, or its place in the arrays of its kind.
        watched_head_E: first link of what hangs on each leaf that no token stands for.
        range_R3: attribute, least, most. R ranges.
        place_G4: latitude and longitude in degrees, km, cosine of the latitude. G places.
        hours_D3: bits of hours of the week; `clock_D2`: zone (-1: none), whether always that. D day-parts.
        within_S2: token, seconds. S leaves of what was seen.
        key_K: keys of histories by open addressing, 0 where free; `key_token_K` their tokens.
    """

    head_T: NDArray[np.int32]
    link_N2: NDArray[np.int32]
    conjunction_C3: NDArray[np.int32]
    literal_M: NDArray[np.int32]
    leaf_F3: NDArray[np.int32]
    part_N: NDArray[np.int32]
    watched_head_E: NDArray[np.int32]
    range_R3: NDArray[np.int64]
    place_G4: NDArray[np.float64]
    hours_D3: Bits
    clock_D2: NDArray[np.int32]
    within_S2: NDArray[np.int64]
    key_K: Bits
    key_token_K: NDArray[np.int32]


class Answers(NamedTuple):
    """What is known of one opportunity so far: bits of tokens it has, of leaves asked and true; ages of tokens.

    `link_Q` are the chains to look at.
    """

    has_V: Bits
    asked_V: Bits
    true_V: Bits
    age_s_T: NDArray[np.int64]
    link_Q: NDArray[np.int32]


@kernel
def match(batch: Encoded, index: Compiled, bits_PW: Bits) -> None:
    """Set the bit of every line item that an opportunity is for, in rows of 64 a word. Shape (P, W), zero before."""
    T, F, E = len(index.head_T), len(index.leaf_F3), len(index.watched_head_E)
    most = np.diff(batch.start_P1).max() + np.diff(batch.seen.start_P1).max() + E if len(bits_PW) else 0
    answers = Answers(_no_bits(T), _no_bits(F), _no_bits(F), np.empty(T, np.int64), np.empty(most, np.int32))
    for p in range(bits_PW.shape[0]):
        answers.has_V[:] = 0
        answers.asked_V[:] = 0
        answers.true_V[:] = 0
        chains = _note_words(p, batch, index.head_T, answers)
        chains = _note_seen(p, batch.seen, batch.now_s_P[p], index, answers, chains)
        chains = _note_watched(index, answers, chains)
        _let_in(chains, p, batch, index, answers, bits_PW[p])


@kernel
def _no_bits(count: int) -> Bits:
    return np.zeros((count + 63) // 64, np.uint64)


@kernel
def _has(bits_V: Bits, n: int) -> bool:
    return bool(bits_V[n >> 6] >> np.uint64(n & 63) & np.uint64(1) != 0)


@kernel
def _set(bits_V: Bits, n: int) -> None:
    bits_V[n >> 6] |= np.uint64(1) << np.uint64(n & 63)


@kernel
def find(key: np.uint64, key_K: Bits) -> np.int64:
    """The slot of a key, or the free one where it belongs."""
    mask = np.uint64(len(key_K) - 1)
    slot = (key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32) & mask
    while key_K[slot] and key_K[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return np.int64(slot)


@kernel
def _note_words(p: int, batch: Encoded, head_T: NDArray[np.int32], answers: Answers) -> int:
    chains = 0
    for n in range(batch.start_P1[p], batch.start_P1[p + 1]):
        token = batch.token_N[n]
        if token < len(head_T) and not _has(answers.has_V, token):  # else newer than this snapshot, or said twice
            _set(answers.has_V, token)
            answers.link_Q[chains] = head_T[token]
            chains += 1
    return chains


@kernel
def _note_seen(p: int, seen: Histories, now_s: np.int64, index: Compiled, answers: Answers, chains: int) -> int:
    """Note how long ago it was at the latest that each was seen."""
    T = len(index.head_T)
    for n in range(seen.start_P1[p], seen.start_P1[p + 1] if seen.known_P[p] else 0):
        token = index.key_token_K[find(seen.key_N[n], index.key_K)]
        if token < T:
            age_s = now_s - seen.time_s_N[n]
            if not _has(answers.has_V, token):
                _set(answers.has_V, token)
                answers.link_Q[chains] = index.head_T[token]
                answers.age_s_T[token] = age_s
                chains += 1
            answers.age_s_T[token] = min(answers.age_s_T[token], age_s)
    return chains


@kernel
def _note_watched(index: Compiled, answers: Answers, chains: int) -> int:
    """Whatever hangs on a leaf without words has that leaf among its literals, so that it is looked at in any case."""
    for e in range(len(index.watched_head_E)):
        answers.link_Q[chains] = index.watched_head_E[e]
        chains += 1
    return chains


@kernel
def _let_in(chains: int, p: int, batch: Encoded, index: Compiled, answers: Answers, bits_W: Bits) -> None:
    """Look at the conjunctions that hang on what is true.

    Arrays are taken out of their tuples first, and inner calls get few: numba counts references to each at every call.
    """
    link_N2, conjunction_C3, literal_M = index.link_N2, index.conjunction_C3, index.literal_M
    leaf_F3, part_N, range_R3, place_G4 = index.leaf_F3, index.part_N, index.range_R3, index.place_G4
    hours_D3, clock_D2, within_S2 = index.hours_D3, index.clock_D2, index.within_S2
    link_Q, has_V, asked_V, true_V, age_s_T = (
        answers.link_Q, answers.has_V, answers.asked_V, answers.true_V, answers.age_s_T
    )  # fmt: skip
    number_A, place_2, zone_hour_Z = batch.number_PA[p], batch.place_P2[p], batch.zone_hour_PZ[p]
    hour = int(batch.hour_P[p])
    for q in range(chains):
        link = link_Q[q]
        while link >= 0:
            c = link_N2[link, 0]
            link = link_N2[link, 1]
            row = conjunction_C3[c, 0]
            if row < 0 or _has(bits_W, row):
                continue
            m, end = conjunction_C3[c, 1], conjunction_C3[c, 2]
            while m < end:
                leaf = literal_M[m] >> 1
                if not _has(asked_V, leaf):
                    _set(asked_V, leaf)
                    kind, at = leaf_F3[leaf, 0], leaf_F3[leaf, 1]
                    if kind == WORDS:
                        holds = _any(part_N, at, leaf_F3[leaf, 2], has_V)
                    elif kind == RANGE:
                        holds = _between(number_A, range_R3, at)
                    elif kind == PLACE:
                        holds = _near(place_2, place_G4, at)
                    elif kind == HOURS:
                        holds = _shows(hour, zone_hour_Z, hours_D3, clock_D2, at)
                    else:
                        holds = _within(age_s_T, within_S2, at, has_V)
                    if holds:
                        _set(true_V, leaf)
                if _has(true_V, leaf) == (literal_M[m] & 1):
                    break
                m += 1
            if m == end:
                _set(bits_W, row)


@kernel
def _any(part_N: NDArray[np.int32], at: int, last: int, has_V: Bits) -> bool:
    while at < last and not _has(has_V, part_N[at]):
        at += 1
    return at < last


@kernel
def _between(number_A: NDArray[np.int64], range_R3: NDArray[np.int64], at: int) -> bool:
    number = number_A[range_R3[at, 0]]
    return bool(number != _MISSING and range_R3[at, 1] <= number <= range_R3[at, 2])


@kernel
def _near(place_2: NDArray[np.float64], place_G4: NDArray[np.float64], at: int) -> bool:
    """As `predicates.distance_km`, for places in the same band of latitude."""
    lat, km = place_G4[at, 0], place_G4[at, 2]
    if not abs(lat - math.degrees(place_2[0])) <= km * _DEGREES_OF_KM:
        return False
    half = math.sin((place_2[0] - math.radians(lat)) / 2) ** 2
    east = math.sin((place_2[1] - math.radians(place_G4[at, 1])) / 2) ** 2
    half += place_G4[at, 3] * math.cos(place_2[0]) * east
    return bool(2 * _EARTH_KM * math.asin(math.sqrt(min(half, 1.0))) <= km)


@kernel
def _shows(hour: int, zone_hour_Z: NDArray[np.int16], hours_D3: Bits, clock_D2: NDArray[np.int32], at: int) -> bool:
    zone = clock_D2[at, 0]
    if zone >= 0 and (clock_D2[at, 1] or hour < 0):
        hour = int(zone_hour_Z[zone])
    return hour >= 0 and bool(hours_D3[at, hour >> 6] >> np.uint64(hour & 63) & np.uint64(1) != 0)


@kernel
def _within(age_s_T: NDArray[np.int64], within_S2: NDArray[np.int64], at: int, has_V: Bits) -> bool:
    token = within_S2[at, 0]
    return bool(_has(has_V, token) and age_s_T[token] <= within_S2[at, 1])


@kernel
def count_rows(bits_PW: Bits) -> NDArray[np.int64]:
    """Where the rows of each opportunity begin, and their number at the end. Shape (P + 1,)."""
    P, W = bits_PW.shape
    start_P1 = np.zeros(P + 1, np.int64)
    for p in range(P):
        count = 0
        for w in range(W):
            rest = bits_PW[p, w]
            while rest:
                rest &= rest - np.uint64(1)
                count += 1
        start_P1[p + 1] = start_P1[p] + count
    return start_P1


@kernel
def list_rows(bits_PW: Bits, row_M: NDArray[np.int32]) -> None:
    """The rows themselves, in order. Shape (M,)."""
    P, W = bits_PW.shape
    m = 0
    for p in range(P):
        for w in range(W):
            if bits_PW[p, w]:
                for b in range(64):
                    if _has(bits_PW[p], 64 * w + b):
                        row_M[m] = 64 * w + b
                        m += 1
