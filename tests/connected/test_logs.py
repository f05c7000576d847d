"""Topics that are deleted, made anew, grown or emptied, with a store and a checkpoint that remember how they were."""

import asyncio
import functools
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from aiokafka.admin import NewPartitions, RecordsToDelete
from aiokafka.structs import TopicPartition

from deploy.embedded import Valkey
from deploy.kafka import KafkaServer
from deploy.kafka_admin import admin_client
from embeddings.events import Fate, Source
from embeddings.ids import murmur2
from streams.contract.records import encode
from streams.settings import TopicName
from streams.transport.topics import BY_USER
from tests.connected.cluster import ROOT, Cluster, Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

USERS = [f"u{n}" for n in range(12)]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("MARQUEE_") or "CACHE" in name}


class Topics:
    """An installation whose topics somebody changes."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.serial, self.began_ms = 0, int(time.time() * 1000) - 60_000

    async def publish(self, rounds: int, count: int | None = None) -> None:
        """Events without ids, so many of each user, where murmur2 puts them by a count: today's, or one of before."""
        count = count or len(await self.partitions("events"))
        async with self.cluster.producer() as producer:
            for _ in range(rounds):
                for user in USERS:
                    self.serial += 1
                    what = {"type": "play", "item_id": f"i{self.serial}", "event_time": self.began_ms + self.serial}
                    value = encode({**what, "user_id": user})
                    home = int(murmur2([user.encode()])[0]) % count
                    await producer.send(self.cluster.name("events"), value, key=user.encode(), partition=home)
            await producer.flush()

    async def partitions(self, topic: TopicName) -> list[int]:
        async with admin_client(bootstrap_servers=self.cluster.settings.kafka.bootstrap) as admin:
            (described,) = await admin.describe_topics([self.cluster.name(topic)])
        return [each["partition"] for each in described["partitions"]]

    async def grow(self, count: int, *topics: TopicName) -> None:
        new = {self.cluster.name(topic): NewPartitions(count) for topic in topics}
        async with admin_client(bootstrap_servers=self.cluster.settings.kafka.bootstrap) as admin:
            await admin.create_partitions(new)

    async def delete(self, *topics: TopicName) -> None:
        async with admin_client(bootstrap_servers=self.cluster.settings.kafka.bootstrap) as admin:
            await admin.delete_topics([self.cluster.name(topic) for topic in topics])

    async def empty(self, before: dict[Source, int]) -> None:
        gone = {TopicPartition(*source): RecordsToDelete(before_offset=offset) for source, offset in before.items()}
        async with admin_client(bootstrap_servers=self.cluster.settings.kafka.bootstrap) as admin:
            await admin.delete_records(gone)

    def totals(self) -> Counter[str]:
        """Fates of the events, of all partitions that there may be."""
        sources = [Source(self.cluster.name("events"), partition) for partition in range(8)]
        marks = self.cluster.store().marks(sources).values()
        return Counter({fate.name: sum(mark.totals[fate] for mark in marks) for fate in Fate})

    def applied(self) -> int:
        """Events that are in the users' states."""
        return int(self.cluster.store().read(USERS).states.events_U.sum())

    def forget(self, valkey: Valkey) -> None:
        """Redis loses everything."""
        with redis.Redis.from_url(valkey.url) as client:
            client.delete(*client.keys(f"{self.cluster.settings.redis.prefix}:*"))

    def end_of(self, role: str, *words: str) -> str:
        """What a process says that ends by itself, or a command."""
        environ = {**CLEAN, **self.cluster.environment, "MARQUEE_HTTP__PORT": "0", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "streams", role, *words]
        try:
            done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=90, check=False)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"{role} does not end: {(late.stderr or b'').decode()}") from late
        assert done.returncode == (0 if words else 1), done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr


async def ended(node: Node, sentence: str) -> None:
    assert node.child is not None
    try:
        code = await asyncio.to_thread(node.child.wait, 90)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it does not end: {node.child.tail(50)}") from None
    said = node.child.tail(50)
    assert code == 1, said
    assert re.search(sentence, said), said
    assert "Traceback" not in said, said
    node.child = None


@pytest.fixture
def topics(kafka: KafkaServer, valkey: Valkey, topic_prefix: str, tmp_path: Path) -> Iterator[Topics]:
    with Cluster(
        kafka,
        valkey,
        topic_prefix,
        tmp_path,
        topics__partitions=2,
        kafka__session_timeout_s=3,
        kafka__metadata_max_age_s=1,
        learner__checkpoint_every_s=0.5,
        learner__counters_every_s=0.2,
    ) as cluster:
        yield Topics(cluster)


