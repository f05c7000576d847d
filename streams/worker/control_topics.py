"""What the control topics bring a worker: catalogue, campaigns, counters, announcements. The rest is put aside."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from aiokafka import ConsumerRecord

from embeddings.errors import IdCollision
from embeddings.events import Source
from ranking.errors import CampaignRefused
from streams.contract.campaign_records import CampaignFacts, read_campaigns
from streams.contract.catalogue_records import CatalogueFacts, read_catalogue
from streams.contract.counter_records import counts_of, of_one_life
from streams.contract.deadletters import Code, DeadLetter
from streams.contract.messages import RawRecord
from streams.contract.parsing import Rules, read
from streams.contract.records import Counter, decode_counter, decode_model
from streams.contract.unread import KINDS
from streams.process.metrics import WorkerMetrics
from streams.serving.live_model import Serving
from streams.serving.stages import epoch_ms
from streams.settings import Settings, TopicName
from streams.transport.control import Handler
from streams.worker.control_letters import ControlLetters
from streams.worker.selling import Selling
from streams.worker.snapshot_taker import SnapshotTaker
from streams.worker.unread_sample import UnreadSample

T = TypeVar("T")
CONTROL: tuple[TopicName, ...] = ("catalog", "campaigns", "counters", "models")
"""The control topics that a worker reads."""


@dataclass(slots=True, kw_only=True)
class ControlTopics:
    """Handles the records of the control topics, each topic's in their order."""

    settings: Settings
    serving: Serving
    ads: Selling
    snapshots: SnapshotTaker
    rules: Rules
    letters: ControlLetters
    metrics: WorkerMetrics
    _began_ms: int = field(init=False, default_factory=epoch_ms)
    _aliases: dict[bytes, str] = field(init=False, default_factory=dict)
    """Keys of catalogue records whose items are called otherwise."""

    def handlers(self) -> dict[str, Handler]:
        """Which topic is whose."""
        name = self.settings.topics.name
        handle: dict[TopicName, Handler] = {
            "catalog": self._catalogue,
            "campaigns": self._campaigns,
            "counters": self._counters,
            "models": self._announced,
        }
        samples = {topic: UnreadSample(topic, name(topic), self.metrics.unread) for topic in KINDS.keys() & handle}
        return {
            name(topic): partial(self._counted, topic, handler, samples.get(topic)) for topic, handler in handle.items()
        }

    async def _counted(
        self, topic: TopicName, handler: Handler, sample: UnreadSample | None, records: Sequence[ConsumerRecord]
    ) -> None:
        self.metrics.input.consumed.labels(topic).inc(len(records))
        if sample:
            sample.look(records)
        await handler(records)

    async def _catalogue(self, records: Sequence[ConsumerRecord]) -> None:
        source = Source(records[0].topic, records[0].partition)
        facts, removed, dead = read_catalogue(source, records, self.rules, self._aliases)
        self.metrics.model.removed(self.serving.items.known(removed))
        dead += await asyncio.to_thread(self._admit, facts, removed)
        self.letters.add("catalog", dead)
        self.metrics.model.index_items.set(self.serving.live.index.size)

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

    async def _campaigns(self, records: Sequence[ConsumerRecord]) -> None:
        """A campaign that cannot be served leaves its previous version; a null stops one at once."""
        source = Source(records[0].topic, records[0].partition)
        facts, stopped, dead = read_campaigns(source, records, self.rules)
        dead += await asyncio.to_thread(self._sell, facts, stopped)
        await asyncio.to_thread(self.ads.changed)
        for record in records:
            if record.value is None and record.timestamp >= self._began_ms:  # else it was stopped before
                self.metrics.ads.stopped(record.timestamp)
        self.letters.add("campaigns", dead)

    def _sell(self, facts: list[CampaignFacts], stopped: list[str]) -> list[DeadLetter]:
        """Let campaigns compete, all at once, or one by one where one of them is too much for the index."""
        if facts:
            self.ads.rehearsal.ads()
        change = self.ads.exchange.change
        try:
            change([(one.campaign, self.ads.lives.version(one.record.offset)) for one in facts], stopped)
            return []
        except CampaignRefused:
            change([], stopped)
        dead = []
        for one in facts:
            try:
                change([(one.campaign, self.ads.lives.version(one.record.offset))])
            except CampaignRefused as error:
                dead.append(DeadLetter(one.source, one.record.offset, one.record, Code.invalid, str(error)))
        return dead

    def _readable(
        self, topic: TopicName, records: Sequence[ConsumerRecord], decoder: Callable[[bytes], T]
    ) -> list[tuple[RawRecord, T | None]]:
        """The records of a control topic that can be read; the others are dead-lettered."""
        source = Source(records[0].topic, records[0].partition)
        good, dead = read(source, records, decoder, self.rules, compacted=True)
        self.letters.add(topic, dead)
        return good

    async def _counters(self, records: Sequence[ConsumerRecord]) -> None:
        good = {record.key: said for record, said in self._readable("counters", records, decode_counter)}
        gone = [(key or b"").decode(errors="replace") for key, counter in good.items() if counter is None]
        items = self.serving.items
        known = [name for name, known in zip(gone, items.known(gone).tolist(), strict=True) if known]
        nothing = [Counter(item_id=name, epoch=items.epoch, clock_s=items.clock_s) for name in known]
        if counters := [counter for counter in good.values() if counter is not None] + nothing:
            said = of_one_life(counters)
            counts = counts_of(said, items.half_lives)
            await asyncio.to_thread(self.serving.count, counts, [counter.item_id for counter in said])

    async def _announced(self, records: Sequence[ConsumerRecord]) -> None:
        good = self._readable("models", records, decode_model)
        self.snapshots.announced([(record.key or b"", manifest) for record, manifest in good])
