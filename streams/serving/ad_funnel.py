"""What became of line items in a while, by name of `embeddings.spend.TOLD`: the funnel, for the spend ledger.

A batch is counted into arrays by row; once in a while they become a `Tally`, from where the last one ended in each
input partition. Whoever is killed in between loses at most that while of counts: never money, which is reserved by
decision.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from embeddings.errors import AlreadyCounted
from embeddings.events import Source
from embeddings.spend import LOST_TO, TOLD, Tally
from ranking.ads.losses import Loss
from ranking.ads.market import Market

POSTED = "http:requests"
"""Stands for the topic of requests that came over HTTP; none can be called so."""
_POSTED_NAMES, _STEP = 64, 1 << 20
_TOLD_TO = 3
"""So many that a line item lost to most are told."""
_AT = {name: n for n, name in enumerate(TOLD)}
_OF_LOSS: dict[Loss, str] = {
    Loss.won: "won",
    Loss.creative_pending: "unapproved",
    Loss.capped: "capped",
    Loss.cap_unknown: "cap_unknown",
    Loss.paced: "paced",
    Loss.budget_exhausted: "budget_exhausted",
    Loss.below_floor: "below_floor",
    Loss.below_deal_floor: "below_floor",
    Loss.outbid: "outbid",
    Loss.lost_to_deal: "outbid",
    Loss.seat_blocked: "blocked",
    **{loss: "blocked" for loss in Loss if 200 <= loss < 300 and loss is not Loss.creative_pending},
    Loss.rating_block: "blocked",
    Loss.adjacency_block: "blocked",
    Loss.separation_block: "blocked",
}
_PLACE_OF_CODE = np.full(2048, -1, np.int64)
for _loss, _name in _OF_LOSS.items():
    _PLACE_OF_CODE[int(_loss)] = _AT[_name]


@dataclass(slots=True)
class Funnel:
    """Counts since they were told last, for one thread."""

    follows: ClassVar[bool] = False
    """See `embeddings.spend.Tally`."""
    _count_NL: NDArray[np.int64] = field(init=False, default_factory=lambda: np.zeros((len(TOLD), 0), np.int64))
    _market: Market | None = field(init=False, default=None)
    _counts: dict[tuple[str, str], int] = field(init=False, default_factory=dict)
    _lost: list[NDArray[np.int64]] = field(init=False, default_factory=list)
    _names: dict[str, int] = field(init=False, default_factory=dict)
    _reach: dict[Source, tuple[int, int]] = field(init=False, default_factory=dict)
    _telling: tuple[Mapping[tuple[str, str], int], dict[Source, tuple[int, int]]] | None = field(
        init=False, default=None
    )
    """Counts and reach of a call whose answer did not come: it is repeated as it was, or what it did is done twice."""

    def read(self, source: Source, first: int, last: int) -> None:
        """Records of a partition, from one offset to another, were decided on."""
        above, upto = self._reach.get(source, (first - 1, first - 1))
        self._reach[source] = min(above, first - 1), max(upto, last)

    def candidates(self, market: Market, row_M: NDArray[np.int32], code_M: NDArray[np.int16]) -> None:
        """Line items had a chance, and this became of it: a `Loss`, `won` among them."""
        self._be_of(market)
        np.add.at(self._count_NL[_AT["targeted"]], row_M, 1)
        at_M = _PLACE_OF_CODE[code_M]
        known_M = at_M >= 0
        np.add.at(self._count_NL, (at_M[known_M], row_M[known_M]), 1)

    def told(self, market: Market, name: str, row_X: NDArray[np.int32]) -> None:
        """Something else happened to line items."""
        self._be_of(market)
        np.add.at(self._count_NL[_AT[name]], row_X, 1)

    def lost(self, market: Market, loser_X: NDArray[np.int32], winner_X: NDArray[np.int32]) -> None:
        """Line items lost what others got: rows of both."""
        self._be_of(market)
        if len(loser_X):
            self._lost.append(loser_X.astype(np.int64) << 32 | winner_X)

    def tell(self, reserve: Callable[[Sequence[Tally]], object]) -> None:
        """Hand over what was counted since, as tallies of the partitions read, until they are taken.

        What the ledger has counted of a partition already is left out. Where it cannot be reached all is kept for the
        next time, what was handed over apart from what is counted until then.

        Raises:
            LedgerClosed, StoreUnavailable: it may or may not be handed over. Call again.
        """
        self._flatten()
        repeated = self._telling is not None
        if self._telling is None:
            self._telling = self._counts, self._reach
            self._counts, self._reach = {}, {}
        counts, reach = self._telling
        while reach:
            tallies = [
                Tally(source=source, above=above, upto=upto, counts={}, follows=self.follows)
                for source, (above, upto) in reach.items()
            ]
            tallies[0] = replace(tallies[0], counts=counts)
            try:
                reserve(tallies)
                break
            except AlreadyCounted as known:
                source = next(each for each in reach if f"{each.topic}/{each.partition}" == known.source)
                left = self._left(reach.pop(source)[1], known.covered, repeated)
                if left is not None:
                    reach[source] = left
        self._telling = None

    def _left(self, upto: int, covered: int, repeated: bool) -> tuple[int, int] | None:
        """What is left of a stretch that the ledger has counted so far; `repeated`: it may have, by this very call."""
        return (covered, upto) if covered < upto else None

    def take_names(self) -> dict[str, int]:
        """How often line items came to what since this was asked last, all of them together."""
        names, self._names = self._names, {}
        return names

    def _be_of(self, market: Market) -> None:
        if self._market is not market:
            self._flatten()
            self._market, self._count_NL = market, np.zeros((len(TOLD), market.rows), np.int64)

    def _flatten(self) -> None:
        """Counts by row become counts by key: rows may be another's tomorrow."""
        if self._market is None:
            return
        for n, row in zip(*(at.tolist() for at in np.nonzero(self._count_NL)), strict=True):
            if (line := self._market.lines[row]) is not None:
                key = line.key, TOLD[n]
                self._counts[key] = self._counts.get(key, 0) + int(self._count_NL[n, row])
        for name, many in zip(TOLD, self._count_NL.sum(1).tolist(), strict=True):
            self._names[name] = self._names.get(name, 0) + many
        self._count_NL[:] = 0
        self._flatten_lost(self._market)

    def _flatten_lost(self, market: Market) -> None:
        """To whom each lost: the few to whom it lost most."""
        if not self._lost:
            return
        pair_X, many_X = np.unique(np.concatenate(self._lost), return_counts=True)
        self._lost = []
        loser_X = pair_X >> 32
        order_X = np.lexsort((-many_X, loser_X))
        rank_X = np.arange(len(order_X)) - np.searchsorted(loser_X[order_X], loser_X[order_X])
        for x in order_X[rank_X < _TOLD_TO].tolist():
            loser, winner = market.lines[loser_X[x]], market.lines[pair_X[x] & 0xFFFFFFFF]
            if loser is not None and winner is not None:
                key = loser.key, LOST_TO + winner.key
                self._counts[key] = self._counts.get(key, 0) + int(many_X[x])


@dataclass(slots=True)
class PostedFunnel(Funnel):
    """A funnel of requests that lie in no log: each tally follows where the ledger stands, to a place of its own.

    Workers share a few dozen names, so that the ledger does not keep one for each that ever lived; whoever finds that
    another one told since follows that. What is lost is a call whose answer was lost, if another one of the same name
    told before it was repeated: whether it was counted nobody can say, and nothing counts twice.
    """

    follows: ClassVar[bool] = True
    _mine: Source = field(init=False, default_factory=lambda: Source(POSTED, secrets.randbelow(_POSTED_NAMES)))
    _at: int = field(init=False, default=0)

    def read(self, source: Source, first: int, last: int) -> None:
        """See `Funnel.read`."""
        if self._mine not in self._reach:
            self._reach[self._mine] = self._behind(self._at)

    def _left(self, upto: int, covered: int, repeated: bool) -> tuple[int, int] | None:
        return None if repeated else self._behind(covered)

    def _behind(self, above: int) -> tuple[int, int]:
        """From there to a place that nobody else chooses, by all chances."""
        self._at = above + 1 + secrets.randbelow(_STEP)
        return above, self._at
