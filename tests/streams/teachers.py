"""A learner that reached no Kafka, and what it published."""

from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

from streams.contract.messages import Outgoing
from streams.learning.learner_process import Teacher
from tests.streams.builders import small


class Broker:
    """Keeps what is published; fails with each error in turn first."""

    def __init__(self) -> None:
        self.published: list[Outgoing] = []
        self.errors: list[Exception] = []

    async def send_all(
        self, records: Iterable[Outgoing], *, still_waiting: Callable[[str], None] | None = None
    ) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.published += records

    async def stop(self) -> None:
        """Nothing to stop."""

    async def read(self) -> AsyncIterator[list[Any]]:
        """What lies in the topic for dead letters."""
        yield [record for record in self.published if record.topic.endswith(".dlq")]

    def of(self, topic: str) -> list[bytes]:
        return [record.value or b"" for record in self.published if record.topic == f"marquee.{topic}.v1"]


def a_teacher(folder: Path, **learner: Any) -> Teacher:
    """Snapshots every 100 rows, counters and checkpoints as fast as they may come."""
    base = {"snapshot_dir": folder / "s", "checkpoint_dir": folder / "c", "refresh_min_s": 0, "counters_every_s": 0.1}
    teacher = Teacher(small(learner={**base, "checkpoint_every_s": 0.1, **learner}, http={"port": 0}))
    broker = Broker()
    teacher.publisher = teacher.builder.publisher = teacher.letters.publisher = broker  # type: ignore[assignment]
    teacher.letters.read = broker.read
    teacher.control.caught_up.set()
    return teacher


def broker_of(teacher: Teacher) -> Broker:
    broker = teacher.publisher
    assert isinstance(broker, Broker)
    return broker
