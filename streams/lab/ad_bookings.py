"""What is booked in a made-up house that sells ads: campaigns of all kinds, as records and as what was promised."""

from dataclasses import dataclass
from typing import Any

import numpy as np

START_MS = 1_750_032_000_000
"""Midnight before a Monday."""
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
EVENING = np.array([3, 2, 1, 1, 1, 1, 2, 4, 6, 7, 7, 8, 9, 8, 7, 7, 8, 10, 13, 16, 18, 17, 12, 6], np.float64)
"""How many come in each hour of a day, beside others."""
GENRES, PLACEMENTS = ("drama", "comedy", "crime", "sport", "news", "kids", "docs", "music"), ("home", "watch", "search")
PLACEMENT_SHARES = (0.5, 0.3, 0.2)
COUNTRIES, COUNTRY_SHARES = ("US", "DE", "FR"), (0.6, 0.3, 0.1)
EUR_IN_USD = 1.25
CLICK_RATE = 0.08
"""Of all impressions: as much as a model knows that has learned nothing of anybody."""
_CLICKS = 40
"""What a budget for clicks is for at least."""
_PRICE_SHARE = 0.7
"""Of its bid that a winner pays, about."""


@dataclass(frozen=True, slots=True)
class Cap:
    """At most so many impressions of a campaign, or an advertiser, to a person within so long."""

    level: str
    count: int
    window_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """A line item as it was booked.

    Attributes:
        key: `campaign/line item`.
        rank: of two the lower one is served first.
        kind: in the house's words.
        unit: what `amount` is in: `micros` of `currency`, `impressions`, `percent` of what matches, or nothing.
        amount: 0 where nothing was booked.
        bid: micros of the auction's currency per impression; where clicks are paid for, as an untaught model sees it.
        click: micros of the auction's currency per click, 0 where impressions are paid for.
        begin_ms, end_ms: the flight.
        genres, placements, countries: who it is for; empty is anybody.
        category: which of the `GENRES` the ad is about.
        deal: only requests that name it.
        cap: for each person.
        even: is it to be spread over its flight?
    """

    key: str
    advertiser: str
    rank: int
    kind: str
    unit: str
    amount: int
    currency: str
    bid: int
    click: int
    begin_ms: int
    end_ms: int
    genres: tuple[int, ...]
    placements: tuple[int, ...]
    countries: tuple[int, ...]
    category: int
    deal: str
    cap: Cap | None
    even: bool


