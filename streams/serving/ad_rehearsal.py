"""What a process does once before it sells its first ad: sell some to nobody, out of nothing.

The first call of a compiled loop loads it, or compiles it where no cache has it: a second for all loops of a decision,
or most of a minute, in which a lane would answer nobody. So whoever lets campaigns in rehearses first; until then
nothing is sold, and a request is told so.
"""

from typing import Any

import numpy as np

from embeddings.exposures import Exposures
from embeddings.spend import Totals, slate_decision_id
from embeddings.spend_memory import MemorySpendLedger
from embeddings.state_columns import no_states
from ranking.ads.campaigns import (
    BidType,
    Campaign,
    Cap,
    Creative,
    Delivery,
    Goal,
    GoalKind,
    Level,
    LineItem,
    Status,
    Type,
    Unit,
)
from ranking.ads.joint import PageRules
from ranking.ads.market import Exchange
from ranking.ads.predicates import In, Opportunity
from ranking.ads.selection import Slot
from streams.serving.ad_beside import BesideHouse
from streams.serving.ad_pages import Organic
from streams.serving.ad_people import People
from streams.serving.ad_scoring import AdScorer
from streams.serving.ad_values import AdAsk, AdPlace, PageTerms
from streams.serving.ads import AdServer
from streams.serving.budgets import Budgets
from streams.serving.live_model import Serving
from streams.settings import Settings

_NOBODY = "rehearsal"
_PLACES, _SLOTS, _TICKS, _FLIGHT_MS = 8, 2, 3, 3_600_000


def rehearse(serving: Serving, settings: Settings, now_ms: int) -> int:
    """Run all that a decision runs; returns how many ads were sold to nobody. Nothing of it is kept anywhere.

    Args:
        serving: whose items and model are looked at.
        settings: of the worker.
        now_ms: wall clock.
    """
    ledger, ads = MemorySpendLedger(), settings.ads
    ledger.rebuild(Totals(windows={}, counts={}, offsets={}))
    ledger.reopen()
    exchange = Exchange(ads.rates(), ads.currency)
    booked = {"goal": Goal(kind=GoalKind.impressions, quantity=10**6), "flights": ((now_ms, now_ms + _FLIGHT_MS),)}
    exchange.change(
        [
            (_campaign("money", ads.currency, type=Type.price_priority, priority=12, delivery=Delivery.asap), 1),
            (_campaign("number", ads.currency, type=Type.standard, priority=8, **booked), 1),
        ]
    )
    budgets = Budgets(ledger, exchange, ads, worker=_NOBODY)
    for tick in range(_TICKS):
        budgets.tick(now_ms + 1_000 * tick)
    now_ms += 1_000 * _TICKS
    server = AdServer(
        exchange=exchange,
        budgets=budgets,
        scorer=AdScorer(serving, settings),
        beside=BesideHouse(),
        ledger=ledger,
        settings=settings,
        now_ms=lambda: now_ms,
    )
    asks = [_ask("1", now_ms, None), _ask("2", now_ms, PageTerms(PageRules(), _PLACES, 1.0))]
    count = len(asks)
    flights = server.known([_NOBODY] * count, asks).flights
    people = People(
        states=no_states(count), exposures=Exposures.nothing(count), known_A=np.ones(count, np.bool_), flights=flights
    )
    organic = Organic(np.ones((count, _PLACES)), np.zeros((count, _PLACES), np.uint8), np.full(count, _PLACES))
    decided = server.decide(asks, people, {}, organic)
    return sum(one.record.filled for some in decided.of_ask for one in some)


def _ask(slate_id: str, now_ms: int, page: PageTerms | None) -> AdAsk:
    places = range(page.size if page else _SLOTS)
    place = AdPlace(
        imp_ids=("",) * _SLOTS,
        decision_ids=tuple(slate_decision_id(slate_id, place) for place in places),
        slot=Slot(formats=("banner",), blocked=("cat:none",)),
        opportunity=Opportunity(now_ms=now_ms, words={"country": ("AT",)}),
        page=page,
    )
    return AdAsk(user_id=_NOBODY, person=_NOBODY, personal=True, context=0, now_ms=now_ms, places=(place,))


def _campaign(name: str, currency: str, **line: Any) -> Campaign:
    """One line item with a cap, for people in Austria."""
    whose: dict[str, Any] = {"advertiser": name, "status": Status.active, "currency": currency, "time_zone": "UTC"}
    sold = LineItem(
        key=f"{name}/l",
        id="l",
        campaign_id=name,
        bid_type=BidType.cpm,
        bid_micros=1_000_000,
        targeting=In.of("country", "AT"),
        caps=(Cap(level=Level.line_item, unit=Unit.day, count=9, window_s=86_400),),
        creatives=(Creative(key=f"{name}/l/1", crid="1", approved=True, format="banner", adomain=(name,)),),
        **whose,
        **line,
    )
    return Campaign(
        id=name, name=name, order_id=None, budget_micros=10**9, daily_budget_micros=None, line_items=(sold,), **whose
    )
