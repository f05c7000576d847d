"""Read to the end means all that is committed of every partition, whatever the last offsets belong to."""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import NewPartitions, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.embedded import Broker
from deploy.kafka import KafkaServer
from deploy.kafka_admin import TopicsRefused, admin_client
from streams.transport import control
from streams.transport.control import ControlReader
from tests.connected.relays import Relay
from tests.connected.test_watching_kafka import move


@dataclass
class Reading:
    """A reader of some topics, and the values it handed over, by topic."""

    bootstrap: str
    topics: Sequence[str]
    values: dict[str, list[bytes]] = field(default_factory=dict)
    reader: ControlReader = field(init=False)
    on_first: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.values = {topic: [] for topic in self.topics}
        options = {"bootstrap_servers": self.bootstrap, "request_timeout_ms": 5_000, "metadata_max_age_ms": 300}
        handlers = dict.fromkeys(self.topics, self._take)
        self.reader = ControlReader(options=options, handlers=handlers, max_records=7)

    async def _take(self, records: Sequence[ConsumerRecord]) -> None:
        if not any(self.values.values()):
            self.on_first()
        self.values[records[0].topic] += [record.value or b"" for record in records]

    async def caught_up(self, timeout_s: float = 15) -> list[bytes]:
        """What had come of the first topic when the reader said that it was at the end."""
        await asyncio.wait_for(self.reader.caught_up.wait(), timeout_s)
        return self.values[self.topics[0]]


