"""Pages that bring ads: what a surface asks for, how winners of its auction are laid, and where everything stands then.

A page has as many places as its slate has items. Ads take some of them, named by slate id and place: `ad_requests` for
what `imp`s ask, this for surfaces that opted in (`ads.surfaces`).
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from embeddings.items import Items
from embeddings.spend import slate_decision_id
from ranking.ads import joint
from ranking.ads.auction import NEVER, NOBODY, Sold
from ranking.ads.gates import MEDIUM, risk
from ranking.ads.inventory import House
from ranking.ads.joint import EMPTY, PageRules, Pages, neighbourly
from ranking.ads.losses import Loss
from ranking.ads.market import Market
from streams.ad_surfaces import SurfaceAds
from streams.contract.imp_records import Audio, Banner, Imp, Native, Video
from streams.contract.records import Request
from streams.serving.ad_contest import Contest
from streams.serving.ad_decisions import Decision
from streams.serving.ad_requests import AskRules, ad_ask
from streams.serving.ad_values import AdAsk, PageTerms
from streams.serving.slates import NOWHERE, Seats, Trigger
from streams.serving.values import Scored
from streams.settings import Settings

_FORMATS: Mapping[str, Banner | Video | Audio | Native] = {
    "banner": Banner(), "video": Video(), "audio": Audio(), "native": Native(),
}  # fmt: skip
_UNIT = 1_000_000
_MOST_PLACES = 200
"""Longer slates than surfaces have, which a request may ask for, bring no ads: each place is a look-up."""


@dataclass(frozen=True, slots=True)
class Surface:
    """One surface that opted in: its settings, the slot that stands for each of its ads, and how pages are laid."""

    said: SurfaceAds
    imp: Imp
    rules: PageRules

    @classmethod
    def of(cls, settings: Settings) -> dict[str, Self]:
        """Those of the settings, by name; none where none opted in."""
        said, currency = settings.ads.surfaces, settings.ads.currency
        return {name: cls(one, _imp(name, one, currency), _rules(one)) for name, one in said.items()}

    def ask(self, request: Request, trigger: Trigger, bits: int, rules: AskRules) -> AdAsk | None:
        """What a slate of it asks of ads; None where it is too short or too long for any, or none can be paid for.

        Args:
            request: what is known of where it is looked at; the record itself where somebody asked for the slate.
            trigger: what it answers.
            bits: what may be done: `Judge.of_request`, `Judge.bits`.
            rules: how requests are read.
        """
        room = min(self.said.room(trigger.size), joint.MOST_ADS)
        if trigger.size > _MOST_PLACES or not room:
            return None
        ask = ad_ask(msgspec.structs.replace(request, imp=(self.imp,)), trigger, bits, rules)
        if ask is None or not ask.places:
            return None
        rate = self.said.show_rate if trigger.request_id is None else self.said.asked_show_rate
        page = PageTerms(self.rules, trigger.size, rate)
        ids = tuple(slate_decision_id(trigger.slate_id, place) for place in range(trigger.size))
        (place,) = ask.places
        place = replace(place, imp_ids=room * place.imp_ids, decision_ids=ids, page=page)
        return replace(ask, places=(place,), unfilled=(), request_id=trigger.request_id)


def _imp(name: str, said: SurfaceAds, currency: str) -> Imp:
    return Imp(
        id="",
        tagid=said.tagid or name,
        bidfloor=said.floor_micros / _UNIT,
        bidfloorcur=currency,
        exp=said.show_within_s,
        **{kind: _FORMATS[kind] for kind in said.formats},  # type: ignore[arg-type]
    )


def _rules(said: SurfaceAds) -> PageRules:
    return PageRules(
        ad_load_max=said.ad_load_max,
        first_slot=said.first_slot,
        min_gap=said.min_gap,
        tradeoff=said.revenue_weight / _UNIT,
        collapse=said.unfilled == "collapse",
    )


def unasked(asks: Sequence[AdAsk]) -> list[AdAsk]:
    """Asks after it could not be looked up what was decided before: nothing is sold of pages.

    A place of a page could be another one now, and its ledger would not know that it sold the page before.
    """
    return [replace(ask, refused=int(Loss.internal)) if _of_page(ask) and not ask.refused else ask for ask in asks]


def _of_page(ask: AdAsk) -> bool:
    return any(place.page for place in ask.places)


class Organic(NamedTuple):
    """The organic items of A asks' pages, N at most: what each is worth, how risky a neighbour it is, how many."""

    value_AN: NDArray[np.float64]
    risk_AN: NDArray[np.uint8]
    items_A: NDArray[np.int64]

    @classmethod
    def of(cls, scored: Scored, at_A: NDArray[np.intp], items: Items) -> Self:
        """Those of scored slates, by their places among these (`NOWHERE`: none).

        An item is worth its score, a chance to be taken; what was shown too often is worth nothing.
        """
        s = scored.slates
        if not len(s.row_QN):
            return cls(np.zeros((len(at_A), 0)), np.zeros((len(at_A), 0), np.uint8), np.zeros(len(at_A), np.int64))
        here_A, at_A = at_A != NOWHERE, np.maximum(at_A, 0)
        row_AN, columns = s.row_QN[at_A], items.columns
        there_AN = (row_AN >= 0) & here_A[:, None]
        return cls(
            np.where(there_AN, np.maximum(s.score_QN[at_A], 0.0), 0.0),
            risk(columns.age_N[row_AN], columns.rated_N[row_AN] & there_AN),
            there_AN.sum(1),
        )


