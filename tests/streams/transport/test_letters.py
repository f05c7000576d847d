"""Dead letters are written once: whoever is in doubt looks first."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError

from embeddings.events import Source
from streams.contract.deadletters import Code, DeadLetter, dead_letter_record
from streams.transport.publishing import PublishFailed
from tests.streams.builders import Raw
from tests.streams.lanes import AWAY, Topics

HERE = Source("catalog", 0)


def letter(offset: int, value: bytes = b"{", source: Source = HERE) -> DeadLetter:
    return DeadLetter(source, offset, Raw(offset, value, b"k"), Code.malformed, "why")


class Broker(Topics):
    """Counts how often it was looked at; may be away then."""

    looks = 0
    away: list[Exception] = []  # noqa: RUF012

    async def read(self) -> AsyncIterator[Sequence[Any]]:
        self.looks += 1
        if self.away:
            raise self.away.pop()
        async for records in super().read():
            yield records


@pytest.fixture
def broker() -> Broker:
    return Broker()


async def test_one_look_is_enough_as_long_as_nobody_else_writes(broker: Broker) -> None:
    topic = broker.letters("catalog")
    assert await topic.put([]) == []
    assert broker.looks == 0, "most batches have none"
    assert len(await topic.put([letter(0), letter(1)])) == 2
    assert await topic.put([letter(1), letter(2)]) == [letter(2)]
    assert broker.looks == 1
    assert len(broker.published) == 3


async def test_another_process_writes_what_is_missing(broker: Broker) -> None:
    await broker.letters("catalog").put([letter(0)])
    other = broker.letters("catalog")
    assert await other.missing([letter(0), letter(1)]) == [letter(1)]
    assert await other.put([letter(0), letter(1)]) == [letter(1)]
    other.doubt()
    assert await other.put([letter(1)]) == []
    assert len(broker.published) == 2


async def test_a_letter_that_had_to_be_smaller_is_not_written_again(broker: Broker) -> None:
    large = letter(0, b"{" * 200_000)
    smaller = dead_letter_record(large, "marquee.catalog.v1.dlq").smaller
    assert smaller is not None
    broker.published.append(smaller)
    assert await broker.letters("catalog").put([large]) == []


async def test_a_topic_made_anew_has_letters_of_its_own(broker: Broker) -> None:
    await broker.letters("catalog").put([letter(0, b"{")])
    again = [letter(0, b"["), letter(0, b"{", Source("catalog", 1))]
    assert await broker.letters("catalog").put(again) == again


async def test_after_a_failure_it_looks_again(broker: Broker) -> None:
    topic = broker.letters("catalog")

    await topic.put([letter(0)])
    broker.errors = [AWAY]
    with pytest.raises(PublishFailed):
        await topic.put([letter(1)])
    await broker.letters("catalog").put([letter(1)])
    assert await topic.put([letter(1)]) == []
    assert len(broker.published) == 2


async def test_a_doubt_that_comes_while_it_writes_is_not_forgotten(broker: Broker) -> None:
    topic, other = broker.letters("catalog"), broker.letters("catalog")
    broker.acknowledges.clear()
    writing = asyncio.create_task(topic.put([letter(0)]))
    await asyncio.sleep(0.01)
    topic.doubt()
    broker.acknowledges.set()
    await writing
    await other.put([letter(1)])
    assert await topic.put([letter(0), letter(1)]) == []


async def test_where_nobody_answers_nothing_is_written(broker: Broker) -> None:
    topic, broker.away = broker.letters("catalog"), [KafkaTimeoutError()]
    with pytest.raises(KafkaTimeoutError):
        await topic.put([letter(0)])
    assert broker.published == []
    assert await topic.put([letter(0)]) == [letter(0)]
