"""A worker that reached neither Kafka nor Redis, and control records handed to it as the reader would."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from streams.contract.messages import Outgoing
from streams.worker.worker import Worker
from tests.streams.builders import NOW_MS, small

ITEMS = [f"i{n:03d}" for n in range(40)]


class Read(NamedTuple):
    """A record as the control reader hands it over."""

    topic: str
    key: bytes | None
    value: bytes | None
    offset: int = 0
    partition: int = 0
    timestamp: int = NOW_MS
    headers: Sequence[tuple[str, bytes]] = ()


AN_ITEM = b'{"categories":["c"]}'


class Broker:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.published: list[Outgoing] = []

    async def send_all(self, records: Iterable[Outgoing]) -> None:
        self.published += records


def a_controlled_worker(**settings: Any) -> Worker:
    """Nothing of it connects by itself."""
    worker = Worker(small(**settings))
    worker.control_topics.publisher = Broker()  # type: ignore[assignment]
    return worker


async def handle(worker: Worker, topic: Any, *records: Read) -> None:
    await worker.control.handlers[worker.settings.topics.name(topic)](records)  # type: ignore[arg-type]


async def catalogue(worker: Worker, **items: bytes | None) -> None:
    records = [Read("marquee.catalog.v1", k.encode(), v, n) for n, (k, v) in enumerate(items.items())]
    await handle(worker, "catalog", *records)
