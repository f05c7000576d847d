"""The auction: who gets the slots of a batch of requests, what each pays, and why the others did not.

Candidates of a request stand by tier (lower is served first), then by bid x quality, then by a hash of request and line
item, so that equal bids win equally often and a request that comes again has the same winner. All money is whole micros
per impression in one currency. Here the winner pays 501: at 500 the hash would have preferred the other.

>>> auction = Auction.of([[(0, 900), (0, 500), (0, 100)]], reserve=200)
>>> sold = sell(auction)
>>> sold.winner_RS.tolist(), sold.price_RS.tolist(), sold.code_C.tolist()
([[0]], [[501]], [0, 102, 100])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ranking.ads.losses import Loss
from ranking.jit import kernel

NOBODY = -1
"""In place of a candidate: the slot stays empty, nobody is next, nobody took it."""
NEVER = -1
"""In place of a price: no bid would have won."""
PLAIN_QUALITY = 1000
MOST_QUALITY = 1_000_000
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: what splitmix64 adds before `mixed`."""
MOST_MICROS = 10**12
"""A million units of money for one impression: a higher bid is a mistake, and times quality it still fits 64 bits."""

_WON, _EXPIRED, _INVALID = int(Loss.won), int(Loss.expired), int(Loss.invalid)
_BELOW_FLOOR, _BELOW_DEAL_FLOOR = int(Loss.below_floor), int(Loss.below_deal_floor)
_OUTBID, _LOST_TO_DEAL = int(Loss.outbid), int(Loss.lost_to_deal)


class At(IntEnum):
    """How a winner's price is found, in OpenRTB's numbers; `market` is for candidates without a deal of their own."""

    market = 0
    first_price = 1
    second_price = 2
    fixed = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Auction:
    """R requests with up to S slots each, and C candidates in one list; those of request r are `start_Q[r:r + 2]`.

    A candidate is one line item with the creative it would show; a request has each line item once.
    """

    start_Q: NDArray[np.int64]
    """Where each request's candidates begin, and the end of the last one's; Q = R + 1."""
    request_R: NDArray[np.uint64]
    """What names the request for good: of the same value, ties fall the same way."""
    slots_R: NDArray[np.int64]
    at_R: NDArray[np.int8]
    """`At.first_price` or `At.second_price`: the rule for candidates without a deal."""
    line_C: NDArray[np.uint64]
    """Ids of line items, the same in every worker."""
    tier_C: NDArray[np.int64]
    """Lower is served first, whatever it bids."""
    bid_C: NDArray[np.int64]
    """Micros per impression at most, 0 for a house ad."""
    reserve_C: NDArray[np.int64]
    """Micros per impression at least (`floors.reserves`); of a fixed deal, its price."""
    quality_C: NDArray[np.int64]
    """In thousandths: 1000 leaves a bid as it is."""
    deal_C: NDArray[np.int8]
    """`At.market` without a deal, else the deal's own rule."""
    barred_C: NDArray[np.int16]
    """A `Loss` if an earlier stage has turned the candidate away: it does not bid. 0 if it does."""

    def __post_init__(self) -> None:
        C = len(self.line_C)
        columns = (self.tier_C, self.bid_C, self.reserve_C, self.quality_C, self.deal_C, self.barred_C)
        if any(len(column) != C for column in columns):
            raise ValueError(f"columns of an auction have other lengths than its {C} candidates")
        R = len(self.start_Q) - 1
        if any(len(column) != R for column in (self.request_R, self.slots_R, self.at_R)):
            raise ValueError(f"columns of an auction have other lengths than its {R} requests")
        if R < 0 or self.start_Q[0] != 0 or self.start_Q[-1] != C or (np.diff(self.start_Q) < 0).any():
            raise ValueError("start_Q is not a growing list from 0 to the number of candidates")

    @classmethod
    def of(
        cls,
        requests: Sequence[Sequence[tuple[int, int]]],
        *,
        slots: int = 1,
        at: At = At.second_price,
        reserve: int = 0,
    ) -> "Auction":
        """One of (tier, bid) candidates that differ in nothing else; line items are numbered within a request."""
        flat = [candidate for candidates in requests for candidate in candidates]
        R, C = len(requests), len(flat)
        return cls(
            start_Q=np.cumsum([0, *(len(candidates) for candidates in requests)]),
            request_R=np.arange(R, dtype=np.uint64),
            slots_R=np.full(R, slots, np.int64),
            at_R=np.full(R, at, np.int8),
            line_C=np.array([c for candidates in requests for c in range(len(candidates))], np.uint64),
            tier_C=np.array([tier for tier, _ in flat], np.int64),
            bid_C=np.array([bid for _, bid in flat], np.int64),
            reserve_C=np.full(C, reserve, np.int64),
            quality_C=np.full(C, PLAIN_QUALITY, np.int64),
            deal_C=np.full(C, At.market, np.int8),
            barred_C=np.zeros(C, np.int16),
        )


