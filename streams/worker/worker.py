"""The composition root: which piece of which package is handed to which, for a worker; it needs no torch."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from embeddings.errors import StoreUnavailable
from embeddings.events import Source
from embeddings.items import Items
from embeddings.patience import Patience
from embeddings.redis_store import RedisUserStore
from streams.configuration import require_consent_default
from streams.contract.parsing import Rules
from streams.contract.records import largest_record
from streams.process.host import run_apps
from streams.process.member import groups_of, make_member, serve
from streams.process.metrics import WorkerMetrics
from streams.process.threads import OwnLoop, Thread
from streams.process.tracing import spans_of
from streams.serving.live_model import LiveModel, Serving, index_builder
from streams.serving.pipeline import Recommender
from streams.serving.rehearsal import Rehearsal
from streams.serving.requests import Answerer
from streams.serving.scoring import Scorer
from streams.serving.stages import epoch_ms
from streams.settings import Settings, TopicName
from streams.transport import topics
from streams.transport.batching import BatchApp, BatchConsumer
from streams.transport.control import ControlReader
from streams.transport.gates import Lane
from streams.transport.letters import LATEST, DeadLetterTopic
from streams.transport.logs import Stretch
from streams.transport.publishing import Publisher
from streams.transport.standing import standing_of
from streams.transport.unowned import Unowned
from streams.worker.control_letters import ControlLetters
from streams.worker.control_topics import CONTROL, ControlTopics
from streams.worker.events_lane import EventsLane
from streams.worker.http_api import Api
from streams.worker.outbox import Outbox
from streams.worker.pages import Pages
from streams.worker.paused import Paused
from streams.worker.posted_events import PostedEvents
from streams.worker.posted_requests import PostedRequests
from streams.worker.requests_lane import RequestsLane
from streams.worker.selling import Selling
from streams.worker.shown import Shown
from streams.worker.snapshot_taker import SnapshotTaker
from streams.worker.stored_slates import StoredSlates
from streams.worker.stores import patience_of, user_store

log = logging.getLogger(__name__)

LARGEST_REQUEST = 8 * 1024 * 1024
STORE_LOOK_S, TELL_S = 3.0, 1.0
"""How often the store is asked whether it still has what was stored, and the spend ledger told what became of ads."""
_SHARE, _LEAST = 16, 1_024
"""Items that nothing but events names: this part of those that the learner knows, and so many at least."""
TURN_OVER_S = 60.0
"""How often rows are taken back of items that nobody knows any more."""
_BEHIND = 8
"""Batches that may be answered and not stored yet: what they led to is on its way to the broker."""


@dataclass(slots=True, repr=False)
class Worker:
    """Everything a worker is made of."""

    settings: Settings
    metrics: WorkerMetrics = field(init=False, default_factory=WorkerMetrics)
    serving: Serving = field(init=False)
    rehearsal: Rehearsal = field(init=False)
    shown: Shown = field(init=False)
    paused: Paused = field(init=False)
    events: EventsLane = field(init=False)
    requests: RequestsLane = field(init=False)
    snapshots: SnapshotTaker = field(init=False)
    ads: Selling = field(init=False)
    control_topics: ControlTopics = field(init=False)
    control: ControlReader = field(init=False)
    unowned: Unowned = field(init=False)
    _patience: Mapping[str, Patience] = field(init=False)
    _pages_store: RedisUserStore = field(init=False)
    _says_memory: bool = field(init=False, default=True)
    _events_loop: OwnLoop = field(init=False, default_factory=lambda: OwnLoop("events"))
    _requests_loop: OwnLoop = field(init=False, default_factory=lambda: OwnLoop("requests"))
    _http_loop: OwnLoop = field(init=False, default_factory=lambda: OwnLoop("http"))
    _turning: Thread = field(init=False, default_factory=lambda: Thread("rows"))

    def __post_init__(self) -> None:
        settings = self.settings
        items = Items(half_lives=settings.half_lives.counters, catalogue_unread=True)
        build = index_builder(settings)
        empty = LiveModel.empty(items, build, settings.learner.dimensions)
        fresh_for_s, strangers = settings.retrieval.fresh_for_s, max(settings.learner.max_items // _SHARE, _LEAST)
        self.serving = Serving(items, build, empty, fresh_for_s=fresh_for_s, strangers=strangers)
        rules = Rules.of(settings, {settings.topics.name("events"): settings.topics.partitions})
        self.shown = Shown(self.metrics.slates)
        self._patience, self.rehearsal = patience_of(settings), Rehearsal(settings, epoch_ms())
        of_stats = self._publisher("ad_stats")
        self.ads = Selling(settings, self.serving, self.metrics, of_stats, self._patience, self.rehearsal)
        self._pages_store = self._store("pages")
        self.paused = Paused(reads=self._pages_store, metrics=self.metrics)
        self.events, self.requests = self._events_lane(rules), self._requests_lane(rules)
        self.snapshots = SnapshotTaker(settings=settings, serving=self.serving, metrics=self.metrics)
        self.control_topics = ControlTopics(
            settings=settings,
            serving=self.serving,
            ads=self.ads,
            snapshots=self.snapshots,
            rules=rules,
            letters=self._control_letters(),
            metrics=self.metrics,
        )
        self.control = ControlReader(
            options=settings.kafka.client_options(),
            handlers=self.control_topics.handlers(),
            lives={settings.topics.name("campaigns"): self.ads.lives.begin},
            at_end=items.catalogue_read,
        )
        self.unowned = Unowned(
            options=settings.kafka.client_options(),
            groups=groups_of(settings),
            paused=lambda: {source: self.paused.at[source] for source in self.paused},
        )

    def _store(self, client: str, waits: str = "") -> RedisUserStore:
        return user_store(self.settings, self.metrics.redis.watch(client), self._patience.get(waits))

    def _memory(self) -> tuple[float, float] | None:
        """Bytes that the store uses and may use; None where it does not say."""
        if not self._says_memory:
            return None
        said = self._pages_store.said()
        self._says_memory = "maxmemory" in said  # else it is not granted, and each question is an error there
        return (float(said["used_memory"]), float(said["maxmemory"])) if self._says_memory else None

    def _publisher(self, name: str) -> Publisher:
        """One for each loop that publishes; it connects when it has something to publish."""
        kafka = self.settings.kafka
        most = max(LARGEST_REQUEST, largest_record(self.settings))
        told = self.metrics.told(name)
        return Publisher(kafka.client_options(), max_request_bytes=most, idempotent=kafka.idempotent, told=told)

    def _letters(self, name: TopicName, publisher: Publisher, last: int | None = LATEST) -> DeadLetterTopic:
        options, topic = self.settings.kafka.client_options(), self.settings.topics.dead_letters(name)
        return DeadLetterTopic.of(options, topic, publisher, last=last)

    def _control_letters(self) -> ControlLetters:
        publisher = self._publisher("control")
        topics = {name: self._letters(name, publisher, None) for name in CONTROL}
        return ControlLetters(topics=topics, metrics=self.metrics)

    def _events_lane(self, rules: Rules) -> EventsLane:
        settings, publisher = self.settings, self._publisher("events")
        return EventsLane(
            recommender=Recommender(
                users=self._store("events"),
                scorer=Scorer(self.serving, settings),
                rules=rules,
                settings=settings,
                stage=self.metrics.stage,
                ad_seen=self.ads.events.seen,
                ads=self.ads.slates,
            ),
            ads=self.ads.events,
            slate_ads=self.ads.slates,
            publisher=publisher,
            letters=self._letters("events", publisher),
            teller=self._publisher("observations"),
            settings=settings,
            metrics=self.metrics,
            shown=self.shown,
            paused=self.paused,
        )

    def _requests_lane(self, rules: Rules) -> RequestsLane:
        settings, publisher = self.settings, self._publisher("requests")
        return RequestsLane(
            answerer=Answerer(
                users=self._store("requests", "requests"),
                patience=self._patience["requests"],
                scorer=Scorer(self.serving, settings),
                rules=rules,
                settings=settings,
                stage=partial(self.metrics.stage, lane="requests"),
                ads=self.ads.answers,
            ),
            publisher=publisher,
            letters=self._letters("requests", publisher),
            settings=settings,
            metrics=self.metrics,
            shown=self.shown,
        )

    def member(self) -> BatchApp:
        """The member of the consumer group that hands units to the lanes."""
        b, names = self.settings.batching, self.settings.topics.name
        lane = partial(Lane, max_batch=b.max_batch, stuck_after_s=b.stuck_after_s, give_up_after_s=b.give_up_after_s)
        lanes = {
            names("events"): lane(depth=b.depth, behind=_BEHIND),
            names("requests"): lane(),
        }
        app = make_member(
            self.settings,
            "serving",
            lanes,
            self._positions,
            paused=self.paused,
            instance_id=self.settings.kafka.instance_id,
            note=self.events.homes.note,
        )
        first = Source(names("events"), 0)
        for led in (self.control_topics.letters, self.ads.stats, self.unowned):
            led.leads = lambda: first in app.owned()
        self.paused.gone_on, self.paused.owned = app.look, app.owned
        asked = names("requests")
        self.ads.spending.owned = lambda: {source.partition for source in app.owned() if source.topic == asked}
        serve(app, names("events"), lambda unit: self._events_loop.run(self.events(unit)))
        serve(app, names("requests"), lambda unit: self._requests_loop.run(self.requests(unit)))
        return app

    async def _positions(
        self, stretches: Mapping[Source, Stretch], waiting: Callable[[str], object]
    ) -> Mapping[Source, int]:
        self.requests.letters.doubt()
        return await self._events_loop.run(self.events.positions(stretches, waiting))

    def pages(self, app: BatchApp) -> Pages:
        """What is said over HTTP."""
        return Pages(
            settings=self.settings,
            metrics=self.metrics,
            reads=self._store("pages"),
            control=self.control,
            rehearsed=lambda: self.rehearsal.ready,
            assigned=lambda: {tp.topic for tp in app.consumer.assignment()},
            holdup=app.holdup,
            misfit_topics=app.misfit_topics,
            lags=app.lags,
            standing=partial(standing_of, app),
            unowned=self.unowned,
            memory=self._memory,
            paused=self.paused.said,
            api=self.api(),
            loop=self._http_loop,
        )

    def api(self) -> Api:
        """What takes events and answers requests over HTTP; all of it has connections and threads of its own."""
        settings, outbox = self.settings, Outbox(publisher=self._publisher("http"))
        answerer = Answerer(
            users=self._store("http", "posted"),
            patience=self._patience["posted"],
            scorer=Scorer(self.serving, settings),
            rules=Rules.of(settings, {}),
            settings=settings,
            stage=partial(self.metrics.stage, lane="requests"),
            ads=self.ads.posted,
        )
        return Api(
            settings=settings,
            slates=StoredSlates(reads=self._store("http", "stored"), serving=self.serving, settings=settings),
            events=PostedEvents(outbox=outbox, settings=settings),
            requests=PostedRequests(
                answerer=answerer, outbox=outbox, settings=settings, metrics=self.metrics, shown=self.shown
            ),
            started=lambda: self.control.caught_up.is_set() and self.rehearsal.ready,
        )

    async def run_control(self) -> None:
        """Read the control topics for as long as the worker lives."""
        try:
            await self.control.run()
        finally:
            await self.control_topics.letters.stop()  # the lanes have ended by now
            await self._events_loop.run(self.events.stop())
            await self._requests_loop.run(self.requests.stop())

    async def run_snapshots(self) -> None:
        """Take what is announced from when the control topics were read, for as long as the worker lives."""
        await self.control.caught_up.wait()
        await self.snapshots.run()

    async def turn_over(self) -> None:
        """Take back rows of items that nobody knows any more, for as long as the worker lives."""
        while True:
            await asyncio.sleep(TURN_OVER_S)
            await self._turning.run(self.serving.turn_over)

    async def tell_funnel(self) -> None:
        """Tell the funnel of ads once a second, while the worker lives."""
        while True:
            await asyncio.sleep(TELL_S)
            await asyncio.gather(
                self._requests_loop.run(self.requests.tell_funnel()), self._events_loop.run(self.events.tell_funnel())
            )

    async def watch_store(self, app: BatchApp) -> None:
        """Have the events folded again that the store lost, also where no more come; while the worker lives."""
        topic = self.settings.topics.name("events")
        while True:
            await asyncio.sleep(STORE_LOOK_S)
            mine = [Source(*tp) for tp in app.consumer.assignment() if tp.topic == topic]
            if await self._events_loop.run(self.events.is_behind(mine)):
                await cast(BatchConsumer, app.consumer).send_back(topic)

    async def is_warm(self) -> None:
        """Return when the control topics were read, the snapshot they named serves, or cannot be had, and it rehearsed.

        A worker that took partitions before would offer what was removed long ago, in no learned order, and let its
        lanes wait for a compiler.
        """
        await asyncio.gather(OwnLoop("rehearsal").run(self._rehearse()), self.control.caught_up.wait())
        await self.snapshots.settled()

    async def _rehearse(self) -> None:
        self.rehearsal.slates()


def _refuse_useless_store(settings: Settings) -> None:
    """See that Redis would do what a worker needs; one that is away is waited for later."""
    store = user_store(settings)
    try:
        store.rehearse()
    except StoreUnavailable as error:
        log.warning("the store cannot be used yet: %s", error)
    finally:
        store.close()


def run_worker(settings: Settings) -> int:
    """Run a worker until SIGTERM; returns the exit code.

    Raises:
        SettingsError: something it cannot start without is missing.
        StoreRefused: Redis answers, and will not do what a worker needs.
        TopicsUnfit: a topic is missing, or topics keyed by user differ in partitions.
    """
    require_consent_default(settings)
    _refuse_useless_store(settings)
    asyncio.run(topics.check(settings))
    worker = Worker(settings)
    with closing(spans_of(settings, "worker")) as worker.metrics.spans:
        app = worker.member()
        pages = worker.pages(app)
        return run_apps(
            [app],
            beside=[
                worker.run_control,
                worker.control_topics.letters.run,
                worker.run_snapshots,
                worker.turn_over,
                worker.paused.run,
                worker.unowned.run,
                worker.ads.spending.run,
                worker.ads.stats.run,
                worker.tell_funnel,
                pages.run,
                pages.tell_funnel,
                partial(worker.watch_store, app),
            ],
            ready=worker.is_warm,
        )
