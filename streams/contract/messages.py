"""What comes off a topic, as it came, and what goes onto one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from embeddings.events import Source
from streams.contract.cloudevents import Headers


class RawRecord(Protocol):
    """What we look at of a record as Kafka delivered it; aiokafka's `ConsumerRecord` is one."""

    @property
    def offset(self) -> int:
        """Place in the partition."""

    @property
    def timestamp(self) -> int:
        """Publish time, epoch milliseconds."""

    @property
    def key(self) -> bytes | None:
        """What the partition was chosen by."""

    @property
    def value(self) -> bytes | None:
        """The record itself; None removes the key of a compacted topic."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Names and values; names may repeat."""


@dataclass(slots=True)
class Part:
    """The records of one partition inside a unit, in offset order."""

    source: Source
    records: Sequence[Any]
    last: int
    """Offset of the last record."""
    committed: int
    """The group's committed offset when the records were fetched, -1 where there was none: records below it were
    processed before and come again because the consumer was sent back."""
    epoch: int = 0

    @property
    def first(self) -> int:
        """Offset of the first record."""
        return int(self.records[0].offset)


class Outgoing(NamedTuple):
    """A record to publish. Without a partition murmur2 of the key chooses it; a value of None is a tombstone.

    `smaller` is published instead where the topic takes no record as large as this.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
    smaller: "Outgoing | None" = None
