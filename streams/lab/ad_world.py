"""A day in a house that sells ads, as plain data: who comes when, and what was booked.

People come along a curve with a peak in the evening; each has a chance to click that depends on what an ad is about.
Other buyers bid for every request: what they offer is its floor. Campaigns are of all kinds, small and large, for an
hour or the whole day.

>>> world = AdWorld.of(campaigns=20, requests=500, seed=1)
>>> len(world.records), len(world.time_ms_R), {line.unit for line in world.lines} >= {"micros", "impressions"}
(20, 500, True)
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.settings import Settings

START_MS = 1_750_032_000_000
"""Midnight before a Monday."""
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
EVENING = np.array([3, 2, 1, 1, 1, 1, 2, 4, 6, 7, 7, 8, 9, 8, 7, 7, 8, 10, 13, 16, 18, 17, 12, 6], np.float64)
"""How many come in each hour of a day, beside others."""
GENRES, PLACEMENTS = ("drama", "comedy", "crime", "sport", "news", "kids", "docs", "music"), ("home", "watch", "search")
COUNTRIES, COUNTRY_SHARES = ("US", "DE", "FR"), (0.6, 0.3, 0.1)
EUR_IN_USD = 1.25
_WEEK_D = 7
CLICK_RATE = 0.08
"""Of all impressions: as much as a model knows that has learned nothing of anybody."""
_CLICKS = 40
"""What a budget for clicks is for at least."""
_PRICE_SHARE = 0.7
"""Of its bid that a winner pays, about."""


def settings_of_house(tick_s: int) -> Settings:
    """Two currencies, leases that outlast ticks; an ad that was not shown after five minutes never is."""
    ads = {
        "currencies": ("USD=1000000", "EUR=800000"),
        "chunk_s": min(2 * tick_s, 300),
        "lease_s": min(10 * tick_s, 600),
        "reservation_s": 300,
    }
    small = {"slates": {"candidates": 20}, "learner": {"dimensions": 8}, "consent": {"default": "grant"}}
    return Settings.model_validate({**small, "ads": ads})


class Cap(NamedTuple):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class AdWorld:
    """R requests of U people in order of time, and campaigns.

    Attributes:
        records: of `campaigns`; `lines` are their line items.
        time_ms_R, user_R: who comes when.
        genre_R, placement_R, country_R: where to; numbers of the tables above.
        slots_R: places for ads.
        floor_R: what another buyer offers, micros per impression.
        deal_R: does the request name the house's deals?
        click_UC: chance to click, by what an ad is about.
        denied_U: who lets nothing be kept.
        week_ms: when people came in the week before.
    """

    seed: int
    records: tuple[dict[str, Any], ...]
    lines: tuple[Booked, ...]
    time_ms_R: NDArray[np.int64]
    user_R: NDArray[np.int64]
    genre_R: NDArray[np.int64]
    placement_R: NDArray[np.int64]
    country_R: NDArray[np.int64]
    slots_R: NDArray[np.int64]
    floor_R: NDArray[np.int64]
    deal_R: NDArray[np.bool_]
    click_UC: NDArray[np.float64]
    denied_U: NDArray[np.bool_]
    week_ms: NDArray[np.int64]

    @classmethod
    def of(cls, *, campaigns: int, requests: int, seed: int = 0) -> "AdWorld":
        """Draw a day."""
        draw = np.random.default_rng(seed)
        people = max(requests // 8, 50)
        time_ms_R = START_MS + np.sort(_times(draw, requests))
        weight_U = draw.pareto(2.5, people) + 0.3
        favourite_U, base_U = draw.integers(0, len(GENRES), people), CLICK_RATE * draw.lognormal(-0.125, 0.5, people)
        click_UC = np.repeat(base_U[:, None] * 0.7, len(GENRES), 1)
        click_UC[np.arange(people), favourite_U] *= 4.0
        user_R = draw.choice(people, requests, p=weight_U / weight_U.sum())
        own_R = draw.random(requests) < 0.4
        genre_R = np.where(own_R, favourite_U[user_R], draw.integers(0, len(GENRES), requests))
        country_U = draw.choice(len(COUNTRIES), people, p=COUNTRY_SHARES)
        slots_R = draw.choice([1, 2, 3], requests, p=[0.3, 0.4, 0.3])
        week_ms = np.concatenate([START_MS - (d + 1) * DAY_MS + _times(draw, requests) for d in range(_WEEK_D)])
        drawn = [_Draft(draw, n, campaigns, float(slots_R.sum())).made() for n in range(campaigns)]
        return cls(
            seed=seed,
            records=tuple(record for record, _ in drawn),
            lines=tuple(line for _, line in drawn),
            time_ms_R=time_ms_R,
            user_R=user_R,
            genre_R=genre_R,
            placement_R=draw.choice(len(PLACEMENTS), requests, p=[0.5, 0.3, 0.2]),
            country_R=country_U[user_R],
            slots_R=slots_R,
            floor_R=np.clip(draw.lognormal(np.log(1_200), 0.6, requests), 200, 20_000).astype(np.int64),
            deal_R=draw.random(requests) < 0.3,
            click_UC=np.clip(click_UC, 0.0, 0.5),
            denied_U=draw.random(people) < 0.03,
            week_ms=week_ms,
        )

    def request(self, r: int) -> dict[str, Any]:
        """The record of a request."""
        user, floor = int(self.user_R[r]), int(self.floor_R[r])
        deals = [{"id": line.deal} for line in self.lines if line.deal] if self.deal_R[r] else []
        pmp = {"pmp": {"deals": deals}} if deals else {}
        imp = {"banner": {}, "tagid": PLACEMENTS[self.placement_R[r]], "bidfloor": floor / 1000, **pmp}
        return {
            "request_id": f"r{r}",
            "user_id": f"u{user}",
            "n": 0,
            "imp": [{"id": str(slot + 1), **imp} for slot in range(self.slots_R[r])],
            "event_time": int(self.time_ms_R[r]),
            "deadline_ms": 600_000,
            "device": {"geo": {"country": COUNTRIES[self.country_R[r]]}},
            "site": {"content": {"genre": GENRES[self.genre_R[r]]}},
            **({"consent": {"gdpr": 1}} if self.denied_U[user] else {}),
        }

    def matching(self, line: Booked) -> NDArray[np.bool_]:
        """The requests that a line item is for, in its flight. Shape (R,)."""
        match_R = (self.time_ms_R >= line.begin_ms) & (self.time_ms_R < line.end_ms)
        asked = (line.genres, self.genre_R), (line.placements, self.placement_R), (line.countries, self.country_R)
        for wanted, said_R in asked:
            if wanted:
                match_R &= np.isin(said_R, wanted)
        if line.cap:
            match_R &= ~self.denied_U[self.user_R]
        return match_R & self.deal_R if line.deal else match_R

    def share_by(self, line: Booked, at_ms: int) -> float:
        """How much of the traffic of its flight has come by a moment."""
        begin, end, at = np.searchsorted(self.time_ms_R, [line.begin_ms, line.end_ms, at_ms]).tolist()
        return min(max((at - begin) / max(end - begin, 1), 0.0), 1.0)


def _times(draw: np.random.Generator, many: int) -> NDArray[np.int64]:
    """Moments of a day, which is never quite like another."""
    weight_H = EVENING * draw.lognormal(0, 0.08, 24)
    hour = draw.choice(24, many, p=weight_H / weight_H.sum())
    return np.asarray(hour * HOUR_MS + draw.integers(0, HOUR_MS, many))


@dataclass
class _Draft:
    """Draws one campaign; kinds, sizes and flights go round, so that a small house has some of each."""

    draw: np.random.Generator
    n: int
    of: int
    slots: float

    def made(self) -> tuple[dict[str, Any], Booked]:
        draw, n = self.draw, self.n
        kind = ("standard", "cpm", "cpc", "cpm", "standard", "cpm", "cpm", "cpm", "standard", "cpm")[n % 10]
        kind = {7: "sponsorship", 13: "house", 19: "deal"}.get(n % 20, kind)
        begin_h, hours = self._flight(kind)
        genres, placements, countries = self._audience(kind)
        bid, currency = int(draw.integers(2_500, 8_000)), "EUR" if n % 4 == 3 else "USD"
        units = self._units(kind, begin_h, hours, genres, placements, countries)
        cap = self._cap(kind, units)
        begin_ms, end_ms = START_MS + begin_h * HOUR_MS, START_MS + (begin_h + hours) * HOUR_MS
        line = {
            "id": "l",
            "type": kind if kind in ("sponsorship", "standard", "house") else "price_priority",
            "flight_from": begin_ms,
            "flight_until": end_ms,
            "delivery": "asap" if n % 10 == 5 else "even",
        }
        told = _told(genres, GENRES), _told(placements, PLACEMENTS), _told(countries, COUNTRIES)
        line["targeting"] = {k: v for k, v in zip(("genre", "tagid", "country"), told, strict=True) if v}
        own = bid / EUR_IN_USD if currency == "EUR" else bid
        click = 0
        unit, amount = "", 0
        if kind == "standard":
            unit, amount = "impressions", units
            line |= {"goal": {"kind": "impressions", "quantity": units}, "bid_micros": int(own * 1000)}
        elif kind == "sponsorship":
            unit, amount = "percent", int(draw.integers(10, 40))
            line |= {"goal": {"kind": "share", "quantity": amount}, "bid_micros": int(own * 1000)}
        elif kind != "house":
            unit, amount = "micros", int(units * own * _PRICE_SHARE)
            click = int(bid / CLICK_RATE) if kind == "cpc" else 0
            paid = {"bid_type": "cpc", "bid_micros": int(own / CLICK_RATE)} if click else {"bid_micros": int(own * 1000)}
            line |= {"budget_micros": amount, **paid}
        if kind == "deal":
            line["deal"] = {"id": f"d{n}", "bidfloor_micros": int(own * 800), "at": 3}
        category = int(draw.choice(genres)) if genres else int(draw.integers(0, len(GENRES)))
        advertiser = f"a{n // 2}"
        line["creatives"] = [
            {
                "crid": "cr",
                "approved": True,
                "format": "banner",
                "adomain": [f"{advertiser}.example"],
                "categories": [GENRES[category]],
            }
        ]
        record: dict[str, Any] = {
            "campaign_id": f"c{n}",
            "advertiser": advertiser,
            "currency": currency,
            "line_items": [line],
        }
        if cap:
            unit_of = {3_600: "hour", 86_400: "day"}[cap.window_s]
            record["caps"] = [{"level": cap.level, "count": cap.count, "time_unit": unit_of}]
        booked = Booked(
            key=f"c{n}/l",
            advertiser=advertiser,
            rank={"sponsorship": 0, "standard": 1, "house": 3}.get(kind, 2),
            kind=kind,
            unit=unit,
            amount=amount,
            currency=currency,
            bid=bid,
            click=click,
            begin_ms=begin_ms,
            end_ms=end_ms,
            genres=genres,
            placements=placements,
            countries=countries,
            category=category,
            deal=f"d{n}" if kind == "deal" else "",
            cap=cap,
            even=line["delivery"] == "even",
        )
        return record, booked

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
        share *= (0.5, 0.3, 0.2)[placements[0]] if placements else 1.0
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


def _told(numbers: tuple[int, ...], names: tuple[str, ...]) -> list[str]:
    return [names[number] for number in numbers]
