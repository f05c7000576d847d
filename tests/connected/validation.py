"""What a foreign validator says of all records of an installation's topics."""

import json
from collections.abc import Iterable

import jsonschema_rs

from streams.contract.schemas import RECORD_OF, document
from streams.settings import Settings, TopicName
from streams.transport.letters import read_to_end


def complaints(topic: TopicName, values: Iterable[bytes | None]) -> tuple[int, list[str]]:
    """How many records there are, and what is wrong with them by their schema; nulls that remove are none."""
    validator, records = jsonschema_rs.validator_for(document(topic)), [json.loads(value) for value in values if value]
    return len(records), [str(error) for record in records for error in validator.iter_errors(record)]


async def validated(settings: Settings) -> dict[TopicName, int]:
    """How many records each topic has.

    Raises:
        AssertionError: one is not as its schema says.
    """
    counts: dict[TopicName, int] = {}
    for topic in RECORD_OF:
        batches = read_to_end(settings.kafka.client_options(), settings.topics.name(topic))
        counts[topic], wrong = complaints(topic, [one.value async for batch in batches for one in batch])
        assert not wrong, (topic, wrong[:3])
    return counts