@dataclass(frozen=True, slots=True)
class Sold:
    """What became of an auction. Candidates are named by their place in its columns, `NOBODY` where there is none."""

    winner_RS: NDArray[np.int64]
    price_RS: NDArray[np.int64]
    """Micros per impression, between the winner's reserve and its bid; 0 where nobody won."""
    runner_up_RS: NDArray[np.int64]
    """Who stands next: would have the slot without its winner."""
    code_C: NDArray[np.int16]
    """A `Loss` for everybody, 0 for winners."""
    min_to_win_C: NDArray[np.int64]
    """The least bid that keeps a winner its slot, or would have won a loser one; `NEVER` if none would."""
    lost_to_C: NDArray[np.int64]
    """Who has the slot that a loser was nearest to."""


def sell(auction: Auction) -> Sold:
    """Hold the auction. Pure: the same columns have the same outcome, in whatever batch a request stands.

    A second price is the least bid that keeps the slot (generalised second price, Edelman et al. 2007): it depends on
    the next candidate of the same tier, for whoever is of a later tier could not have it at any price. Who has nobody
    behind pays the reserve. A bid of a deal that is `fixed` pays the deal's price. Losers are told `lost_to_deal` if
    a deal has the last slot and they have none, else `outbid`; who is below a floor is told that floor, whoever won.
    A negative bid, one above `MOST_MICROS` and a quality outside 1 to `MOST_QUALITY` are `invalid`; candidates of a
    request without slots are `expired`.
    """
    S = int(max(auction.slots_R.max(initial=0), 0))
    return Sold(
        *_sell(
            auction.start_Q,
            auction.request_R,
            auction.slots_R,
            auction.at_R,
            auction.line_C,
            auction.tier_C,
            auction.bid_C,
            auction.reserve_C,
            auction.quality_C,
            auction.deal_C,
            auction.barred_C,
            S,
        )
    )


