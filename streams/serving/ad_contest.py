"""Who competes for which place, as columns that get shorter at each stage, and what became of those that left."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.turnover import Era
from ranking.ads.features import Viewers
from ranking.ads.losses import Loss
from ranking.ads.market import Market
from ranking.ads.selection import Fits
from ranking.ads.turns import in_turn
from streams.serving.ad_scoring import AdCandidates, Chances
from streams.serving.ad_values import AdAsk, AdPlace
from streams.serving.creatives import Creatives
from streams.serving.draws import GOLDEN, mixed

_TURN = 4


class Left(NamedTuple):
    """Candidates that left at one stage: their places, rows and codes (`Loss`)."""

    place_M: NDArray[np.intp]
    row_M: NDArray[np.int32]
    code_M: NDArray[np.int16]


@dataclass(slots=True)
class Contest:
    """M candidates for P places of A asks: a candidate is a line item, with the creatives that it could show there.

    Attributes:
        asks: A of them; `ask_P` says whose each place is.
        places: P of them.
        slots_P: how many slots each place has.
        identity_P: what names each place for good, so that a request that comes again draws the same.
        start_P1: where each place's candidates begin; `row_M` are their rows in the market.
        fits: their creatives, once that was looked at.
        left: who has left, stage by stage.
        need_M: what line items of a crowded tier need of such places (`ranking.ads.turns`), 0 for all others.
    """

    asks: Sequence[AdAsk]
    places: Sequence[AdPlace]
    ask_P: NDArray[np.int32]
    slots_P: NDArray[np.int64]
    identity_P: NDArray[np.uint64]
    start_P1: NDArray[np.int64]
    row_M: NDArray[np.int32]
    fits: Fits = field(init=False)
    left: list[Left] = field(init=False, default_factory=list)
    need_M: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        none_M = np.zeros(len(self.row_M), np.int16)
        self.fits = Fits(none_M, np.zeros(len(self.row_M) + 1, np.int64), np.empty(0, np.int32))
        self.need_M = np.zeros(len(self.row_M))

    @classmethod
    def of(cls, asks: Sequence[AdAsk], decided: Container[str] = ()) -> "Contest":
        """The places of asks that no gate refused and that are new; nobody competes yet.

        Slots of an ask are decided at once. So of one that was decided before nothing is for sale: what is empty beside
        what was sold was empty then.
        """
        pairs = [
            (a, place) for a, ask in enumerate(asks) if not (ask.refused or begun(ask, decided)) for place in ask.places
        ]
        names = [int(place.decision_ids[0][:16], 16) for _, place in pairs]
        return cls(
            asks=asks,
            places=[place for _, place in pairs],
            ask_P=np.array([a for a, _ in pairs], np.int32),
            slots_P=np.array([len(place.imp_ids) for _, place in pairs], np.int64),
            identity_P=np.array(names, np.uint64),
            start_P1=np.zeros(len(pairs) + 1, np.int64),
            row_M=np.empty(0, np.int32),
        )

    @property
    def place_M(self) -> NDArray[np.intp]:
        """The place of each candidate."""
        return np.repeat(np.arange(len(self.places)), np.diff(self.start_P1))

    @property
    def creatives_M(self) -> NDArray[np.int64]:
        """How many creatives of each candidate fit."""
        return np.diff(self.fits.start_M1)

    @property
    def line_C(self) -> NDArray[np.int32]:
        """The row of the line item of each creative that fits."""
        return np.repeat(self.row_M, self.creatives_M)

    @property
    def show_rate_P(self) -> NDArray[np.float64]:
        """What share of the ads of each place is expected to be shown."""
        return np.array([place.show_rate for place in self.places])

    def keep(self, code_M: NDArray[np.int16]) -> None:
        """Let those go that have a code; what is left stays in its order."""
        gone_M = code_M != 0
        if gone_M.any():
            place_M = self.place_M
            self.left.append(Left(place_M[gone_M], self.row_M[gone_M], code_M[gone_M]))
            self._take(~gone_M, place_M)

    def with_creatives(self, keep_C: NDArray[np.bool_], loss: Loss) -> None:
        """Let creatives go, and with `loss` the line items that have none left."""
        start_M1 = self.fits.start_M1
        sums_C = np.concatenate(([0], np.cumsum(keep_C)))
        self.fits = Fits(self.fits.code_M, sums_C[start_M1], self.fits.creative_N[keep_C])
        self.keep(np.where(self.creatives_M == 0, np.int16(loss), np.int16(0)))

    def draw_M(self, hash_M: NDArray[np.uint64], salt: int) -> NDArray[np.uint64]:
        """Numbers drawn for candidates by their places and hashes: the same for the same request. Shape (M,)."""
        return drawn(self.identity_P[self.place_M], hash_M, salt)

    def tier_M(self, market: Market) -> NDArray[np.int64]:
        """Who is served before whom; where a tier is crowded, whose turn it is. Shape (M,)."""
        tier_M = market.tier_L[self.row_M]
        if not self.need_M.any():
            return tier_M
        return in_turn(tier_M, self.need_M, self.draw_M(market.house.line_L["hash"][self.row_M], _TURN))

    def _take(self, keep_M: NDArray[np.bool_], place_M: NDArray[np.intp]) -> None:
        if len(self.need_M):
            self.need_M = self.need_M[keep_M]
        count_P = np.bincount(place_M[keep_M], minlength=len(self.places))
        self.start_P1, self.row_M = np.concatenate(([0], np.cumsum(count_P))), self.row_M[keep_M]
        length_M = self.creatives_M
        starts = np.concatenate(([0], np.cumsum(length_M[keep_M])))
        self.fits = Fits(self.fits.code_M[keep_M], starts, self.fits.creative_N[np.repeat(keep_M, length_M)])


def begun(ask: AdAsk, decided: Container[str]) -> bool:
    """Was anything sold of an ask before?"""
    return any(each in decided for place in ask.places for each in place.decision_ids)


@dataclass(frozen=True, slots=True)
class Predicted:
    """What prediction was asked and said of C creatives of candidates: for the records, and for the learner.

    Rows of items in it are what they are: it keeps their `era` (`embeddings.turnover`).
    """

    era: Era
    creatives: Creatives
    viewers: Viewers
    candidates: AdCandidates
    chances: Chances


@dataclass(frozen=True, slots=True)
class Bids:
    """What M candidates would show, and what that is worth: the last stage before the auction.

    Attributes:
        creative_M: numbers of creatives in the house; `at_M` is the place of each among the C that were scored.
        bid_M, chance_M: micros per impression, and the chance of the event that is bid for.
        propensity_M: with which chance each stands among the first, over what might be drawn; `tried_M` are not there
            by what is known of them.
        predicted: what prediction said of all C.
    """

    creative_M: NDArray[np.int32]
    at_M: NDArray[np.intp]
    bid_M: NDArray[np.int64]
    chance_M: NDArray[np.float64]
    propensity_M: NDArray[np.float64]
    tried_M: NDArray[np.bool_]
    predicted: Predicted


def drawn(identity_X: NDArray[np.uint64], hash_X: NDArray[np.uint64], salt: int) -> NDArray[np.uint64]:
    """Uniform numbers by who asks and who competes, others for each salt."""
    return mixed((identity_X + np.array(salt, np.uint64) * GOLDEN) ^ hash_X)
