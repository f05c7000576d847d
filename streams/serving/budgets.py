"""What this worker may spend now: who may bid how often, what is covered, and what the ledger is asked once a second.

Deciding never waits: `may_bid` and `take` look at columns that `tick` has set. `tick` asks the spend ledger what all
workers spent, works out the pace (`ranking.ads.pacing`), and brings leases up or down. Whoever has no lease sells
nothing; sums that are too old stop selling.

Several workers: all see the same sums. What passing brings is learned from these sums, so each worker multiplies its
own pass rate by the same factor, lacking over coming, and together they come to the plan whatever their number is. One
that starts, or gets partitions, begins with few passes and doubles each second. What is due and not sold yet is divided
by partitions of requests: a unit of it belongs to the worker that owns its partition, so that the last impression of
ten is not sold by three; which partition that is changes with time, should its owner have nobody to show it to.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from embeddings.errors import LedgerClosed, StoreRefused, StoreUnavailable
from embeddings.keepsake import Keepsake
from embeddings.spend import ONE, SpendLedger
from ranking.ads.campaigns import BidType
from ranking.ads.holdings import ANY_UNITS, Holdings, own_units
from ranking.ads.losses import Loss
from ranking.ads.market import Exchange, Market
from ranking.ads.pacing import SYSTEMS, Limit, Pace, PacingSettings, System, Tick, pace
from ranking.ads.promises import Promises, open_CH, promises
from ranking.ads.terms import BILLED_BY
from ranking.ads.traffic import Traffic
from ranking.ads.turns import needs
from streams.ad_settings import Ads
from streams.serving.leases import Leases
from streams.serving.ledger_windows import NOT_BOOKED, Booked, BudgetTeller, LineWindows, booked_of
from streams.serving.sums import Sums

_QUARTER_MS = 900_000
_TURN_MS = 30_000
"""After so long the units that are left belong to other partitions."""
_SWEEP_MS, _FIRST_MS = 5_000, 1_000
_MONEY, _COUNT = [Limit.lifetime_micros, Limit.day_micros], [Limit.lifetime_count, Limit.day_count]
_MOST = np.iinfo(np.int64).max
_FEW = 8
"""So many bids at least are in whatever budget is not looked at closely, in whichever currency it is."""


class Budgets:
    """What one worker may spend. `tick` and `give_back` are for one thread of its own, everything else for any.

    Attributes:
        worker: the name that reservations are made under.
        owned: the partitions of requests that are this worker's now; None where all are.
        traffic: when people come, as this worker has learned it.
        trouble: why the ledger is not asked, or None.
        bears_s: so long after a tick what it leased lasts, and its sums do though the next tick does not hear any.
    """

    def __init__(
        self,
        ledger: SpendLedger,
        exchange: Exchange,
        settings: Ads,
        *,
        worker: str,
        partitions: int = 1,
        pacing: PacingSettings | None = None,
        system: System = SYSTEMS["marquee"],
        curve: Keepsake | None = None,
        version: Callable[[int], int] = int,
    ) -> None:
        """Nothing is asked before the first tick that finds campaigns.

        Args:
            ledger: for ticks alone: it may block.
            exchange: whose market is paced.
            settings: how much is leased, for how long.
            worker: a name that no other life of a process has.
            partitions: how many requests have.
            pacing: how far ahead pacing looks.
            system: how it is paced; others than ours are yardsticks.
            version: what the ledger calls a version of the market; see `CampaignLives.told`.
            curve: where what was learned of traffic is left to whoever comes after; without it they begin anew.
        """
        self.worker, self.traffic = worker, Traffic()
        self.owned: Collection[int] | None = None
        self.trouble: str | None = None
        self._ledger, self._exchange = ledger, exchange
        self._curve, self._inherited = curve, curve is None
        self._partitions = partitions
        self._pacing, self._system = pacing or PacingSettings(), system
        self.bears_s = min(settings.chunk_s, self._pacing.dead_man_ms / 2_000)
        self._leases = Leases(ledger, worker, 1000 * settings.chunk_s, int(1000 * settings.lease_s))
        self._lock = Lock()
        self._held = Holdings.of(np.zeros(0, np.uint64))
        self._seen: list[NDArray[np.int64]] = []
        self._market: Market | None = None
        self._bid_L = np.zeros(0, np.int64)
        sums = Sums(sure=not settings.surfaces)
        self._teller, self._sums, self._pace = BudgetTeller(version), sums, Pace.fresh(0)
        self._told_L3, self._need_L = np.zeros((0, 3), np.int64), np.zeros(0)
        self._now_ms, self._quarter, self._swept_ms, self._retell = 0, -1, 0, False

    def saw(self, times_ms: NDArray[np.int64]) -> None:
        """Requests that could have had an ad came at these event times."""
        with self._lock:
            self._seen.append(np.asarray(times_ms, np.int64))

    def may_bid(
        self, market: Market, row_M: NDArray[np.integer], draw_M: NDArray[np.uint64], now_ms: int
    ) -> NDArray[np.int16]:
        """0, `Loss.paced` or `Loss.budget_exhausted` for each candidate; counts chances, so ask once. Shape (M,).

        Args:
            market: what rows are of.
            row_M: line items that could serve, for everything else.
            draw_M: a hash of request and line item: the same one has the same answer at the same pace.
            now_ms: wall clock, for leases.
        """
        with self._lock:
            return self._held.judge(market.key_L, row_M, draw_M, now_ms)

    def bids(self, market: Market) -> NDArray[np.int64]:
        """What each line item bids, as `Market.bid_micros_L`: of a budget that is nearly spent what is left of it.

        So the last impression is bought cheaper, or not at all, and a click never costs more than there is. Shape (L,).
        """
        with self._lock:
            return self._bid_L if market is self._market and len(self._bid_L) else market.bid_micros_L

    def needs(self, market: Market, row_M: NDArray[np.integer]) -> NDArray[np.float64]:
        """The share of all its chances that each candidate's line item needs: `ranking.ads.turns.needs`. Shape (M,)."""
        with self._lock:
            held, need_L = self._held, self._need_L
            if not need_L.any() or len(need_L) != len(held.key_L):
                return np.zeros(len(row_M))
            row_M = np.minimum(row_M, len(need_L) - 1)
            return np.where(held.key_L[row_M] == market.key_L[row_M], need_L[row_M], 0.0)

    def take(
        self, market: Market, row_W: NDArray[np.integer], micros_W: NDArray[np.int64], now_ms: int
    ) -> NDArray[np.bool_]:
        """Spend wins in their order; what is not covered must not be sold. Shape (W,).

        Args:
            market: what rows are of.
            row_W: the winners.
            micros_W: what will be reserved for each, in the currency of its budgets: `market.charged`.
            now_ms: wall clock, for leases.
        """
        with self._lock:
            return self._held.take(market.key_L, row_W, micros_W, now_ms)

    def told(self, market: Market, row_W: NDArray[np.integer], micros_W: NDArray[np.int64]) -> None:
        """The ledger was asked to reserve wins that were covered: say so whatever it answered, once each."""
        with self._lock:
            self._held.told(market.key_L, row_W, micros_W)

    def windows(self, market: Market, row_W: NDArray[np.integer]) -> list[LineWindows]:
        """The budgets that line items' leases are out of, as of one moment; none where there is no lease. W of them.

        Reservations must name them. What was `booked` of them is of the same day.
        """
        lines = [(row, market.lines[row]) for row in row_W.tolist()]
        with self._lock:
            return [self._leases.windows(row, line.key if line is not None else "") for row, line in lines]

    def booked(self, market: Market, row: int, windows: LineWindows, chance: float | None = None) -> Booked:
        """What a reservation has to say of a number that was booked: `Reservation.booked`, `booked_by`, `holds`.

        Args:
            market: what rows are of.
            row: the winner.
            windows: what its lease is out of: see `windows`.
            chance: that what was booked happens, where it is no impression; without it as it has been so far.
        """
        line = market.lines[row]
        if line is None or not windows.bound or not market.booked(row):
            return NOT_BOOKED
        kind = BILLED_BY[market.counted_L[row]]
        if kind == "impression":
            chance = 1.0
        elif chance is None:
            chance = float(self._sums.yield_L[row]) if row < len(self._sums.yield_L) else 1.0
        return Booked(booked_of(line.key, windows.day), kind, min(max(round(chance * ONE), 1), ONE))

    def tick(self, now_ms: int) -> None:
        """Look at what was spent, set the pace, renew leases. A few round trips; none without campaigns.

        What the ledger refuses or does not answer is in `trouble`, and asked again at the next tick.
        """
        market = self._exchange.market
        if not market.sells:
            return
        self._align(market, now_ms)
        ms = max(now_ms - self._now_ms, 1) if self._now_ms else _FIRST_MS
        self._now_ms = now_ms
        with self._lock:
            held, seen = self._held, self._seen
            self._seen = []
            self._leases.learn(held, ms)
            open_units_L = held.untold_units_L.copy()
            came = held.begin()
        self._learn(market, seen, now_ms)
        heard = self._asked(lambda: self._hear(market, now_ms))
        want_L = self._set_pace(market, came, open_units_L, now_ms, now_ms - ms)
        if heard:
            self._asked(lambda: self._leases.renew(market, held, want_L, self._lock, now_ms))

    def give_back(self, now_ms: int) -> None:
        """Sell nothing any more and give leases back; where the ledger cannot be reached they end by themselves."""
        with self._lock:
            self._held = Holdings.of(np.zeros(0, np.uint64))
        self._asked(lambda: self._leases.give_back(now_ms))

    def _asked(self, call: Callable[[], None]) -> bool:
        """Whether the ledger did what it was asked for."""
        try:
            call()
        except LedgerClosed as error:
            self.trouble = str(error)
            self._sums.heard_ms = 0
            self._retell = True
            with self._lock:
                self._leases.forget(self._held)
            return False
        except (StoreUnavailable, StoreRefused) as error:
            self.trouble = str(error)
            return False
        self.trouble = None
        return True

    def _align(self, market: Market, now_ms: int) -> None:
        """Take over the rows of a market that is new."""
        if market is self._market:
            return
        key_L, before = market.key_L, self._held.key_L
        both = min(len(key_L), len(before))
        fresh_L = np.ones(market.rows, np.bool_)
        fresh_L[:both] = key_L[:both] != before[:both]
        version_L = np.full(market.rows, -1, np.int64)
        if self._market is not None:
            version_L[:both] = self._market.version_L[:both]
        changed_L = fresh_L | (version_L != market.version_L)
        self._teller.changed(market, np.flatnonzero(changed_L).tolist(), now_ms)
        with self._lock:
            self._held = self._held.aligned(key_L)
            self._leases.align(market, fresh_L, changed_L)
        self._sums.align(market, fresh_L, now_ms)
        self._pace = _aligned(self._pace, fresh_L, both)
        told_L3 = np.zeros((market.rows, 3), np.int64)
        told_L3[:both] = self._told_L3[:both]
        self._told_L3 = np.where(fresh_L[:, None], self._marks(), told_L3)
        with self._lock:
            self._market, self._bid_L = market, market.bid_micros_L
        self._quarter = -1

    def _marks(self) -> NDArray[np.int64]:
        """What rises as line items spend: their micros, their number, and their campaign's micros. Shape (L, 3)."""
        own_L2 = self._sums.spent_LG[:, [Limit.lifetime_micros, Limit.lifetime_count]]
        return np.column_stack((own_L2, self._sums.campaign_L2[:, 0]))

    def _learn(self, market: Market, seen: list[NDArray[np.int64]], now_ms: int) -> None:
        times_ms = np.concatenate([*seen, np.zeros(0, np.int64)])
        if not self._inherited:
            self._inherit()
        self.traffic = self.traffic.learn(times_ms, now_ms)
        if now_ms // _QUARTER_MS != self._quarter:
            self._quarter = now_ms // _QUARTER_MS
            self.traffic = replace(self.traffic, open_CH=open_CH(market, now_ms))
            if self._curve is not None and self._inherited:
                self._asked(lambda curve=self._curve: curve.keep(self.traffic.to_bytes()))  # type: ignore[misc]

    def _inherit(self) -> None:
        """Take over what another life has learned of traffic; where it cannot be asked, at the next tick."""
        curve, found = self._curve, list[bytes | None]()
        if curve is not None and self._asked(lambda: found.append(curve.load())):
            self._inherited = True
            self.traffic = self.traffic.with_learned(found[0] or b"")

    def _hear(self, market: Market, now_ms: int) -> None:
        if self._retell:  # a ledger that was rebuilt knows the budgets of the last published totals
            self._teller.changed(market, range(market.rows), now_ms)
            self._retell = False
        self._teller.passed(market, now_ms)
        self._teller.tell(self._ledger)
        if now_ms - self._swept_ms >= _SWEEP_MS:
            self._ledger.sweep(now_ms=now_ms)
            self._swept_ms = now_ms
        first = self._sums.unheard
        if self._sums.hear(self._ledger, market, now_ms):
            self._told_L3 = self._marks()
            if not first:
                with self._lock:
                    self._leases.forget(self._held)
                self._teller.changed(market, range(market.rows), now_ms)
                self._teller.tell(self._ledger)

    def _set_pace(
        self,
        market: Market,
        came: tuple[NDArray[np.float64], NDArray[np.float64]],
        open_units_L: NDArray[np.int64],
        now_ms: int,
        before_ms: int,
    ) -> NDArray[np.int64]:
        """Set pass rates and rooms until the next tick; returns what to hold of each budget, (L,)."""
        promised = promises(market, self._sums.spent_LG, self._sums.campaign_L2, now_ms)
        tick = Tick(
            now_ms=now_ms,
            before_ms=before_ms,
            chances_L=came[0],
            passed_L=came[1],
            gained_LU=self._gained(promised),
            spent_LG=promised.spent_LG,
            ledger_age_ms=now_ms - self._sums.heard_ms,
        )
        self._pace = pace(promised.plans, self.traffic, tick, self._pace, self._pacing, self._system)
        self._pace.gained_LU.clip(0, out=self._pace.gained_LU)
        target_LG = promised.plans.targets()
        bid_L = _within(market, np.where(target_LG >= 0, target_LG - promised.spent_LG, _MOST)[:, _MONEY].min(1))
        need_L = needs(promised.plans, self.traffic, self._pace, promised.spent_LG, self._sums.yield_L, now_ms)
        units_L, money_L = self._rooms(market, promised, target_LG, now_ms)
        over_L = ((target_LG >= 0) & (promised.spent_LG >= target_LG)).any(1)
        share_L = np.where(market.share_L > 0, market.share_L / 100, 1.0)
        with self._lock:
            held, self._bid_L, self._need_L = self._held, bid_L, need_L
            held.pass_L[:] = np.minimum(self._pace.pass_L, share_L)
            held.code_L[:] = np.where(over_L, Loss.budget_exhausted, np.where(self._pace.pass_L > 0, 0, Loss.paced))
            held.units_L[:] = units_L - open_units_L - held.since_L
        live_L = market.house.line_L["live"] & (self._pace.pass_L > 0) & (units_L > 0)
        return np.where(live_L, self._leases.wanted(money_L), 0)

    def _gained(self, promised: Promises) -> NDArray[np.float64]:
        """What all workers gained since the last tick, micros and number, of what binds each line item. (L, 2)."""
        marks_L3 = self._marks()
        since_L3 = (marks_L3 - self._told_L3).astype(np.float64)
        self._told_L3 = marks_L3
        own_LG = promised.plans.limit_LG[:, _MONEY]
        by_day_L = promised.shared_L2[:, 1] & (own_LG[:, 0] < 0)
        shared_L = promised.shared_L2[:, 0] | by_day_L
        micros_L = np.where(shared_L, since_L3[:, 2], since_L3[:, 0])
        return np.column_stack((micros_L, since_L3[:, 1]))

    def _rooms(
        self, market: Market, promised: Promises, target_LG: NDArray[np.int64], now_ms: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many wins are this worker's until the next tick, by booked numbers and by money. Two of shape (L,)."""
        mine_N = self._mine()
        turn_L = (market.key_L >> np.uint64(33)).astype(np.int64) + now_ms // _TURN_MS
        room_LG = np.where(target_LG >= 0, self._pace.allowed_LG - promised.spent_LG, _MOST)
        count_L = room_LG[:, _COUNT].min(1)
        wins_L = np.ceil(np.clip(count_L, 0, ANY_UNITS) / np.maximum(self._sums.yield_L, 1e-6)).astype(np.int64)
        first_L = turn_L + self._sums.spent_LG[:, Limit.lifetime_count]
        units_L = np.where(count_L < _MOST, own_units(wins_L, first_L, mine_N), ANY_UNITS)
        money_L, unit_L = room_LG[:, _MONEY].min(1), self._leases.unit_L
        bought_L = -(-np.clip(money_L, 0, _MOST >> 1) // unit_L)
        first_L = turn_L + self._sums.spent_LG[:, Limit.lifetime_micros] // unit_L
        paid_L = np.where(money_L < _MOST, own_units(bought_L, first_L, mine_N), ANY_UNITS)
        return units_L, np.minimum(paid_L, units_L)

    def _mine(self) -> NDArray[np.bool_]:
        if self.owned is None:
            return np.ones(1, np.bool_)
        mine_N = np.zeros(self._partitions, np.bool_)
        mine_N[[partition for partition in self.owned if partition < self._partitions]] = True
        return mine_N


def _within(market: Market, left_L: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bids, as far as `left_L` micros of line items' own currencies pay for one impression or event. Shape (L,)."""
    bid_L, type_L = market.bid_micros_L, market.house.line_L["bid_type"]
    each_L = np.where(type_L == BidType.cpm, -(-bid_L // 1000), bid_L)
    short = np.flatnonzero((left_L > 0) & (left_L < _FEW * each_L) & (market.barred_L == 0))
    if not len(short):
        return bid_L
    bid_L = bid_L.copy()
    for row in short.tolist():
        if (line := market.lines[row]) is not None:
            left = market.rates.convert(left_L[row : row + 1], line.currency, market.currency)[0]
            bid_L[row] = min(bid_L[row], left * (1000 if type_L[row] == BidType.cpm else 1))
    return bid_L


def _aligned(pace: Pace, fresh_L: NDArray[np.bool_], both: int) -> Pace:
    """The pace with rows of another market; fresh ones begin anew."""
    new = Pace.fresh(len(fresh_L))
    kept = np.flatnonzero(~fresh_L[:both])
    columns = {}
    for name in ("pass_L", "allowed_LG", "traffic_L", "chances_L", "passed_L", "gained_LU"):
        columns[name] = getattr(new, name).copy()
        columns[name][kept] = getattr(pace, name)[kept]
    return replace(new, **columns)
