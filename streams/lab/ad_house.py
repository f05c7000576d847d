"""A house that sells ads without Kafka around it: the parts of a worker, with records handed over and time passed in.

Simulation, benches and tests sell through the same code as a worker: requests are answered by an `Answerer`, events
folded by a `Recommender`, budgets paced by `Budgets`, money kept by a spend ledger. Only topics are missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from embeddings.events import CONSENT_ALL, Source
from embeddings.items import Items
from embeddings.keepsake import Keepsake, MemoryKeepsake
from embeddings.memory import MemoryUserStore, Shelf
from embeddings.spend import SpendLedger, Totals
from embeddings.spend_book import Book
from embeddings.spend_memory import MemorySpendLedger
from embeddings.store import UserStore
from ranking.ads.heads import AdHeads
from ranking.ads.market import Exchange
from ranking.ads.pacing import SYSTEMS, PacingSettings, System
from streams.contract.ad_records import AdDecision
from streams.contract.campaign_records import read_campaigns
from streams.contract.consent import Judge
from streams.contract.deadletters import DeadLetter
from streams.contract.messages import Part
from streams.contract.parsing import Rules
from streams.contract.records import encode
from streams.lab.evaluation import LogRecord
from streams.serving.ad_answers import AdAnswers
from streams.serving.ad_beside import BesideHouse
from streams.serving.ad_events import AdEvents
from streams.serving.ad_requests import AskRules, person_of
from streams.serving.ad_scoring import AdScorer
from streams.serving.ad_slates import SlateAds
from streams.serving.ads import AdServer
from streams.serving.budgets import Budgets
from streams.serving.live_model import LiveModel, Serving, index_builder
from streams.serving.pipeline import Recommender
from streams.serving.requests import Answerer
from streams.serving.scoring import Scorer
from streams.serving.slates import PublishedSlate
from streams.settings import Settings

SECRET = b"a house without people"
_PARTITIONS = 7
"""So many partitions a worker's requests would lie in, were there more than one log of them."""


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
        system: how budgets are paced.
        heads: what is known of chances.
        now_ms: the clock of the house, set by whoever drives it.
    """

    settings: Settings
    count: int = 1
    ledger: Callable[[], SpendLedger] | None = None
    users: Callable[[], UserStore] | None = None
    pacing: PacingSettings | None = None
    system: System = SYSTEMS["marquee"]
    heads: AdHeads = field(default_factory=AdHeads)
    now_ms: int = 0
    exchange: Exchange = field(init=False)
    serving: Serving = field(init=False)
    workers: list[AdWorker] = field(init=False)
    _offsets: dict[Source, int] = field(init=False, default_factory=dict)
    _campaigns: int = field(init=False, default=0)
    _curve: Keepsake = field(init=False, default_factory=MemoryKeepsake)
    _open: dict[int, list[SpendLedger]] = field(init=False, default_factory=dict)

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
        live = replace(LiveModel.empty(items, build, settings.learner.dimensions), ads=self.heads)
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
        return self.answer(self._part(self.workers[worker].requests_source, requests))

    def answer(self, part: Part) -> list[PublishedSlate]:
        """The answers to a part of requests, which may come again."""
        slates, dead = self.workers[part.source.partition].answerer.respond([part])
        if dead:
            raise ValueError(dead[0].detail)
        return slates

    def decisions(self, *requests: object, worker: int = 0) -> list[list[AdDecision]]:
        """What becomes of the places for ads of each request."""
        return [[each.record for each in slate.ads] for slate in self.ask(*requests, worker=worker)]

    def tell(self, *events: object, worker: int = 0) -> None:
        """Events happen, and are stored."""
        self.fold(self._part(self.workers[worker].events_source, events))

    def fold(self, part: Part, until: Literal["confirmed", "stored", "folded"] = "folded") -> None:
        """A part of events, which may come again, as far as a worker comes before it ends."""
        one = self.workers[part.source.partition]
        answer = one.recommender.respond([part])
        if until == "confirmed":
            return
        one.recommender.store(one.recommender.keep(answer))
        if until == "folded":
            one.events.stored(answer.marks)

    def requests(self, records: Sequence[object], worker: int) -> Part:
        """Requests, where they lie in the log of a worker."""
        return self._part(self.workers[worker].requests_source, records)

    def events(self, records: Sequence[object], worker: int) -> Part:
        """Events, where they lie in the log of a worker."""
        return self._part(self.workers[worker].events_source, records)

    def tick(self) -> None:
        """Every worker looks at what was spent, and sets its pace."""
        for worker in self.workers:
            worker.budgets.tick(self.now_ms)

    def kill(self, worker: int) -> None:
        """End a worker without a word, and start another in its place."""
        for ledger in self._open.pop(worker, ()):
            ledger.close()
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
        scorer, ledgers = Scorer(self.serving, settings), [self.ledger() for _ in range(4)]
        self._open[number] = ledgers
        budgets = Budgets(
            ledgers[0],
            self.exchange,
            settings.ads,
            worker=f"{number}.{life}",
            partitions=_PARTITIONS * self.count,
            pacing=self.pacing,
            system=self.system,
            curve=self._curve,
        )
        budgets.owned = range(_PARTITIONS * number, _PARTITIONS * (number + 1))
        server, beside = (
            AdServer(
                exchange=self.exchange,
                budgets=budgets,
                scorer=AdScorer(self.serving, settings),
                beside=BesideHouse(settings.ads.allow_sensitive),
                ledger=ledger,
                settings=settings,
                now_ms=now_ms,
            )
            for ledger in (ledgers[1], ledgers[3])
        )
        asked = AskRules.of(settings, SECRET)
        events = AdEvents(ledger=ledgers[2], person=lambda user_id: person_of(user_id, SECRET), now_ms=now_ms)
        users = self.users()
        events.claimed(users.claim([Source("events", number)]))
        recommender = Recommender(users=users, scorer=scorer, rules=rules, settings=settings, now_ms=now_ms)
        recommender.ad_seen, recommender.ads = events.seen, SlateAds.of(lambda: beside, asked, settings)
        answerer = Answerer(
            users=self.users(),
            scorer=scorer,
            rules=rules,
            settings=settings,
            now_ms=now_ms,
            ads=AdAnswers(server=server, rules=asked, judge=rules.judge),
        )
        return AdWorker(number, life, answerer, recommender, events, budgets, server)
