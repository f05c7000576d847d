"""What the control topics bring a worker: catalogue, counters, snapshots. What cannot be read is put aside."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from aiokafka import ConsumerRecord

from embeddings import snapshots
from embeddings.errors import IdCollision, SnapshotRefused
from embeddings.events import Source
from ranking.errors import RankingError
from streams.contract.catalogue_records import CatalogueFacts, read_catalogue
from streams.contract.counter_records import counts_of
from streams.contract.deadletters import Code, DeadLetter
from streams.contract.manifests import manifest_of
from streams.contract.messages import RawRecord
from streams.contract.parsing import Rules, read
from streams.contract.records import ModelManifest, decode_counter, decode_model
from streams.process.metrics import WorkerMetrics
from streams.process.threads import Thread
from streams.serving.live_model import Serving
from streams.settings import Settings, TopicName
from streams.transport.control import Handler
from streams.worker.control_letters import ControlLetters

T = TypeVar("T")
CONTROL: tuple[TopicName, ...] = ("catalog", "counters", "models")
"""The control topics that a worker reads."""
log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class ControlTopics:
    """Handles the records of the control topics, each topic's in their order."""

    settings: Settings
    serving: Serving
    rules: Rules
    letters: ControlLetters
    metrics: WorkerMetrics
    _swap: "asyncio.Task[None] | None" = field(init=False, default=None)
    _models: Thread = field(init=False, default_factory=lambda: Thread("models"))
    _version: int = field(init=False, default=0)
    _aliases: dict[bytes, str] = field(init=False, default_factory=dict)
    """Keys of catalogue records whose items are called otherwise."""

    def handlers(self) -> dict[str, Handler]:
        """Which topic is whose."""
        name = self.settings.topics.name
        return {name("catalog"): self._catalogue, name("counters"): self._counters, name("models"): self._announced}

    async def swapped(self) -> None:
        """Return when the snapshot that was announced last serves, or was refused."""
        while self._swap is not None and not self._swap.done():
            await asyncio.wait([self._swap])

    async def _catalogue(self, records: Sequence[ConsumerRecord]) -> None:
        source = Source(records[0].topic, records[0].partition)
        facts, removed, dead = read_catalogue(source, records, self.rules, self._aliases)
        self.metrics.removed(self.serving.items.known(removed))
        dead += await asyncio.to_thread(self._admit, facts, removed)
        self.letters.add("catalog", dead)
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

    def _readable(
        self, topic: TopicName, records: Sequence[ConsumerRecord], decoder: Callable[[bytes], T]
    ) -> list[tuple[RawRecord, T | None]]:
        """The records of a control topic that can be read; the others are dead-lettered."""
        source = Source(records[0].topic, records[0].partition)
        good, dead = read(source, records, decoder, self.rules, compacted=True)
        self.letters.add(topic, dead)
        return good

    async def _counters(self, records: Sequence[ConsumerRecord]) -> None:
        good = self._readable("counters", records, decode_counter)
        if counters := {record.key: counter for record, counter in good if counter is not None}:
            await asyncio.to_thread(self.serving.count, counts_of(list(counters.values())))

    async def _announced(self, records: Sequence[ConsumerRecord]) -> None:
        """Take the latest announcement only; the index is built beside the one that serves."""
        manifests = [m for _, m in self._readable("models", records, decode_model) if m is not None]
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
