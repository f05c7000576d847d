"""Campaigns for tests, with one line item each unless more are named."""

from typing import Any

from ranking.ads.campaigns import BidType, Campaign, Creative, LineItem, Status, Type
from ranking.ads.currencies import Currencies
from ranking.ads.market import Exchange

RATES = Currencies(version="1", micros={"EUR": 1_000_000, "USD": 1_100_000, "JPY": 163_000_000})


def a_line(name: str = "l", campaign: str = "c", **fields: Any) -> LineItem:
    """A line item that may be shown to anybody, for 2 EUR a thousand."""
    key = f"{campaign}/{name}"
    creative = Creative(key=f"{key}/cr", crid="cr", approved=True, adomain=("acme.example",), format="banner")
    said: dict[str, Any] = {
        "advertiser": "acme",
        "type": Type.price_priority,
        "priority": 12,
        "status": Status.active,
        "bid_type": BidType.cpm,
        "bid_micros": 2_000_000,
        "currency": "EUR",
        "time_zone": "UTC",
        "creatives": (creative,),
    }
    return LineItem(key=key, id=name, campaign_id=campaign, **(said | fields))


def a_campaign(name: str = "c", *lines: LineItem, **fields: Any) -> Campaign:
    """A campaign of these line items, or of one."""
    said: dict[str, Any] = {"budget_micros": None, "daily_budget_micros": None}
    return Campaign(
        id=name, advertiser="acme", order_id=None, name=name, status=Status.active, currency="EUR", time_zone="UTC",
        line_items=lines or (a_line(campaign=name),), **(said | fields),
    )  # fmt: skip


def an_exchange(*campaigns: Campaign, currency: str = "EUR") -> Exchange:
    """An exchange of these campaigns, each of version 1."""
    exchange = Exchange(RATES, currency)
    exchange.change([(campaign, 1) for campaign in campaigns])
    return exchange
