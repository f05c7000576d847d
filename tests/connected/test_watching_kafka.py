"""A worker process that looks healthy does its work: what ends it otherwise, what it waits for, what it says of lag."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from deploy.kafka import KafkaServer
from deploy.processes import free_port
from streams.contract.messages import Outgoing
from streams.transport.publishing import Publisher
from streams.transport.watchdog import EXIT_DISPLACED, EXIT_STALLED, EXIT_STUCK
from tests.connected.batching_lab import Lab, eventually, until
from tests.connected.relays import Relay


async def test_the_watchdog_ends_what_stands_still_and_lets_a_declared_retry_be(lab: Lab) -> None:
    topic = await lab.topic("events")
    behaviour = {"sleep_at": 1, "sleep_s": 8.0, "stuck_after_s": 3.0}
    retried, busy = f"{lab.prefix}.retried", f"{lab.prefix}.busy"
    retrying = lab.start({"group": retried, "topics": {topic: {**behaviour, "retrying": True}}})
    blocking = lab.start({"group": busy, "topics": {topic: {**behaviour, "block_loop": True}}})
    deaf = lab.start({"group": f"{lab.prefix}.deaf", "topics": {topic: {}}, "stalled_after_s": 3.0, "deaf": True})
    assert await blocking.ended(40) == EXIT_STUCK
    assert await deaf.ended(40) == EXIT_STALLED
    await until(lambda: len(retrying.finished(retried, topic)) == 1000, 40, retrying)
    await eventually(lambda: lab.committed(retried), {topic: 1000})
    assert (await lab.committed(busy)).get(topic, 0) in (0, 100)  # it may have been blocked before it could commit


async def test_positions_may_take_longer_than_a_request_and_end_the_process_only_where_nothing_is_away(
    lab: Lab,
) -> None:
    """Faust takes a request's time-out for the end of the service, and would never resume the flow."""
    topic = await lab.topic("events")
    patient, silent, given_up = (f"{lab.prefix}.{kind}" for kind in ("patient", "silent", "given_up"))
    late = {"topics": {topic: {}}, "request_timeout_s": 7.0, "positions_after_s": 10.0, "stalled_after_s": 4.0}
    waiting = lab.start({"group": patient, **late})
    undeclared = lab.start({"group": silent, **late, "positions_declared": False})
    bounded = lab.start({"group": given_up, **late, "positions_after_s": 3600.0, "give_up_after_s": 6.0})
    assert await undeclared.ended(40) == EXIT_STALLED
    assert await bounded.ended(40) == EXIT_STALLED
    await until(lambda: len(waiting.finished(patient, topic)) == 1000, 40, waiting)
    assert "positions are not known yet" in undeclared.child.log.read_text()


async def test_a_pause_may_last_longer_than_anything_that_is_stuck(lab: Lab) -> None:
    topic = await lab.topic("events", partitions=2)
    group = f"{lab.prefix}.paused"
    stuck = {"topics": {topic: {"stuck_after_s": 2.0}}, "stalled_after_s": 2.0, "give_up_after_s": 4.0}
    worker = lab.start({"group": group, **stuck, "paused": 1})
    await until(lambda: len(worker.finished(group, topic)) == 500, 40, worker)
    await asyncio.sleep(8)
    assert worker.child.returncode is None
    assert {partition for partition, _ in worker.finished(group, topic)} == {0}
    assert worker.lines("lag", group)[-1]["records"] == 500


async def test_markers_are_no_lag_and_what_waits_behind_an_open_transaction_is(lab: Lab) -> None:
    topic, group = await lab.topic("events", records=0), f"{lab.prefix}.group"
    worker = lab.start({"group": group, "topics": {topic: {}}})

    async def lag() -> int | None:
        lines = worker.lines("lag", group)
        return int(lines[-1]["records"]) if lines else None

    producer = AIOKafkaProducer(bootstrap_servers=lab.kafka.bootstrap, transactional_id=topic)
    async with producer:
        async with producer.transaction():
            await producer.send_and_wait(topic, b"committed", partition=0)
        await until(lambda: len(worker.finished(group, topic)) == 1, 40, worker)
        await eventually(lag, 0)
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"open", partition=0)
        await lab.produce(topic, range(5))
        await eventually(lag, 6)
        await producer.commit_transaction()
        await until(lambda: len(worker.finished(group, topic)) == 7, 40, worker)
        await eventually(lag, 0)


async def test_a_worker_whose_name_another_took_ends_and_says_so(lab: Lab) -> None:
    topic = await lab.topic("events")
    group = {"group": f"{lab.prefix}.group", "topics": {topic: {}}, "instance_id": "one"}
    first = lab.start(group)
    await until(lambda: len(first.finished(group["group"], topic)) == 1000, 40, first)
    second = lab.start(group)
    assert await first.ended(40) == EXIT_DISPLACED
    assert "instance_id" in first.child.tail(3)
    assert first.child.log.read_text().count("Joined group") == 1, "it joined again, which displaces the second"
    await lab.produce(topic, range(1000, 1100))
    await until(lambda: len(second.finished(group["group"], topic)) >= 100, 40, second)


async def test_a_lane_that_somebody_else_takes_all_the_time_ends_the_process(lab: Lab) -> None:
    topic = await lab.topic("events")
    worker = lab.start({"group": f"{lab.prefix}.group", "topics": {topic: {"rewind_always": True}}})
    assert await worker.ended(40) == 1
    assert "another installation claims the same partitions" in worker.child.log.read_text()


@pytest.mark.kafka
@pytest.mark.slow
async def test_brokers_that_moved_are_found_again_at_the_configured_address(tmp_path: Path, topic_prefix: str) -> None:
    """A client asks the brokers it knows where the others are; when all of them moved it would ask nobody for ever."""
    with closing(Relay()) as door, KafkaServer() as kafka:
        door.port, lab = kafka.port, Lab(kafka, topic_prefix, tmp_path)
        topic, group = await lab.topic("events", records=10), f"{topic_prefix}.group"
        worker = lab.start({"group": group, "topics": {topic: {}}, "bootstrap": door.address})
        publisher = Publisher({"bootstrap_servers": door.address, "request_timeout_ms": 10_000})
        asker = Publisher({"bootstrap_servers": door.address})
        assert await asker.missing({topic, "nowhere"}) == {"nowhere"}
        await publisher.send_all([Outgoing(topic, b"k", b"10")])
        await until(lambda: len(worker.finished(group, topic)) == 11, 40, worker)
        await asyncio.to_thread(kafka.stop)
        sending = asyncio.create_task(publisher.send_all([Outgoing(topic, b"k", b"11")], still_waiting=print))
        door.port = move(kafka)
        await asyncio.to_thread(kafka.start)
        await asyncio.wait_for(sending, 60)
        assert await asker.missing({topic, "nowhere"}) == {"nowhere"}
        await until(lambda: len(worker.finished(group, topic)) == 12, 60, worker)
        worker.child.kill()
        await asyncio.gather(publisher.stop(), asker.stop())


def move(kafka: KafkaServer) -> int:
    """Give a stopped broker another port."""
    before, kafka.port = kafka.port, free_port()
    settings = kafka.folder / "server.properties"
    settings.write_text(settings.read_text().replace(f"127.0.0.1:{before}", f"127.0.0.1:{kafka.port}"))
    return kafka.port
