"""The learner as a process: observations in; snapshots, item counters and checkpoints out.

Where it goes on after a death is decided by the checkpoint alone, never by committed offsets: counts, weights and the
offsets they stand for are one file. What it reads again it drops by the marks in that file.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from aiohttp import web

from embeddings import snapshots
from embeddings.events import Source
from embeddings.snapshots import Manifest
from embeddings.svd import Factors
from streams.contract import observations
from streams.contract.counter_records import counters_of
from streams.contract.manifests import announced
from streams.contract.messages import Outgoing, Part
from streams.contract.records import encode
from streams.learning.checkpoints import Checkpoint, CheckpointFolder
from streams.learning.learner import Frozen, Learner
from streams.process.health import HealthServer
from streams.process.host import run_apps
from streams.process.member import make_member, serve
from streams.process.metrics import LearnerMetrics
from streams.process.threads import Thread
from streams.settings import Settings
from streams.transport import topics
from streams.transport.gates import Lane
from streams.transport.leader import LeaderAssignor
from streams.transport.ledger import Unit
from streams.transport.publishing import Publisher, PublishFailed

log = logging.getLogger(__name__)
SNAPSHOT = "snapshot"


@dataclass(slots=True)
class Teacher:
    """Feeds a `Learner`, and tells the workers what it learned. Without partitions it stands by and says nothing."""

    settings: Settings
    leads: Callable[[], bool] = lambda: True
    learner: Learner = field(init=False)
    metrics: LearnerMetrics = field(init=False, default_factory=LearnerMetrics)
    publisher: Publisher = field(init=False)
    folder: CheckpointFolder = field(init=False)
    offsets: dict[Source, int] = field(init=False, default_factory=dict)
    _thread: Thread = field(init=False, default_factory=lambda: Thread("learner"))
    _builder: Thread = field(init=False, default_factory=lambda: Thread("builder"))
    _restored: bool = field(init=False, default=False)
    _due_rows: int = field(init=False, default=0)
    _built_s: float = field(init=False, default=0.0)
    _build_took_s: float = field(init=False, default=0.0)
    _building: bool = field(init=False, default=False)
    _pages: web.AppRunner | None = field(init=False, default=None)
    _port: int = field(init=False, default=0)
    _checkpointed_rows: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        s = self.settings
        self.learner = Learner(s)
        self.publisher = Publisher(s.kafka.client_options(), idempotent=s.kafka.idempotent)
        self.folder = CheckpointFolder(s.learner.checkpoint_dir, s.learner.keep)

    async def positions(self, committed: Mapping[Source, int]) -> Mapping[Source, int]:
        """Go on where the counts end: from memory, or from the last checkpoint where that is further.

        Raises:
            UnreadableCheckpoint: the newest checkpoint is damaged; the learner ends.
        """
        await self._thread.run(self._restore)
        return {source: self.offsets.get(source, 0) for source in committed}

    def _restore(self) -> None:
        self._restored = True
        checkpoint = self.folder.latest(beyond=self.learner.rows)
        if checkpoint is not None:
            self.learner = Learner(self.settings)
            self.learner.restore(checkpoint.arrays, checkpoint.text)
            self.offsets = dict(checkpoint.offsets)
            self._due_rows = self.learner.rows
            log.info("goes on from a checkpoint of %d rows", self.learner.rows)

    async def __call__(self, unit: Unit) -> None:
        """Learn a unit of observations.

        Raises:
            UnreadableObservation: the log is not ours; the learner ends before it loses rows.
        """
        self.metrics.batch("observations", unit.size)
        rows, told = await self._thread.run(self._learn, unit.parts)
        self.metrics.learned(rows, told - rows)
        if self._refresh_is_due():
            self._building, self._due_rows = True, self.learner.rows
            frozen = await self._thread.run(self.learner.freeze, int(time.time()))
            asyncio.create_task(self._refresh(frozen))  # noqa: RUF006  # ends by itself, errors are logged there

    def _learn(self, parts: Sequence[Part]) -> tuple[int, int]:
        rows = told = 0
        for part in parts:
            for record in part.records:
                observation = observations.decode(record.value)
                told += len(observation)
                rows += self.learner.learn(observation)
            self.offsets[part.source] = part.last + 1
        return rows, told

    def _refresh_is_due(self) -> bool:
        s = self.settings.learner
        if self._building or self.learner.rows - self._due_rows < s.refresh_events:
            return False
        return time.monotonic() - self._built_s >= max(s.refresh_min_s, 10 * self._build_took_s)

    async def _refresh(self, frozen: Frozen) -> None:
        began = time.monotonic()
        try:
            manifest, factors = await self._builder.run(self._build, frozen)
            self.learner.factors = factors
            await self._announce(manifest)
        except (OSError, PublishFailed) as error:
            log.error("snapshot %d was not announced: %s", frozen.version, error)
        else:
            self.metrics.announced(seconds=time.monotonic() - began, items=len(frozen.names))
        finally:
            self._built_s, self._building = time.monotonic(), False

    def _build(self, frozen: Frozen) -> tuple[Manifest, Factors]:
        s, began_s = self.settings.learner, time.thread_time()
        snapshot, factors = frozen.build(time.time_ns() // 1_000_000)
        manifest = snapshots.write(snapshot, s.snapshot_dir, keep=s.keep, base_url=self._base_url())
        self._build_took_s = time.thread_time() - began_s  # what it costs, not how long others kept it waiting
        return manifest, factors

    def _base_url(self) -> str:
        s = self.settings.learner
        return (s.public_url or f"http://{s.host}:{self._port}") if s.serve else ""

    async def _serve_snapshots(self) -> None:
        """Serve the folder of snapshots, read only, for workers that do not share the disk."""
        s = self.settings.learner
        s.snapshot_dir.mkdir(parents=True, exist_ok=True)
        app = web.Application()
        app.router.add_static("/", s.snapshot_dir)
        self._pages = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._pages.setup()
        await web.TCPSite(self._pages, s.host, s.port).start()
        self._port = self._pages.addresses[0][1]
        log.info("snapshots are served at %s", self._base_url())

    async def _announce(self, manifest: Manifest) -> None:
        progress = self.learner.trainer.listwise()
        record = announced(
            manifest,
            kind=SNAPSHOT,
            events=self.learner.rows,
            items=manifest.shapes["ids_N"][0],
            dimensions=self.settings.learner.dimensions,
            metrics={"loss": progress.loss, "hits": progress.hits, "retrieval_hits": progress.retrieval_hits},
        )
        topic = self.settings.topics.name("models")
        await self.publisher.send_all([Outgoing(topic, SNAPSHOT.encode(), encode(record))])
        self.metrics.scored("next_item", loss=progress.loss, error=float("nan"), ratio=float("nan"))

    async def run_clock(self) -> None:
        """Publish changed counters and write checkpoints on time, for as long as the learner lives; one at its end."""
        s = self.settings.learner
        checkpoint_s = time.monotonic()
        try:
            while True:
                await asyncio.sleep(s.counters_every_s)
                if not self.leads():
                    continue
                await self._publish_counters()
                if time.monotonic() - checkpoint_s >= s.checkpoint_every_s:
                    checkpoint_s = time.monotonic()
                    await self.checkpoint()
        finally:
            await self.checkpoint()
            await self.publisher.stop()

    async def _publish_counters(self) -> None:
        counts = await self._thread.run(self.learner.counters.changed)
        topic, now_ms = self.settings.topics.name("counters"), time.time_ns() // 1_000_000
        records = [
            Outgoing(topic, counter.item_id.encode(), encode(counter))
            for counter in counters_of(counts, self.learner.names, now_ms)
        ]
        if not records:
            return
        try:
            await self.publisher.send_all(records)
        except PublishFailed as error:
            log.warning("counters were not published, they come with the next ones: %s", error)
            await self._thread.run(self.learner.counters.tell_again, counts.item_N)

    async def checkpoint(self) -> None:
        """Write counts, weights and offsets as they are between two units, if anything was learned since the last."""
        checkpoint = await self._thread.run(self._state)
        if checkpoint is not None:
            await self._builder.run(self.folder.write, checkpoint, self._checkpointed_rows)
            self.metrics.checkpointed()

    def _state(self) -> Checkpoint | None:
        if self.learner.rows == self._checkpointed_rows or not self._restored:
            return None
        self._checkpointed_rows = self.learner.rows
        return Checkpoint(*self.learner.state(), dict(self.offsets))

    async def run_pages(self) -> None:
        """Serve health pages, metrics and, where asked for, snapshots, for as long as the learner lives."""
        if self.settings.learner.serve:
            await self._serve_snapshots()
        http = self.settings.http
        ready = {"checkpoint": lambda: None if self._restored else "stands by: nothing is assigned"}
        async with HealthServer(host=http.host, port=http.port, registry=self.metrics.registry, ready=ready):
            await asyncio.Event().wait()


def run_learner(settings: Settings) -> int:
    """Run the learner until SIGTERM; returns the exit code.

    Raises:
        TopicsUnfit: a topic is missing.
        WeightsRefused, UnreadableCheckpoint: the last checkpoint cannot be read; the message names it.
    """
    torch.set_num_threads(1)
    asyncio.run(topics.check(settings))
    teacher = Teacher(settings)
    b, topic = settings.batching, settings.topics.name("observations")
    lane = Lane(max_batch=b.max_batch, stuck_after_s=b.stuck_after_s)
    app = make_member(settings, "learner", {topic: lane}, positions=teacher.positions, assignor=LeaderAssignor)
    teacher.leads = lambda: bool(app.consumer.assignment())
    serve(app, topic, teacher)
    return run_apps([app], beside=[teacher.run_clock, teacher.run_pages])
