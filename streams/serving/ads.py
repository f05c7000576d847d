"""READ THIRD: places for ads become decisions: match, fit, cap, pace, predict, sell, reserve.

`AdServer.decide` is the whole of it, over columns; a stage turns candidates away with a code and hands on the others,
cheap stages first. It decides for requests, for simulation and for benches alike.

Who asks what is `known` first and reads the people's states after it counts every impression at least once (see
`embeddings.spend`). Nothing is written but the spend ledger: a decision stands once it is reserved there, and a request
that comes again is told the same. Where the ledger, or what is known of a person, cannot be reached, nobody is shown
an ad that would need it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.errors import LedgerClosed, StoreUnavailable
from embeddings.events import Source
from embeddings.spend import MOST_ROWS, Answer, InFlight, Reservation, SpendLedger, Verdict
from embeddings.state_columns import UserStates
from ranking.ads import caps
from ranking.ads.auction import At, Auction, Sold
from ranking.ads.campaigns import Type
from ranking.ads.exposed import People as Exposed
from ranking.ads.fit_tables import FitTables
from ranking.ads.floors import Floors
from ranking.ads.gates import without
from ranking.ads.inventory import House, running
from ranking.ads.losses import Loss
from ranking.ads.market import Exchange, Market
from ranking.ads.separation import sell_apart
from ranking.ads.targeting import listed
from ranking.ads.turns import crowded, yielded
from streams.contract.records import encode
from streams.serving.ad_beside import BesideHouse
from streams.serving.ad_bidding import bids_of
from streams.serving.ad_contest import Bids, Contest
from streams.serving.ad_decisions import Decided, Reasons, Recorder, Winners, at_rate, reserved
from streams.serving.ad_funnel import Funnel
from streams.serving.ad_histories import CategoryKeys, histories_of
from streams.serving.ad_pages import Organic, lay, unlaid
from streams.serving.ad_people import People, exposed_of, personal
from streams.serving.ad_reserves import reserves_of
from streams.serving.ad_scoring import AdScorer
from streams.serving.ad_values import AdAsk
from streams.serving.budgets import Budgets
from streams.serving.stages import StageTimer, epoch_ms, untimed
from streams.settings import Settings

log = logging.getLogger(__name__)
_ROUNDS = 3
"""So often a batch is sold, where budgets turn out not to cover a winner."""
_TELL_MS, _SAY_MS = 1_000, 60_000
_TELL_SHARE = 20
"""So many times longer than telling the funnel took it is not told again: of ten thousand line items that is long."""
_PACING = 1


class Sale(NamedTuple):
    """What the auctions came to; `taken_M` is what was taken of each candidate's budget, -1 where nothing was.

    `position_RS` are the places of winners on their pages, -1 where slots were asked for one by one.
    """

    auction: Auction
    sold: Sold
    taken_M: NDArray[np.int64]
    position_RS: NDArray[np.int64]


class Known(NamedTuple):
    """What is out for people, None for who cannot be looked up; what was decided before by id, None if not known."""

    flights: list[InFlight | None]
    before: dict[str, bytes] | None


@dataclass(slots=True, kw_only=True)
class AdServer:
    """Decides which ads are shown. One per thread that decides; ledger and funnel are its own.

    A ledger that does not answer should be let alone for a while (`Patience`): it is asked twice for every batch.

    A asks of P places (auctions of one or several slots each), M candidates (line items for a place), C creatives.
    """

    exchange: Exchange
    budgets: Budgets
    scorer: AdScorer
    beside: BesideHouse
    ledger: SpendLedger
    settings: Settings
    stage: StageTimer = untimed
    now_ms: Callable[[], int] = epoch_ms
    funnel: Funnel = field(default_factory=Funnel)
    _told_ms: int = field(init=False, default=0)
    _said_ms: int = field(init=False, default=0)
    _reasons: Reasons = field(init=False, default_factory=Reasons)
    _keys: CategoryKeys = field(init=False, default_factory=CategoryKeys)
    _tables: FitTables = field(init=False, default_factory=FitTables)
    _floors: Floors = field(init=False)
    _runs: tuple[House, NDArray[np.uint64], int] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._floors = self.settings.ads.floor_table()

    def prepare(self) -> None:
        """Work out what a new market needs beside it; by whoever reads campaigns, so that no request waits for it."""
        house = self.exchange.market.house
        self.beside.of(house)
        self.scorer.prepare(house)

    def known(self, persons: Sequence[str], asks: Sequence[AdAsk]) -> Known:
        """What the ledger knows: of people before their states are read, of slots when their requests came first.

        Nothing is looked up where nothing was ever sold. `before` is None where it cannot be looked up: then nothing
        can be reserved either.
        """
        people = list(dict.fromkeys(person for person in persons if person))
        ids = [decision_id for ask in asks for place in ask.places for decision_id in place.decision_ids]
        if not self.exchange.market.sells or not (people or ids):
            return Known([None] * len(persons), {})
        out, why = dict[str, InFlight](), ""
        before: dict[str, bytes] | None = None
        try:
            flights, decisions, why = self.ledger.known(people, ids)
            before = {name: value for name, value in zip(ids, decisions, strict=True) if value}
            out = dict(zip(people, flights or (), strict=False))
        except (LedgerClosed, StoreUnavailable) as error:
            why = str(error)
        if why and people:
            self._say("caps cannot be looked up, line items that have any are not served", why)
        return Known([out.get(person) for person in persons], before)

    def risk_of(self) -> Mapping[str, int]:
        """How risky each creative of the house is beside organic items, by key: `ad_pages.seats`."""
        return self.beside.of(self.exchange.market.house).risk_of

    def decide(
        self,
        asks: Sequence[AdAsk],
        people: People,
        before: Mapping[str, bytes] | None = None,
        organic: Organic | None = None,
    ) -> Decided:
        """What is shown in each place of each ask: decisions in their order, one per `imp`, or those of its page.

        Raises nothing transient.

        Args:
            asks: A of them.
            people: what is known of who asks; a profile is looked at only where `AdAsk.personal` allows it.
            before: what was decided before.
            organic: the items of their pages, where any ask is of one.
        """
        market, now_ms, before = self.exchange.market, self.now_ms(), before or {}
        contest = Contest.of(asks, before)
        if not len(contest.places):
            return Decided.empty(asks, before, now_ms)
        if not market.sells:
            return Decided.unsold(contest, market, now_ms).with_those_of(asks, before, now_ms)
        personal_A, exposed = personal(asks, people), exposed_of(asks, people)
        with self.stage("ads_decide"):
            self._match(contest, people.states, personal_A, market, now_ms)
            self._fit(contest, exposed, market, now_ms)
            self._cap(contest, exposed, market)
            self._pace(contest, market, now_ms)
            bids = bids_of(contest, self.scorer, people.states, personal_A, exposed, market, self.budgets.bids(market))
            sale = self._sell(contest, bids, market, now_ms, organic)
        with self.stage("ads_reserve"):
            decided = self._reserve(contest, bids, exposed, people.flights, market, sale, now_ms)
            return decided.with_those_of(asks, before, now_ms)

    def tell(self, parts: Sequence[tuple[Source, int, int]]) -> None:
        """Records of these partitions, from one offset to another, were decided on; now and then the ledger is told."""
        for source, first, last in parts:
            self.funnel.read(source, first, last)
        now_ms = self.now_ms()
        if now_ms < self._told_ms + _TELL_MS or not self.exchange.market.sells:
            return
        began_s = monotonic()
        try:
            self.funnel.tell(lambda tallies: self.ledger.reserve(self.budgets.worker, (), tallies, now_ms=now_ms))
        except (LedgerClosed, StoreUnavailable) as error:
            log.info("the funnel is told later: %s", error)
        self._told_ms = now_ms + int(1000 * _TELL_SHARE * (monotonic() - began_s))

    def _match(
        self, contest: Contest, states: UserStates, personal_A: NDArray[np.bool_], market: Market, now_ms: int
    ) -> None:
        """Candidates are the line items that a place is for, and whose last flight is not over."""
        opportunities = [place.opportunity for place in contest.places]
        user_P = contest.ask_P.astype(np.int64)
        seen = histories_of(states, user_P, personal_A[contest.ask_P], self.scorer.serving.items, self._keys)
        bits_PW = market.targeting.match(opportunities, seen) & self._running(market.house, now_ms)
        contest.start_P1, contest.row_M = listed(bits_PW)

    def _fit(self, contest: Contest, exposed: Exposed, market: Market, now_ms: int) -> None:
        """Which of their creatives may stand there, and are not capped themselves."""
        house = market.house
        slots = [place.slot for place in contest.places]
        fits = self._tables.fitting(house, slots, contest.start_P1, contest.row_M, now_ms)
        fits = without(fits, self.beside.of(house).sensitive_N, Loss.category_excluded)
        fits = caps.creatives_left(market.caps, exposed, contest.start_P1, contest.row_M, fits, contest.ask_P)
        contest.fits = fits
        contest.keep(np.where(fits.code_M != 0, fits.code_M, market.barred_L[contest.row_M]).astype(np.int16))

    def _cap(self, contest: Contest, exposed: Exposed, market: Market) -> None:
        """Who has shown enough to this person, by what they have seen and what is out, or may have."""
        code_M = caps.capped(market.caps, exposed, contest.start_P1, contest.row_M, contest.ask_P)
        unknown_M = ~exposed.known_P[contest.ask_P[contest.place_M]] & (code_M == Loss.capped)
        contest.keep(np.where(unknown_M, np.int16(Loss.cap_unknown), code_M))

    def _pace(self, contest: Contest, market: Market, now_ms: int) -> None:
        """Who may bid now: budgets, what is due by now, what this worker holds."""
        self.budgets.saw(np.array([ask.now_ms for ask in contest.asks], np.int64))
        contest.need_M = self._crowded(contest, market)
        draw_M = contest.draw_M(market.house.line_L["hash"][contest.row_M], _PACING)
        contest.keep(self.budgets.may_bid(market, contest.row_M, draw_M, now_ms))

    def _crowded(self, contest: Contest, market: Market) -> NDArray[np.float64]:
        """Whose tiers are booked beyond these places, and what each needs of them: they take turns. Shape (M,)."""
        need_M = self.budgets.needs(market, contest.row_M)
        if not need_M.any():
            return need_M
        return crowded(contest.start_P1, contest.slots_P, market.tier_L[contest.row_M], need_M)

    def _sell(self, contest: Contest, bids: Bids, market: Market, now_ms: int, organic: Organic | None) -> Sale:
        """The auctions of all places; who its budget does not cover, or no page takes, stands back: sold again."""
        auction, rate_P = self._auction(contest, bids, market), contest.show_rate_P
        kinds, page_P = self.beside.of(market.house).kinds, contest.ask_P.astype(np.int64)
        taken_M = np.full(len(contest.row_M), -1, np.int64)
        for _ in range(_ROUNDS):
            laid = unlaid(sell_apart(auction, page_P, kinds, bids.creative_M))
            if organic is not None and any(place.page for place in contest.places):
                laid = lay(contest, laid.sold, bids.creative_M, market, organic)
            sold, at_RS = laid.sold, np.nonzero(laid.sold.winner_RS >= 0)
            winner_W = sold.winner_RS[at_RS]
            new_W = taken_M[winner_W] < 0
            price_W = market.charged(contest.row_M[winner_W[new_W]], sold.price_RS[at_RS][new_W])
            price_W = at_rate(price_W, rate_P[at_RS[0][new_W]])
            covered_W = self.budgets.take(market, contest.row_M[winner_W[new_W]], price_W, now_ms)
            taken_M[winner_W[new_W][covered_W]] = price_W[covered_W]
            if covered_W.all() and not len(laid.blocked_B):
                break
            auction.barred_C[winner_W[new_W][~covered_W]] = Loss.budget_exhausted
            auction.barred_C[laid.blocked_B] = Loss.adjacency_block
        return Sale(auction, sold, taken_M, laid.position_RS)

    def _auction(self, contest: Contest, bids: Bids, market: Market) -> Auction:
        house, row_M = market.house, contest.row_M
        reserve_M, barred_M = reserves_of(contest, bids.creative_M, self._floors, market)
        crowd = contest.start_P1, contest.slots_P, market.tier_L[row_M], contest.need_M, bids.bid_M
        deal_M = market.deal_at_L[row_M]
        reserve_M = np.where(deal_M == At.market, np.maximum(reserve_M, yielded(*crowd)), reserve_M)
        return Auction(
            start_Q=contest.start_P1,
            request_R=contest.identity_P,
            slots_R=contest.slots_P,
            at_R=np.array([place.at for place in contest.places], np.int8),
            line_C=house.line_L["hash"][row_M],
            tier_C=contest.tier_M(market),
            bid_C=bids.bid_M,
            reserve_C=np.where(house.line_L["type"][row_M] == Type.house, 0, reserve_M),
            quality_C=np.full(len(row_M), 1000, np.int64),
            deal_C=deal_M,
            barred_C=barred_M,
        )

    def _reserve(
        self,
        contest: Contest,
        bids: Bids,
        exposed: Exposed,
        flights: Sequence[InFlight | None],
        market: Market,
        sale: Sale,
        now_ms: int,
    ) -> Decided:
        """Have the ledger keep what was sold: what it refuses is not shown, what it kept before stands."""
        winners = Winners.of(contest, sale.sold, sale.taken_M, sale.position_RS)
        recorder = Recorder(
            contest=contest,
            market=market,
            bids=bids,
            auction=sale.auction,
            sold=sale.sold,
            winners=winners,
            settings=self.settings.ads,
            reasons=self._reasons,
            now_ms=now_ms,
        )
        records = recorder.filled(self.budgets)
        values = [encode(record) for record in records]
        ask_W = contest.ask_P[winners.place_W]
        rooms = caps.rooms(market.caps, exposed, ask_W, winners.row_W, bids.creative_M[winners.candidate_W])
        theirs = [flights[ask] for ask in ask_W.tolist()]
        answers = self._answers(list(map(reserved, records, values, rooms, theirs)), now_ms)
        taken = np.flatnonzero(sale.taken_M >= 0)
        self.budgets.told(market, contest.row_M[taken], sale.taken_M[taken])
        self._count(contest, sale, winners, [answer.verdict for answer in answers], market)
        return recorder.decided(records, values, answers)

    def _count(
        self, contest: Contest, sale: Sale, winners: Winners, verdicts: Sequence[Verdict], market: Market
    ) -> None:
        for left in contest.left:
            self.funnel.candidates(market, left.row_M, left.code_M)
        self.funnel.candidates(market, contest.row_M, sale.sold.code_C)
        lost = np.flatnonzero(sale.sold.lost_to_C >= 0)
        self.funnel.lost(market, contest.row_M[lost], contest.row_M[sale.sold.lost_to_C[lost]])
        bidding_M = sale.auction.barred_C == 0
        self.funnel.told(market, "bid", contest.row_M[bidding_M])
        served_W = np.array([verdict is Verdict.reserved for verdict in verdicts], np.bool_)
        self.funnel.told(market, "served", winners.row_W[served_W])

    def _answers(self, reservations: Sequence[Reservation], now_ms: int) -> list[Answer]:
        """What the ledger says; nothing is shown where it cannot be reached."""
        answers, worker = list[Answer](), self.budgets.worker
        try:
            for at in range(0, len(reservations), MOST_ROWS):
                some = reservations[at : at + MOST_ROWS]
                answers += self.ledger.reserve(worker, some, now_ms=now_ms)
        except (LedgerClosed, StoreUnavailable) as error:
            self._say("ads cannot be reserved, so none is shown", error)
        return answers + [Answer(Verdict.closed, b"")] * (len(reservations) - len(answers))

    def _say(self, what: str, error: object) -> None:
        """Once in a while, not for every request."""
        now_ms = self.now_ms()
        if now_ms >= self._said_ms + _SAY_MS:
            self._said_ms = now_ms
            log.warning("%s: %s", what, error)

    def _running(self, house: House, now_ms: int) -> NDArray[np.uint64]:
        if self._runs is None or self._runs[0] is not house or now_ms >= self._runs[2]:
            self._runs = house, *running(house, now_ms)
        return self._runs[1]