def weights(places: int) -> NDArray[np.float64]:
    """How much the places of a page are looked at: 1 / log2(1 + place), as DCG has it (Järvelin, Kekäläinen 2002)."""
    out_T: NDArray[np.float64] = 1 / np.log2(np.arange(2, places + 2))
    return out_T


class Laid(NamedTuple):
    """What became of an auction after its pages were laid.

    Attributes:
        sold: with nobody in the slots of those that are on no page.
        position_RS: the place of each winner on its page; -1 where it is on none.
        blocked_B: candidates that may stand beside no item of theirs: others may.
    """

    sold: Sold
    position_RS: NDArray[np.int64]
    blocked_B: NDArray[np.int64]


def unlaid(sold: Sold) -> Laid:
    """An auction of slots that are where they are."""
    return Laid(sold, np.full(sold.winner_RS.shape, EMPTY, np.int64), np.zeros(0, np.int64))


def risks_of(house: House) -> dict[str, int]:
    """How risky a neighbour each creative is, by key: compute it once per snapshot."""
    age_N = house.creative_N["age"]
    risk_N = risk(age_N, np.ones(len(age_N), np.bool_)).tolist()
    return {creative.key: own for creative, own in zip(house.creatives, risk_N, strict=True)}


def lay(contest: Contest, sold: Sold, creative_C: NDArray[np.int32], market: Market, organic: Organic) -> Laid:
    """Lay the winners of pages among organic items; who does not stand anywhere has not won.

    Args:
        contest: whose places; those that are of no page stay as they are.
        sold: its auction.
        creative_C: what each candidate shows.
        market: what creatives are of.
        organic: of its asks.
    """
    page_P = [place.page for place in contest.places]
    winner_RS, code_C, to_win_C = sold.winner_RS.copy(), sold.code_C.copy(), sold.min_to_win_C.copy()
    position_RS = np.full(winner_RS.shape, EMPTY, np.int64)
    weight_T = weights(max(page.size for page in page_P if page))
    for rules in dict.fromkeys(page.rules for page in page_P if page):
        at_P = np.array([p for p, page in enumerate(page_P) if page and page.rules == rules])
        pages = _pages(contest, sold, at_P, creative_C, market, organic)
        layout = joint.lay(pages, rules, None, weight_T)
        p_X, t_X = np.nonzero(layout.ad_PT != EMPTY)
        position_RS[at_P[p_X], layout.ad_PT[p_X, t_X]] = t_X
        out_PS = (winner_RS[at_P] != NOBODY) & (position_RS[at_P] == EMPTY)
        gone_X = winner_RS[at_P][out_PS]
        code_C[gone_X], to_win_C[gone_X] = layout.code_PA[out_PS], NEVER
        winner_RS[at_P] = np.where(out_PS, NOBODY, winner_RS[at_P])
    gone_C = (sold.code_C == Loss.won) & (code_C == Loss.adjacency_block)
    after = replace(sold, winner_RS=winner_RS, code_C=code_C, min_to_win_C=to_win_C)
    return Laid(after, position_RS, np.flatnonzero(gone_C))


