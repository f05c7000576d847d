"""The lag of partitions that nobody delivers, on Apache Kafka: of a group with a member, without one, and paused."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from deploy.kafka import KafkaServer
from embeddings.events import Source
from streams.contract.messages import Outgoing
from streams.transport.deliveries import Lag
from streams.transport.publishing import Publisher
from streams.transport.unowned import Unowned


async def publish(options: dict[str, str], topic: str, partition: int, records: int) -> None:
    publisher = Publisher(options)
    await publisher.send_all(Outgoing(topic, b"k", b"%d" % n, (), partition) for n in range(records))
    await publisher.stop()


async def until_assigned(consumer: AIOKafkaConsumer) -> None:
    for _ in range(600):
        if consumer.assignment():
            return
        await asyncio.sleep(0.05)
    pytest.fail("nothing was assigned")


@asynccontextmanager
async def member(options: dict[str, str], group: str, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A member that has all partitions."""
    async with AIOKafkaConsumer(*topics, **options, group_id=group, enable_auto_commit=False) as consumer:
        await until_assigned(consumer)
        yield consumer


async def test_what_nobody_delivers_is_told_with_its_age(kafka: KafkaServer, topic_prefix: str) -> None:
    options, read, left = {"bootstrap_servers": kafka.bootstrap}, f"{topic_prefix}.read", f"{topic_prefix}.left"
    for topic in (read, left):
        kafka.create_topic(topic, 2)
    await publish(options, read, 0, 7)
    published_s = time.time()
    await publish(options, left, 1, 5)
    unowned = Unowned(options=options, groups={f"{topic_prefix}.group": [read, left]}, leads=lambda: True)
    assert unowned.many({}) is None, "nobody was asked yet"
    async with member(options, f"{topic_prefix}.group", read) as consumer:
        await consumer.commit({TopicPartition(read, 0): 3})
        await unowned.look(leads=True, paused={})
        assert set(unowned.lags) == {Source(left, 0), Source(left, 1)}, "the others have an owner"
        assert (unowned.lags[Source(left, 0)], unowned.lags[Source(left, 1)].records) == (Lag(0, 0.0), 5)
        assert 0 < unowned.lags[Source(left, 1)].seconds <= time.time() - published_s + 1
        assert unowned.many({read: "r", left: "l"}) == {"l": 2}
    await unowned.look(leads=True, paused={})
    assert {source: lag.records for source, lag in unowned.lags.items()} == {
        Source(read, 0): 4,
        Source(read, 1): 0,
        Source(left, 0): 0,
        Source(left, 1): 5,
    }, "the group is empty; what was committed is read"


async def test_a_paused_partition_is_as_old_as_its_first_unread_record(kafka: KafkaServer, topic_prefix: str) -> None:
    options, topic = {"bootstrap_servers": kafka.bootstrap}, f"{topic_prefix}.paused"
    kafka.create_topic(topic, 1)
    now_ms = time.time_ns() // 1_000_000
    async with AIOKafkaProducer(**options) as producer:
        for old_s in (2_000, 2_000, 1_000):
            await producer.send_and_wait(topic, b"x", partition=0, timestamp_ms=now_ms - 1_000 * old_s)
    here, unowned = Source(topic, 0), Unowned(options=options, groups={})
    await unowned.look(leads=False, paused={here: 1})
    assert unowned.dated(here, Lag(2, 0.0)).seconds >= 2_000
    assert unowned.many({}) is None
    await unowned.look(leads=False, paused={here: 2})
    assert 1_000 <= unowned.dated(here, Lag(1, 99.0)).seconds < 2_000
    assert unowned.dated(here, Lag(0, 0.0)) == Lag(0, 0.0), "nothing waits"
    await unowned.look(leads=False, paused={})
    assert unowned.dated(here, Lag(2, 99.0)) == Lag(2, 99.0), "its owner knows better"