@dataclass(slots=True)
class Draft:
    """Draws one campaign; kinds, sizes and flights go round, so that a small house has some of each."""

    draw: np.random.Generator
    n: int
    of: int
    slots: float

    def made(self) -> tuple[dict[str, Any], Booked]:
        """The record, and what was booked."""
        draw, n = self.draw, self.n
        kind = ("standard", "cpm", "cpc", "cpm", "standard", "cpm", "cpm", "cpm", "standard", "cpm")[n % 10]
        kind = {7: "sponsorship", 13: "house", 19: "deal"}.get(n % 20, kind)
        begin_h, hours = self._flight(kind)
        genres, placements, countries = self._audience(kind)
        bid, currency = int(draw.integers(2_500, 8_000)), "EUR" if n % 4 == 3 else "USD"
        units = self._units(kind, begin_h, hours, genres, placements, countries)
        unit, amount = self._booked(kind, units, bid, currency)
        booked = Booked(
            key=f"c{n}/l",
            advertiser=f"a{n // 2}",
            rank={"sponsorship": 0, "standard": 1, "house": 3}.get(kind, 2),
            kind=kind,
            unit=unit,
            amount=amount,
            currency=currency,
            bid=bid,
            click=int(bid / CLICK_RATE) if kind == "cpc" else 0,
            begin_ms=START_MS + begin_h * HOUR_MS,
            end_ms=START_MS + (begin_h + hours) * HOUR_MS,
            genres=genres,
            placements=placements,
            countries=countries,
            category=int(draw.choice(genres)) if genres else int(draw.integers(0, len(GENRES))),
            deal=f"d{n}" if kind == "deal" else "",
            cap=self._cap(kind, units),
            even=n % 10 != 5,
        )
        return record_of(booked), booked

    def _booked(self, kind: str, units: int, bid: int, currency: str) -> tuple[str, int]:
        if kind == "standard":
            return "impressions", units
        if kind == "sponsorship":
            return "percent", int(self.draw.integers(10, 40))
        return ("", 0) if kind == "house" else ("micros", int(units * _own(bid, currency) * _PRICE_SHARE))

    def _flight(self, kind: str) -> tuple[int, int]:
        """The hour it begins, and how many it lasts."""
        if kind in ("house", "sponsorship", "cpc", "deal") or self.draw.random() < 0.6:
            return 0, 24
        hours = int(self.draw.choice([1, 4, 8]))
        return int(self.draw.integers(7 if hours < 8 else 4, 25 - hours)), hours

    def _audience(self, kind: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        draw = self.draw
        if kind == "house":
            return (), (), ()
        if kind == "sponsorship":
            return (int(draw.integers(0, len(GENRES))),), (int(draw.integers(1, 3)),), ()
        many = int(draw.choice([0, 0, 2, 4]))
        genres = tuple(sorted(draw.choice(len(GENRES), many, replace=False).tolist()))
        placements = (int(draw.integers(0, 2)),) if draw.random() < 0.3 else ()
        countries = (int(draw.integers(0, 2)),) if draw.random() < 0.3 else ()
        return genres, placements, countries

    def _units(self, kind: str, begin_h: int, hours: int, genres: Any, placements: Any, countries: Any) -> int:
        """Impressions, or what many cost: ten, some, or, of a few, more than there are."""
        if self.n % 20 in (4, 9):
            return 10
        share = float(EVENING[begin_h : begin_h + hours].sum() / EVENING.sum())
        share *= len(genres) / len(GENRES) if genres else 1.0
        share *= PLACEMENT_SHARES[placements[0]] if placements else 1.0
        share *= COUNTRY_SHARES[countries[0]] if countries else 1.0
        if self.n % 40 == 16:
            return int(2 * share * self.slots)
        wish = self.slots / self.of * 0.6 * self.draw.lognormal(0, 0.6)
        if kind == "cpc":
            return max(int(wish), int(_CLICKS / CLICK_RATE))
        return max(int(min(wish, 0.15 * share * self.slots)), 10)

    def _cap(self, kind: str, units: int) -> Cap | None:
        if kind in ("house", "sponsorship") or self.n % 5 not in (1, 3):
            return None
        hourly = self.n % 2 == 1 and units < 1_000
        return Cap(
            level="advertiser" if self.n % 10 == 3 else "campaign",
            count=int(self.draw.integers(1, 4) if hourly else self.draw.integers(2, 7)),
            window_s=3_600 if hourly else 86_400,
        )


def record_of(line: Booked) -> dict[str, Any]:
    """The record of `campaigns` of a campaign with this one line item."""
    own = _own(line.bid, line.currency)
    bid = {"bid_type": "cpc", "bid_micros": int(own / CLICK_RATE)} if line.click else {"bid_micros": int(own * 1000)}
    terms: dict[str, Any] = {
        "impressions": {"goal": {"kind": "impressions", "quantity": line.amount}, **bid},
        "percent": {"goal": {"kind": "share", "quantity": line.amount}, **bid},
        "micros": {"budget_micros": line.amount, **bid},
        "": {},
    }[line.unit]
    if line.deal:
        terms["deal"] = {"id": line.deal, "bidfloor_micros": int(own * 800), "at": 3}
    told = _told(line.genres, GENRES), _told(line.placements, PLACEMENTS), _told(line.countries, COUNTRIES)
    creative = {
        "crid": "cr",
        "approved": True,
        "format": "banner",
        "adomain": [f"{line.advertiser}.example"],
        "categories": [GENRES[line.category]],
    }
    item = {
        "id": "l",
        "type": line.kind if line.kind in ("sponsorship", "standard", "house") else "price_priority",
        "flight_from": line.begin_ms,
        "flight_until": line.end_ms,
        "delivery": "even" if line.even else "asap",
        "targeting": {name: said for name, said in zip(("genre", "tagid", "country"), told, strict=True) if said},
        "creatives": [creative],
        **terms,
    }
    campaign = line.key.partition("/")[0]
    record = {"campaign_id": campaign, "advertiser": line.advertiser, "currency": line.currency, "line_items": [item]}
    if line.cap:
        unit = {3_600: "hour", 86_400: "day"}[line.cap.window_s]
        record["caps"] = [{"level": line.cap.level, "count": line.cap.count, "time_unit": unit}]
    return record


def _own(micros: int, currency: str) -> float:
    return micros / EUR_IN_USD if currency == "EUR" else micros


def _told(numbers: tuple[int, ...], names: tuple[str, ...]) -> list[str]:
    return [names[number] for number in numbers]
