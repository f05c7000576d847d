"""Control topics as commands use them: read to their end, and a record written."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from streams.commands.console import Failed

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    from streams.settings import Settings, TopicName

READ_S = 30.0
"""So long a topic may take to be read."""


async def read_whole(
    settings: "Settings", name: "TopicName", take: "Callable[[Sequence[ConsumerRecord]], object]", what: str
) -> None:
    """Hand over all records of a topic, to its end: what was overlooked could be the last word on something.

    Args:
        settings: where the brokers are and what the topic is called.
        name: the topic.
        take: is given the records of one fetch after another.
        what: what they are, for the error.

    Raises:
        Failed: it could not be read to its end.
        aiokafka.errors.KafkaConnectionError: no broker answers.
    """
    from streams.transport.brokers import greet
    from streams.transport.control import ControlReader

    await greet(settings.kafka.client_options())

    async def handle(records: "Sequence[ConsumerRecord]") -> None:
        take(records)

    reader = ControlReader(options=settings.kafka.client_options(), handlers={settings.topics.name(name): handle})
    reading, read = asyncio.create_task(reader.run()), asyncio.create_task(reader.caught_up.wait())
    try:
        await asyncio.wait((reading, read), timeout=READ_S, return_when=asyncio.FIRST_COMPLETED)
        if not read.done():
            raise Failed(f"{what} cannot be read: {reader.unread()}")
    finally:
        for task in (reading, read):
            task.cancel()
        await asyncio.wait((reading, read))


async def write(settings: "Settings", name: "TopicName", key: bytes, value: bytes | None) -> None:
    """Write one record; null removes what the key names.

    Raises:
        aiokafka.errors.KafkaError: the brokers did not take it.
    """
    from streams.contract.messages import Outgoing
    from streams.transport.publishing import Publisher

    publisher = Publisher(settings.kafka.client_options(), idempotent=settings.kafka.idempotent)
    try:
        await publisher.send_all([Outgoing(settings.topics.name(name), key, value)])
    finally:
        await publisher.stop()
