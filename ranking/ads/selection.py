"""Which creatives of a line item may stand in a slot, and which of them does.

`fitting` goes through the line items that targeting let through, cheap questions first, and says for each its creatives
that fit, or why none does: the reason of the creative that came furthest. `chosen` takes one of them, as the rotation
of its line item says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.ads.campaigns import Rotation
from ranking.ads.inventory import ANY_SIZE, FORMATS, House, size_of, starts
from ranking.ads.losses import Loss
from ranking.jit import kernel

ANY_AGE = 254
"""The limit where anything that has a readable rating may stand; 255 is a rating that nobody can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One place for an ad, as OpenRTB's `imp` and its request say it.

    `formats` are of `inventory.FORMATS`; `sizes`, `mimes`, `seats` and `deals` are any where none is named (deals: only
    line items without one). A seat is an advertiser. `blocked` are words of `inventory.carries`, and `seat:` ones.
    `age_limit` is the highest rating in years.
    """

    formats: tuple[str, ...] = FORMATS
    sizes: tuple[tuple[int, int], ...] = ()
    seconds: tuple[int, int] = (0, 0)
    mimes: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    seats: tuple[str, ...] = ()
    deals: tuple[str, ...] = ()
    deals_only: bool = False
    age_limit: int = ANY_AGE


class Slots(NamedTuple):
    """P slots as arrays; lists follow each other, with P + 1 starts."""

    format_bits_P: NDArray[np.uint8]
    seconds_P2: NDArray[np.int64]
    age_limit_P: NDArray[np.uint8]
    deals_only_P: NDArray[np.bool_]
    size_start_P1: NDArray[np.int64]
    size_N: NDArray[np.int64]
    mime_start_P1: NDArray[np.int64]
    mime_N: NDArray[np.int64]
    any_mime_P: NDArray[np.bool_]
    blocked_start_P1: NDArray[np.int64]
    blocked_N: NDArray[np.int64]
    seat_start_P1: NDArray[np.int64]
    seat_N: NDArray[np.int64]
    any_seat_P: NDArray[np.bool_]
    deal_start_P1: NDArray[np.int64]
    deal_N: NDArray[np.int64]

    @classmethod
    def of(cls, slots: Sequence[Slot], house: House) -> "Slots":
        """P slots in the numbers of a house; words that none of its creatives carries are dropped."""
        known = house.tokens.known
        sizes = [[size_of(*size) for size in slot.sizes] for slot in slots]
        mimes = [known(f"mime:{mime.casefold()}" for mime in slot.mimes) for slot in slots]
        blocked, seats = [known(slot.blocked) for slot in slots], [known(map("seat:{}".format, s.seats)) for s in slots]
        deals = [known(map("deal:{}".format, slot.deals)) for slot in slots]
        return cls(
            np.array([sum(1 << FORMATS.index(name) for name in slot.formats) for slot in slots], np.uint8),
            np.array([slot.seconds for slot in slots], np.int64).reshape(-1, 2),
            np.array([slot.age_limit for slot in slots], np.uint8),
            np.array([slot.deals_only for slot in slots], np.bool_),
            *_lists(sizes),
            *_lists(mimes),
            np.array([not slot.mimes for slot in slots], np.bool_),
            *_lists(blocked),
            *_lists(seats),
            np.array([not slot.seats for slot in slots], np.bool_),
            *_lists(deals),
        )


class Fits(NamedTuple):
    """M candidates (a slot and a line item) and their creatives that fit.

    Attributes:
        code_M: 0 where there is one, else a `Loss`.
        start_M1: where a candidate's creatives begin.
        creative_N: numbers of creatives in the house.
    """

    code_M: NDArray[np.int16]
    start_M1: NDArray[np.int64]
    creative_N: NDArray[np.int32]


def fitting(house: House, slots: Slots, start_P1: NDArray[np.int64], row_M: NDArray[np.int32], now_ms: int) -> Fits:
    """The creatives of each candidate that may stand in its slot.

    Args:
        house: the inventory.
        slots: P of them.
        start_P1: where each slot's candidates begin.
        row_M: rows of line items, as `targeting.listed` gives them.
        now_ms: the moment, for flights.
    """
    return fitting_while(house, slots, start_P1, row_M, running(house, now_ms))


def running(house: House, now_ms: int) -> NDArray[np.bool_]:
    """Which line items have a flight at this moment. Shape (L,)."""
    running_L = np.zeros(house.rows, np.bool_)
    _running(house.flight_start_L1, house.flight_F2, now_ms, running_L)
    return running_L


def fitting_while(
    house: House, slots: Slots, start_P1: NDArray[np.int64], row_M: NDArray[np.int32], running_L: NDArray[np.bool_]
) -> Fits:
    """See `fitting`; `running_L` says which line items have a flight."""
    most_M = np.diff(house.creative_start_L1)[row_M]
    code_M, start_M1 = np.zeros(len(row_M), np.int16), np.zeros(len(row_M) + 1, np.int64)
    creative_N = np.empty(int(most_M.sum()), np.int32)
    line_L = house.line_L
    lines = _Lines(line_L["live"], line_L["advertiser"], line_L["deal"], running_L, house.creative_start_L1)
    shown = [house.creative_N[name] for name in ("approved", "format", "size", "duration_s", "age")]
    creatives = _Creatives._make((*shown, house.carried_start_N1, house.carried_M, house.loss_T))
    mark_T = np.full(len(house.tokens), -1, np.int64)  # tokens may have come since
    _fitting(slots, start_P1, row_M, lines, creatives, mark_T, code_M, start_M1, creative_N)
    return Fits(code_M, start_M1, creative_N[: start_M1[-1]])


class _Lines(NamedTuple):
    live_L: NDArray[np.bool_]
    advertiser_L: NDArray[np.int32]
    deal_L: NDArray[np.int32]
    running_L: NDArray[np.bool_]
    creative_start_L1: NDArray[np.int64]


class _Creatives(NamedTuple):
    approved_N: NDArray[np.bool_]
    format_N: NDArray[np.uint8]
    size_N: NDArray[np.int64]
    seconds_N: NDArray[np.int32]
    age_N: NDArray[np.uint8]
    carried_start_N1: NDArray[np.int64]
    carried_M: NDArray[np.int32]
    loss_T: NDArray[np.int16]


_SEAT = int(Loss.seat_blocked)
_PENDING, _FORMAT, _SIZE = int(Loss.creative_pending), int(Loss.wrong_format), int(Loss.size_not_allowed)
_RATING, _EXPIRED, _INVALID = int(Loss.rating_block), int(Loss.expired), int(Loss.invalid)


@kernel
def _running(
    flight_start_L1: NDArray[np.int64], flight_F2: NDArray[np.int64], now_ms: int, running_L: NDArray[np.bool_]
) -> None:
    for row in range(len(running_L)):
        for f in range(flight_start_L1[row], flight_start_L1[row + 1]):
            running_L[row] |= flight_F2[f, 0] <= now_ms < flight_F2[f, 1]


@kernel
def _fitting(
    slots: Slots,
    start_P1: NDArray[np.int64],
    row_M: NDArray[np.int32],
    lines: _Lines,
    creatives: _Creatives,
    mark_T: NDArray[np.int64],
    code_M: NDArray[np.int16],
    start_M1: NDArray[np.int64],
    creative_N: NDArray[np.int32],
) -> None:
    used = 0
    for p in range(len(start_P1) - 1):
        for n in range(slots.blocked_start_P1[p], slots.blocked_start_P1[p + 1]):
            mark_T[slots.blocked_N[n]] = 4 * p
        for n in range(slots.mime_start_P1[p], slots.mime_start_P1[p + 1]):
            mark_T[slots.mime_N[n]] = 4 * p + 1
        for n in range(slots.seat_start_P1[p], slots.seat_start_P1[p + 1]):
            if mark_T[slots.seat_N[n]] != 4 * p:  # who is blocked is not let in
                mark_T[slots.seat_N[n]] = 4 * p + 3
        for n in range(slots.deal_start_P1[p], slots.deal_start_P1[p + 1]):
            mark_T[slots.deal_N[n]] = 4 * p + 2
        for m in range(start_P1[p], start_P1[p + 1]):
            row = row_M[m]
            code_M[m] = _line_loss(slots, p, row, lines, mark_T)
            if code_M[m] == 0:
                code_M[m], furthest = _INVALID, 0
                for c in range(lines.creative_start_L1[row], lines.creative_start_L1[row + 1]):
                    stage, code = _creative_loss(slots, p, c, creatives, mark_T)
                    if code == 0:
                        creative_N[used] = c
                        used += 1
                    if stage > furthest:
                        furthest, code_M[m] = stage, code
            start_M1[m + 1] = used


@kernel
def _line_loss(slots: Slots, p: int, row: int, lines: _Lines, mark_T: NDArray[np.int64]) -> int:
    """Why a line item cannot serve in a slot at this moment, whatever it shows; 0 if it can."""
    if not lines.live_L[row]:
        return _INVALID
    seat = mark_T[lines.advertiser_L[row]]
    if seat == 4 * p or not (slots.any_seat_P[p] or seat == 4 * p + 3):
        return _SEAT
    deal = lines.deal_L[row]
    if deal < 0 and slots.deals_only_P[p]:
        return _INVALID
    if deal >= 0 and mark_T[deal] != 4 * p + 2:
        return _INVALID
    return 0 if lines.running_L[row] else _EXPIRED


@kernel
def _creative_loss(slots: Slots, p: int, c: int, creatives: _Creatives, mark_T: NDArray[np.int64]) -> tuple[int, int]:
    """How far a creative comes, and the `Loss` that stops it, 0 if none does."""
    if not creatives.approved_N[c]:
        return 1, _PENDING
    if not slots.format_bits_P[p] >> creatives.format_N[c] & 1:
        return 2, _FORMAT
    first, last = slots.size_start_P1[p], slots.size_start_P1[p + 1]
    fits = first == last or creatives.size_N[c] == ANY_SIZE
    for n in range(first, last):
        fits |= slots.size_N[n] == creatives.size_N[c]
    if not fits:
        return 3, _SIZE
    seconds, most = creatives.seconds_N[c], slots.seconds_P2[p, 1]
    if seconds and (seconds < slots.seconds_P2[p, 0] or (most and seconds > most)):
        return 4, _FORMAT
    mimed, blocked = slots.any_mime_P[p], 0
    for n in range(creatives.carried_start_N1[c], creatives.carried_start_N1[c + 1]):
        token = creatives.carried_M[n]
        mimed |= mark_T[token] == 4 * p + 1
        if mark_T[token] == 4 * p:
            blocked = max(blocked, int(creatives.loss_T[token]))
    if not mimed:
        return 5, _FORMAT
    if creatives.age_N[c] > slots.age_limit_P[p]:
        return 6, _RATING
    return 7 + (blocked == 0), blocked


def chosen(
    house: House,
    fits: Fits,
    row_M: NDArray[np.int32],
    draw_M: NDArray[np.uint64],
    value_N: NDArray[np.float64],
    shown_M: NDArray[np.int64],
) -> NDArray[np.int32]:
    """The creative of each candidate, as its line item's rotation says; -1 where none fits. Shape (M,).

    Args:
        house: the inventory.
        fits: see `fitting`.
        row_M: rows of line items.
        draw_M: a hash of request and line item: the same request takes the same creative.
        value_N: what each creative is expected to be worth, for `optimised`; ties to the first.
        shown_M: how many of the line item the person has been shown, for `sequential`.
    """
    out_M = np.full(len(row_M), -1, np.int32)
    rotation_M = house.line_L["rotation"][row_M]
    columns = house.creative_N["weight"], house.creative_N["sequence"]
    _choose(rotation_M, fits.start_M1, fits.creative_N, *columns, draw_M, value_N, shown_M, out_M)
    return out_M


_EVEN, _WEIGHTED, _SEQUENTIAL = int(Rotation.even), int(Rotation.weighted), int(Rotation.sequential)


@kernel
def _choose(
    rotation_M: NDArray[np.uint8],
    start_M1: NDArray[np.int64],
    creative_N: NDArray[np.int32],
    weight_C: NDArray[np.int32],
    sequence_C: NDArray[np.int32],
    draw_M: NDArray[np.uint64],
    value_N: NDArray[np.float64],
    shown_M: NDArray[np.int64],
    out_M: NDArray[np.int32],
) -> None:
    for m in range(len(out_M)):
        first, last = start_M1[m], start_M1[m + 1]
        if first == last:
            continue
        some_K, best = creative_N[first:last], 0
        if rotation_M[m] == _EVEN:
            best = np.int64(draw_M[m] % np.uint64(len(some_K)))  # type: ignore[assignment]
        elif rotation_M[m] == _WEIGHTED:
            best = _drawn(weight_C[some_K], draw_M[m])
        elif rotation_M[m] == _SEQUENTIAL:
            best = np.argsort(sequence_C[some_K], kind="mergesort")[shown_M[m] % len(some_K)]
        else:
            best = np.argmax(value_N[first:last])  # type: ignore[assignment]
        out_M[m] = some_K[best]


@kernel
def _drawn(weight_K: NDArray[np.int32], draw: np.uint64) -> int:
    """One of K in proportion to their weights."""
    left = np.int64(draw % np.uint64(weight_K.sum()))
    for k in range(len(weight_K)):
        left -= weight_K[k]
        if left < 0:
            return k
    return 0


def _lists(lists: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return starts(lists), np.array([value for some in lists for value in some], np.int64)
