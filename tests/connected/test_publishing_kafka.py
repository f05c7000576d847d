import asyncio
import random
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.kafka import KafkaServer
from deploy.kafka_admin import admin_client
from streams.contract.messages import Outgoing
from streams.process.metrics import WorkerMetrics
from streams.transport.publishing import Publisher, PublishFailed


async def everything(kafka: KafkaServer, topic: str, partitions: int) -> dict[int, list[bytes | None]]:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    read: dict[int, list[bytes | None]] = {n: [] for n in range(partitions)}
    async with consumer:
        tps = [TopicPartition(topic, n) for n in range(partitions)]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                read[tp.partition] += [r.value for r in records]
    return read


async def test_a_batch_is_with_the_broker_in_order_when_the_call_returns(kafka: KafkaServer, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.out"
    kafka.create_topic(topic, 2)
    publisher = Publisher({"bootstrap_servers": kafka.bootstrap})
    await publisher.start()
    headers = [("ce_id", b"1")]
    await publisher.send_all(Outgoing(topic, b"u1", b"%d" % n, headers, n % 2) for n in range(2_000))
    await publisher.send_all([])
    assert await publisher.partitions(topic) == {0, 1}
    await publisher.stop()
    read = await everything(kafka, topic, 2)
    assert read == {p: [b"%d" % n for n in range(p, 2_000, 2)] for p in (0, 1)}


async def test_what_a_topic_does_not_take_is_published_smaller_and_the_others_once(
    kafka: KafkaServer, topic_prefix: str
) -> None:
    narrow, wide = f"{topic_prefix}.narrow", f"{topic_prefix}.wide"
    kafka.create_topic(narrow, 1, max_message_bytes=100_000)
    kafka.create_topic(wide, 1)
    metrics = WorkerMetrics(process=False)
    told = metrics.told("events")
    publisher = Publisher({"bootstrap_servers": kafka.bootstrap}, max_request_bytes=400_000, told=told)
    small = Outgoing(narrow, b"k", b"small")
    for size in (200_000, 500_000):  # the broker refuses the first, the client the second
        large = Outgoing(narrow, b"k", b"x" * size, smaller=Outgoing(narrow, b"k", b"%d" % size))
        await publisher.send_all([Outgoing(wide, b"k", b"other"), large])
    await publisher.send_all([small])
    with pytest.raises(PublishFailed) as failed:
        await publisher.send_all([Outgoing(narrow, b"k", b"x" * 200_000)])
    assert failed.value.permanent
    await publisher.stop()
    value, by = metrics.registry.get_sample_value, {"publisher": "events"}
    assert value("marquee_publish_seconds_count", by) == 4
    assert value("marquee_published_records_total", by) == 5
    assert value("marquee_publish_errors_total", {**by, "kind": "too_large"}) == 1
    assert await everything(kafka, narrow, 1) == {0: [b"200000", b"500000", b"small"]}
    assert await everything(kafka, wide, 1) == {0: [b"other"] * 2}


async def test_calls_that_overlap_are_written_in_the_order_they_were_made(
    kafka: KafkaServer, topic_prefix: str
) -> None:
    """Not every call has records for every partition, so a later one could overtake where an earlier one waits."""
    topic, rng = f"{topic_prefix}.out", random.Random(5)
    kafka.create_topic(topic, 4)
    publisher = Publisher({"bootstrap_servers": kafka.bootstrap})
    await publisher.start()
    calls = [(n, sorted(rng.sample(range(4), rng.choice((1, 2, 3))))) for n in range(400)]
    sending = []
    for n, partitions in calls:
        batch = [Outgoing(topic, b"k", b"%d" % n, (), partition) for partition in partitions]
        sending.append(asyncio.create_task(publisher.send_all(batch)))
        await asyncio.sleep(rng.choice((0, 0, 0.001)))
    await asyncio.gather(*sending)
    await publisher.stop()
    read = await everything(kafka, topic, 4)
    assert read == {p: [b"%d" % n for n, partitions in calls if p in partitions] for p in range(4)}


async def test_a_record_that_is_too_large_is_a_permanent_failure_and_the_others_are_published(
    kafka: KafkaServer, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}.out"
    kafka.create_topic(topic, 1)
    publisher = Publisher({"bootstrap_servers": kafka.bootstrap}, max_request_bytes=10_000)
    with pytest.raises(PublishFailed, match="1 of 3 records") as failed:
        await publisher.send_all([Outgoing(topic, b"k", value) for value in (b"a", b"x" * 20_000, b"b")])
    assert failed.value.permanent
    assert await everything(kafka, topic, 1) == {0: [b"a", b"b"]}
    await publisher.stop()


@pytest.mark.kafka
@pytest.mark.slow
async def test_while_the_broker_is_away_publishing_waits_says_so_and_goes_on(tmp_path: Path) -> None:
    with KafkaServer(folder=tmp_path) as kafka:
        kafka.create_topic("out", 1)
        publisher = Publisher({"bootstrap_servers": kafka.bootstrap})
        await publisher.send_all([Outgoing("out", b"k", b"before")])
        kafka.kill()
        records = [Outgoing("out", b"k", b"during %d" % n) for n in range(3)]
        calls: list[tuple[asyncio.Task[None], list[str]]] = []
        for record in records:  # the second waits for the first's turn, the third for the second's
            reasons = list[str]()
            calls.append((asyncio.create_task(publisher.send_all([record], still_waiting=reasons.append)), reasons))
        await asyncio.sleep(4.0)
        for sending, reasons in calls:
            assert not sending.done()
            assert set(reasons) == {"brokers do not answer"}
        await asyncio.to_thread(kafka.start)
        await asyncio.wait_for(asyncio.gather(*(sending for sending, _ in calls)), 60.0)
        assert await everything(kafka, "out", 1) == {0: [b"before", b"during 0", b"during 1", b"during 2"]}
        kafka.kill()
        await asyncio.wait({asyncio.create_task(publisher.send_all(records))}, timeout=0.5)
        await asyncio.wait_for(publisher.stop(), 10.0)


async def test_nothing_is_published_where_no_broker_is() -> None:
    publisher = Publisher({"bootstrap_servers": "127.0.0.1:9", "request_timeout_ms": 500})
    with pytest.raises(PublishFailed, match="1 of 1 records were not published: KafkaConnectionError"):
        await publisher.send_all([Outgoing("out", b"k", b"v")])
    await publisher.stop()


async def test_when_a_producer_is_given_up_all_its_calls_fail(kafka: KafkaServer, topic_prefix: str) -> None:
    """A packet without a leader expires; one that came to the same producer later would have waited for ever."""
    topic, other = f"{topic_prefix}.out", f"{topic_prefix}.other"
    kafka.create_topic(topic, 1)
    kafka.create_topic(other, 1)
    publisher = Publisher({"bootstrap_servers": kafka.bootstrap, "request_timeout_ms": 3_000})
    await publisher.send_all([Outgoing(topic, b"k", b"before"), Outgoing(other, b"k", b"before")])
    async with admin_client(bootstrap_servers=kafka.bootstrap) as admin:
        await admin.delete_topics([topic])
    said: list[str] = []
    calls = []
    for n in range(4):
        record = Outgoing(topic, b"k", b"%d" % n, (), 0)
        calls.append(asyncio.create_task(publisher.send_all([record], still_waiting=said.append)))
        await asyncio.sleep(1.0)
    failed = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20.0)
    assert all(isinstance(error, PublishFailed) and not error.permanent for error in failed), failed
    assert await publisher.missing([topic, other]) == {topic}
    await publisher.send_all([Outgoing(other, b"k", b"after")])
    assert await everything(kafka, other, 1) == {0: [b"before", b"after"]}
    await publisher.stop()
