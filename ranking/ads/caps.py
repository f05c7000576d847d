"""Frequency caps: how often a person may see a creative, a line item, a campaign or an advertiser.

What counts is every billable impression that is in the person's state (its log, and the counts of what rolled out of
that), and whatever is reserved for them and not in their state yet. A rolled-up count whose latest impression lies in a
cap's window counts whole. So a count may be too high, never too low, and one that nobody could read caps: who is not
`known` sees nothing that has a cap.

Hours, days and weeks slide, so that no change of clocks matters. Times are whole seconds: an impression exactly at the
edge of a window counts. A session ends with half an hour in which the person did nothing.

Shapes: P people, L rows of line items, K caps, N creatives, M candidates, W winners.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.ads.campaigns import Level, LineItem, Unit
from ranking.ads.exposed import NEVER_S, People, counted, level_key, level_name, out_of
from ranking.ads.inventory import starts
from ranking.ads.losses import Loss
from ranking.ads.selection import Fits
from ranking.jit import kernel

SESSION_S = 1_800
WEEK_S = 604_800
ANY_NUMBER = 1 << 30
"""So many may be out where no cap of the line item itself says fewer."""
_LEVELS = len(Level)


class Caps(NamedTuple):
    """The caps of L line items and what their N creatives are counted by.

    Attributes:
        start_L1: where a line item's caps begin.
        level_K: a `Level`; `key_K` is what is counted, 0 where it is the creative.
        window_s_K: how long the window is; 0 where `unit_K` is `lifetime` or `session`.
        count_K: how many there may be in it; `gap_s_K` how long nothing may follow an impression.
        key_L3: keys of line item, campaign and advertiser; `key_N` of the creatives, numbered as in `House`.
        counted_L3, counted_N: does a cap of anybody count these?
    """

    start_L1: NDArray[np.int64]
    level_K: NDArray[np.uint8]
    key_K: NDArray[np.uint32]
    window_s_K: NDArray[np.int64]
    unit_K: NDArray[np.uint8]
    count_K: NDArray[np.int64]
    gap_s_K: NDArray[np.int64]
    key_L3: NDArray[np.uint32]
    counted_L3: NDArray[np.bool_]
    key_N: NDArray[np.uint32]
    counted_N: NDArray[np.bool_]

    @classmethod
    def of(cls, lines: Sequence[LineItem | None]) -> "Caps":
        """The caps of line items by row, None where there is none: `House.lines`."""
        caps = [line.caps if line else () for line in lines]
        flat = [(line, cap) for line in lines if line for cap in line.caps]
        key_L3 = np.array([_keys(line) for line in lines], np.uint32).reshape(-1, 3)
        creatives = [creative.key for line in lines if line for creative in line.creatives]
        key_N = np.array([level_key(Level.creative, key) for key in creatives], np.uint32)
        counts, for_good = set[int](), set[int]()
        for line, cap in flat:
            named = [level_key(Level.creative, creative.key) for creative in line.creatives]
            keys = named if cap.level is Level.creative else [_keys(line)[cap.level - 1]]
            counts.update(keys)
            if cap.unit is Unit.lifetime or cap.window_s > WEEK_S:
                for_good.update(keys)
        kept_L3, kept_N = (np.isin(keys, list(for_good)).astype(np.uint32) for keys in (key_L3, key_N))
        return cls(
            starts(caps),
            np.array([cap.level for _, cap in flat], np.uint8),
            np.array([(0, *_keys(line))[cap.level] for line, cap in flat], np.uint32),
            np.array([cap.window_s for _, cap in flat], np.int64),
            np.array([cap.unit for _, cap in flat], np.uint8),
            np.array([cap.count for _, cap in flat], np.int64),
            np.array([cap.min_gap_s for _, cap in flat], np.int64),
            *(key_L3 | kept_L3, np.isin(key_L3, list(counts)), key_N | kept_N, np.isin(key_N, list(counts))),
        )

    def keys(self, row_W: NDArray[np.integer], creative_W: NDArray[np.integer]) -> NDArray[np.uint32]:
        """What an impression of each winner is counted by: creative, line item, campaign, advertiser. Shape (W, 4)."""
        return np.concatenate([self.key_N[creative_W, None], self.key_L3[row_W]], axis=1)


def capped(
    caps: Caps,
    people: People,
    start_P1: NDArray[np.int64],
    row_M: NDArray[np.int32],
    person_P: NDArray[np.int32] | None = None,
) -> NDArray[np.int16]:
    """Which candidates may not be shown to their people because of a cap: 0, or `Loss.capped`. Shape (M,).

    Caps of creatives are left to `creatives_left`, but for those who are not known.

    Args:
        caps: of all line items.
        people: who they are for.
        start_P1: where the candidates of each place begin.
        row_M: rows of line items, as `targeting.listed` gives them.
        person_P: whose each place is; None: place p is that of person p.
    """
    code_M = np.zeros(len(row_M), np.int16)
    _capped(caps, people, _whose(start_P1, person_P), start_P1, row_M, code_M)
    return code_M


def creatives_left(
    caps: Caps,
    people: People,
    start_P1: NDArray[np.int64],
    row_M: NDArray[np.int32],
    fits: Fits,
    person_P: NDArray[np.int32] | None = None,
) -> Fits:
    """The creatives that fit without those that are capped; a candidate that has none left is `Loss.capped`.

    See `capped` for the other arguments; `fits` is of the same candidates.
    """
    left = Fits(fits.code_M.copy(), np.zeros_like(fits.start_M1), np.empty_like(fits.creative_N))
    _creatives_left(caps, people, _whose(start_P1, person_P), start_P1, row_M, fits, left)
    return left._replace(creative_N=left.creative_N[: left.start_M1[-1]])


def rooms(
    caps: Caps,
    people: People,
    person_W: NDArray[np.int32],
    row_W: NDArray[np.int32],
    creative_W: NDArray[np.int32],
) -> list[tuple[tuple[str, int], ...]]:
    """With how many out, by level, each winner may still be reserved: what `embeddings.spend.Room` wants.

    Levels that a cap of anybody counts, for a line item without a cap adds to what another's counts; `ANY_NUMBER` where
    the winner itself has none there. With a minimum gap nothing may be out, and 0 where a cap cannot be counted.
    """
    most_W4 = np.empty((len(row_W), _LEVELS), np.int64)
    _rooms(caps, people, person_W, row_W, creative_W, most_W4)
    key_W4, most = caps.keys(row_W, creative_W).tolist(), most_W4.tolist()
    return [
        tuple((level_name(level, key), out) for level, (key, out) in enumerate(zip(*each, strict=True)) if out >= 0)
        for each in zip(key_W4, most, strict=True)
    ]


def times_shown(
    caps: Caps,
    people: People,
    start_P1: NDArray[np.int64],
    row_M: NDArray[np.int32],
    person_P: NDArray[np.int32] | None = None,
) -> NDArray[np.int64]:
    """How many of each candidate's line item its person was shown, as far as is kept: for creatives in turn."""
    many_M = np.zeros(len(row_M), np.int64)
    _times_shown(caps, people, _whose(start_P1, person_P), start_P1, row_M, many_M)
    return many_M