@kernel
def mixed(x: np.uint64) -> np.uint64:
    """The finaliser of splitmix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def tie_break(request: np.uint64, line: np.uint64) -> np.uint64:
    """Of two equal bids the higher of these wins."""
    return mixed(mixed(request + GOLDEN) ^ line)


@kernel
def _ahead(c: int, d: int, tier_C: NDArray[np.int64], score_C: NDArray[np.int64], tie_C: NDArray[np.uint64]) -> bool:
    """Does candidate c stand before d?"""
    if tier_C[c] != tier_C[d]:
        return bool(tier_C[c] < tier_C[d])
    if score_C[c] != score_C[d]:
        return bool(score_C[c] > score_C[d])
    if tie_C[c] != tie_C[d]:
        return bool(tie_C[c] > tie_C[d])
    return c < d


@kernel
def _to_beat(
    c: int, d: int, quality_C: NDArray[np.int64], score_C: NDArray[np.int64], tie_C: NDArray[np.uint64]
) -> int:
    """The least bid with which c stands before d, both of one tier."""
    bid = score_C[d] // quality_C[c]
    ties = bid * quality_C[c] == score_C[d] and (tie_C[c] > tie_C[d] or (tie_C[c] == tie_C[d] and c < d))
    return bid if ties else bid + 1  # type: ignore[no-any-return]


@kernel
def _sell(
    start_Q: NDArray[np.int64],
    request_R: NDArray[np.uint64],
    slots_R: NDArray[np.int64],
    at_R: NDArray[np.int8],
    line_C: NDArray[np.uint64],
    tier_C: NDArray[np.int64],
    bid_C: NDArray[np.int64],
    reserve_C: NDArray[np.int64],
    quality_C: NDArray[np.int64],
    deal_C: NDArray[np.int8],
    barred_C: NDArray[np.int16],
    S: int,
) -> tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int16],
    NDArray[np.int64],
    NDArray[np.int64],
]:
    R, C = len(start_Q) - 1, len(line_C)
    winner_RS = np.full((R, S), NOBODY, np.int64)
    price_RS = np.zeros((R, S), np.int64)
    runner_up_RS = np.full((R, S), NOBODY, np.int64)
    code_C = np.zeros(C, np.int16)
    min_to_win_C = np.full(C, NEVER, np.int64)
    lost_to_C = np.full(C, NOBODY, np.int64)
    score_C = np.zeros(C, np.int64)
    tie_C = np.zeros(C, np.uint64)
    place_T = np.empty(S + 1, np.int64)  # the slots, and who stands behind the last
    for r in range(R):
        first, last, slots = start_Q[r], start_Q[r + 1], max(slots_R[r], 0)
        standing = 0
        for c in range(first, last):
            code_C[c] = _standing(bid_C[c], reserve_C[c], quality_C[c], deal_C[c], barred_C[c])
            tie_C[c] = tie_break(request_R[r], line_C[c])
            if code_C[c] != _WON:
                continue
            score_C[c] = bid_C[c] * quality_C[c]
            code_C[c] = _OUTBID if slots else _EXPIRED
            at = standing
            while at > 0 and _ahead(c, place_T[at - 1], tier_C, score_C, tie_C):
                if at <= slots:
                    place_T[at] = place_T[at - 1]
                at -= 1
            if at <= slots:
                place_T[at] = c
                standing = min(standing + 1, slots + 1)
        won = min(standing, slots)
        for s in range(won):
            c = place_T[s]
            follows = place_T[s + 1] if s + 1 < standing else NOBODY
            least = reserve_C[c]
            if follows != NOBODY and tier_C[follows] == tier_C[c]:
                least = max(least, _to_beat(c, follows, quality_C, score_C, tie_C))
            rule = deal_C[c] if deal_C[c] != At.market else at_R[r]
            winner_RS[r, s], runner_up_RS[r, s] = c, follows
            price_RS[r, s] = bid_C[c] if rule == At.first_price else reserve_C[c] if rule == At.fixed else least
            code_C[c], min_to_win_C[c] = _WON, least
        _tell_losers(
            first, last, slots, won, place_T, tier_C, reserve_C, quality_C, deal_C, barred_C, score_C,
            tie_C, code_C, min_to_win_C, lost_to_C,
        )  # fmt: skip
    return winner_RS, price_RS, runner_up_RS, code_C, min_to_win_C, lost_to_C


@kernel
def _standing(bid: int, reserve: int, quality: int, deal: int, barred: int) -> int:
    """Whether a candidate may stand in the auction: 0, or why not."""
    if barred != _WON:
        return barred
    if bid < 0 or bid > MOST_MICROS or quality < 1 or quality > MOST_QUALITY:
        return _INVALID
    if bid < reserve:
        return _BELOW_FLOOR if deal == At.market else _BELOW_DEAL_FLOOR
    return _WON


@kernel
def _tell_losers(
    first: int,
    last: int,
    slots: int,
    won: int,
    place_T: NDArray[np.int64],
    tier_C: NDArray[np.int64],
    reserve_C: NDArray[np.int64],
    quality_C: NDArray[np.int64],
    deal_C: NDArray[np.int8],
    barred_C: NDArray[np.int16],
    score_C: NDArray[np.int64],
    tie_C: NDArray[np.uint64],
    code_C: NDArray[np.int16],
    min_to_win_C: NDArray[np.int64],
    lost_to_C: NDArray[np.int64],
) -> None:
    """What would have won each loser of a request a slot, and who has it."""
    if slots == 0:
        return
    w = place_T[won - 1] if won == slots else NOBODY
    for c in range(first, last):
        if code_C[c] == _WON or code_C[c] == _INVALID or barred_C[c] != _WON:
            continue
        if code_C[c] == _OUTBID:
            lost_to_C[c] = w
            if deal_C[w] != At.market and deal_C[c] == At.market:
                code_C[c] = _LOST_TO_DEAL
        if w == NOBODY or tier_C[w] > tier_C[c]:
            min_to_win_C[c] = reserve_C[c]
        elif tier_C[w] == tier_C[c]:
            least = max(reserve_C[c], _to_beat(c, w, quality_C, score_C, tie_C))
            min_to_win_C[c] = least if least <= MOST_MICROS else NEVER
