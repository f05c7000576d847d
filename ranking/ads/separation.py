"""Competitive separation: of one kind there is one ad on a page, whichever of its places it stands in.

Kinds are advertisers, their domains, categories of creatives and the labels that line items exclude each other by. Two
ads are apart where they share none. `sell_apart` holds the auctions of whole pages so that their winners are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ranking.ads.auction import NEVER, NOBODY, Auction, Sold, sell
from ranking.ads.campaigns import Creative, LineItem
from ranking.ads.inventory import House, PerLine, joined
from ranking.ads.losses import Loss
from ranking.jit import kernel

_FEW = 4_096
"""So many kinds are not worth looking for those that nobody is of."""
KINDS = ("advertiser", "adomain", "cat", "label")
_SEPARATION, _WON = int(Loss.separation_block), int(Loss.won)
_OUTBID, _LOST_TO_DEAL = int(Loss.outbid), int(Loss.lost_to_deal)


class Kinds(NamedTuple):
    """Kinds of N creatives as numbers below `total`; those of creative n begin at `start_N1[n]`."""

    start_N1: NDArray[np.int64]
    kind_M: NDArray[np.int32]
    total: int


class KindBook:
    """The kinds of creatives, house by house; of line items that stay nothing is worked out again. For one thread.

    Args:
        by: which of `KINDS` keep ads apart.

    Raises:
        ValueError: a word that is none of `KINDS`; the message says so.
    """

    def __init__(self, by: Sequence[str] = KINDS) -> None:
        if unknown := sorted(set(by) - set(KINDS)):
            raise ValueError(f"separation by {unknown[0]!r}; allowed: {', '.join(KINDS)}")
        self._by, self._room = by, _FEW
        self._begin()

    def of(self, house: House) -> Kinds:
        """The kinds of every creative of a house, in its order."""
        kinds = self._of(house)
        if kinds.total > self._room:  # numbers anew, where more than half of them are nobody's any more
            if 2 * len(np.unique(kinds.kind_M)) < kinds.total:
                self._begin()
                kinds = self._of(house)
            self._room = max(2 * kinds.total, _FEW)
        return kinds

    def _begin(self) -> None:
        self._number: dict[tuple[str, object], int] = {}
        self._lines = PerLine(self._line, (b"", b""))

    def _of(self, house: House) -> Kinds:
        some = self._lines.of(house.lines)
        many_N = joined([many for many, _ in some], np.dtype(np.int64))
        return Kinds(
            np.append(0, np.cumsum(many_N)), joined([kinds for _, kinds in some], np.dtype(np.int32)), len(self._number)
        )

    def _line(self, line: LineItem) -> tuple[bytes, bytes]:
        """How many kinds each creative of a line item has, and which."""
        found = [list(dict.fromkeys(self._words(line, creative))) for creative in line.creatives]
        number = self._number
        kinds = [number.setdefault(each, len(number)) for named in found for each in named]
        return np.array(list(map(len, found)), np.int64).tobytes(), np.array(kinds, np.int32).tobytes()

    def _words(self, line: LineItem, creative: Creative) -> Iterator[tuple[str, object]]:
        said: dict[str, Sequence[object]] = {
            "advertiser": (line.advertiser,),
            "adomain": creative.adomain,
            "cat": [(creative.cattax, cat) for cat in creative.cat],
            "label": sorted(line.labels),
        }
        return ((kind, word) for kind in self._by for word in said[kind])


def sell_apart(auction: Auction, page_R: NDArray[np.int64], kinds: Kinds, creative_C: NDArray[np.int32]) -> Sold:
    """Hold the auctions of pages so that no two winners of a page are of one kind.

    Winners of a page are kept by tier, then by bid x quality, then in the order of its places; one that is of a kind
    with a kept one is turned away. Its auction is held again without all that is of a kind with what is kept, until
    nobody is turned away: at most as often as a page has slots. An auction that loses no winner is held once; who is of
    a kind with a winner of another place can raise its price as before.

    Who was turned away is told `separation_block`, to whom in `lost_to_C`, and that no bid would have won.

    Args:
        auction: requests of one page follow each other.
        page_R: what page each request is on; the same number for neighbours on one page.
        kinds: of the creatives of the house.
        creative_C: the creative that each candidate would show; -1 is of no kind.
    """
    sold = sell(auction)
    barred_C, lost_to_C = auction.barred_C.copy(), np.full(len(auction.line_C), NOBODY, np.int64)
    score_C = auction.bid_C * auction.quality_C
    mark_T = np.full((kinds.total, 2), NOBODY, np.int64)
    while True:
        again_R = np.zeros(len(page_R), np.bool_)
        columns = auction.start_Q, page_R, sold.winner_RS, sold.code_C, auction.tier_C, score_C, creative_C
        mark_T[:, 0] = NOBODY
        _turn_away(*columns, kinds.start_N1, kinds.kind_M, mark_T, barred_C, lost_to_C, again_R)
        if not again_R.any():
            return _told(sold, lost_to_C)
        sold = _sold_again(replace(auction, barred_C=barred_C), sold, np.flatnonzero(again_R))


def _told(sold: Sold, lost_to_C: NDArray[np.int64]) -> Sold:
    turned_C = sold.code_C == _SEPARATION
    return replace(
        sold,
        lost_to_C=np.where(turned_C, lost_to_C, sold.lost_to_C),
        min_to_win_C=np.where(turned_C, NEVER, sold.min_to_win_C),
    )


def _sold_again(auction: Auction, sold: Sold, row_A: NDArray[np.intp]) -> Sold:
    """What was sold, with some auctions held again."""
    begin_A, length_A = auction.start_Q[row_A], np.diff(auction.start_Q)[row_A]
    start_A1 = np.concatenate(([0], np.cumsum(length_A)))
    at_D = np.repeat(begin_A - start_A1[:-1], length_A) + np.arange(start_A1[-1])
    per_request = {name: getattr(auction, name)[row_A] for name in ("request_R", "slots_R", "at_R")}
    names = ("line_C", "tier_C", "bid_C", "reserve_C", "quality_C", "deal_C", "barred_C")
    per_candidate = {name: getattr(auction, name)[at_D] for name in names}
    new = sell(Auction(start_Q=start_A1, **per_request, **per_candidate))
    made = Sold(*(getattr(sold, name).copy() for name in Sold.__slots__))
    S = new.winner_RS.shape[1]
    for name, empty in (("winner_RS", NOBODY), ("price_RS", 0), ("runner_up_RS", NOBODY)):
        column_RS, new_AS = getattr(made, name), getattr(new, name)
        column_RS[row_A] = empty
        column_RS[row_A, :S] = new_AS if name == "price_RS" else _placed(new_AS, at_D)
    made.code_C[at_D], made.min_to_win_C[at_D] = new.code_C, new.min_to_win_C
    made.lost_to_C[at_D] = _placed(new.lost_to_C, at_D)
    return made


def _placed(index: NDArray[np.int64], at_D: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places among the candidates that were taken out as places among all."""
    return np.where(index >= 0, at_D[np.maximum(index, 0)], NOBODY) if len(at_D) else index


