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

from ranking.ads.campaigns import Cap, Level, LineItem, Unit
from ranking.ads.exposed import (
    BUCKETS,
    NEVER_S,
    People,
    Person,
    bucket_of,
    counted,
    level_key,
    level_name,
    mark_met,
    out_of,
    person_of,
)
from ranking.ads.inventory import PerLine, joined, starts
from ranking.ads.losses import Loss
from ranking.ads.selection import Fits
from ranking.jit import kernel

WEEK_S = 604_800
ANY_NUMBER = 1 << 30
"""So many may be out where no cap of the line item itself says fewer."""
_LEVELS = len(Level)
_KEYS = np.dtype(np.uint32)
_CAP_BYTES = 6 * 8


class LineCaps(NamedTuple):
    """What one line item is counted by: keys above it, of its creatives, columns of its caps, keys that these count.

    Each as the bytes of its array, so that the caps of all are but these side by side.
    """

    keys: bytes
    creative_keys: bytes = b""
    caps: bytes = b""
    counts: bytes = b""
    for_good: bytes = b""


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
    def of(cls, lines: Sequence[LineItem | None], known: PerLine[LineCaps] | None = None) -> "Caps":
        """The caps of line items by row, None where there is none: `House.lines`.

        `known` (`known_caps`) is what the caller keeps of one call for the next, so that a change costs little more
        than what changed.
        """
        some = (known_caps() if known is None else known).of(lines)
        cap_K6 = joined([each.caps for each in some], np.dtype(np.int64)).reshape(-1, 6)
        key_L3 = joined([each.keys for each in some], _KEYS).reshape(-1, 3)
        key_N = joined([each.creative_keys for each in some], _KEYS)
        counts = np.unique(joined([each.counts for each in some], _KEYS))
        for_good = np.unique(joined([each.for_good for each in some], _KEYS))
        kept_L3, kept_N = (np.isin(keys, for_good).astype(np.uint32) for keys in (key_L3, key_N))
        return cls(
            starts([each.caps for each in some]) // _CAP_BYTES,
            cap_K6[:, 0].astype(np.uint8),
            cap_K6[:, 1].astype(np.uint32),
            cap_K6[:, 2].copy(),
            cap_K6[:, 3].astype(np.uint8),
            cap_K6[:, 4].copy(),
            cap_K6[:, 5].copy(),
            *(key_L3 | kept_L3, np.isin(key_L3, counts), key_N | kept_N, np.isin(key_N, counts)),
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
    _times_shown(caps.key_L3, people, _whose(start_P1, person_P), start_P1, row_M, many_M)
    return many_M


def known_caps() -> PerLine[LineCaps]:
    """What line items are counted by, kept for as long as they are the same."""
    return PerLine(_made, LineCaps(np.zeros(3, _KEYS).tobytes()))


def _made(line: LineItem) -> LineCaps:
    keys = (
        level_key(Level.line_item, line.key),
        level_key(Level.campaign, line.campaign_id),
        level_key(Level.advertiser, line.advertiser),
    )
    creative_keys = tuple(level_key(Level.creative, creative.key) for creative in line.creatives)
    by_level = creative_keys, *((key,) for key in keys)
    caps = [(c.level, (0, *keys)[c.level], c.window_s, c.unit, c.count, c.min_gap_s) for c in line.caps]
    counts = [key for cap in line.caps for key in by_level[cap.level]]
    for_good = [key for cap in line.caps if _for_good(cap) for key in by_level[cap.level]]
    own, of_creatives, counted_by, kept = (
        np.array(some, _KEYS).tobytes() for some in (keys, creative_keys, counts, for_good)
    )
    return LineCaps(own, of_creatives, np.array(caps, np.int64).tobytes(), counted_by, kept)


def _for_good(cap: Cap) -> bool:
    return cap.unit is Unit.lifetime or cap.window_s > WEEK_S


def _whose(start_P1: NDArray[np.int64], person_P: NDArray[np.int32] | None) -> NDArray[np.int32]:
    return np.arange(len(start_P1) - 1, dtype=np.int32) if person_P is None else person_P


_CAPPED = np.int16(Loss.capped)
_CREATIVE, _LIFETIME, _SESSION = int(Level.creative), int(Unit.lifetime), int(Unit.session)
_LINE_ITEM = int(Level.line_item)


class _Rules(NamedTuple):
    """The columns of caps that say how much may be seen."""

    level_K: NDArray[np.uint8]
    unit_K: NDArray[np.uint8]
    window_s_K: NDArray[np.int64]
    count_K: NDArray[np.int64]
    gap_s_K: NDArray[np.int64]


@kernel
def _most_out(rules: _Rules, k: int, person: Person, key: np.uint32) -> int:
    """With how many out a cap still has room for one more; 0: it has none."""
    if not person.known:
        return 0
    unit, window_s = rules.unit_K[k], rules.window_s_K[k]
    since_s = person.now_s - window_s
    if unit == _LIFETIME:
        since_s = -NEVER_S
    elif unit == _SESSION:
        since_s = person.session_s
    for_good = unit == _LIFETIME or window_s > WEEK_S
    many, last_s = counted(person, rules.level_K[k], key, since_s, for_good)
    left, gap_s = max(rules.count_K[k] - many, 0), rules.gap_s_K[k]
    return int(left if gap_s == 0 else min(left, int(person.now_s - last_s > gap_s)))


@kernel
def _capped(
    caps: Caps,
    people: People,
    person_P: NDArray[np.int32],
    start_P1: NDArray[np.int64],
    row_M: NDArray[np.int32],
    code_M: NDArray[np.int16],
) -> None:
    start_L1, level_K, key_K, count_K = caps.start_L1, caps.level_K, caps.key_K, caps.count_K
    rules, met_B = _Rules(level_K, caps.unit_K, caps.window_s_K, count_K, caps.gap_s_K), np.zeros(BUCKETS, np.bool_)
    for place in range(len(start_P1) - 1):
        person = person_of(people, person_P[place])
        known = person.known
        mark_met(person, met_B)
        for m in range(start_P1[place], start_P1[place + 1]):
            for k in range(start_L1[row_M[m]], start_L1[row_M[m] + 1]):
                if known and (level_K[k] == _CREATIVE or (count_K[k] > 0 and not met_B[bucket_of(key_K[k])])):
                    continue
                if _most_out(rules, k, person, key_K[k]) <= out_of(person, level_K[k], key_K[k]):
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
    start_L1, level_K, key_N = caps.start_L1, caps.level_K, caps.key_N
    rules = _Rules(level_K, caps.unit_K, caps.window_s_K, caps.count_K, caps.gap_s_K)
    code_M, start_M1, creative_N = left
    _, before_M1, before_N = fits
    used = 0
    for place in range(len(start_P1) - 1):
        person = person_of(people, person_P[place])
        for m in range(start_P1[place], start_P1[place + 1]):
            for n in range(before_M1[m], before_M1[m + 1]):
                key, free = key_N[before_N[n]], True
                for k in range(start_L1[row_M[m]], start_L1[row_M[m] + 1]):
                    if level_K[k] == _CREATIVE and free:
                        free = _most_out(rules, k, person, key) > out_of(person, _CREATIVE, key)
                creative_N[used] = before_N[n]
                used += int(free)
            start_M1[m + 1] = used
            if start_M1[m] == used and before_M1[m] < before_M1[m + 1] and code_M[m] == 0:
                code_M[m] = _CAPPED


@kernel
def _rooms(
    caps: Caps,
    people: People,
    person_W: NDArray[np.int32],
    row_W: NDArray[np.int32],
    creative_W: NDArray[np.int32],
    most_W4: NDArray[np.int64],
) -> None:
    rules = _Rules(caps.level_K, caps.unit_K, caps.window_s_K, caps.count_K, caps.gap_s_K)
    for w in range(len(row_W)):
        person, row, creative = person_of(people, person_W[w]), row_W[w], creative_W[w]
        most_W4[w, 0] = ANY_NUMBER if caps.counted_N[creative] else -1
        for level in range(1, _LEVELS):
            most_W4[w, level] = ANY_NUMBER if caps.counted_L3[row, level - 1] else -1
        for k in range(caps.start_L1[row], caps.start_L1[row + 1]):
            at = caps.level_K[k]
            key = caps.key_N[creative] if at == _CREATIVE else caps.key_K[k]
            most_W4[w, at] = min(most_W4[w, at], _most_out(rules, k, person, key))


@kernel
def _times_shown(
    key_L3: NDArray[np.uint32],
    people: People,
    person_P: NDArray[np.int32],
    start_P1: NDArray[np.int64],
    row_M: NDArray[np.int32],
    many_M: NDArray[np.int64],
) -> None:
    for place in range(len(start_P1) - 1):
        person = person_of(people, person_P[place])
        for m in range(start_P1[place], start_P1[place + 1]):
            many_M[m] = counted(person, _LINE_ITEM, key_L3[row_M[m], 0], -NEVER_S, False)[0]
