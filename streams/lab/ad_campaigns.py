"""A house of three dozen campaigns beside a log: made of its own genres, of every type that a trafficker knows.

Names and advertisers are invented. Money is small, for a log of 100,000 events has only a few thousand places for ads.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from streams.contract.campaigns import Campaign, Cap, Creative, Deal, Flight, Goal, LineItem
from streams.lab.datasets import Log

BANNER, VIDEO = "beside the film", "before the film"
"""The two slots of a page, as `tagid`."""
COUNTRIES = ("US", "GB", "DE", "FR")
DEAL = "upfront-7"
RATES = ("USD=1000000", "EUR=920000")
"""What a unit of the base, dollars, is in each currency."""
PACED = "harbour-coffee/all-day"
"""The line item whose budget is shown beside its plan: it could spend it many times over."""
CAPPED = "saltmarsh-insurance/storm"
"""The line item whose cap is shown: it outbids everybody until a person has seen it as often as it may be seen."""
CAP = 2
SHARE, LONGEST_S = 0.8, 30
"""Expected show rate of a slot, and the longest video in seconds."""


class Booking(NamedTuple):
    """A campaign in one row: advertiser and line item, IAB's category, what the line item says, and its ads' shape."""

    key: str
    cat: str
    said: dict[str, Any]
    video: bool = False
    currency: str = "USD"


def genres_of(log: Log) -> list[str]:
    """The genres of a catalogue, those of most items first; one at least."""
    counted = Counter(genre for facts in log.items.values() for genre in facts.categories)
    return [genre for genre, _ in counted.most_common()] or ["film"]


def campaigns(genres: Sequence[str], *, begin_ms: int, end_ms: int, pages: int) -> list[Campaign]:
    """The house: 36 campaigns of one line item each, whose flights run between two moments.

    Args:
        genres: what they are about and aim at; fewer than there are campaigns come again.
        begin_ms: when flights begin.
        end_ms: when they end.
        pages: how many pages, each with both slots, are expected between; what is booked is a part of these.
    """
    house = [*_promised(genres, pages), *_by_price(genres, pages), *_by_click(genres), *_by_view(), *_own()]
    flight = Flight(begin=begin_ms, end=end_ms)
    return [_campaign(booking, genres[n % len(genres)], flight) for n, booking in enumerate(house)]


def _campaign(booking: Booking, genre: str, flight: Flight) -> Campaign:
    advertiser, _, line_id = booking.key.partition("/")
    name, domain = booking.key.replace("/", ": ").replace("-", " ").capitalize(), f"{advertiser}.example"
    shape: dict[str, Any] = (
        {"format": "video", "dur": 15} if booking.video else {"format": "banner", "w": 300, "h": 250}
    )
    creatives = [
        Creative(crid=crid, approved=True, categories=(genre,), text=f"{name} {crid}", behalf=domain, **shape)
        for crid in ("first", "second")
    ]
    line = LineItem(id=line_id, name=name, flights=(flight,), creatives=tuple(creatives), **booking.said)
    return Campaign(
        campaign_id=advertiser,
        advertiser=advertiser,
        name=name,
        currency=booking.currency,
        adomain=(domain,),
        cat=(booking.cat,),
        line_items=(line,),
    )


def _promised(genres: Sequence[str], pages: int) -> list[Booking]:
    """Shares and quantities: they come before whoever pays most."""

    def share(percent: int, cpm: int, **more: Any) -> dict[str, Any]:
        return {"type": "sponsorship", "goal": Goal("share", percent), "bid_micros": cpm * 1_000_000} | more

    def booked(kind: str, percent: float, cpm: int, **more: Any) -> dict[str, Any]:
        goal = Goal(kind, max(int(percent / 100 * pages), 1))
        return {"type": "standard", "goal": goal, "bid_micros": cpm * 1_000_000} | more

    first, second, third = (genres[n % len(genres)] for n in range(3))
    hourly, daily = (Cap(count=2, time_unit="hour", level="line_item"),), (Cap(count=4),)
    fans, here, there = {"segment": f"fans of {first}"}, {"country": ["US", "GB"]}, {"country": ["DE", "FR"]}
    ahead: dict[str, Any] = {"delivery": "front_loaded", "overdelivery": 5}
    return [
        Booking("northlight-cinemas/premiere", "IAB1", share(20, 12, targeting={"genre": first})),
        Booking("brass-lantern/festival", "IAB1-5", share(15, 11, targeting={"genre": second}), video=True),
        Booking("oakridge-radio/drive-time", "IAB1-6", share(25, 10, targeting={"keyvalues": {"section": third}})),
        Booking("juniper-rail/spring-fares", "IAB20", booked("impressions", 5, 9, caps=hourly)),
        Booking("meridian-air/long-haul", "IAB20-3", booked("impressions", 6, 10, targeting=here), video=True),
        Booking("tidewater-hotels/weekend", "IAB20-15", booked("viewable", 3, 9, **ahead)),
        Booking("pinecrest-skis/first-snow", "IAB17", booked("impressions", 3, 8, targeting=fans)),
        Booking("kestrel-bikes/commute", "IAB17", booked("clicks", 0.2, 9, targeting={"not": {"genre": third}})),
        Booking("fern-and-field/garden", "IAB10", booked("impressions", 4, 7, targeting=there), currency="EUR"),
        Booking("bellweather-books/stories", "IAB1-1", booked("completed", 3, 12), video=True),
        Booking("lumen-lamps/winter", "IAB10", booked("impressions", 5, 8, caps=daily), video=True),
    ]


def _by_price(genres: Sequence[str], pages: int) -> list[Booking]:
    """Whoever pays most per thousand, until its budget is spent."""

    def cpm(bid: float, percent: float = 0, **more: Any) -> dict[str, Any]:
        """With a budget for so many percent of all pages, where that is said."""
        money = {"budget_micros": max(int(bid * 1_000 * percent / 100 * pages), 1)} if percent else {}
        return {"bid_micros": int(bid * 1_000_000), **money} | more

    first, fourth, fifth = (genres[n % len(genres)] for n in (0, 3, 4))
    often, agreed = (Cap(count=CAP, time_unit="lifetime"),), Deal(DEAL, bidfloor_micros=11_000_000, at=3)
    evenings = ({"days": ["fri", "sat", "sun"], "from": 16, "until": 24},)
    there, lately = {"country": ["DE", "FR"]}, {"saw": {"category": first, "within": "30d"}}
    fans: dict[str, Any] = {"targeting": {"segment": f"fans of {fifth}"}, "delivery": "front_loaded"}
    return [
        Booking(PACED, "IAB8", cpm(20, 7)),
        Booking(CAPPED, "IAB13", cpm(24, targeting={"country": "GB"}, caps=often, delivery="asap")),
        Booking("cobalt-phones/launch", "IAB19", cpm(9, 10, caps=(Cap(count=6),))),
        Booking("quill-and-ink/notebooks", "IAB18", cpm(6, 15)),
        Booking("amber-oven/bread", "IAB8", cpm(7.5, 8, targeting=there), currency="EUR"),
        Booking("rook-games/board-night", "IAB9", cpm(8, 8, targeting={"genre": fourth}, dayparts=evenings)),
        Booking("silverline-cars/estate", "IAB2", cpm(16, 8, deal=agreed), video=True),
        Booking("copper-kettle/tea", "IAB8", cpm(10, 12), video=True),
        Booking("violet-opera/season", "IAB1-6", cpm(11, 10, targeting=lately), video=True, currency="EUR"),
        Booking("granite-tools/workshop", "IAB10", cpm(7, 6, **fans)),
    ]


def _by_click(genres: Sequence[str]) -> list[Booking]:
    """Whoever pays for clicks, and is worth what the chance of one makes of it."""

    def cpc(n: int, bid: float) -> dict[str, Any]:
        targeting = {"or": [{"genre": genres[n % len(genres)]}, {"country": list(COUNTRIES[: 2 + n % 3])}]}
        money = {"bid_micros": int(bid * 1_000_000), "budget_micros": 4_000_000}
        return {"bid_type": "cpc", "targeting": targeting, **money}

    return [
        Booking("papercrane/origami", "IAB9", cpc(0, 0.30)),
        Booking("willow-wear/linen", "IAB18", cpc(1, 0.25)),
        Booking("tern-travel/islands", "IAB20", cpc(2, 0.40), currency="EUR"),
        Booking("basil-box/suppers", "IAB8", cpc(3, 0.28)),
        Booking("owl-academy/evening-classes", "IAB5", cpc(4, 0.35)),
        Booking("hazel-pets/walkies", "IAB16", cpc(5, 0.22)),
    ]


def _by_view() -> list[Booking]:
    """Whoever pays for videos that were seen to their end."""

    def cpcv(bid: float) -> dict[str, Any]:
        return {"bid_type": "cpcv", "bid_micros": int(bid * 1_000_000), "budget_micros": 1_500_000}

    return [
        Booking("comet-streaming/trailer", "IAB1-7", cpcv(0.012), video=True),
        Booking("marigold-soap/morning", "IAB18-1", cpcv(0.010), video=True),
        Booking("drift-sails/regatta", "IAB17", cpcv(0.014), video=True),
        Booking("elm-furniture/home", "IAB10", cpcv(0.009), video=True),
        Booking("polar-gelato/summer", "IAB8", cpcv(0.011), video=True),
    ]


def _own() -> list[Booking]:
    """The house's own, where nobody pays: there is always something to show."""
    not_on_tv = {"not": {"devicetype": "ctv"}}
    return [
        Booking("the-house/gift-cards", "IAB1-5", {"type": "house"}),
        Booking("the-club/join", "IAB1-5", {"type": "house", "caps": (Cap(count=3),)}),
        Booking("the-app/get-it", "IAB19", {"type": "house", "targeting": not_on_tv}),
        Booking("the-letter/what-is-new", "IAB1-5", {"type": "house"}, video=True),
    ]
