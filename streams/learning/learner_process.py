"""The learner as a process: observations in; snapshots, item counters and checkpoints out.

Where it goes on after a death is decided by the checkpoint alone, never by committed offsets: counts, weights and the
offsets they stand for are one file. What it reads again it drops by the marks in that file.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from aiokafka import ConsumerRecord
from numpy.typing import NDArray

from embeddings.events import Source
from embeddings.items import ItemCounts
from embeddings.stoprule import StopRule
from ranking.errors import RankingError
from streams.contract.consent import NOTHING, Judge
from streams.contract.counter_records import counters_of
from streams.contract.deadletters import DeadLetter
from streams.contract.messages import Outgoing, Part
from streams.contract.parsing import Rules
from streams.contract.records import encode, largest_record
from streams.learning import readings
from streams.learning.catalogue import CatalogueRecords
from streams.learning.checkpoints import Checkpoint, CheckpointFolder, Increment, Journal, UnreadableCheckpoint
from streams.learning.learner import Learner
from streams.learning.outcomes import surfaces_of
from streams.learning.snapshot_builder import SnapshotBuilder
from streams.learning.snapshot_server import SnapshotServer
from streams.process.folders import folders_of, writable
from streams.process.health import Check, HealthServer
from streams.process.host import run_apps
from streams.process.member import groups_of, make_member, serve
from streams.process.metrics import LearnerMetrics
from streams.process.threads import Thread
from streams.process.tracing import spans_of
from streams.process.watching import Watching
from streams.settings import Settings
from streams.transport import topics
from streams.transport.control import ControlReader
from streams.transport.deliveries import Lag
from streams.transport.failures import Failed, Guard
from streams.transport.gates import Lane
from streams.transport.leader import LeaderAssignor
from streams.transport.ledger import Unit
from streams.transport.letters import DeadLetterTopic, Floods
from streams.transport.logs import UNKNOWN_END, Expired, Stretch, refuse_foreign
from streams.transport.publishing import Publisher, PublishFailed
from streams.transport.standing import Standing, control_standing, standing_of
from streams.transport.unowned import Unowned

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Teacher:
    """Feeds a `Learner`, and tells the workers what it learned. Without partitions it stands by and says nothing."""

    settings: Settings
    leads: Callable[[], bool] = lambda: True
    holdup: Callable[[], str | None] = lambda: None
    """Why the work does not move."""
    misfit_topics: Callable[[], str | None] = lambda: None
    """Which topics are not as they should be."""
    unread: Callable[[Source], int] = lambda source: 1
    """How many records of a partition are not learned yet."""
    lags: Callable[[], Mapping[Source, Lag]] = lambda: {}
    """The lag of each owned partition."""
    standing: Callable[[], Standing | None] = lambda: None
    unowned: Unowned = field(init=False)
    learner: Learner = field(init=False)
    metrics: LearnerMetrics = field(init=False)
    publisher: Publisher = field(init=False)
    letters: DeadLetterTopic = field(init=False)
    floods: Floods = field(init=False)
    folder: CheckpointFolder = field(init=False)
    journal: Journal = field(init=False)
    offsets: dict[Source, int] = field(init=False, default_factory=dict)
    server: SnapshotServer = field(init=False)
    builder: SnapshotBuilder = field(init=False)
    catalogue: CatalogueRecords = field(init=False)
    control: ControlReader = field(init=False)
    """Reads catalogue and announcements."""
    logs: dict[Source, str] = field(init=False, default_factory=dict)
    """Which logs the offsets are of."""
    expired: Expired = field(init=False)
    _thread: Thread = field(init=False, default_factory=lambda: Thread("learner"))
    _writer: Thread = field(init=False, default_factory=lambda: Thread("checkpoints"))
    """Not the builder's: at SIGTERM the last checkpoint would wait for a build, longer than the process may take."""
    _restored: bool = field(init=False, default=False)
    _announced: bool = field(init=False, default=False)
    _checkpointed_rows: int = field(init=False, default=-1)
    _ends: dict[Source, int] = field(init=False, default_factory=dict)
    """How far the partitions went when they were assigned, where that is not learned yet."""

    def __post_init__(self) -> None:
        s = self.settings
        self.learner, self.metrics = Learner(s), LearnerMetrics(surfaces=surfaces_of(s))
        self.publisher = Publisher(
            s.kafka.client_options(),
            max_request_bytes=largest_record(s),
            idempotent=s.kafka.idempotent,
            told=self.metrics.told("learner"),
        )
        self.letters = DeadLetterTopic.of(
            s.kafka.client_options(), s.topics.dead_letters("observations"), self.publisher
        )
        self.floods = Floods(StopRule(s.limits.dead_letter_share))
        self.expired = Expired(lambda _topic, records: self.metrics.expired.labels("observations").inc(records))
        self.folder = CheckpointFolder(s.learner.checkpoint_dir, s.learner.keep)
        self.journal = Journal(self.folder)
        self.server = SnapshotServer(s.learner)
        self.builder = SnapshotBuilder(
            settings=s,
            metrics=self.metrics,
            publisher=self.publisher,
            learner=lambda: self.learner,
            base_url=self.server.url,
            caught_up=lambda: self.control.caught_up.is_set(),
        )
        rules = Rules(judge=Judge(NOTHING), max_bytes=s.events.max_bytes, max_depth=s.events.max_depth)
        self.catalogue = CatalogueRecords(rules)
        handlers = {s.topics.name("models"): self.builder.heard, s.topics.name("catalog"): self._heed}
        self.unowned = Unowned(options=s.kafka.client_options(), groups=groups_of(s), leads=lambda: self.leads())
        self.control = ControlReader(options=s.kafka.client_options(), handlers=handlers, at_end=self._catalogue_read)

    async def _heed(self, records: Sequence[ConsumerRecord]) -> None:
        """Take over catalogue records."""
        source = Source(records[0].topic, records[0].partition)
        kept, removed = await asyncio.to_thread(self.catalogue.read, source, records)
        await self._thread.run(lambda: self.learner.heed(kept, removed))  # whoever learns by then

    def _catalogue_read(self) -> None:
        """From now on what the catalogue lacks is told nobody, and what left it goes with the next snapshot."""
        self.learner.catalogue.read = True

    async def positions(
        self, stretches: Mapping[Source, Stretch], _waiting: Callable[[str], object] = lambda reason: None
    ) -> Mapping[Source, int]:
        """Go on where the counts end: from memory, or from the last checkpoint where that is further.

        Raises:
            UnreadableCheckpoint: the newest checkpoint is damaged; the learner ends.
            ForeignLog: the checkpoint's offsets are of another log; the learner ends.
        """
        self.letters.doubt()
        self.journal.begin_anew()
        await self._thread.run(self._restore)
        where, after = f"the checkpoint in {self.folder.folder}", self.offsets
        for source, stretch in stretches.items():
            refuse_foreign(source, stretch, after=after.get(source, 0), log=self.logs.get(source, ""), where=where)
        for source, stretch in stretches.items():
            self.expired.note(source, after.get(source, 0), stretch)
            self.logs[source] = stretch.log
        known = {source: stretch.end for source, stretch in stretches.items() if stretch.end < UNKNOWN_END}
        self._ends = {source: end for source, end in known.items() if end > after.get(source, 0)}
        return {source: after.get(source, 0) for source in stretches}

    def _restore(self) -> None:
        checkpoint = self.folder.latest(beyond=self.learner.rows)
        if checkpoint is not None:
            learner = Learner(self.settings, self.learner.catalogue)
            try:
                learner.restore(checkpoint.arrays, checkpoint.text, checkpoint.steps)
            except (RankingError, LookupError, TypeError, ValueError) as error:
                raise UnreadableCheckpoint(f"the newest checkpoint in {self.folder.folder}: {error!r}") from error
            self.learner = learner
            self.offsets, self.logs = dict(checkpoint.offsets), dict(checkpoint.logs)
            self.builder.due_rows = self.learner.rows
            log.info("goes on from a checkpoint of %d rows", self.learner.rows)
        self._restored = True

    async def __call__(self, unit: Unit) -> None:
        """Put aside what is no observation, and learn the others.

        Raises:
            LaterObservation: of a later release; the learner ends before it loses rows.
            PublishFailed: a dead letter can never be published; the learner ends.
        """
        self.metrics.batch("observations", unit.size)
        with self.metrics.spans.batch("observations", unit.parts):
            with self.metrics.stage("read"):
                told, dead = await self._thread.run(readings.read, unit.parts, self.settings.events.max_bytes)
            await self._put_aside(unit, dead)
            self.floods.count(unit.parts, dead)
            with self.metrics.stage("learn"):
                rows = await self._thread.run(self._learn, unit.parts, told)
            self._tell(rows, sum(len(o) for o, _ in told) - rows)
            if self.builder.begins():
                with self.metrics.stage("freeze"):
                    frozen = await self._thread.run(self.learner.freeze, int(time.time()))
                asyncio.create_task(self.builder.build(frozen))  # noqa: RUF006  # ends by itself, errors are logged there

    def _tell(self, rows: int, skipped: int) -> None:
        """Tell the metrics what a batch came to."""
        metrics, outcomes = self.metrics.learning, self.learner.outcomes
        metrics.learned(rows, skipped)
        metrics.closed(*outcomes.take_closed())
        for kind, count in (outcomes.attribution.take_dropped() | {"ads": self.learner.ads.take_dropped()}).items():
            metrics.dropping(kind, count)

    async def _put_aside(self, unit: Unit, dead: Sequence[DeadLetter]) -> None:
        guard = Guard(retrying=lambda error: unit.retrying(type(error).__name__))
        done = await guard.run(lambda: self.letters.put(dead, still_waiting=unit.retrying))
        if isinstance(done, Failed):
            raise done.error
        for letter in done.result:
            self.metrics.dead_letter("observations", letter.code)

    def _learn(self, parts: Sequence[Part], told: Sequence[readings.Told]) -> int:
        rows = sum(self.learner.learn(observation, told_s) for observation, told_s in told)
        self.offsets.update((part.source, part.last + 1) for part in parts)
        return rows

    async def run_clock(self) -> None:
        """Publish changed counters and write checkpoints on time, for as long as the learner lives; one at its end."""
        s = self.settings.learner
        checkpoint_s = time.monotonic()
        try:
            while True:
                await asyncio.sleep(s.counters_every_s)
                if not self.leads():
                    self._announced = False
                    self.metrics.resigned()
                    continue
                await self._announce_again()
                await self._publish_counters()
                if time.monotonic() - checkpoint_s >= s.checkpoint_every_s:
                    checkpoint_s = time.monotonic()
                    await self.checkpoint()
        finally:
            try:
                await self.checkpoint()
            finally:
                await self.publisher.stop()

    async def _announce_again(self) -> None:
        """Once it leads, knows what was announced, and listens where that can be fetched."""
        if not self._announced and self._restored and self.control.caught_up.is_set() and self.server.listens:
            self._announced = await self.builder.announce_again()
            self.builder.report()

    def _may_count(self) -> bool:
        """Whether its counts are fit to be told: of a life that has a number, and of all that there was at its start.

        What it has counted while it catches up would put those items first whose events come first in the log.
        """
        offsets, unread = self.offsets, self.unread
        self._ends = {s: end for s, end in self._ends.items() if offsets.get(s, 0) < end and unread(s) > 0}
        return self._restored and self.control.caught_up.is_set() and not self._ends

    def _changed(self) -> tuple[ItemCounts, dict[int, str], list[str]]:
        """Counts to be told, names of the items, and names of those that have none any more.

        A life without a number gets one above those of all before, and so of every version.
        """
        learner = self.learner
        if not learner.counters.epoch:
            learner.version = max(learner.version, *self.builder.said.versions, int(time.time())) + 1
            learner.counters.epoch = learner.version
        withdrawn, learner.withdrawn = learner.withdrawn, []
        counts = learner.counters.changed(learner.roster.may_tell)
        return counts, learner.roster.named(counts.item_N), withdrawn

    async def _publish_counters(self) -> None:
        if not self._may_count():
            return
        counts, names, withdrawn = await self._thread.run(self._changed)
        topic, now_ms = self.settings.topics.name("counters"), time.time_ns() // 1_000_000
        records = [Outgoing(topic, name.encode(), None) for name in withdrawn]
        told = counters_of(counts, names, now_ms)
        records += [Outgoing(topic, counter.item_id.encode(), encode(counter)) for counter in told]
        if not records:
            return
        try:
            await self.publisher.send_all(records)
        except PublishFailed as error:
            log.warning("counters were not published, they come with the next ones: %s", error)
            self.metrics.learning.failed("counters")
            await self._thread.run(self._tell_again, counts.item_N, withdrawn)

    def _tell_again(self, item_N: NDArray[np.uint64], withdrawn: list[str]) -> None:
        self.learner.counters.tell_again(item_N)
        self.learner.withdrawn[:0] = withdrawn

    async def checkpoint(self) -> None:
        """Write what changed of counts, weights and offsets, as they are between two units, if rows were learned.

        One that cannot be written is logged; the learner goes on, and would be back at the one before.
        """
        if sizes := await self._thread.run(self._sizes):
            await self._writer.run(self.journal.make_room, sizes)
        rows, taken = await self._thread.run(self._state)
        if taken is None:
            return
        try:
            with self.metrics.stage("checkpoint"):
                await self._writer.run(self.journal.put, taken, rows)
        except OSError as error:
            log.error("no checkpoint, it is tried again: %s", error)
            self.metrics.learning.failed("checkpoint")
        else:
            self._checkpointed_rows = rows
            self.metrics.learning.checkpointed()

    def _sizes(self) -> dict[str, int]:
        """The bytes of the arrays of a whole, if that is what is to be written."""
        if self.learner.rows == self._checkpointed_rows or not self._restored or not self.journal.expects_whole:
            return {}
        return {name: array.nbytes for name, array in self.learner.state()[0].items()}

    def _state(self) -> tuple[int, Checkpoint | Increment | None]:
        rows = self.learner.rows
        if rows == self._checkpointed_rows or not self._restored:
            return rows, None
        checkpoint = Checkpoint(*self.learner.state(), dict(self.offsets), dict(self.logs))
        return rows, self.journal.take(checkpoint, self.learner.pairs.log())

    async def run_pages(self) -> None:
        """Serve health pages, metrics and, where asked for, snapshots, for as long as the learner lives."""
        await self.server.start()
        http, ready = self.settings.http, self.checks()
        watching = Watching(
            settings=self.settings,
            metrics=self.metrics,
            standing=self.standing,
            lags=self.lags,
            control=partial(control_standing, self.control),
            checks={"ready": ready},
            unowned=self.unowned,
        )
        registry, seen = self.metrics.registry, self.metrics.http.observed
        async with HealthServer(
            http.host, http.port, registry, ready=ready, tls=http.tls(), observe=seen, connections=http.max_connections
        ):
            while True:
                self.metrics.learning.leads.set(self.leads())
                await watching.second()

    def checks(self) -> dict[str, Check]:
        """What `/readyz` asks: docs/hosts.md says what each means."""
        return {
            "checkpoint": lambda: None if self._restored else "stands by: nothing is assigned",
            "control": self.control.unread,
            "work": lambda: self.holdup(),
            "topics": lambda: self.misfit_topics(),
        }