def _keys(line: LineItem | None) -> tuple[int, int, int]:
    if line is None:
        return 0, 0, 0
    return (
        level_key(Level.line_item, line.key),
        level_key(Level.campaign, line.campaign_id),
        level_key(Level.advertiser, line.advertiser),
    )


def _whose(start_P1: NDArray[np.int64], person_P: NDArray[np.int32] | None) -> NDArray[np.int32]:
    return np.arange(len(start_P1) - 1, dtype=np.int32) if person_P is None else person_P


_CAPPED = np.int16(Loss.capped)
_CREATIVE, _LIFETIME, _SESSION = int(Level.creative), int(Unit.lifetime), int(Unit.session)
_LINE_ITEM = int(Level.line_item)


@kernel
def _since_s(caps: Caps, people: People, k: int, p: int) -> int:
    """The beginning of a cap's window, in whole seconds."""
    if caps.unit_K[k] == _LIFETIME:
        return -NEVER_S
    if caps.unit_K[k] != _SESSION:
        return int(people.now_s_P[p] - caps.window_s_K[k])
    if people.now_s_P[p] - people.last_s_P[p] >= SESSION_S:
        return int(people.last_s_P[p] + 1)
    return int(people.exposures.session_s_P[p])


@kernel
def _most_out(caps: Caps, people: People, k: int, p: int, key: np.uint32) -> int:
    """With how many out a cap still has room for one more; 0: it has none."""
    if not people.known_P[p]:
        return 0
    for_good = caps.unit_K[k] == _LIFETIME or caps.window_s_K[k] > WEEK_S
    many, last_s = counted(people.exposures, p, caps.level_K[k], key, _since_s(caps, people, k, p), for_good)
    left = max(int(caps.count_K[k]) - many, 0)
    if caps.gap_s_K[k] == 0:
        return left
    return min(left, int(people.now_s_P[p] - last_s > caps.gap_s_K[k]))


