"""Everything that a decision knows of campaigns, as it was at one moment, and the one writer that keeps it.

>>> exchange = Exchange(Currencies(version="1", micros={"EUR": 1_000_000}), "EUR")
>>> exchange.market.rows
0
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranking.ads import terms
from ranking.ads.auction import At
from ranking.ads.campaigns import Campaign, Delivery, LineItem
from ranking.ads.caps import Caps, LineCaps, known_caps
from ranking.ads.conjunctions import disjuncts
from ranking.ads.currencies import Currencies
from ranking.ads.floors import per_impression
from ranking.ads.inventory import House, Inventory, PerLine
from ranking.ads.losses import Loss
from ranking.ads.pacing import Limit, Plans
from ranking.ads.targeting import Snapshot, Targeting
from ranking.errors import CampaignRefused, RankingError, UnknownCurrency

_TERMS = np.dtype(
    [
        ("tier", "i8"), ("bid_micros", "i8"), ("deal_micros", "i8"), ("deal_at", "i1"), ("barred", "i2"),
        ("billed_by", "i1"), ("counted", "i1"), ("share", "i8"), ("version", "i8"), ("start_ms", "i8"),
        ("end_ms", "i8"), ("limit", "i8", (4,)), ("campaign_limit", "i8", (2,)), ("over_percent", "i8"),
        ("asap", "?"), ("hours", "i8"), ("zone", "i8"),
    ]
)  # fmt: skip
_FEW_HOURS = 64
"""So many choices of hours are not worth looking for those that are nobody's."""
_NUMBERS = [Limit.lifetime_count, Limit.day_count]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Market:
    """All campaigns at one moment: L rows of line items, some empty. It never changes; read it from any thread.

    Attributes:
        rows: L.
        house: line items and creatives.
        targeting: whom line items are for.
        currency: the auction's.
        rates: what other currencies are worth.
        key_L: hashes of line items' keys, the same in every worker; 0 where there is none.
        tier_L: who is served before whom: `terms.tier`.
        bid_micros_L: what is bid, in the auction's currency, rounded down: per thousand impressions or per event.
        deal_micros_L: floor or price of its deal per impression, in the auction's currency, rounded up; 0 without one.
        deal_at_L: `At.market` without a deal, else the deal's own rule.
        barred_L: 0, or a `Loss`: it does not bid, `why_not` says why.
        why_not: by key of a line item that does not bid, a sentence.
        plans: what was promised, money in the currency of each campaign. Clocks are UTC and a line item's flight goes
            from the beginning of its first to the end of its last: whoever paces knows what time it is.
        campaign_limit_L2: the campaign's own budget in all and a day, in its currency; `UNLIMITED` where it has none.
        share_L: percent of its opportunities that were booked, 0 where no share was.
        billed_by_L: places in `terms.BILLED_BY`.
        counted_L: places in `terms.COUNTED`: what its goal is in.
        version_L: the version of the campaign's record.
        caps: frequency caps of line items and creatives.
        hours: day-parts by `plans.hours_L`; None are all hours.
        zone_L: places in `zones`: the clock that days and day-parts are of.
    """

    rows: int
    house: House
    targeting: Snapshot
    currency: str
    rates: Currencies
    key_L: NDArray[np.uint64]
    tier_L: NDArray[np.int64]
    bid_micros_L: NDArray[np.int64]
    deal_micros_L: NDArray[np.int64]
    deal_at_L: NDArray[np.int8]
    barred_L: NDArray[np.int16]
    why_not: Mapping[str, str]
    plans: Plans
    campaign_limit_L2: NDArray[np.int64]
    share_L: NDArray[np.int64]
    billed_by_L: NDArray[np.int8]
    counted_L: NDArray[np.int8]
    version_L: NDArray[np.int64]
    hours: tuple[terms.Hours | None, ...]
    caps: Caps
    zone_L: NDArray[np.int64]
    zones: tuple[str, ...]

    @property
    def lines(self) -> tuple[LineItem | None, ...]:
        """Line items by row; None where there is none."""
        return self.house.lines

    @property
    def sells(self) -> bool:
        """Is there any campaign, or was there one? Of those that were stopped events still come."""
        return self.rows > 0

    def booked(self, row: int) -> bool:
        """Was a number booked of a line item, in all or a day?"""
        return bool(self.booked_of(row))

    def booked_of(self, row_X: NDArray[np.integer] | int) -> NDArray[np.bool_]:
        """Was a number booked of line items? Shape (X,)."""
        booked_X: NDArray[np.bool_] = (self.plans.limit_LG[row_X][..., _NUMBERS] >= 0).any(-1)
        return booked_X

    def charged(self, row_W: NDArray[np.integer], micros_W: NDArray[np.int64]) -> NDArray[np.int64]:
        """Amounts of the auction's currency in those of the line items' budgets, rounded down. Shape (W,).

        Of what was bid nobody is charged more than they said: both conversions round down.
        """
        named = [line.currency if (line := self.lines[row]) else self.currency for row in row_W.tolist()]
        own_W = micros_W.astype(np.int64)
        for code in set(named) - {self.currency}:
            at_W = np.array([name == code for name in named])
            own_W[at_W] = self.rates.convert(own_W[at_W], self.currency, code)
        return own_W


