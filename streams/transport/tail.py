"""The last records of a topic, without a group and without keeping anybody's place."""

from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from embeddings.events import Source

_QUIET_MS = 500


async def last_records(
    client_options: Mapping[str, Any], topic: str, most: int = 100
) -> list[tuple[Source, list[ConsumerRecord]]]:
    """Up to `most` records of each partition of a topic, those written last, in their order.

    Raises:
        aiokafka.errors.KafkaError: the broker does not answer.
    """
    consumer = AIOKafkaConsumer(**client_options, group_id=None, auto_offset_reset="earliest")
    try:
        await consumer.start()
        return await _read(consumer, topic, most)
    finally:
        await consumer.stop()


async def _read(consumer: AIOKafkaConsumer, topic: str, most: int) -> list[tuple[Source, list[ConsumerRecord]]]:
    if topic not in await consumer.topics():  # asking for it by name may create it
        return []
    await consumer._client.add_topic(topic)
    places = [TopicPartition(topic, n) for n in sorted(consumer.partitions_for_topic(topic) or ())]
    if not places:
        return []
    consumer.assign(places)
    ends = await consumer.end_offsets(places)
    starts = await consumer.beginning_offsets(places)
    for place in places:
        consumer.seek(place, max(ends[place] - most, starts[place]))
    found: dict[TopicPartition, list[ConsumerRecord]] = {place: [] for place in places}
    while fetched := await consumer.getmany(timeout_ms=_QUIET_MS, max_records=most * len(places)):
        for place, records in fetched.items():
            found[place] += [record for record in records if record.offset < ends[place]]
        if all(map(len, found.values())) and all(records[-1].offset + 1 >= ends[p] for p, records in found.items()):
            break
    return [(Source(topic, place.partition), records) for place, records in found.items() if records]
