"""Decisions as records: what filled each slot and why, or why nothing did."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.spend import Answer, InFlight, Reservation, Room, Verdict
from ranking.ads.auction import NOBODY, Auction, Sold
from ranking.ads.bids import per_event
from ranking.ads.campaigns import LineItem
from ranking.ads.features import OUTCOMES
from ranking.ads.losses import Loss
from ranking.ads.market import Market
from ranking.ads.predicates import Opportunity, Predicate
from ranking.ads.terms import BILLED_BY
from ranking.ads.why import certain, matched
from streams.ad_settings import Ads
from streams.contract.ad_records import AdDecision
from streams.contract.records import encode
from streams.serving.ad_contest import Bids, Contest
from streams.serving.ad_events import named, reservation_of
from streams.serving.ad_values import AdAsk
from streams.serving.budgets import Budgets
from streams.serving.ledger_windows import NOT_BOOKED, LineWindows

_MOST_KNOWN = 100_000
_TECHNICAL = 1  # OpenRTB's no-bid reason for an error of ours
_NOBODY_BIDS = "no_candidates"


class Reasons:
    """What line items asked for and found, in words; of most it is the same for whoever they are for."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self._certain: dict[str, tuple[Predicate, tuple[str, ...] | None]] = {}

    def of(self, line: LineItem, opportunity: Opportunity) -> tuple[str, ...]:
        """For `AdDecision.matched`."""
        known = self._certain.get(line.key)
        if known is None or known[0] is not line.targeting:
            if len(self._certain) >= _MOST_KNOWN:
                self._certain.clear()
            known = self._certain[line.key] = line.targeting, certain(line.targeting)
        return matched(line.targeting, opportunity) if known[1] is None else known[1]


class Winners(NamedTuple):
    """W winners: their place and slot, who they are in the contest, what they pay per impression.

    `position_W` are places on pages, -1 where slots were asked for one by one.
    """

    place_W: NDArray[np.intp]
    slot_W: NDArray[np.intp]
    candidate_W: NDArray[np.int64]
    row_W: NDArray[np.int32]
    price_W: NDArray[np.int64]
    position_W: NDArray[np.int64]

    @classmethod
    def of(cls, contest: Contest, sold: Sold, taken_M: NDArray[np.int64], position_RS: NDArray[np.int64]) -> "Winners":
        """Those of an auction whose budgets cover it."""
        place_W, slot_W = np.nonzero(sold.winner_RS != NOBODY)
        candidate_W = sold.winner_RS[place_W, slot_W]
        paid_W = taken_M[candidate_W] >= 0
        place_W, slot_W, candidate_W = place_W[paid_W], slot_W[paid_W], candidate_W[paid_W]
        at_WS = place_W, slot_W
        return cls(*at_WS, candidate_W, contest.row_M[candidate_W], sold.price_RS[at_WS], position_RS[at_WS])


class Won(NamedTuple):
    """One winner; money in micros.

    `price` per impression and `event` per event are in the auction's currency; `reserved`, `owed` per impression and
    what the event `spends` are in the campaign's. `levels` are keys of caps.
    """

    place: int
    slot: int
    position: int
    row: int
    creative: int
    price: int
    event: int
    reserved: int
    owed: int
    spends: int
    bid: int
    floor: int
    min_to_win: int
    billed_by: int
    chance_O: list[float]
    propensity: float
    explored: bool
    levels: list[int]
    is_booked: bool


Outcome = Literal["filled", "unfilled", "again", "refused", "failed"]
"""What became of a slot: sold; not; decided before; nothing may be shown there at all; the ledger did not answer."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One slot's decision and its bytes, as they go out.

    `winner` is its place among the winners of this batch; -1 where nobody won, or it was decided before.
    """

    record: AdDecision
    value: bytes
    outcome: Outcome
    winner: int = -1