async def test_a_topic_that_is_deleted_and_made_anew_is_never_read_by_the_old_marks(topics: Topics) -> None:
    cluster = topics.cluster
    await cluster.create_topics()
    (worker,), (learner,) = cluster.start("worker"), cluster.start("learner")
    await topics.publish(3)
    await cluster.until(lambda: topics.totals()["applied"] == 36, 60, "all are applied")
    await cluster.until(lambda: bool(list(cluster.folder.glob("checkpoints/*36.safetensors"))), 60, "all are learned")
    assert await learner.stop() == 0
    await topics.delete("events", "observations")
    await ended(worker, "failed: .*events.v1 is gone: it was deleted while it was read")

    assert "events.v1 is missing: run `marquee topics apply`" in topics.end_of("worker")
    await cluster.create_topics()
    refusal = r"{0}.v1 is another log .*`marquee state reset-marks --topic [\w.]*{0}.v1` starts it over"
    assert re.search(refusal.format("events"), topics.end_of("worker"))
    assert re.search(refusal.format("observations"), topics.end_of("learner"))

    assert "2 partitions are read from their start" in topics.end_of("state", "reset-marks", "--topic", "events")
    topics.end_of("state", "reset-marks", "--topic", cluster.name("observations"))
    worker.start()
    learner.start()
    await topics.publish(3)
    await cluster.until(lambda: topics.totals()["applied"] == 36, 60, "all of the new ones are applied")
    assert topics.totals()["replayed"] == 0
    assert topics.applied() == 72
    await cluster.until(lambda: learner.metric("marquee_learner_rows_total") == 36, 60, "and learned")


async def test_people_move_with_a_topic_that_grows_and_nothing_counts_twice(topics: Topics, valkey: Valkey) -> None:
    cluster = topics.cluster
    await cluster.create_topics()
    (worker,) = cluster.start("worker")
    await topics.publish(2)
    await cluster.until(lambda: topics.applied() == 24, 60, "all are applied")
    assert worker.is_ready

    await topics.grow(4, "events")
    await topics.publish(2)
    await cluster.until(lambda: topics.applied() == 48, 60, "what came to the new partitions was sent home")
    assert topics.totals()["dead_lettered"] == 0
    await cluster.until(lambda: not worker.is_ready, 60, "it says that the topic has grown")
    assert await worker.stop() == 0

    await topics.publish(2, count=2)
    await topics.grow(4, *(topic for topic in BY_USER if topic != "events"))
    cluster.environment = {**cluster.environment, "MARQUEE_TOPICS__PARTITIONS": "4"}
    (worker,) = cluster.start("worker")
    await cluster.until(lambda: topics.applied() == 72, 60, "the backlog of before was sent home")
    for _ in range(2):
        await cluster.until(lambda: worker.is_ready, 60, "it is ready")
        await asyncio.sleep(1)  # offsets are committed
        topics.forget(valkey)
        await cluster.until(lambda: topics.applied() == 72, 60, "all is folded again, each once")
        await asyncio.sleep(0.5)
        assert topics.applied() == 72
    assert topics.totals()["dead_lettered"] == 0


async def test_records_that_expired_before_they_were_read_are_counted(topics: Topics) -> None:
    cluster = topics.cluster
    await cluster.create_topics()
    (worker,), (learner,) = cluster.start("worker"), cluster.start("learner")
    await topics.publish(2)
    await cluster.until(lambda: topics.totals()["applied"] == 24, 60, "all are applied")
    await cluster.until(lambda: bool(list(cluster.folder.glob("checkpoints/*24.safetensors"))), 60, "all are learned")
    assert await learner.stop() == 0
    assert await worker.stop() == 0
    await topics.publish(5)
    events, told = await cluster.ends(cluster.name("events")), await cluster.ends(cluster.name("observations"))
    await topics.empty({**events, **told})
    worker.start()
    learner.start()
    await topics.publish(1)
    await cluster.until(lambda: topics.totals()["applied"] == 36, 60, "what came later is applied")
    assert worker.metric("marquee_records_expired_total", topic="events") == 60
    await cluster.until(lambda: learner.metric("marquee_learner_rows_total") == 12, 60, "and learned")

    for node in (worker, learner):
        node.send(signal.SIGSTOP)
    for _ in range(4):  # what comes first answers the question that is under way
        await topics.publish(1)
        await asyncio.sleep(0.1)
    await topics.empty(await cluster.ends(cluster.name("events")))
    for node in (worker, learner):
        node.send(signal.SIGCONT)
    await topics.publish(1)
    expired = functools.partial(worker.metric, "marquee_records_expired_total", topic="events")
    await cluster.until(lambda: topics.totals()["applied"] + expired() == topics.serial, 60, "each is read or expired")
    assert expired() > 60
    assert worker.child is not None
    assert "records were removed before they were read" in worker.child.tail(200)
    assert worker.metric("marquee_lag_records") >= 0
