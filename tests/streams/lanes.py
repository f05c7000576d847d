"""Both lanes of a worker around a service in memory, and a broker that fails or waits as it is told."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from embeddings.events import Source
from embeddings.store import PartitionMark
from streams.contract.messages import Outgoing, Part
from streams.process.metrics import WorkerMetrics
from streams.transport.ledger import Unit
from streams.transport.letters import DeadLetterTopic
from streams.transport.publishing import PublishFailed
from streams.worker.events_lane import EventsLane
from streams.worker.paused import Paused
from streams.worker.requests_lane import RequestsLane
from streams.worker.shown import Shown
from tests.streams.builders import EVENTS, REQUESTS, Raw, Service, a_log, small

ITEMS = [f"i{n:03d}" for n in range(40)]
LOG = a_log(30, items=40)
AWAY = PublishFailed(1, 1, KafkaTimeoutError())
TOO_LARGE = PublishFailed(1, 1, MessageSizeTooLargeError())


@dataclass
class Topics:
    """Stands for the broker: what was published, by topic; fails with each error in turn first."""

    errors: list[Exception] = field(default_factory=list)
    published: list[Outgoing] = field(default_factory=list)
    acknowledges: asyncio.Event = field(default_factory=asyncio.Event)
    sent: asyncio.Event = field(default_factory=asyncio.Event)
    lacks: set[str] = field(default_factory=set)
    errors_of: dict[str, list[Exception]] = field(default_factory=dict)
    """Errors of records of topics with this in their names."""
    held: str = ""
    """Only records of topics with this in their names wait for `acknowledges`."""

    async def send_all(
        self, records: Iterable[Outgoing], *, still_waiting: Callable[[str], object] | None = None
    ) -> None:
        records = list(records)
        if self.errors and records:
            raise self.errors.pop(0)
        for name, errors in self.errors_of.items():
            if errors and any(name in record.topic for record in records):
                raise errors.pop(0)
        self.published += records
        self.sent.set()
        if any(self.held in record.topic for record in self.published[-1:]):
            await self.acknowledges.wait()

    async def stop(self) -> None:
        """Disconnect."""

    async def missing(self, topics: Collection[str]) -> set[str]:
        return set(topics) & self.lacks

    async def written(self) -> None:
        await asyncio.sleep(0)

    def __post_init__(self) -> None:
        self.acknowledges.set()

    def count(self) -> Counter[str]:
        return Counter(record.topic.removeprefix("marquee.") for record in self.published)

    async def read(self) -> AsyncIterator[Sequence[Any]]:
        """What lies in the topics for dead letters."""
        yield [record for record in self.published if record.topic.endswith(".dlq")]

    def letters(self, name: str) -> DeadLetterTopic:
        return DeadLetterTopic(topic=f"marquee.{name}.v1.dlq", publisher=self, read=self.read)  # type: ignore[arg-type]

    def of(self, topic: str) -> list[Outgoing]:
        return [record for record in self.published if record.topic == topic]


class Shaky:
    """A store or an answerer whose named calls fail with each error in turn, before they do what they should."""

    def __init__(self, real: Any, **errors: list[Exception]) -> None:
        self.real, self.errors = real, errors
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.real, name)

        def shaky(*args: Any, **named: Any) -> Any:
            self.calls.append(name)
            if self.errors.get(name):
                raise self.errors[name].pop(0)
            return call(*args, **named)

        return shaky


class Heard(Unit):
    """A unit that keeps what it was told to wait for."""

    said: list[str]

    def retrying(self, reason: str, *, now_s: float | None = None) -> None:
        self.said.append(reason)


@dataclass(repr=False)
class Worker:
    """Both lanes of a worker around a service, and what they publish to."""

    service: Service
    topics: Topics = field(default_factory=Topics)
    metrics: WorkerMetrics = field(default_factory=lambda: WorkerMetrics(process=False))
    waited: list[str] = field(default_factory=list)
    events: EventsLane = field(init=False)
    requests: RequestsLane = field(init=False)

    def __post_init__(self) -> None:
        settings = self.service.settings
        shown = Shown(self.metrics.slates)
        shared: dict[str, Any] = {
            "publisher": self.topics,
            "settings": settings,
            "metrics": self.metrics,
            "shown": shown,
        }
        self.events = EventsLane(
            recommender=self.service.recommender,
            teller=self.topics,  # type: ignore[arg-type]
            letters=self.topics.letters("events"),
            paused=Paused(reads=self.service.users, metrics=self.metrics),
            **shared,
        )
        self.requests = RequestsLane(answerer=self.service.answerer, letters=self.topics.letters("requests"), **shared)

    async def take(self, log: Sequence[Raw], source: Source = EVENTS) -> None:
        """What the transport does with a unit; returns when it may be acknowledged."""
        unit = Heard([Part(source, log, log[-1].offset, -1)], len(log), source.topic)
        unit.said = self.waited
        lane: Callable[[Unit], Awaitable[None]] = self.requests if source.topic == REQUESTS.topic else self.events
        await lane(unit)

    @property
    def mark(self) -> PartitionMark:
        return self.service.users.marks([EVENTS])[EVENTS]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"marquee_{name}", labels)


def a_worker() -> Worker:
    """A worker with a catalogue."""
    service = Service(small(slates={"trace_rate": 0.0}))
    service.catalogue(*ITEMS)
    return Worker(service)


def shaky_store(worker: Worker, **errors: list[Exception]) -> Shaky:
    shaky = Shaky(worker.service.users, **errors)
    worker.service.recommender.users = shaky  # type: ignore[assignment]
    return shaky