@dataclass(slots=True)
class Decided:
    """What a batch of asks comes to: per ask a decision for each slot."""

    of_ask: list[list[Decision]]
    winners: Winners | None = None
    bids: Bids | None = None
    market: Market | None = None

    @classmethod
    def empty(cls, asks: Sequence[AdAsk], before: Mapping[str, bytes], now_ms: int) -> "Decided":
        """Nothing was decided: gates said no, no place is an auction, or all was decided before."""
        return cls([[] for _ in asks]).with_those_of(asks, before, now_ms)

    @classmethod
    def unsold(cls, contest: Contest, market: Market, now_ms: int) -> "Decided":
        """Nobody ever bid in this market: every place is empty, at no cost."""
        of_ask: list[list[Decision]] = [[] for _ in contest.asks]
        for place, a in zip(contest.places, contest.ask_P.tolist(), strict=True):
            ask = contest.asks[a]
            said = {"currency": market.currency, "nbr": 0, "reasons": (_NOBODY_BIDS,), "personal": ask.personal}
            for slot in place.named:
                record = _nothing(ask, (*slot, place.tagid), now_ms, **said)
                of_ask[a].append(Decision(record, encode(record), "unfilled"))
        return cls(of_ask)

    def with_those_of(self, asks: Sequence[AdAsk], before: Mapping[str, bytes], now_ms: int) -> "Decided":
        """With what was decided before, and slots that are no auction."""
        for told, ask in zip(self.of_ask, asks, strict=True):
            ids = [each for place in ask.places for each in place.decision_ids if each in before]
            told += [Decision(*named(before[each], ask.kept_user_id), "again") for each in ids]
            empty = _refused(ask, now_ms, begun=bool(ids))
            told += [each for each in empty if each.record.decision_id not in before]
        return self