@asynccontextmanager
async def reading(bootstrap: str, *topics: str) -> AsyncIterator[Reading]:
    read = Reading(bootstrap, topics)
    task = asyncio.create_task(read.reader.run())
    try:
        yield read
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(true: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def publish(bootstrap: str, topic: str, *values: bytes, partition: int = 0) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    async with producer:
        for value in values:
            await producer.send_and_wait(topic, value or None, key=b"k" + value[:9], partition=partition)


async def test_the_end_is_that_of_every_partition_of_every_topic(embedded_broker: Broker, topic_prefix: str) -> None:
    few, none = f"{topic_prefix}.few", f"{topic_prefix}.none"
    embedded_broker.create_topic(few, partitions=2)
    embedded_broker.create_topic(none, partitions=1)
    values = [b"%d" % n for n in range(20)]
    await publish(embedded_broker.bootstrap, few, *values)
    await publish(embedded_broker.bootstrap, few, *values, partition=1)
    async with reading(embedded_broker.bootstrap, few, none) as read:
        assert f"{few} is not read yet" in str(read.reader.unread())
        assert sorted(await read.caught_up()) == sorted(values * 2)
        assert read.reader.unread() is None
        await publish(embedded_broker.bootstrap, none, b"late")
        await until(lambda: read.values[none] == [b"late"])


@pytest.mark.embedded
async def test_a_broker_that_falls_silent_is_not_taken_for_the_end(topic_prefix: str) -> None:
    """Polls bring nothing then, as they do at the end."""
    topic, large = f"{topic_prefix}.catalog", b"x" * 900_000
    with Broker() as broker:
        assert broker.child is not None
        broker.create_topic(topic, partitions=1)
        await publish(broker.bootstrap, topic, *[large] * 25)  # more than a fetch brings
        async with reading(broker.bootstrap, topic) as read:
            read.on_first = partial(broker.child.send, signal.SIGSTOP)
            await until(lambda: len(read.values[topic]) > 0)
            await asyncio.sleep(1.5)
            assert not read.reader.caught_up.is_set()
            assert "is still being read" in str(read.reader.unread())
            broker.child.send(signal.SIGCONT)
            assert len(await read.caught_up()) == 25


async def test_a_topic_that_the_brokers_do_not_name_yet_is_not_read(kafka: KafkaServer, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.catalog"
    kafka.create_topic(topic, partitions=1)
    await publish(kafka.bootstrap, topic, b"1")
    async with reading(kafka.bootstrap, topic, f"{topic_prefix}.missing") as read:
        await asyncio.sleep(2)
        assert not read.reader.caught_up.is_set()
        kafka.create_topic(f"{topic_prefix}.missing", partitions=1)
        assert await read.caught_up() == [b"1"]


async def test_a_topic_that_is_made_anew_is_another_log(kafka: KafkaServer, topic_prefix: str) -> None:
    topic, lives = f"{topic_prefix}.campaigns", list[str]()
    kafka.create_topic(topic, 1)
    await publish(kafka.bootstrap, topic, b"a", b"b")
    async with reading(kafka.bootstrap, topic) as read:
        read.reader.lives = {topic: lives.append}
        await until(lambda: read.values[topic] == [b"a", b"b"])
        assert len(lives) == 1
        async with admin_client(bootstrap_servers=kafka.bootstrap) as admin:
            await admin.delete_topics([topic])
        await again(kafka, topic)
        await publish(kafka.bootstrap, topic, b"c")
        await until(lambda: read.values[topic] == [b"a", b"b", b"c"], 30)
    assert len(set(lives)) == len(lives) == 2


async def again(kafka: KafkaServer, topic: str) -> None:
    """Create a topic as soon as the one of its name is gone."""
    for _ in range(50):
        try:
            kafka.create_topic(topic, 1)
            return
        except TopicsRefused:
            await asyncio.sleep(0.1)
    raise AssertionError(topic)


async def test_transactions_at_the_end_hold_nothing_up(
    kafka: KafkaServer, topic_prefix: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_HELD_S", 0.3)
    topic = f"{topic_prefix}.catalog"
    kafka.create_topic(topic, partitions=1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic)
    async with producer:
        async with producer.transaction():
            await producer.send_and_wait(topic, b"committed")
        async with reading(kafka.bootstrap, topic) as read:
            assert await read.caught_up() == [b"committed"]
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted")
        await producer.abort_transaction()
        async with reading(kafka.bootstrap, topic) as read:
            assert await read.caught_up() == [b"committed"]
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"open")
        async with reading(kafka.bootstrap, topic) as read:
            with caplog.at_level(logging.WARNING, logger=control.__name__):
                assert await read.caught_up() == [b"committed"]
                await until(lambda: "waits for a transaction that is open" in caplog.text)
            await producer.commit_transaction()
            await until(lambda: read.values[topic] == [b"committed", b"open"])
            assert read.reader.unread() is None


async def test_a_topic_that_was_emptied_is_read_to_its_end(kafka: KafkaServer, topic_prefix: str) -> None:
    compacted, expired = f"{topic_prefix}.compacted", f"{topic_prefix}.expired"
    quick = {"segment.ms": 100, "min.cleanable.dirty.ratio": 0.001, "delete.retention.ms": 0}
    kafka.create_topic(compacted, partitions=1, **quick, **{"cleanup.policy": "compact"})
    kafka.create_topic(expired, partitions=1)
    async with admin_client(bootstrap_servers=kafka.bootstrap) as admin:
        often = ConfigResource(ConfigResourceType.BROKER, "1", {"log.cleaner.backoff.ms": "200"})
        await admin.alter_configs([often])
        await publish(kafka.bootstrap, expired, b"1", b"2")
        await admin.delete_records({TopicPartition(expired, 0): RecordsToDelete(2)})
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            for value in (b"1", None, None, None):  # what was written last is never compacted
                await producer.send_and_wait(compacted, value, key=b"k", partition=0)
                await asyncio.sleep(0.5)
    async with reading(kafka.bootstrap, compacted, expired) as read:
        assert b"1" not in await read.caught_up()
        ends = {tp.topic: reading.end for tp, reading in read.reader._readings.items()}
        assert ends == {compacted: 4, expired: 2}


async def test_partitions_that_are_added_are_read_and_the_others_are_not_read_again(
    kafka: KafkaServer, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}.catalog"
    kafka.create_topic(topic, partitions=1)
    await publish(kafka.bootstrap, topic, *(b"%d" % n for n in range(20)))
    async with reading(kafka.bootstrap, topic) as read:
        assert len(await read.caught_up()) == 20
        async with admin_client(bootstrap_servers=kafka.bootstrap) as admin:
            await admin.create_partitions({topic: NewPartitions(3)})
        await publish(kafka.bootstrap, topic, b"grown", partition=2)
        await publish(kafka.bootstrap, topic, b"old")
        await until(lambda: b"grown" in read.values[topic] and b"old" in read.values[topic])
        await until(lambda: read.reader.unread() is None)
        assert len(read.values[topic]) == 22


@pytest.mark.kafka
@pytest.mark.slow
async def test_brokers_that_moved_are_found_again_at_the_configured_address(topic_prefix: str) -> None:
    topic = f"{topic_prefix}.catalog"
    with closing(Relay()) as door, KafkaServer() as kafka:
        door.port = kafka.port
        kafka.create_topic(topic, 1)
        await publish(kafka.bootstrap, topic, b"a")
        async with reading(door.address, topic) as read:
            await read.caught_up()
            await asyncio.to_thread(kafka.stop)
            door.port = move(kafka)
            await asyncio.to_thread(kafka.start)
            await publish(kafka.bootstrap, topic, b"b")
            await until(lambda: read.values[topic] == [b"a", b"b"], 60)
            await until(lambda: read.reader.unread() is None)
