"""What a record of `campaigns` holds: one campaign with its line items and their creatives.

The words are those that traffickers know from their ad server; names are OpenRTB's where it has one. Money is whole
micros of the campaign's currency, times are epoch milliseconds. Unlike other records, a word nobody knows is refused
here (`streams.contract.campaign_records`): a campaign that is half understood spends somebody's money.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from streams.contract.fields import Id, Ms, Record, Text, Word

Micros = Annotated[int, Meta(ge=0, le=10**15)]
"""Up to a thousand million units of money."""
Units = Annotated[int, Meta(ge=1, le=10**15)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Labels = Annotated[tuple[Word, ...], Meta(max_length=64)]


class Creative(Record):
    """What an ad shows: where it is not `approved` it is shown to nobody. `dur` is in seconds, `item_id` what it sells.

    `bundle` is the app that it is an ad for. `weight` counts where rotation is weighted, `sequence` where it is
    sequential. `behalf`, `paid` and `transparency` are what the Digital Services Act has told to who sees it.
    """

    crid: Id
    item_id: Id | None = None
    adomain: Labels = ()
    cat: Labels = ()
    cattax: int = 1
    attr: Annotated[tuple[int, ...], Meta(max_length=64)] = ()
    w: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    h: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    dur: Annotated[int, Meta(ge=1, le=86_400)] | None = None
    mimes: Labels = ()
    approved: bool = False
    behalf: Text | None = None
    paid: Text | None = None
    transparency: Annotated[tuple[dict[str, Any], ...], Meta(max_length=16)] = ()
    format: str = ""
    categories: Labels = ()
    text: Text = ""
    language: Word | None = None
    rating: Word | None = None
    weight: Annotated[int, Meta(ge=1, le=10_000)] = 1
    sequence: Annotated[int, Meta(ge=0, le=1_000)] = 0
    bundle: Id | None = None


class Cap(Record):
    """At most `count` billable impressions per `per` time units and person, counted at a level of the hierarchy.

    `min_gap_s` is how long at least lies between two of them.
    """

    count: Annotated[int, Meta(ge=1, le=65_535)]
    time_unit: str = "day"
    per: Annotated[int, Meta(ge=1, le=1_000)] = 1
    level: str = "campaign"
    min_gap_s: Annotated[int, Meta(ge=0, le=31_622_400)] = 0


class Flight(Record):
    """From when (inclusive) to when (exclusive) a line item runs; without an end it runs on."""

    begin: Ms = msgspec.field(name="from", default=0)
    end: Ms | None = msgspec.field(name="until", default=None)


class Goal(Record):
    """What was booked: a quantity of `kind`, in all or `per` day; of `share`, percent of all matching opportunities."""

    kind: str
    quantity: Units
    per: str = "lifetime"


class Deal(Record):
    """What was agreed with a buyer, in OpenRTB's words: only requests that name the deal, at its price or above it."""

    id: Id
    bidfloor_micros: Micros = 0
    at: int = 2
    guar: bool = False


class LineItem(Record):
    """A part of a campaign with its own type, goal, bid, budget, flights and audience.

    `bid_micros` is per thousand impressions where `bid_type` is `cpm`, else per click, conversion or completed view.
    `targeting` is what `docs/ads.md` says. `pacing` is what `delivery` was called at first.
    """

    id: Id
    bid_micros: Micros = 0
    bid_type: str = "cpm"
    budget_micros: Micros | None = None
    daily_budget_micros: Micros | None = None
    flight_from: Ms | None = None
    flight_until: Ms | None = None
    pacing: str = "even"
    targeting: dict[str, Any] | None = None
    caps: Annotated[tuple[Cap, ...], Meta(max_length=16)] = ()
    creatives: Annotated[tuple[Creative, ...], Meta(max_length=256)] = ()
    name: Text = ""
    status: str = "active"
    type: str = "price_priority"
    priority: Annotated[int, Meta(ge=1, le=16)] | None = None
    goal: Goal | None = None
    delivery: str = ""
    curve: Annotated[tuple[Annotated[float, Meta(ge=0, le=1e9)], ...], Meta(max_length=1_000)] = ()
    overdelivery: Percent = 0
    flights: Annotated[tuple[Flight, ...], Meta(max_length=64)] = ()
    dayparts: Annotated[tuple[dict[str, Any], ...], Meta(max_length=64)] = ()
    rotation: str = "optimised"
    labels: Labels = ()
    deal: Deal | None = None
    click_days: Annotated[int, Meta(ge=0, le=90)] = 28
    impression_days: Annotated[int, Meta(ge=0, le=90)] = 1


class Campaign(Record):
    """An advertiser's campaign, on topic `campaigns`; null instead of it stops the campaign at once.

    `order_id` is what the house's own books call it. `adomain` and `cat` are of every creative that names none; two
    ads that share a label of `labels` never stand on one page.
    """

    campaign_id: Id = ""
    advertiser: Id = ""
    status: str = "active"
    time_zone: str = "UTC"
    currency: str = "USD"
    budget_micros: Micros | None = None
    daily_budget_micros: Micros | None = None
    caps: Annotated[tuple[Cap, ...], Meta(max_length=16)] = ()
    line_items: Annotated[tuple[LineItem, ...], Meta(max_length=1_000)] = ()
    order_id: Id | None = None
    name: Text = ""
    adomain: Labels = ()
    cat: Labels = ()
    labels: Labels = ()


decode_campaign = msgspec.json.Decoder(Campaign).decode