@kernel
def _capped(
    caps: Caps,
    people: People,
    person_P: NDArray[np.int32],
    start_P1: NDArray[np.int64],
    row_M: NDArray[np.int32],
    code_M: NDArray[np.int16],
) -> None:
    for place in range(len(start_P1) - 1):
        p = person_P[place]
        for m in range(start_P1[place], start_P1[place + 1]):
            for k in range(caps.start_L1[row_M[m]], caps.start_L1[row_M[m] + 1]):
                level, key = caps.level_K[k], caps.key_K[k]
                if level == _CREATIVE and people.known_P[p]:
                    continue
                if _most_out(caps, people, k, p, key) <= out_of(people, p, level, key):
                    code_M[m] = _CAPPED
                    break


@kernel
def _creatives_left(
    caps: Caps,
    people: People,
    person_P: NDArray[np.int32],
    start_P1: NDArray[np.int64],
    row_M: NDArray[np.int32],
    fits: Fits,
    left: Fits,
) -> None:
    used = 0
    for place in range(len(start_P1) - 1):
        p = person_P[place]
        for m in range(start_P1[place], start_P1[place + 1]):
            before = used
            for n in range(fits.start_M1[m], fits.start_M1[m + 1]):
                key, free = caps.key_N[fits.creative_N[n]], True
                for k in range(caps.start_L1[row_M[m]], caps.start_L1[row_M[m] + 1]):
                    if caps.level_K[k] == _CREATIVE and free:
                        free = _most_out(caps, people, k, p, key) > out_of(people, p, _CREATIVE, key)
                left.creative_N[used] = fits.creative_N[n]
                used += int(free)
            if before == used and fits.start_M1[m] < fits.start_M1[m + 1] and left.code_M[m] == 0:
                left.code_M[m] = _CAPPED
            left.start_M1[m + 1] = used


@kernel
def _rooms(
    caps: Caps,
    people: People,
    person_W: NDArray[np.int32],
    row_W: NDArray[np.int32],
    creative_W: NDArray[np.int32],
    most_W4: NDArray[np.int64],
) -> None:
    for w in range(len(row_W)):
        p, row, creative = person_W[w], row_W[w], creative_W[w]
        most_W4[w, 0] = ANY_NUMBER if caps.counted_N[creative] else -1
        for level in range(1, _LEVELS):
            most_W4[w, level] = ANY_NUMBER if caps.counted_L3[row, level - 1] else -1
        for k in range(caps.start_L1[row], caps.start_L1[row + 1]):
            at = caps.level_K[k]
            key = caps.key_N[creative] if at == _CREATIVE else caps.key_K[k]
            most_W4[w, at] = min(most_W4[w, at], _most_out(caps, people, k, p, key))


@kernel
def _times_shown(
    caps: Caps,
    people: People,
    person_P: NDArray[np.int32],
    start_P1: NDArray[np.int64],
    row_M: NDArray[np.int32],
    many_M: NDArray[np.int64],
) -> None:
    for place in range(len(start_P1) - 1):
        p = person_P[place]
        for m in range(start_P1[place], start_P1[place + 1]):
            key = caps.key_L3[row_M[m], 0]
            many_M[m] = counted(people.exposures, p, _LINE_ITEM, key, -NEVER_S, False)[0]