def same_currency(campaign_id: str, currency: str, currency_of: Mapping[str, str]) -> None:
    """A campaign keeps its currency for life: what it spent stands in the ledger in that money.

    Raises:
        CampaignRefused: it had another one.
    """
    if (before := currency_of.get(campaign_id, currency)) != currency:
        raise CampaignRefused("currency", currency, f"{before}, which it has spent in; another one needs another id")


@dataclass(slots=True)
class Exchange:
    """Campaigns as they come and go, for one writer; `market` is what any thread decides by.

    A change works out what changed and copies columns: see `docs/ads.md` for what that takes.
    """

    rates: Currencies
    currency: str
    market: Market = field(init=False)
    _inventory: Inventory = field(init=False, default_factory=Inventory)
    _targeting: Targeting = field(init=False, default_factory=Targeting)
    _term_L: NDArray[Any] = field(init=False, default_factory=lambda: np.zeros(64, _TERMS))
    _curves: dict[int, tuple[float, ...]] = field(init=False, default_factory=dict)
    _room: int = field(init=False, default=_FEW_HOURS)
    _hours_of: dict[terms.Hours | None, int] = field(init=False, default_factory=lambda: {None: 0})
    _zone_of: dict[str, int] = field(init=False, default_factory=lambda: {"UTC": 0})
    _why_not: dict[int, str] = field(init=False, default_factory=dict)
    _caps_known: PerLine[LineCaps] = field(init=False, default_factory=known_caps)
    _currency_of: dict[str, str] = field(init=False, default_factory=dict)
    """Of every campaign that ever competed here: what it spent is of that money, also once it was stopped."""

    def __post_init__(self) -> None:
        """Raises UnknownCurrency: the auction's has no rate. Nothing starts with such settings."""
        self.rates.convert(np.zeros(1, np.int64), self.currency, self.currency)
        self.market = self._made()

    def put(self, campaign: Campaign, version: int = 0) -> None:
        """Take over a campaign whole, in place of what it was.

        Raises:
            TargetingRefused: A line item comes to too many conjunctions; the campaign stays as it was.
            CampaignRefused: It is in another currency than it was; it stays as it was.
        """
        self.change([(campaign, version)])

    def stop(self, campaign_id: str) -> None:
        """Take a campaign out; nothing happens where there is none."""
        self.change([], [campaign_id])

    def change(self, campaigns: Sequence[tuple[Campaign, int]], stopped: Sequence[str] = ()) -> None:
        """Take over campaigns with their versions, take others out, and hand out one new market for all.

        Raises:
            TargetingRefused, CampaignRefused: as `put`; then none of them is taken over, and none taken out.
        """
        for campaign, _ in campaigns:
            same_currency(campaign.id, campaign.currency, self._currency_of)
            for line in campaign.line_items:
                disjuncts(line.targeting)
        for name in stopped:
            self._drop(self._inventory.stop(name))
        for campaign, version in campaigns:
            self._currency_of[campaign.id] = campaign.currency
            rows, gone = self._inventory.put(campaign)
            self._drop(gone - rows.keys())
            for row, line in rows.items():
                self._take(row, line, campaign, version)
        self.market = self._made()

    def _drop(self, rows: set[int]) -> None:
        for row in rows:
            self._targeting.remove(row)
            self._term_L[row] = np.zeros((), _TERMS)
            for held in (self._curves, self._why_not):
                held.pop(row, None)

    def _take(self, row: int, line: LineItem, campaign: Campaign, version: int) -> None:
        self._targeting.put(row, line.targeting)
        if row >= len(self._term_L):
            self._term_L = np.concatenate((self._term_L, np.zeros(max(row + 1, len(self._term_L)), _TERMS)))
        for held in (self._curves, self._why_not):
            held.pop(row, None)
        if (curve := terms.curve(line)) != (1.0,):
            self._curves[row] = curve
        bid, deal, barred = self._prices(row, line)
        hours = terms.hours_asked(line.targeting)
        self._term_L[row] = (
            *(terms.tier(line), bid, deal, line.deal.at if line.deal else At.market, barred),
            *(terms.billed_by(line), terms.counted(line), terms.share(line), version),
            *(line.flights[0][0], line.ends_ms, terms.limits(line)),
            (terms.least(campaign.budget_micros), terms.least(campaign.daily_budget_micros)),
            *(line.overdelivery, line.delivery is Delivery.asap),
            self._hours_of.setdefault(hours, len(self._hours_of)),
            self._zone_of.setdefault(line.time_zone, len(self._zone_of)),
        )

    def _prices(self, row: int, line: LineItem) -> tuple[int, int, int]:
        """Its bid, its deal's floor per impression, and the `Loss` of one that does not bid."""
        floor = per_impression(np.array([line.deal.floor_micros if line.deal else 0]))
        try:
            bid = self.rates.convert(np.array([line.bid_micros]), line.currency, self.currency)
            floor = self.rates.convert(floor, line.currency, self.currency, up=True)
        except (UnknownCurrency, OverflowError) as error:
            why = str(error) if isinstance(error, RankingError) else f"its bid is too much for {self.currency}"
            self._why_not[row] = f"it does not bid: {why}"
            return 0, 0, int(Loss.invalid)
        return int(bid[0]), int(floor[0]), 0

    def _renumber(self) -> None:
        """Give choices of hours numbers anew where more than half of them are nobody's any more."""
        lines = [(row, line) for row, line in enumerate(self._inventory.snapshot().lines) if line is not None]
        asked = {row: terms.hours_asked(line.targeting) for row, line in lines}
        used = {None, *asked.values()}
        if 2 * len(used) < len(self._hours_of):
            self._hours_of = {hours: number for number, hours in enumerate(dict.fromkeys([None, *asked.values()]))}
            for row, hours in asked.items():
                self._term_L["hours"][row] = self._hours_of[hours]
        self._room = max(2 * len(used), _FEW_HOURS)

    def _made(self) -> Market:
        if len(self._hours_of) > self._room:
            self._renumber()
        house, targeting = self._inventory.snapshot(), self._targeting.snapshot()
        term_L = self._term_L[: house.rows]
        column = {name: term_L[name].copy() for name in _TERMS.names or ()}
        return Market(
            rows=house.rows,
            house=house,
            targeting=targeting,
            currency=self.currency,
            rates=self.rates,
            key_L=house.line_L["hash"].copy(),
            tier_L=column["tier"],
            bid_micros_L=column["bid_micros"],
            deal_micros_L=column["deal_micros"],
            deal_at_L=column["deal_at"],
            barred_L=column["barred"],
            why_not={line.key: why for row, why in self._why_not.items() if (line := house.lines[row])},
            plans=self._plans(column),
            campaign_limit_L2=column["campaign_limit"],
            share_L=column["share"],
            billed_by_L=column["billed_by"],
            counted_L=column["counted"],
            version_L=column["version"],
            hours=tuple(self._hours_of),
            zone_L=column["zone"],
            zones=tuple(self._zone_of),
            caps=Caps.of(house.lines, self._caps_known),
        )

    def _plans(self, column: Mapping[str, NDArray[Any]]) -> Plans:
        rows = len(column["tier"])
        curve_LK = np.zeros((rows, max(map(len, self._curves.values()), default=1)))
        curve_LK[:, 0] = 1.0
        parts_L = np.ones(rows, np.int64)
        for row, curve in self._curves.items():
            curve_LK[row, : len(curve)] = curve
            parts_L[row] = len(curve)
        return Plans(
            start_ms_L=column["start_ms"],
            end_ms_L=column["end_ms"],
            limit_LG=column["limit"],
            curve_LK=curve_LK,
            parts_L=parts_L,
            asap_L=column["asap"],
            over_percent_L=column["over_percent"],
            offset_ms_L=np.zeros(rows, np.int64),
            hours_L=column["hours"],
        )