def run_learner(settings: Settings) -> int:
    """Run the learner until SIGTERM; returns the exit code.

    Raises:
        SettingsError: a folder of the learner cannot be written.
        TopicsUnfit: a topic is missing.
        WeightsRefused, UnreadableCheckpoint: the last checkpoint cannot be read; the message names it.
    """
    torch.set_num_threads(1)
    for folder, setting in folders_of(settings):
        writable(folder, setting)
    asyncio.run(topics.check(settings))
    teacher = Teacher(settings)
    b, topic = settings.batching, settings.topics.name("observations")
    lane = Lane(max_batch=b.max_batch, stuck_after_s=b.stuck_after_s, give_up_after_s=b.give_up_after_s)
    app = make_member(settings, "learner", {topic: lane}, positions=teacher.positions, assignor=LeaderAssignor)
    teacher.leads, teacher.holdup = lambda: bool(app.consumer.assignment()), app.holdup
    teacher.misfit_topics, teacher.lags, teacher.standing = app.misfit_topics, app.lags, partial(standing_of, app)
    teacher.unread = lambda source: lag.records if (lag := app.lags().get(source)) else 1
    serve(app, topic, teacher)
    with closing(spans_of(settings, "learner")) as teacher.metrics.spans:
        return run_apps([app], beside=[teacher.run_clock, teacher.control.run, teacher.run_pages, teacher.unowned.run])