@dataclass(slots=True, kw_only=True)
class Recorder:
    """Makes the records of one batch's decisions."""

    contest: Contest
    market: Market
    bids: Bids
    auction: Auction
    sold: Sold
    winners: Winners
    settings: Ads
    reasons: Reasons
    now_ms: int
    _losses: list[dict[str, int]] = field(init=False)
    _lost_to: list[dict[str, int]] = field(init=False)

    def __post_init__(self) -> None:
        self._losses = losses_of(self.contest, self.sold.code_C)
        self._lost_to = self._to_whom()

    def filled(self, budgets: Budgets) -> list[AdDecision]:
        """The decisions of W winners."""
        w, market, house = self.winners, self.market, self.market.house
        creative_W, at_W = self.bids.creative_M[w.candidate_W], self.bids.at_M[w.candidate_W]
        type_W = house.line_L["bid_type"][w.row_W]
        bid_W = market.bid_micros_L[w.row_W]
        event_W = per_event(type_W, w.price_W, bid_W, self.bids.chance_M[w.candidate_W])
        owed_W, spends_W = market.charged(w.row_W, w.price_W), market.charged(w.row_W, event_W)
        chance_WO = self.bids.predicted.chances.p_CO[at_W].astype(np.float64).round(6)
        columns: dict[str, NDArray[Any]] = {
            "place": w.place_W,
            "slot": w.slot_W,
            "position": w.position_W,
            "row": w.row_W,
            "creative": creative_W,
            "price": w.price_W,
            "event": event_W,
            "reserved": at_rate(owed_W, self.contest.show_rate_P[w.place_W]),
            "owed": owed_W,
            "spends": spends_W,
            "bid": self.auction.bid_C[w.candidate_W],
            "floor": self.auction.reserve_C[w.candidate_W],
            "min_to_win": self.sold.min_to_win_C[w.candidate_W],
            "billed_by": market.billed_by_L[w.row_W],
            "chance_O": chance_WO,
            "propensity": self.bids.propensity_M[w.candidate_W],
            "explored": self.bids.tried_M[w.candidate_W],
            "levels": market.caps.keys(w.row_W, creative_W),
            "is_booked": market.booked_of(w.row_W),
        }
        rows = zip(*(columns[name].tolist() for name in Won._fields), strict=True)
        windows = budgets.windows(market, w.row_W)
        return [self._filled(budgets, own, Won(*row)) for own, row in zip(windows, rows, strict=True)]

    def _filled(self, budgets: Budgets, windows: LineWindows, won: Won) -> AdDecision:
        contest, market, now_ms = self.contest, self.market, self.now_ms
        place, ask = contest.places[won.place], contest.asks[contest.ask_P[won.place]]
        line, creative = market.lines[won.row], market.house.creatives[won.creative]
        assert line is not None  # it won
        by = BILLED_BY[won.billed_by]
        by_impression = by in ("impression", "viewable")
        billed_until_ms = now_ms + int(self.settings.billing_window_s * 1000)
        if by == "conversion":  # it is paid for as long as it is attributed
            billed_until_ms = max(billed_until_ms, now_ms + max(line.click_window_ms, line.view_window_ms))
        booked = NOT_BOOKED
        if won.is_booked:
            chances = dict(zip(OUTCOMES, won.chance_O, strict=True))
            booked = budgets.booked(market, won.row, windows, chances.get(BILLED_BY[market.counted_L[won.row]]))
        expires_ms = now_ms + int((place.exp_s or self.settings.reservation_s) * 1000)
        return AdDecision(
            decision_id=place.decision_ids[won.position if place.page else won.slot],
            user_id=ask.kept_user_id,
            imp_id="" if place.page else place.imp_ids[won.slot],
            tagid=place.tagid,
            slate_id=ask.slate_id or None,
            request_id=ask.request_id,
            position=won.position if place.page else None,
            show_rate=place.page.show_rate if place.page else None,
            tradeoff=round(place.page.rules.tradeoff * 1_000_000, 6) if place.page else None,
            filled=True,
            campaign_id=line.campaign_id,
            line_item_id=line.id,
            advertiser=line.advertiser,
            creative=creative.key,
            crid=creative.crid,
            item_id=creative.item_id,
            adomain=creative.adomain,
            cat=creative.cat,
            cattax=creative.cattax,
            attr=creative.attr,
            dealid=line.deal.id if line.deal else None,
            dur=creative.duration_s,
            price_micros=won.price,
            bid_micros=won.bid,
            event_micros=0 if by_impression else won.event,
            billed_by=by,
            currency=market.currency,
            rates=market.rates.version,
            reserved_micros=won.reserved,
            spends_micros=won.owed if by_impression else won.spends,
            min_to_win_micros=won.min_to_win,
            floor_micros=won.floor,
            pctr=won.chance_O[0],
            pvtr=won.chance_O[1],
            pcvr=won.chance_O[2],
            propensity=won.propensity if won.propensity < 1 else None,
            explored=won.explored,
            personal=ask.personal,
            behalf=creative.behalf,
            paid=creative.paid,
            transparency=tuple(dict(each) for each in creative.transparency),
            matched=self.reasons.of(line, place.opportunity),
            losses=self._losses[won.place],
            lost_to=self._lost_to[won.place],
            decided_ms=now_ms,
            expires_ms=min(expires_ms, billed_until_ms),
            billed_until_ms=billed_until_ms,
            kept_ms=max(billed_until_ms, now_ms + max(line.click_window_ms, line.view_window_ms)),
            person=ask.person,
            windows=windows.told_bound,
            counted=windows.told_counted,
            booked=tuple((window.key, window.day) for window in booked.windows),
            booked_by=booked.kind if booked.windows else "",
            holds=max(round(booked.holds * place.show_rate), 1) if booked.windows else 0,
            levels=tuple(won.levels),
        )

    def decided(self, decisions: Sequence[AdDecision], values: Sequence[bytes], answers: Sequence[Answer]) -> Decided:
        """A decision for every slot of every ask: those of winners as the ledger answered, and why others are empty."""
        stands: dict[tuple[int, int], Decision] = {}
        refused: dict[tuple[int, int], str] = {}
        where = zip(self.winners.place_W.tolist(), self.winners.slot_W.tolist(), strict=True)
        for n, (at, record, value, answer) in enumerate(zip(where, decisions, values, answers, strict=True)):
            if answer.verdict is Verdict.reserved:
                stands[at] = Decision(record, value, "filled", n)
            elif answer.verdict is Verdict.again and answer.decision:
                stands[at] = Decision(*named(answer.decision, record.user_id), "again")
            else:
                refused[at] = answer.verdict.name
        of_ask: list[list[Decision]] = [[] for _ in self.contest.asks]
        for p, place in enumerate(self.contest.places):
            told = of_ask[self.contest.ask_P[p]]
            found = [stands.get((p, slot)) for slot in range(len(place.imp_ids))]
            if place.page:  # an empty one says once why
                why = next((refused[p, slot] for slot in range(len(found)) if (p, slot) in refused), None)
                told += [one for one in found if one] or [self._empty(p, 0, why)]
                continue
            for slot, one in enumerate(found):
                told.append(one or self._empty(p, slot, refused.get((p, slot))))
        return Decided(of_ask, self.winners, self.bids, self.market)

    def _empty(self, p: int, slot: int, refused: str | None) -> Decision:
        place, ask, losses = self.contest.places[p], self.contest.asks[self.contest.ask_P[p]], self._losses[p]
        reason = refused or (max(losses, key=lambda name: losses[name]) if losses else _NOBODY_BIDS)
        record = _nothing(
            ask,
            (*place.named[slot], place.tagid),
            self.now_ms,
            currency=self.market.currency,
            nbr=_TECHNICAL if refused == Verdict.closed.name else 0,
            reasons=(reason,),
            losses=losses,
            lost_to=self._lost_to[p],
            personal=ask.personal,
        )
        return Decision(record, encode(record), "failed" if record.nbr == _TECHNICAL else "unfilled")

    def _to_whom(self) -> list[dict[str, int]]:
        """Who has what losers wanted, by line item, for each place."""
        to_C, place_C = self.sold.lost_to_C, self.contest.place_M
        lost = np.flatnonzero(to_C != NOBODY)
        pair_X2, count_X = np.unique(
            np.column_stack((place_C[lost], self.contest.row_M[to_C[lost]])), axis=0, return_counts=True
        )
        out: list[dict[str, int]] = [{} for _ in self.contest.places]
        for (p, row), count in zip(pair_X2.tolist(), count_X.tolist(), strict=True):
            if (line := self.market.lines[row]) is not None:
                out[p][line.key] = count
        return out


