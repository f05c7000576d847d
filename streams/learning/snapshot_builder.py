"""Snapshots of what was learned: built beside the learning, written, announced, and withdrawn when they are old."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aiokafka import ConsumerRecord
from msgspec import structs

from embeddings import snapshots
from embeddings.errors import SnapshotRefused
from embeddings.snapshots import Manifest
from embeddings.svd import Factors
from ranking.trainer import Head
from streams.contract.manifests import Announcements, announced, key_of, version_of
from streams.contract.messages import Outgoing
from streams.contract.records import ModelManifest, encode
from streams.learning.learner import Frozen, Learner
from streams.process.metrics import LearnerMetrics, Objective
from streams.process.threads import Thread
from streams.settings import Settings
from streams.transport.publishing import Publisher, PublishFailed

log = logging.getLogger(__name__)
HEADS: dict[Head, Objective] = {"click": "engage", "complete": "complete"}
"""What the heads of the ranker are called in metrics."""


@dataclass(slots=True, kw_only=True)
class SnapshotBuilder:
    """Builds one snapshot at a time, in a thread of its own, and not more often than a tenth of the time.

    Attributes:
        learner: who learns now.
        base_url: where workers fetch from; empty where they share the disk.
        caught_up: whether `models` was read to its end: before, nobody knows what is pinned, and nothing is withdrawn.
        said: what the topic says, by this learner and others.
        due_rows: how many rows were learned when the last one was begun.
        took_s: what the last one cost.
        thread: where what takes long is done, one after the other.
    """

    settings: Settings
    metrics: LearnerMetrics
    publisher: Publisher
    learner: Callable[[], Learner]
    base_url: Callable[[], str]
    caught_up: Callable[[], bool]
    said: Announcements = field(init=False, default_factory=Announcements)
    building: bool = False
    due_rows: int = 0
    took_s: float = 0.0
    _built_s: float = 0.0
    thread: Thread = field(init=False, default_factory=lambda: Thread("builder"))

    async def heard(self, records: Sequence[ConsumerRecord]) -> None:
        """Take over records of the `models` topic; workers put aside those that cannot be read."""
        for record in records:
            self.said.read(record.key, record.value)

    def begins(self) -> bool:
        """Whether the next one is due; then it has begun, and `build` must follow."""
        s, learner = self.settings.learner, self.learner()
        rows = learner.rows
        if self.building or rows - self.due_rows < s.refresh_events:
            return False
        if time.monotonic() - self._built_s < max(s.refresh_min_s, 10 * self.took_s):
            return False
        self.building, self.due_rows = True, rows
        learner.version = max(learner.version, *self.said.versions, 0)  # whoever announced it: the next one is newer
        return True

    async def build(self, frozen: Frozen) -> None:
        """Build, write and announce; what does not work out is logged, and comes with the next one."""
        began = time.monotonic()
        try:
            manifest, factors = await self.thread.run(self._write, frozen)
            self.learner().factors = factors
            await self._announce(manifest)
            await self._withdraw(manifest)
        except (OSError, PublishFailed, SnapshotRefused) as error:
            log.error("snapshot %d was not announced, or old ones not withdrawn: %s", frozen.version, error)
            self.metrics.learning.failed("snapshot")
        else:
            self.metrics.learning.announced(seconds=time.monotonic() - began, items=manifest.shapes["ids_N"][0])
        finally:
            self._built_s, self.building = time.monotonic(), False

    async def announce_again(self) -> bool:
        """Announce what is in the folder and is announced nowhere or elsewhere; returns whether that is settled.

        A learner that was started again may be reached at another address. The newest comes last, for releases that
        take whatever was announced last.
        """
        s = self.settings.learner
        try:
            mine = await self.thread.run(snapshots.manifests, s.snapshot_dir)
            records = [self._moved(manifest) for manifest in mine if manifest.version in self._kept(mine)]
            if any(self.said.versions.get(int(record.version)) != record for record in records):
                records += [r for v, r in [*self.said.versions.items()][-1:] if v > mine[-1].version]
                await self._publish(*((key_of(int(record.version)), record) for record in records))
        except (OSError, PublishFailed) as error:
            log.warning("snapshots are not announced again yet: %s", error)
            return False
        return True

    def _moved(self, manifest: Manifest) -> ModelManifest:
        """What to say of a version in the folder; what another learner announced under its number stays."""
        uri = snapshots.address(self.settings.learner.snapshot_dir, manifest.version, self.base_url())
        said = self.said.versions.get(manifest.version, announced(manifest))
        return structs.replace(said, uri=uri) if said.sha256 == manifest.sha256 else said

    def _write(self, frozen: Frozen) -> tuple[Manifest, Factors]:
        s, began_s = self.settings.learner, time.thread_time()
        snapshot, factors = frozen.build(time.time_ns() // 1_000_000)
        most = self.settings.model.max_bytes
        manifest = snapshots.write(snapshot, s.snapshot_dir, base_url=self.base_url(), max_bytes=most)
        self.took_s = time.thread_time() - began_s  # what it costs, not how long others kept it waiting
        return manifest, factors

    async def _announce(self, manifest: Manifest) -> None:
        learner = self.learner()
        p, trainer = learner.trainer.listwise(), learner.trainer
        standing = {
            "ranks": float(trainer.learned),
            "examples": float(p.rows),
            "wanted": float(trainer.settings.learned_rows),
        }
        record = announced(
            manifest,
            events=learner.rows,
            items=manifest.shapes["ids_N"][0],
            dimensions=self.settings.learner.dimensions,
            metrics={"loss": p.loss, "hits": p.hits, "retrieval_hits": p.retrieval_hits, "gain": p.gain, **standing},
        )
        await self._publish((key_of(manifest.version), record))
        self.report()

    async def _withdraw(self, newest: Manifest) -> None:
        """Say which versions are kept no longer, then delete them. Those pinned stay."""
        if not self.caught_up():
            return
        mine = await self.thread.run(snapshots.manifests, self.settings.learner.snapshot_dir)
        keep = self._kept([*mine, newest])
        await self._publish(*((key, None) for key in self.said.obsolete(keep)))
        await self.thread.run(snapshots.prune, self.settings.learner.snapshot_dir, keep)

    def _kept(self, mine: Sequence[Manifest]) -> set[int]:
        s, pins = self.settings.learner, {version_of(self.settings.model.pinned_version or "")}
        if self.said.pin is not None:
            pins.add(version_of(self.said.pin.version))
        made = {version: record.created_ms for version, record in self.said.versions.items()}
        made |= {manifest.version: manifest.created_ms for manifest in mine}
        now_ms = time.time_ns() // 1_000_000
        pinned = {pin for pin in pins if pin is not None}
        return snapshots.kept(made, now_ms=now_ms, last=s.keep, hours=s.keep_hours, days=s.keep_days, pinned=pinned)

    async def _publish(self, *records: tuple[bytes, ModelManifest | None]) -> None:
        topic = self.settings.topics.name("models")
        if records:
            await self.publisher.send_all(
                [Outgoing(topic, key, encode(record) if record else None) for key, record in records]
            )

    def report(self) -> None:
        """Tell the metrics how well each objective was predicted before it was learned, where something was."""
        learner = self.learner()
        progress = learner.trainer.listwise()
        if progress.rows:
            self.metrics.learning.scored("next_item", loss=progress.loss)
            self.metrics.learning.ranked(
                examples=progress.rows, gain=progress.gain, hits=progress.hits, retrieval_hits=progress.retrieval_hits
            )
        for head, objective in HEADS.items():
            outcome = learner.trainer.outcome(head)
            if outcome.rows:
                self.metrics.learning.scored(objective, loss=outcome.loss)
        for (head, surface), ratio in learner.outcomes.calibration().items():
            self.metrics.learning.calibrated(HEADS[head], surface, ratio=ratio)
        for name, true in learner.ads.figures().items():
            self.metrics.ads.came_true(name, ratio=true.ratio, error=true.error, entropy=true.entropy)
        for name, advertisers in learner.ads.alarms().items():
            self.metrics.ads.drifted(name, advertisers)
            if advertisers:
                log.warning("chances of a %s are wrong for %d advertisers: their bids are damped", name, advertisers)
