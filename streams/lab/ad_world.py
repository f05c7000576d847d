"""A day in a house that sells ads, as plain data: who comes when, and what was booked.

People come along a curve with a peak in the evening; each has a chance to click that depends on what an ad is about.
Other buyers bid for every request: what they offer is its floor. Campaigns are of all kinds, small and large, for an
hour or the whole day.

>>> world = AdWorld.of(campaigns=20, requests=500, seed=1)
>>> len(world.records), len(world.time_ms_R), {line.unit for line in world.lines} >= {"micros", "impressions"}
(20, 500, True)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.lab.ad_bookings import (
    CLICK_RATE,
    COUNTRIES,
    COUNTRY_SHARES,
    DAY_MS,
    EVENING,
    GENRES,
    HOUR_MS,
    PLACEMENT_SHARES,
    PLACEMENTS,
    START_MS,
    Booked,
    Draft,
)
from streams.settings import Settings

_WEEK_D = 7


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
        drawn = [Draft(draw, n, campaigns, float(slots_R.sum())).made() for n in range(campaigns)]
        return cls(
            seed=seed,
            records=tuple(record for record, _ in drawn),
            lines=tuple(line for _, line in drawn),
            time_ms_R=time_ms_R,
            user_R=user_R,
            genre_R=genre_R,
            placement_R=draw.choice(len(PLACEMENTS), requests, p=PLACEMENT_SHARES),
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

    def who(self, request_id: str | None) -> int:
        """Who made a request, whatever its decision says of them."""
        return int(self.user_R[int((request_id or "r0")[1:])])

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
        return float(min(max((at - begin) / max(end - begin, 1), 0.0), 1.0))


def _times(draw: np.random.Generator, many: int) -> NDArray[np.int64]:
    """Moments of a day, which is never quite like another."""
    weight_H = EVENING * draw.lognormal(0, 0.08, 24)
    hour = draw.choice(24, many, p=weight_H / weight_H.sum())
    return np.asarray(hour * HOUR_MS + draw.integers(0, HOUR_MS, many))
