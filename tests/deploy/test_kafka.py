import asyncio
import time

import pytest
from aiokafka.errors import KafkaError

from deploy.kafka import KafkaCluster, KafkaServer, kafka_version, new_cluster_id
from deploy.kafka_admin import TopicsRefused, admin_client, brokers


async def led(server: KafkaServer, topic: str, within_s: float = 10) -> int:
    """How many partitions of a topic have a leader; asked again where the answer was to come from a dead node."""
    until = time.monotonic() + within_s
    while True:
        try:
            async with admin_client(bootstrap_servers=server.bootstrap) as admin:
                (found,) = await admin.describe_topics([topic])
            return len([p for p in found["partitions"] if p["leader"] >= 0])
        except KafkaError:
            if time.monotonic() > until:
                raise


def test_version_is_read_from_the_pom() -> None:
    assert kafka_version().startswith("4.")


def test_cluster_ids_have_the_length_that_kafka_wants() -> None:
    assert {len(new_cluster_id()) for _ in range(20)} == {22}


def test_broker_that_cannot_create_a_topic_says_why(kafka: KafkaServer, topic_prefix: str) -> None:
    with pytest.raises(TopicsRefused, match=r"\(code 38\)"):
        kafka.create_topic(topic_prefix, 1, replication=3)


@pytest.mark.usefixtures("kafka")  # skips or fails where there is no Java
def test_topics_survive_a_kill(topic_prefix: str) -> None:
    with KafkaServer() as server:
        server.create_topic(topic_prefix, 4, retention_ms=60_000)
        server.kill()
        assert brokers(server.bootstrap) == 0
        server.start()
        assert asyncio.run(led(server, topic_prefix)) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("kafka")
def test_cluster_of_three_creates_topics_with_one_node_dead(topic_prefix: str) -> None:
    with KafkaCluster(nodes=3) as cluster:
        cluster.create_topic(f"{topic_prefix}.before", 4)
        cluster.servers[0].kill()
        assert asyncio.run(led(cluster.servers[1], f"{topic_prefix}.before")) == 4
        cluster.servers[0].start()
        assert brokers(cluster.servers[2].bootstrap) == 3
