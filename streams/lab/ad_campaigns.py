"""A house of three dozen campaigns beside a log: made of its own genres, of every type that a trafficker knows.

Names and advertisers are invented. Money is small, for a log of 100,000 events has only a few thousand places for ads.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from streams.contract.campaigns import Cap, Campaign, Creative, Deal, Flight, Goal, LineItem
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
    """A campaign in one row: whose it is, its line item, what it is called, IAB category, type and what goes with it."""

    advertiser: str
    line: str
    name: str
    cat: str
    type: str
    said: dict[str, Any]
    video: bool = False
    currency: str = "USD"


def genres_of(log: Log) -> list[str]:
    """The genres of a catalogue, those of most items first; one at least."""
    counted = Counter(genre for facts in log.items.values() for genre in facts.categories)
    return [genre for genre, _ in counted.most_common()] or ["film"]


def campaigns(genres: Sequence[str], *, begin_ms: int, end_ms: int) -> list[Campaign]:
    """The house: 36 campaigns of one line item each, whose flights run between two moments.

    Args:
        genres: what they are about and aim at; fewer than there are campaigns come again.
        begin_ms: when flights begin.
        end_ms: when they end.
    """
    house = [*_promised(genres), *_by_price(genres), *_by_click(genres), *_by_view(genres), *_own(genres)]
    flight = Flight(begin=begin_ms, end=end_ms)
    return [_campaign(booking, genres[n % len(genres)], flight) for n, booking in enumerate(house)]


def _campaign(booking: Booking, genre: str, flight: Flight) -> Campaign:
    domain = f"{booking.advertiser}.example"
    shape: dict[str, Any] = {"format": "video", "dur": 15} if booking.video else {"format": "banner", "w": 300, "h": 250}
    creatives = [
        Creative(crid=crid, approved=True, categories=(genre,), text=f"{booking.name} {crid}", behalf=domain, **shape)
        for crid in ("first", "second")
    ]
    line = LineItem(
        id=booking.line, type=booking.type, flights=(flight,), creatives=tuple(creatives), **booking.said
    )
    return Campaign(
        campaign_id=booking.advertiser,
        advertiser=booking.advertiser,
        name=booking.name,
        currency=booking.currency,
        adomain=(domain,),
        cat=(booking.cat,),
        line_items=(line,),
    )


def _promised(genres: Sequence[str]) -> list[Booking]:
    """Shares and quantities: they come before whoever pays most."""

    def share(percent: int, bid: int, **more: Any) -> dict[str, Any]:
        return {"goal": Goal("share", percent), "bid_micros": bid * 1_000_000} | more

    def booked(kind: str, many: int, bid: int, **more: Any) -> dict[str, Any]:
        return {"goal": Goal(kind, many), "bid_micros": bid * 1_000_000} | more

    first, second, third = (genres[n % len(genres)] for n in range(3))
    by_hour = (Cap(count=2, time_unit="hour", level="line_item"),)
    return [
        Booking("northlight-cinemas", "premiere", "Northlight premiere nights", "IAB1", "sponsorship", share(20, 12, targeting={"genre": first})),
        Booking("brass-lantern", "festival", "Brass Lantern film festival", "IAB1-5", "sponsorship", share(15, 11, targeting={"genre": second}), video=True),
        Booking("oakridge-radio", "drive-time", "Oakridge drive time", "IAB1-6", "sponsorship", share(25, 10, targeting={"keyvalues": {"section": third}})),
        Booking("juniper-rail", "spring", "Juniper Rail spring fares", "IAB20", "standard", booked("impressions", 150, 9, caps=by_hour)),
        Booking("meridian-air", "long-haul", "Meridian Air long haul", "IAB20-3", "standard", booked("impressions", 120, 10, targeting={"country": ["US", "GB"]}), video=True),
        Booking("tidewater-hotels", "weekend", "Tidewater weekends", "IAB20-15", "standard", booked("viewable", 80, 9, delivery="front_loaded", overdelivery=5)),
        Booking("pinecrest-skis", "first-snow", "Pinecrest first snow", "IAB17", "standard", booked("impressions", 60, 8, targeting={"segment": f"fans of {first}"})),
        Booking("kestrel-bikes", "commute", "Kestrel commuter bikes", "IAB17", "standard", booked("clicks", 10, 9, targeting={"not": {"genre": third}})),
        Booking("fern-and-field", "garden", "Fern and Field garden week", "IAB10", "standard", booked("impressions", 90, 7, targeting={"country": ["DE", "FR"]}), currency="EUR"),
        Booking("bellweather-books", "stories", "Bellweather story hour", "IAB1-1", "standard", booked("completed", 60, 12), video=True),
        Booking("lumen-lamps", "winter", "Lumen winter light", "IAB10", "standard", booked("impressions", 70, 8, caps=(Cap(count=4),)), video=True),
    ]  # fmt: skip


def _by_price(genres: Sequence[str]) -> list[Booking]:
    """Whoever pays most per thousand, until its budget is spent."""

    def cpm(bid: float, budget: float | None = None, **more: Any) -> dict[str, Any]:
        money = {} if budget is None else {"budget_micros": int(budget * 1_000_000)}
        return {"bid_micros": int(bid * 1_000_000), **money} | more

    once = (Cap(count=CAP, time_unit="lifetime"),)
    agreed = Deal(DEAL, bidfloor_micros=11_000_000, at=3)
    evening = ({"days": ["fri", "sat", "sun"], "from": 16, "until": 24},)
    first, fourth, fifth = (genres[n % len(genres)] for n in (0, 3, 4))
    return [
        Booking("harbour-coffee", "all-day", "Harbour Coffee all day", "IAB8", "price_priority", cpm(14, 1.6)),
        Booking("saltmarsh-insurance", "storm", "Saltmarsh storm cover", "IAB13", "price_priority", cpm(24, targeting={"country": "GB"}, caps=once, delivery="asap")),
        Booking("cobalt-phones", "launch", "Cobalt launch", "IAB19", "price_priority", cpm(9, 1.2, caps=(Cap(count=6),))),
        Booking("quill-and-ink", "notebooks", "Quill and Ink notebooks", "IAB18", "price_priority", cpm(6, 0.8)),
        Booking("amber-oven", "bread", "Amber Oven bread", "IAB8", "price_priority", cpm(7.5, 0.9, targeting={"country": ["DE", "FR"]}), currency="EUR"),
        Booking("rook-games", "board-night", "Rook board night", "IAB9", "price_priority", cpm(8, 0.7, targeting={"genre": fourth}, dayparts=evening)),
        Booking("silverline-cars", "estate", "Silverline estate", "IAB2", "price_priority", cpm(16, 1.4, deal=agreed), video=True),
        Booking("copper-kettle", "tea", "Copper Kettle tea", "IAB8", "price_priority", cpm(10, 1.0), video=True),
        Booking("violet-opera", "season", "Violet Opera season", "IAB1-6", "price_priority", cpm(11, 0.9, targeting={"saw": {"category": first, "within": "30d"}}), video=True, currency="EUR"),
        Booking("granite-tools", "workshop", "Granite workshop", "IAB10", "price_priority", cpm(7, 0.6, targeting={"segment": f"fans of {fifth}"}, delivery="front_loaded")),
    ]  # fmt: skip


def _by_click(genres: Sequence[str]) -> list[Booking]:
    """Whoever pays for clicks, and is worth what the chance of one makes of it."""
    wanted = (
        ("papercrane", "origami", "Papercrane origami kits", "IAB9", 0.30, "USD"),
        ("willow-wear", "linen", "Willow linen", "IAB18", 0.25, "USD"),
        ("tern-travel", "islands", "Tern island trips", "IAB20", 0.40, "EUR"),
        ("basil-box", "suppers", "Basil Box suppers", "IAB8", 0.28, "USD"),
        ("owl-academy", "evenings", "Owl Academy evening classes", "IAB5", 0.35, "USD"),
        ("hazel-pets", "walkies", "Hazel walkies", "IAB16", 0.22, "USD"),
    )
    return [
        Booking(
            *(advertiser, line, name, cat, "price_priority"),
            {
                "bid_type": "cpc",
                "bid_micros": int(bid * 1_000_000),
                "budget_micros": 4_000_000,
                "targeting": {"or": [{"genre": genres[n % len(genres)]}, {"country": list(COUNTRIES[: 2 + n % 3])}]},
            },
            currency=currency,
        )
        for n, (advertiser, line, name, cat, bid, currency) in enumerate(wanted)
    ]


def _by_view(genres: Sequence[str]) -> list[Booking]:
    """Whoever pays for videos that were seen to their end."""
    wanted = (
        ("comet-streaming", "trailer", "Comet trailer", "IAB1-7", 0.012),
        ("marigold-soap", "morning", "Marigold morning", "IAB18-1", 0.010),
        ("drift-sails", "regatta", "Drift regatta", "IAB17", 0.014),
        ("elm-furniture", "home", "Elm at home", "IAB10", 0.009),
        ("polar-gelato", "summer", "Polar gelato", "IAB8", 0.011),
    )
    return [
        Booking(
            *(advertiser, line, name, cat, "price_priority"),
            {"bid_type": "cpcv", "bid_micros": int(bid * 1_000_000), "budget_micros": 1_500_000},
            video=True,
        )
        for advertiser, line, name, cat, bid in wanted
    ]


def _own(genres: Sequence[str]) -> list[Booking]:
    """The house's own, where nobody pays: there is always something to show."""
    return [
        Booking("the-house", "gift-cards", "Gift cards", "IAB1-5", "house", {}),
        Booking("the-house-club", "join", "The club", "IAB1-5", "house", {"caps": (Cap(count=3),)}),
        Booking("the-house-app", "get-it", "Our app", "IAB19", "house", {"targeting": {"not": {"devicetype": "ctv"}}}),
        Booking("the-house-news", "letter", "What is new", "IAB1-5", "house", {}, video=True),
    ]
