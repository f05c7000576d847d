"""What a process does once before it answers anybody: answer nobody, out of nothing, and sell nobody some ads.

The first call of a compiled loop loads it, or compiles it where no cache has it: half a second for all of them, or a
minute, in which a lane would answer nobody. So a worker rehearses slates before it takes partitions or answers over
HTTP, and whoever lets campaigns in rehearses ads first; until then nothing is sold, and a request is told so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np

from embeddings.events import CONSENT_ALL, Source
from embeddings.exposures import LEVELS, AdSeen, Exposures
from embeddings.ids import item_ids, murmur2
from embeddings.items import ItemFacts, Items
from embeddings.memory import MemoryUserStore
from embeddings.snapshots import Snapshot
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
from ranking.weights import OUTCOMES, Shape, shapes
from streams.contract.consent import Judge
from streams.contract.messages import Part
from streams.contract.parsing import Rules
from streams.contract.posted import Posted
from streams.contract.records import encode
from streams.serving.ad_beside import BesideHouse
from streams.serving.ad_pages import Organic
from streams.serving.ad_people import People
from streams.serving.ad_scoring import AdScorer
from streams.serving.ad_values import AdAsk, AdPlace, PageTerms
from streams.serving.ads import AdServer
from streams.serving.budgets import Budgets
from streams.serving.live_model import LiveModel, Serving, index_builder
from streams.serving.pipeline import Recommender
from streams.serving.requests import Answerer
from streams.serving.scoring import Scorer
from streams.settings import Settings

_NOBODY = "rehearsal"
_PLACES, _SLOTS, _TICKS, _FLIGHT_MS = 8, 2, 3, 3_600_000
_ITEMS, _SEEN, _TIMES = 64, 60, 2
"""More is seen than a history has room for."""
_EVENTS, _REQUESTS = Source("events", 0), Source("requests", 0)


@dataclass(slots=True)
class Rehearsal:
    """Runs once what a worker of these settings runs, on a stage of its own: nothing of it is kept anywhere.

    Any thread may call. Whoever comes while it is under way waits for it.

    Attributes:
        ready: slates were rehearsed.
    """

    settings: Settings
    now_ms: int
    ready: bool = field(init=False, default=False)
    _sold: bool = field(init=False, default=False)
    _turn: Lock = field(init=False, default_factory=Lock)

    def slates(self) -> None:
        """Before events and requests are taken."""
        with self._turn:
            if not self.ready:
                answer(stage(self.settings, self.now_ms), self.settings, self.now_ms)
            self.ready = True

    def ads(self) -> None:
        """Before campaigns are let in."""
        with self._turn:
            if not self._sold:
                sell(stage(self.settings, self.now_ms), self.settings, self.now_ms)
            self._sold = True


def stage(settings: Settings, now_ms: int) -> Serving:
    """Some items, one of them gone again, under a model that has learned nothing and serves."""
    items, build, width = (
        Items(half_lives=settings.half_lives.counters),
        index_builder(settings),
        settings.learner.dimensions,
    )
    serving = Serving(items, build, LiveModel.empty(items, build, width), now_s=lambda: now_ms // 1_000)
    names = [f"{_NOBODY}-{n}" for n in range(_ITEMS)]
    facts = [ItemFacts(name=name, title=name, categories=("a", name), added_s=now_ms // 1_000) for name in names]
    serving.catalogue(facts, names[-1:])
    near_ND = np.eye(_ITEMS, width, dtype=np.float32) + np.float32(0.1)
    weights = {f"model.{name}": np.zeros(size, np.float32) for name, size in shapes(Shape(buckets=8)).items()}
    learned = {"learned": np.ones(1, np.uint8), "platt": np.tile([1.0, 0.0], (len(OUTCOMES), 1))}
    serving.swap(
        Snapshot(
            version=1,
            ids_N=item_ids(names),
            names=names,
            source_ND=near_ND,
            target_ND=near_ND,
            neighbours_NK=np.roll(np.arange(_ITEMS, dtype=np.int32), 1)[:, None],
            weights_NK=np.ones((_ITEMS, 1), np.float32),
            counts_N=np.ones(_ITEMS, np.float32),
            ranker=weights | learned,
        )
    )
    return serving


def answer(serving: Serving, settings: Settings, now_ms: int) -> int:
    """Answer some events and a request, twice, for people come again; returns how many slates nobody got."""
    users, scorer = MemoryUserStore(width=settings.learner.dimensions), Scorer(serving, settings)
    rules = Rules(judge=Judge(CONSENT_ALL))
    answerer = Answerer(users=users, scorer=scorer, rules=rules, settings=settings, now_ms=lambda: now_ms)
    recommender = Recommender(
        users=users,
        scorer=scorer,
        rules=rules,
        settings=settings,
        now_ms=lambda: now_ms,
        ad_seen=lambda decoded: AdSeen(np.ones((len(decoded.batch), LEVELS), np.uint32)),
    )
    users.claim([_EVENTS])
    events, slates = list(_events(now_ms)), 0
    request = {"request_id": "1", "user_id": _NOBODY, "context": {"country": "AT"}}
    for time in range(_TIMES):
        told = recommender.respond([_part(_EVENTS, events, time, now_ms)])
        recommender.tell(told)
        recommender.store(recommender.keep(told))
        slates += len(told.slates) + len(answerer.respond([_part(_REQUESTS, [request], time, now_ms)])[0])
    murmur2([_NOBODY.encode()])
    return slates


def _events(now_ms: int) -> Iterator[dict[str, object]]:
    """Of two people: arrays of one are laid out otherwise."""
    said = {"user_id": _NOBODY, "event_time": now_ms}
    for kind in ("play", "impression"):
        yield from ({"type": kind, "item_id": f"{_NOBODY}-{n}", **said} for n in range(_SEEN))
    yield {"type": "impression", "decision_id": slate_decision_id("1", 0), **said}
    yield {"type": "play", "item_id": f"{_NOBODY}-0", **said, "user_id": f"not {_NOBODY}"}


def _part(source: Source, bodies: Sequence[object], time: int, now_ms: int) -> Part:
    first = time * len(bodies)
    records = [Posted(first + n, now_ms, None, encode(body), ()) for n, body in enumerate(bodies)]
    return Part(source, records, records[-1].offset, first)


def sell(serving: Serving, settings: Settings, now_ms: int) -> int:
    """Run all that a decision runs; returns how many ads were sold to nobody."""
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
