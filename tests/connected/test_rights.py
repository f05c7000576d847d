"""What `marquee topics acl` prints is enough: everybody at a Kafka that allows nothing else does what they are for."""

import asyncio
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import TopicAuthorizationFailedError
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from deploy.embedded import Valkey
from deploy.kafka import KafkaServer, java
from deploy.processes import free_port
from streams.commands.topics_acl import Principals, rights
from streams.configuration import load_settings
from streams.contract.records import decode_slate
from streams.transport import topics
from tests.connected.cluster import Cluster

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(240)]

WHO = ("worker", "learner", "producer", "consumer", "operator")
OF = Principals(**{role: f"User:{role}" for role in WHO}, consumer_group="readers")
SETTINGS: dict[str, object] = {
    "topics__partitions": 2,
    "topics__events": "klicks",
    "slates__per_event": "all",
    "slates__reply_topics": '["answers"]',
    "observe__negatives": 8,
    "learner__refresh_events": 100,
    "learner__refresh_min_s": 0.5,
    "ads__secret": "people who do not exist",
}


_LISTENERS = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT"


class GuardedKafka(KafkaServer):
    """Has a second listener, at which whoever has no right to something may not do it."""

    def __init__(self) -> None:
        super().__init__()
        self.guarded = f"127.0.0.1:{free_port()}"

    @property
    def properties(self) -> dict[str, object]:
        said = super().properties
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        users = " ".join(f'user_{name}="{name} secret"' for name in WHO)
        return {
            **said,
            **{key: f"{said[key]},SASL_PLAINTEXT://{self.guarded}" for key in ("listeners", "advertised.listeners")},
            "listener.security.protocol.map": _LISTENERS,
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{login} {users};",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    def login(self, name: str) -> dict[str, str]:
        """Options of a client."""
        return {
            "bootstrap_servers": self.guarded,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": name,
            "sasl_plain_password": f"{name} secret",
        }

    def settings(self, name: str) -> dict[str, str]:
        """The same as settings."""
        return {
            "MARQUEE_KAFKA__BOOTSTRAP": self.guarded,
            "MARQUEE_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "MARQUEE_KAFKA__SASL_MECHANISM": "PLAIN",
            "MARQUEE_KAFKA__SASL_USERNAME": name,
            "MARQUEE_KAFKA__SASL_PASSWORD": f"{name} secret",
        }


def grant(cluster: Cluster) -> None:
    """Grant what is printed: the operator's with Kafka's own tool, the rest by a client, in no time."""
    found, bootstrap = rights(cluster.settings, OF), cluster.settings.kafka.bootstrap
    for right in found:
        if right.principal == OF.operator:
            tool = java("org.apache.kafka.tools.AclCommand", *right.command(bootstrap).split()[1:])
            said = subprocess.run(tool, capture_output=True, text=True, timeout=120)
            assert said.stdout.count("permissionType=ALLOW") >= len(right.operations) * len(right.names)
    bindings = [
        AclBinding(
            ResourceType[right.resource.upper()],
            name,
            ResourcePatternType.LITERAL,
            right.principal,
            "*",
            AclOperation[operation.upper()],
            AclPermissionType.ALLOW,
        )
        for right in found
        if right.principal != OF.operator
        for operation in right.operations
        for name in right.names
    ]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for granted in admin.create_acls(bindings).values():
        granted.result(60)


async def publish(cluster: Cluster, kafka: GuardedKafka, topic: Any, values: list[bytes], **more: Any) -> None:
    keys = [b"i%d" % n if topic == "catalog" else b"ann" for n in range(len(values))]
    async with AIOKafkaProducer(**kafka.login("producer"), enable_idempotence=True) as producer:
        name = cluster.name(topic)
        sent = [await producer.send(name, value, key=key, **more) for value, key in zip(values, keys, strict=True)]
        await asyncio.gather(*sent)


async def answers(kafka: GuardedKafka, names: list[str], wanted: int) -> list[Any]:
    """What a reader in the group that was named gets."""
    found: list[Any] = []
    consumer = AIOKafkaConsumer(
        *names, **kafka.login("consumer"), group_id=OF.consumer_group, auto_offset_reset="earliest"
    )
    async with consumer:
        give_up = time.monotonic() + 60
        while len(found) < wanted and time.monotonic() < give_up:
            found += [r for records in (await consumer.getmany(timeout_ms=500)).values() for r in records]
        await consumer.commit()
    return found


async def test_everybody_does_their_work_with_the_rights_that_are_printed(
    valkey: Valkey, topic_prefix: str, tmp_path: Path
) -> None:
    with GuardedKafka() as kafka, Cluster(kafka, valkey, topic_prefix, tmp_path, **SETTINGS) as cluster:
        await asyncio.to_thread(grant, cluster)
        kafka.create_topic("answers", 1)
        await topics.apply(load_settings(environ={**cluster.environment, **kafka.settings("operator")}))
        for role in ("worker", "learner"):
            cluster.environment |= kafka.settings(role)
            cluster.start(role)
        worker, learner = cluster.nodes
        await cluster.until(lambda: worker.is_ready and learner.is_ready, 90, "both are ready")
        await publish(cluster, kafka, "catalog", [b'{"title":"Item"}'] * 30)
        now_ms = int(time.time() * 1000)
        play = '{"item_id":"i%d","type":"play","event_time":%d}'
        await publish(cluster, kafka, "events", [(play % (n % 30, now_ms + n)).encode() for n in range(150)] + [b"{"])
        ask, here = b'{"request_id":"r"}', [("reply_to", b"answers")]
        await publish(cluster, kafka, "requests", [ask], headers=here)
        found = await answers(kafka, [cluster.name("slates"), "answers"], 151)
        assert {record.topic for record in found} == {cluster.name("slates"), "answers"}
        assert {decode_slate(record.value).user_id for record in found} == {"ann"}
        (letter,) = await cluster.read(cluster.settings.topics.dead_letters("events"))
        assert letter.value == b"{"
        await cluster.until(
            lambda: worker.metric("marquee_snapshot_swaps_total", result="swapped") >= 1, 60, "a snapshot is taken"
        )
        with pytest.raises(TopicAuthorizationFailedError):
            async with AIOKafkaProducer(**kafka.login("consumer")) as producer:
                await producer.send_and_wait(cluster.name("slates"), b"mine")
        assert [await node.stop() for node in (learner, worker)] == [0, 0]
        logs = cluster.logs(lines=10_000)
        assert "uthoriz" not in logs, logs
        figures = await cluster.read(cluster.name("ad_stats"))
        assert all(json.loads(record.value or b"null") is not None for record in figures)
