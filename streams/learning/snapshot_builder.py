"""Snapshots of what was learned: built beside the learning, written, announced."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from embeddings import snapshots
from embeddings.snapshots import Manifest
from embeddings.svd import Factors
from ranking.trainer import Head
from streams.contract.manifests import announced
from streams.contract.messages import Outgoing
from streams.contract.records import encode
from streams.learning.learner import Frozen, Learner
from streams.process.metrics import LearnerMetrics, Objective
from streams.process.threads import Thread
from streams.settings import Settings
from streams.transport.publishing import Publisher, PublishFailed

log = logging.getLogger(__name__)
SNAPSHOT = "snapshot"
HEADS: dict[Head, Objective] = {"click": "engage", "complete": "complete"}
"""What the heads of the ranker are called in metrics."""


@dataclass(slots=True, kw_only=True)
class SnapshotBuilder:
    """Builds one snapshot at a time, in a thread of its own, and not more often than a tenth of the time.

    Attributes:
        learner: who learns now.
        base_url: where workers fetch from; empty where they share the disk.
        due_rows: how many rows were learned when the last one was begun.
        took_s: what the last one cost.
        thread: where what takes long is done, one after the other.
    """

    settings: Settings
    metrics: LearnerMetrics
    publisher: Publisher
    learner: Callable[[], Learner]
    base_url: Callable[[], str]
    building: bool = False
    due_rows: int = 0
    took_s: float = 0.0
    _built_s: float = 0.0
    thread: Thread = field(init=False, default_factory=lambda: Thread("builder"))

    def begins(self) -> bool:
        """Whether the next one is due; then it has begun, and `build` must follow."""
        s, rows = self.settings.learner, self.learner().rows
        if self.building or rows - self.due_rows < s.refresh_events:
            return False
        if time.monotonic() - self._built_s < max(s.refresh_min_s, 10 * self.took_s):
            return False
        self.building, self.due_rows = True, rows
        return True

    async def build(self, frozen: Frozen) -> None:
        """Build, write and announce; what does not work out is logged, and comes with the next one."""
        began = time.monotonic()
        try:
            manifest, factors = await self.thread.run(self._write, frozen)
            self.learner().factors = factors
            await self._announce(manifest)
        except (OSError, PublishFailed) as error:
            log.error("snapshot %d was not announced: %s", frozen.version, error)
        else:
            self.metrics.announced(seconds=time.monotonic() - began, items=len(frozen.names))
        finally:
            self._built_s, self.building = time.monotonic(), False

    def _write(self, frozen: Frozen) -> tuple[Manifest, Factors]:
        s, began_s = self.settings.learner, time.thread_time()
        snapshot, factors = frozen.build(time.time_ns() // 1_000_000)
        manifest = snapshots.write(snapshot, s.snapshot_dir, keep=s.keep, base_url=self.base_url())
        self.took_s = time.thread_time() - began_s  # what it costs, not how long others kept it waiting
        return manifest, factors

    async def _announce(self, manifest: Manifest) -> None:
        learner = self.learner()
        progress = learner.trainer.listwise()
        record = announced(
            manifest,
            kind=SNAPSHOT,
            events=learner.rows,
            items=manifest.shapes["ids_N"][0],
            dimensions=self.settings.learner.dimensions,
            metrics={"loss": progress.loss, "hits": progress.hits, "retrieval_hits": progress.retrieval_hits},
        )
        topic = self.settings.topics.name("models")
        await self.publisher.send_all([Outgoing(topic, SNAPSHOT.encode(), encode(record))])
        self._report(learner)

    def _report(self, learner: Learner) -> None:
        """How well each objective was predicted before it was learned."""
        self.metrics.scored("next_item", loss=learner.trainer.listwise().loss)
        for head, objective in HEADS.items():
            progress = learner.trainer.outcome(head)
            if progress.rows:
                self.metrics.scored(objective, loss=progress.loss)
            if progress.observed:
                self.metrics.calibrated(objective, ratio=progress.predicted / progress.observed)