def _pages(
    contest: Contest,
    sold: Sold,
    at_P: NDArray[np.intp],
    creative_C: NDArray[np.int32],
    market: Market,
    organic: Organic,
) -> Pages:
    """Winners as ads in the order of their slots; an empty slot is an ad that brings nothing and may stand nowhere."""
    winner_PS, ask_P = sold.winner_RS[at_P], contest.ask_P[at_P]
    there_PS, items_P = winner_PS != NOBODY, organic.items_A[ask_P]
    age_N = market.house.creative_N["age"]
    shown_PS = creative_C[np.maximum(winner_PS, 0)] if len(creative_C) else np.zeros(winner_PS.shape, np.int32)
    own_PS = risk(age_N[shown_PS], np.ones(shown_PS.shape, np.bool_)) if len(age_N) else shown_PS.astype(np.uint8)
    fits_PSG = neighbourly(organic.risk_AN[ask_P], items_P, own_PS) & there_PS[:, :, None]
    return Pages(
        np.array([page.size for p in at_P.tolist() if (page := contest.places[p].page)], np.int64),
        items_P,
        organic.value_AN[ask_P],
        np.full(len(at_P), winner_PS.shape[1], np.int64),
        np.where(there_PS, sold.price_RS[at_P], 0),
        fits_PSG,
        np.full(winner_PS.shape, -1, np.int32),
    )


def seats(
    ask: AdAsk, decisions: Sequence[Decision], risk_N: NDArray[np.uint8], items: int, risk_of: Mapping[str, int]
) -> Seats | None:
    """Where ads and organic items of a page stand, as it goes out; None where the ask is of no page.

    A page is laid before its ads are reserved, and one that comes again has the ads of the first time beside items that
    may be others. So each is looked at once more: what would stand where it must not, and what is of a campaign that
    was stopped meanwhile, is left out, though it was decided.

    Args:
        ask: whose.
        decisions: what was decided for it.
        risk_N: of its organic items.
        items: how many there are.
        risk_of: of creatives, by key; of one that is gone there is none.
    """
    page = next((place.page for place in ask.places if place.page), None)
    if page is None:
        return None
    shown = {d.record.position: d for d in decisions if d.record.filled and d.record.position is not None}
    risks = risk_N[:items].tolist()
    while True:
        free = [place for place in range(page.size) if place not in shown]
        if page.rules.collapse:
            free = free[: page.size - len(ask.places[0].imp_ids)]
        wrong = [
            place
            for place, decision in shown.items()
            if not _stands(risk_of.get(decision.record.creative or ""), risks, bisect_left(free[:items], place))
        ]
        if not wrong:
            return Seats(tuple(shown[place] for place in sorted(shown)), np.array(free[:items], np.intp))
        del shown[min(wrong)]


def _stands(own: int | None, risks: Sequence[int], before: int) -> bool:
    """Whether an ad may stand behind so many organic items: `joint.neighbourly`."""
    return own is not None and all(own <= risk <= MEDIUM for risk in risks[max(before - 1, 0) : before + 1])
