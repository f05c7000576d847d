"""The composition root: which piece of which package is handed to which, for a worker; it needs no torch."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import numpy as np
from aiokafka import ConsumerRecord
from msgspec import structs

from embeddings import snapshots
from embeddings.errors import IdCollision, SnapshotRefused, StoreUnavailable
from embeddings.events import Source
from embeddings.ids import item_ids
from embeddings.index import build_index
from embeddings.items import Items
from embeddings.redis_store import RedisUserStore
from ranking.errors import RankingError
from streams.configuration import require_consent_default
from streams.contract.catalogue_records import CatalogueFacts, read_catalogue
from streams.contract.counter_records import counts_of
from streams.contract.deadletters import Code, DeadLetter
from streams.contract.manifests import manifest_of
from streams.contract.messages import RawRecord
from streams.contract.parsing import Rules, read
from streams.contract.records import ModelManifest, Slate, decode_counter, decode_model, decode_slate, encode
from streams.process.health import HealthServer
from streams.process.host import run_apps
from streams.process.member import make_member, serve
from streams.process.metrics import WorkerMetrics
from streams.process.threads import Thread
from streams.serving.live_model import BuildIndex, LiveModel, Serving
from streams.serving.pipeline import Recommender, epoch_ms
from streams.serving.requests import Answerer
from streams.serving.scoring import Scorer
from streams.settings import Settings, TopicName
from streams.transport import topics
from streams.transport.batching import BatchApp
from streams.transport.control import ControlReader
from streams.transport.failures import DeadLetterShare, Failed, Guard
from streams.transport.gates import Lane
from streams.transport.publishing import Publisher
from streams.worker.lanes import EventShards, EventsLane, RequestsLane, Shards, dead_letters

T = TypeVar("T")
log = logging.getLogger(__name__)
LARGEST_REQUEST = 8 * 1024 * 1024
_BEHIND = 8
"""Batches of a shard that may be answered and not stored yet: what they led to is on its way to the broker."""


def index_builder(settings: Settings) -> BuildIndex:
    """How an index is built under these settings."""
    s = settings.index
    return partial(
        build_index,
        kind=s.kind,
        device=s.device,
        nprobe=s.nprobe,
        threads=s.threads,
        memory_mb=s.memory_mb,
    )


def user_store(settings: Settings) -> RedisUserStore:
    """A store of its own connections, as the settings say; it connects at its first call."""
    s = settings.redis
    return RedisUserStore(
        _with_credentials(s.url, s.username, s.password.get_secret_value() if s.password else None),
        width=settings.learner.dimensions,
        buckets=s.buckets,
        prefix=s.prefix,
        state_ttl_s=s.state_ttl_s,
        timeout_s=s.timeout_s,
    )


def _with_credentials(url: str, username: str | None, password: str | None) -> str:
    if not username and not password:
        return url
    parts = urlsplit(url)
    who = f"{quote(username or '', safe='')}:{quote(password or '', safe='')}@"
    return urlunsplit(parts._replace(netloc=who + parts.netloc))


@dataclass(slots=True)
class Worker:
    """Everything a worker is made of."""

    settings: Settings
    metrics: WorkerMetrics = field(init=False)
    serving: Serving = field(init=False)
    events: EventShards = field(init=False)
    requests: Shards[RequestsLane] = field(init=False)
    control: ControlReader = field(init=False)
    publisher: Publisher = field(init=False)
    reads: RedisUserStore = field(init=False)
    app: BatchApp | None = field(init=False, default=None)
    _rules: Rules = field(init=False)
    _lagging: set[Source] = field(init=False, default_factory=set)
    _pinged: str | None = field(init=False, default="the store was not asked yet")
    _swap: "asyncio.Task[None] | None" = field(init=False, default=None)
    _models: Thread = field(init=False, default_factory=lambda: Thread("models"))
    _version: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        settings = self.settings
        self.metrics = WorkerMetrics()
        self._rules = Rules.of(settings, {settings.topics.name("events"): settings.topics.partitions})
        items = Items()
        build = index_builder(settings)
        self.serving = Serving(
            items,
            build,
            LiveModel.empty(items, build, settings.learner.dimensions),
            fresh_for_s=settings.retrieval.fresh_for_s,
        )
        self.publisher = self._publisher()
        self.reads = user_store(settings)
        dead_share = DeadLetterShare(settings.limits.dead_letter_share)
        self.events = EventShards("events", [self._events_lane(dead_share)])
        self.requests = Shards("requests", [self._requests_lane()])
        names = settings.topics.name
        self.control = ControlReader(
            options=settings.kafka.client_options(),
            handlers={
                names("catalog"): self._catalogue,
                names("counters"): self._counters,
                names("models"): self._models_announced,
            },
        )

    def _publisher(self) -> Publisher:
        """One for each loop that publishes; it connects when it has something to publish."""
        kafka = self.settings.kafka
        return Publisher(kafka.client_options(), max_request_bytes=LARGEST_REQUEST, idempotent=kafka.idempotent)

    def _events_lane(self, dead_share: DeadLetterShare) -> EventsLane:
        """One shard's: a store and a publisher of its own, everything else shared."""
        return EventsLane(
            recommender=Recommender(
                users=user_store(self.settings),
                scorer=Scorer(self.serving, self.settings),
                rules=self._rules,
                settings=self.settings,
                stage=self.metrics.stage,
            ),
            publisher=self._publisher(),
            teller=self._publisher(),
            settings=self.settings,
            metrics=self.metrics,
            dead_share=dead_share,
        )

    def _requests_lane(self) -> RequestsLane:
        settings, users = self.settings, user_store(self.settings)
        return RequestsLane(
            answerer=Answerer(users=users, scorer=Scorer(self.serving, settings), rules=self._rules, settings=settings),
            publisher=self._publisher(),
            settings=settings,
            metrics=self.metrics,
        )

    async def run_control(self) -> None:
        """Read the control topics for as long as the worker lives."""
        try:
            await self.control.run()
        finally:
            await self.publisher.stop()  # the lanes have ended by now
            await self.events.stop()
            await self.requests.stop()

    async def is_warm(self) -> None:
        """Return when the control topics were read and the snapshot they named serves, or was refused.

        A worker that took partitions before would offer what was removed long ago, in no learned order.
        """
        await self.control.caught_up.wait()
        while self._swap is not None and not self._swap.done():
            await asyncio.wait([self._swap])

    async def run_pages(self) -> None:
        """Serve health pages, metrics and stored slates for as long as the worker lives."""
        http = self.settings.http
        server = HealthServer(
            host=http.host,
            port=http.port,
            registry=self.metrics.registry,
            started={"control": self._control_read},
            ready={"store": self._store_answers, "partitions": self._has_partitions},
            latest_slate=self._latest_slate,
        )
        async with server:
            log.info("http://%s:%d answers", http.host, server.port)
            while True:
                self._pinged = await asyncio.to_thread(self._ping)
                self._report_lag()
                await asyncio.sleep(1)

    def _report_lag(self) -> None:
        """Records between what was delivered and the end of each owned partition, and how old the next one is."""
        if self.app is None:
            return
        lags = self.app.lags()
        for source in self._lagging - lags.keys():
            self.metrics.released(source)
        for source, lag in lags.items():
            self.metrics.lag(source, lag.records, lag.seconds)
        self._lagging = set(lags)

    def _control_read(self) -> str | None:
        return None if self.control.caught_up.is_set() else "control topics are still being read"

    def _store_answers(self) -> str | None:
        return self._pinged

    def _has_partitions(self) -> str | None:
        return None if self.app is not None and self.app.consumer.assignment() else "no partition is assigned yet"

    def _ping(self) -> str | None:
        try:
            self.reads.latest_slate("")
        except StoreUnavailable as error:
            return str(error)
        return None

    async def _latest_slate(self, user_id: str) -> bytes | None:
        """The stored slate, without what was removed or seen since; None when it expired."""
        value = await asyncio.to_thread(self.reads.latest_slate, user_id)
        if value is None:
            return None
        return await asyncio.to_thread(self._still_good, user_id, decode_slate(value))

    def _still_good(self, user_id: str, slate: Slate) -> bytes | None:
        if slate.expires_at <= epoch_ms():
            return None
        profile = self.reads.read([user_id])
        ids_1K = item_ids([item.item_id for item in slate.items])[None]
        seen_K = profile.seen.hits(np.zeros(1, np.int32), profile.states.item_UH, ids_1K)[0]
        with self.serving.items.lock:
            row_K = self.serving.items.ids.rows(ids_1K[0])
            gone_K = (row_K < 0) | self.serving.items.blocked(int(time.time()))[row_K]
        good = [item for item, out in zip(slate.items, (seen_K | gone_K).tolist(), strict=True) if not out]
        return encode(structs.replace(slate, items=tuple(good)))

    async def _catalogue(self, records: Sequence[ConsumerRecord]) -> None:
        facts, removed, dead = read_catalogue(Source(records[0].topic, records[0].partition), records, self._rules)
        dead += await asyncio.to_thread(self._admit, facts, removed)
        await self._put_aside("catalog", dead)
        self.metrics.index_items.set(self.serving.live.index.size)

    def _admit(self, facts: list[CatalogueFacts], removed: list[str]) -> list[DeadLetter]:
        """Let items in, all at once, or one by one where one of them collides."""
        try:
            self.serving.catalogue([item.facts for item in facts], removed)
            return []
        except IdCollision:
            for name in removed:
                with suppress(IdCollision):  # the id is another item's, so this one never was in
                    self.serving.catalogue([], [name])
            return [letter for item in facts if (letter := self._admit_one(item)) is not None]

    def _admit_one(self, item: CatalogueFacts) -> DeadLetter | None:
        try:
            self.serving.catalogue([item.facts], [])
        except IdCollision as error:
            return DeadLetter(item.source, item.record.offset, item.record, Code.id_collision, str(error))
        return None

    async def _readable(
        self, topic: TopicName, records: Sequence[ConsumerRecord], decoder: Callable[[bytes], T]
    ) -> list[tuple[RawRecord, T | None]]:
        """The records of a control topic that can be read; the others are dead-lettered."""
        source = Source(records[0].topic, records[0].partition)
        good, dead = read(source, records, decoder, self._rules, compacted=True)
        await self._put_aside(topic, dead)
        return good

    async def _put_aside(self, topic: TopicName, dead: Sequence[DeadLetter]) -> None:
        out = dead_letters(dead, self.settings.topics.dead_letters(topic))
        done = await Guard().run(lambda: self.publisher.send_all(out)) if out else None
        if isinstance(done, Failed):
            raise done.error
        for letter in dead:
            self.metrics.dead_letter(topic, letter.code)

    async def _counters(self, records: Sequence[ConsumerRecord]) -> None:
        good = await self._readable("counters", records, decode_counter)
        if counters := {record.key: counter for record, counter in good if counter is not None}:
            await asyncio.to_thread(self.serving.count, counts_of(list(counters.values())))

    async def _models_announced(self, records: Sequence[ConsumerRecord]) -> None:
        """Take the latest announcement only; the index is built beside the one that serves."""
        manifests = [m for _, m in await self._readable("models", records, decode_model) if m is not None]
        pinned = self.settings.model.pinned_version
        named = [m for m in manifests if m.kind == "snapshot" and m.version.isdecimal()]
        wanted = [m for m in named if pinned is None or m.version == pinned]
        if wanted:
            self._version = int(wanted[-1].version)
            self._swap = asyncio.create_task(self._take(wanted[-1]))

    async def _take(self, manifest: ModelManifest) -> None:
        try:
            snapshot = await self._models.run(self._fetch, manifest)
            if snapshot is None:
                return
        except (SnapshotRefused, RankingError, OSError) as error:
            self.metrics.refused()
            log.warning("snapshot %s refused: %s", manifest.version, error)
            return
        live = self.serving.live
        self.metrics.swapped(version=manifest.version, created_at_s=manifest.created_ms / 1000)
        self.metrics.indexed(
            items=live.index.size, kind=live.index.kind, device=live.index.kind, version=manifest.version,
            built_at_s=time.time(),
        )  # fmt: skip

    def _fetch(self, manifest: ModelManifest) -> snapshots.Snapshot | None:
        if int(manifest.version) < self._version:
            return None  # a newer one was announced meanwhile
        snapshot = snapshots.load(manifest_of(manifest))
        if snapshot.source_ND.shape[1] != self.settings.learner.dimensions:
            raise SnapshotRefused(
                f"vectors of {snapshot.source_ND.shape[1]} components, learner.dimensions says otherwise"
            )
        self.serving.swap(snapshot)
        return snapshot


def run_worker(settings: Settings) -> int:
    """Run a worker until SIGTERM; returns the exit code.

    Raises:
        SettingsError: something it cannot start without is missing.
        TopicsUnfit: a topic is missing, or topics keyed by user differ in partitions.
    """
    require_consent_default(settings)
    asyncio.run(topics.check(settings))
    worker, names = Worker(settings), settings.topics.name
    b = settings.batching
    lane = Lane(max_batch=b.max_batch, depth=b.depth, behind=_BEHIND, stuck_after_s=b.stuck_after_s)
    worker.app = make_member(
        settings,
        "serving",
        {names("events"): lane, names("requests"): Lane(max_batch=b.max_batch, stuck_after_s=b.stuck_after_s)},
        positions=worker.events.positions,
        instance_id=settings.kafka.instance_id,
    )
    serve(worker.app, names("events"), worker.events)
    serve(worker.app, names("requests"), worker.requests)
    return run_apps([worker.app], beside=[worker.run_control, worker.run_pages], ready=worker.is_warm)
