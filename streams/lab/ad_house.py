"""A house that sells ads without Kafka around it: the parts of a worker, with records handed over and time passed in.

Simulation, benches and tests sell through the same code as a worker: requests are answered by an `Answerer`, events
folded by a `Recommender`, budgets paced by `Budgets`, money kept by a spend ledger. Only topics are missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from embeddings.events import CONSENT_ALL, Source
from embeddings.items import Items
from embeddings.memory import MemoryUserStore, Shelf
from embeddings.spend import SpendLedger, Totals
from embeddings.spend_book import Book
from embeddings.spend_memory import MemorySpendLedger
from embeddings.store import UserStore
from ranking.ads.market import Exchange
from ranking.ads.pacing import PacingSettings
from streams.contract.ad_records import AdDecision
from streams.contract.campaign_records import read_campaigns
from streams.contract.consent import Judge
from streams.contract.deadletters import DeadLetter
from streams.contract.messages import Part
from streams.contract.parsing import Rules
from streams.contract.records import encode
from streams.lab.evaluation import LogRecord
from streams.serving.ad_answers import AdAnswers
from streams.serving.ad_events import AdEvents
from streams.serving.ad_requests import AskRules
from streams.serving.ad_scoring import AdScorer
from streams.serving.ads import AdServer
from streams.serving.budgets import Budgets
from streams.serving.live_model import LiveModel, Serving, index_builder
from streams.serving.pipeline import Recommender
from streams.serving.requests import Answerer
from streams.serving.scoring import Scorer
from streams.serving.slates import PublishedSlate
from streams.settings import Settings

SECRET = b"a house without people"


@dataclass(slots=True)
class AdWorker:
    """What one worker of the house is made of. `life` counts how often it was started."""

    number: int
    life: int
    answerer: Answerer
    recommender: Recommender
    events: AdEvents
    budgets: Budgets
    server: AdServer

    @property
    def requests_source(self) -> Source:
        """The partition of requests that it reads."""
        return Source("requests", self.number)

    @property
    def events_source(self) -> Source:
        """The partition of events that it reads."""
        return Source("events", self.number)


@dataclass(slots=True, kw_only=True)
class AdHouse:
    """W workers that sell the same campaigns out of the same budgets; partition w of requests and events is worker w's.

    Attributes:
        settings: of all of them.
        workers: W.
        ledger: makes a connection to the spend ledger; one in memory by default.
        users: makes one to the store of people.
        pacing: how far ahead pacing looks.
        now_ms: the clock of the house, set by whoever drives it.
    """

    settings: Settings
    count: int = 1
    ledger: Callable[[], SpendLedger] | None = None
    users: Callable[[], UserStore] | None = None
    pacing: PacingSettings | None = None
    now_ms: int = 0
    exchange: Exchange = field(init=False)
    serving: Serving = field(init=False)
    workers: list[AdWorker] = field(init=False)
    _offsets: dict[Source, int] = field(init=False, default_factory=dict)
    _campaigns: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        settings = self.settings
        if self.ledger is None:
            book = Book()
            self.ledger = lambda: MemorySpendLedger(book)
        if self.users is None:
            shelf, width = Shelf(), settings.learner.dimensions
            self.users = lambda: MemoryUserStore(shelf, width=width)
        opening = self.ledger()
        if opening.closed() == "lost":  # nothing was ever sold
            opening.rebuild(Totals(windows={}, counts={}, offsets={}))
            opening.reopen()
        self.exchange = Exchange(settings.ads.rates(), settings.ads.currency)
        items, build = Items(half_lives=settings.half_lives.counters), index_builder(settings)
        live = LiveModel.empty(items, build, settings.learner.dimensions)
        self.serving = Serving(items, build, live, now_s=lambda: self.now_ms // 1000)
        self.workers = [self._worker(number, 0) for number in range(self.count)]

    def publish(self, *campaigns: object, stop: Sequence[str] = ()) -> list[DeadLetter]:
        """Take over records of campaigns, or stop some; what cannot be used is returned and changes nothing."""
        records = []
        for campaign in campaigns:
            records.append(LogRecord(self._campaigns, self.now_ms, b"", encode(campaign), ()))
            self._campaigns += 1
        kept, stopped, dead = (
            read_campaigns(Source("campaigns", 0), records, self._rules()) if records else ([], [], [])
        )
        self.exchange.change([(facts.campaign, facts.record.offset) for facts in kept], [*stopped, *stop])
        return dead

    def ask(self, *requests: object, worker: int = 0) -> list[PublishedSlate]:
        """The answers to requests, all of them readable."""
        one = self.workers[worker]
        slates, dead = one.answerer.respond([self._part(one.requests_source, requests)])
        if dead:
            raise ValueError(dead[0].detail)
        return slates

    def decisions(self, *requests: object, worker: int = 0) -> list[list[AdDecision]]:
        """What becomes of the places for ads of each request."""
        return [[each.record for each in slate.ads] for slate in self.ask(*requests, worker=worker)]

    def tell(self, *events: object, worker: int = 0) -> None:
        """Events happen, and are stored."""
        one = self.workers[worker]
        part = self._part(one.events_source, events)
        answer = one.recommender.respond([part])
        one.recommender.store(one.recommender.keep(answer))
        one.events.stored(answer.marks)

    def tick(self) -> None:
        """Every worker looks at what was spent, and sets its pace."""
        for worker in self.workers:
            worker.budgets.tick(self.now_ms)

    def kill(self, worker: int) -> None:
        """End a worker without a word, and start another in its place."""
        self.workers[worker] = self._worker(worker, self.workers[worker].life + 1)

    def _rules(self) -> Rules:
        return Rules(judge=Judge(CONSENT_ALL))

    def _part(self, source: Source, records: Sequence[object]) -> Part:
        first = self._offsets.get(source, 0)
        self._offsets[source] = first + len(records)
        log = [LogRecord(first + n, self.now_ms, b"", encode(one), ()) for n, one in enumerate(records)]
        return Part(source, log, first + len(records) - 1, first)

    def _worker(self, number: int, life: int) -> AdWorker:
        assert self.ledger is not None  # made above
        assert self.users is not None
        settings, rules, now_ms = self.settings, self._rules(), lambda: self.now_ms
        scorer = Scorer(self.serving, settings)
        budgets = Budgets(
            self.ledger(),
            self.exchange,
            settings.ads,
            worker=f"{number}.{life}",
            partitions=self.count,
            pacing=self.pacing,
        )
        budgets.owned = (number,)
        server = AdServer(
            exchange=self.exchange,
            budgets=budgets,
            scorer=AdScorer(self.serving, settings),
            ledger=self.ledger(),
            items=self.serving.items,
            settings=settings,
            now_ms=now_ms,
        )
        asked = AskRules(currency=settings.ads.currency, rates=settings.ads.rates(), secret=SECRET)
        events = AdEvents(ledger=self.ledger(), now_ms=now_ms)
        users = self.users()
        events.claimed(users.claim([Source("events", number)]))
        recommender = Recommender(users=users, scorer=scorer, rules=rules, settings=settings, now_ms=now_ms)
        recommender.ad_seen = events.seen
        answerer = Answerer(
            users=self.users(),
            scorer=scorer,
            rules=rules,
            settings=settings,
            now_ms=now_ms,
            ads=AdAnswers(server=server, rules=asked, judge=rules.judge),
        )
        return AdWorker(number, life, answerer, recommender, events, budgets, server)