def losses_of(contest: Contest, code_C: NDArray[np.int16]) -> list[dict[str, int]]:
    """How many candidates of each place were turned away, and why, those of the auction among them."""
    sold = code_C != Loss.won
    place_X = np.concatenate([*(left.place_M for left in contest.left), contest.place_M[sold]]).astype(np.int64)
    code_X = np.concatenate([*(left.code_M for left in contest.left), code_C[sold]]).astype(np.int64)
    pair_X, count_X = np.unique(place_X << 16 | code_X, return_counts=True)
    out: list[dict[str, int]] = [{} for _ in contest.places]
    for pair, count in zip(pair_X.tolist(), count_X.tolist(), strict=True):
        out[pair >> 16][_NAMES[pair & 0xFFFF]] = count
    return out


_NAMES: Mapping[int, str] = defaultdict(lambda: "internal", {int(loss): loss.name for loss in Loss})


def reserved(
    decision: AdDecision, value: bytes, rooms: Sequence[tuple[str, int]], flight: InFlight | None
) -> Reservation:
    """What the ledger is asked to keep of a decision, with what caps have room for."""
    return reservation_of(
        decision, value, rooms=[Room(*room) for room in rooms], version=flight.version if flight else ""
    )


def at_rate(micros_W: NDArray[np.int64], rate_W: NDArray[np.float64]) -> NDArray[np.int64]:
    """What is to be reserved of amounts, of which so large a share is expected to be owed; rounded up."""
    return np.ceil(micros_W * rate_W).astype(np.int64)


_BEFORE = "decided_before"


def _refused(ask: AdAsk, now_ms: int, *, begun: bool) -> Iterator[Decision]:
    """What is empty whatever there is: places that are no auction, and all where a gate says no, or was sold before."""
    pairs = [(one.imp_id, one.decision_id, one.tagid, one.reason, one.nbr) for one in ask.unfilled]
    if ask.refused or begun:
        reason = Loss(ask.refused).name if ask.refused else _BEFORE
        for place in ask.places:
            if ask.refused or not place.page:
                nbr = _TECHNICAL if ask.refused == Loss.internal else 0
                pairs += [(*named, place.tagid, reason, nbr) for named in place.named]
    for imp_id, decision_id, tagid, reason, nbr in pairs:
        record = _nothing(ask, (imp_id, decision_id, tagid), now_ms, nbr=nbr, reasons=(reason,))
        outcome: Outcome = "again" if reason == _BEFORE else "failed" if nbr == _TECHNICAL else "refused"
        yield Decision(record, encode(record), outcome)


def _nothing(ask: AdAsk, slot: tuple[str, str, str], now_ms: int, **why: Any) -> AdDecision:
    """An empty slot, named by its `imp`, its decision and its placement."""
    imp_id, decision_id, tagid = slot
    return AdDecision(
        decision_id=decision_id,
        user_id=ask.kept_user_id,
        imp_id=imp_id,
        tagid=tagid,
        slate_id=ask.slate_id or None,
        request_id=ask.request_id,
        decided_ms=now_ms,
        **why,
    )