@kernel
def _turn_away(
    start_Q: NDArray[np.int64],
    page_R: NDArray[np.int64],
    winner_RS: NDArray[np.int64],
    code_C: NDArray[np.int16],
    tier_C: NDArray[np.int64],
    score_C: NDArray[np.int64],
    creative_C: NDArray[np.int32],
    start_N1: NDArray[np.int64],
    kind_M: NDArray[np.int32],
    mark_T: NDArray[np.int64],
    barred_C: NDArray[np.int16],
    lost_to_C: NDArray[np.int64],
    again_R: NDArray[np.bool_],
) -> None:
    """Bar winners that are of a kind with a better one of their page, and in their auctions whoever would be too.

    `mark_T` has for each kind the page that has an ad of it, and whose that is.
    """
    R, S = winner_RS.shape
    first = 0
    while first < R:
        last = first + 1
        while last < R and page_R[last] == page_R[first]:
            last += 1
        order_W = np.empty((last - first) * S, np.int64)
        request_W = np.empty((last - first) * S, np.int64)
        won = 0
        for r in range(first, last):
            for s in range(S):
                c = winner_RS[r, s]
                if c == NOBODY:
                    continue
                at = won
                while at > 0 and _before(c, order_W[at - 1], tier_C, score_C):
                    order_W[at], request_W[at] = order_W[at - 1], request_W[at - 1]
                    at -= 1
                order_W[at], request_W[at] = c, r
                won += 1
        turned = False
        for w in range(won):
            c = order_W[w]
            if _rival(c, first, creative_C, start_N1, kind_M, mark_T) != NOBODY:
                again_R[request_W[w]] = turned = True
                order_W[w] = NOBODY
            elif creative_C[c] >= 0:
                for m in range(start_N1[creative_C[c]], start_N1[creative_C[c] + 1]):
                    mark_T[kind_M[m], 0], mark_T[kind_M[m], 1] = first, c
        if turned:
            for r in range(first, last):
                if again_R[r]:
                    for c in range(start_Q[r], start_Q[r + 1]):
                        rival = _rival(c, first, creative_C, start_N1, kind_M, mark_T)
                        bid = code_C[c] == _WON or code_C[c] == _OUTBID or code_C[c] == _LOST_TO_DEAL
                        if bid and rival != NOBODY and rival != c:
                            barred_C[c], lost_to_C[c] = _SEPARATION, rival
        first = last


@kernel
def _before(c: int, d: int, tier_C: NDArray[np.int64], score_C: NDArray[np.int64]) -> bool:
    if tier_C[c] != tier_C[d]:
        return bool(tier_C[c] < tier_C[d])
    return bool(score_C[c] > score_C[d])


@kernel
def _rival(
    c: int,
    page: int,
    creative_C: NDArray[np.int32],
    start_N1: NDArray[np.int64],
    kind_M: NDArray[np.int32],
    mark_T: NDArray[np.int64],
) -> int:
    """Who on the page is of a kind with a candidate, maybe itself; `NOBODY` if none is."""
    n = creative_C[c]
    if n < 0:
        return NOBODY
    for m in range(start_N1[n], start_N1[n + 1]):
        if mark_T[kind_M[m], 0] == page:
            return mark_T[kind_M[m], 1]  # type: ignore[no-any-return]
    return NOBODY
