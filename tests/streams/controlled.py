"""A worker that reached neither Kafka nor Redis, and control records handed to it as the reader would."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from streams.worker.control_letters import ControlLetters
from streams.worker.worker import Worker
from tests.streams.builders import NOW_MS, small
from tests.streams.lanes import Topics

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


def letters_to(broker: Topics, worker: Worker) -> ControlLetters:
    """What a worker writes of control topics, as the one that writes."""
    topics = {name: broker.letters(name) for name in worker.control_topics.letters.topics}
    return ControlLetters(topics=topics, metrics=worker.metrics, leads=lambda: True, settled_s=0)


def a_controlled_worker(**settings: Any) -> Worker:
    """Nothing of it connects by itself."""
    worker = Worker(small(**settings))
    worker.control_topics.letters = letters_to(Topics(), worker)
    return worker


async def handle(worker: Worker, topic: Any, *records: Read) -> None:
    await worker.control.handlers[worker.settings.topics.name(topic)](records)  # type: ignore[arg-type]
    await worker.control_topics.letters._step(1e9)


async def catalogue(worker: Worker, **items: bytes | None) -> None:
    records = [Read("marquee.catalog.v1", k.encode(), v, n) for n, (k, v) in enumerate(items.items())]
    await handle(worker, "catalog", *records)
