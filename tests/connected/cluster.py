"""Workers and a learner as child processes on a Kafka and a Valkey that run already, under a prefix of their own."""

import asyncio
import json
import math
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from deploy.embedded import Valkey
from deploy.kafka import KafkaServer
from deploy.kafka_admin import admin_client
from deploy.processes import Child, free_port
from embeddings.events import Source
from embeddings.redis_store import RedisUserStore
from streams.configuration import load_settings
from streams.contract.records import topic_specs
from streams.settings import Settings, TopicName
from streams.transport import topics
from streams.worker.stores import user_store

ROOT = Path(__file__).parents[2]


@dataclass
class Node:
    """A worker or the learner: a process that may be killed and started again, with one log for all its lives."""

    name: str
    role: str
    folder: Path
    environment: Mapping[str, str]
    program: Sequence[str] = ("-m", "streams")
    port: int = field(default_factory=free_port)
    child: Child | None = None

    def start(self) -> None:
        env = {
            **self.environment,
            "MARQUEE_HTTP__PORT": str(self.port),
            "MARQUEE_KAFKA__CLIENT_ID": self.name,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        self.child = Child([sys.executable, *self.program, self.role], self.folder / f"{self.name}.log", env=env)

    @property
    def runs(self) -> bool:
        return self.child is not None and self.child.returncode is None

    def send(self, number: signal.Signals) -> None:
        assert self.child is not None
        self.child.send(number)

    def kill(self) -> None:
        assert self.child is not None
        self.child.kill()

    async def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM; the exit code."""
        self.send(signal.SIGTERM)
        assert self.child is not None
        return await asyncio.to_thread(self.child.wait, timeout_s)

    @property
    def is_ready(self) -> bool:
        """A worker with partitions; a learner that leads, or one that stands by for it."""
        return self._get("/readyz" if self.role == "worker" else "/startupz") is not None

    @property
    def lacks(self) -> set[str]:
        """The checks of `/readyz` that do not pass, whether that makes it unready or not; `pages` without an answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=10) as answer:
                told = answer.read()
        except urllib.error.HTTPError as error:
            told = error.read()
        except OSError:
            return {"pages"}
        return {check for check, why in json.loads(told)["checks"].items() if why != "ok"}

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; NaN where there is none."""
        samples = [
            sample.value
            for family in text_string_to_metric_families(self._get("/metrics") or "")
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(samples) if samples else math.nan

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return None


class Cluster:
    """Topics, and the nodes that were asked for; a `with` block kills what is left of them."""

    def __init__(self, kafka: KafkaServer, valkey: Valkey, prefix: str, folder: Path, **overrides: object) -> None:
        """`overrides` are settings as `MARQUEE_…` spells them, without that prefix and in lower case."""
        self.folder = folder
        self.environment = {
            "MARQUEE_KAFKA__BOOTSTRAP": kafka.bootstrap,
            "MARQUEE_KAFKA__GROUP_PREFIX": prefix,
            "MARQUEE_TOPICS__PREFIX": prefix,
            "MARQUEE_REDIS__URL": valkey.url,
            "MARQUEE_REDIS__PREFIX": prefix,
            "MARQUEE_CONSENT__DEFAULT": "grant",
            "MARQUEE_LEARNER__SNAPSHOT_DIR": str(folder / "snapshots"),
            "MARQUEE_LEARNER__CHECKPOINT_DIR": str(folder / "checkpoints"),
            **{f"MARQUEE_{name.upper()}": str(value) for name, value in overrides.items()},
        }
        self.settings: Settings = load_settings(environ=self.environment)
        self.nodes: list[Node] = []

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if node.child is not None:
                node.child.kill()

    async def create_topics(self) -> None:
        await topics.apply(self.settings)

    def start(self, role: str, count: int = 1, program: Sequence[str] = ("-m", "streams")) -> list[Node]:
        """Start some more nodes of a role, and do not wait for them."""
        before = sum(node.role == role for node in self.nodes)
        new = [Node(f"{role}-{n}", role, self.folder, self.environment, program) for n in range(before, before + count)]
        for node in new:
            node.start()
        self.nodes += new
        return new

    async def until(self, true: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait; asked in a thread, so that the event loop goes on.

        Raises:
            AssertionError: the time is over, or a node ended by itself. The ends of the nodes' logs are in the message.
        """
        give_up = time.monotonic() + timeout_s
        while not await asyncio.to_thread(true):
            if time.monotonic() > give_up:
                raise AssertionError(f"not within {timeout_s:g} s: {what}\n{self.logs()}")
            self.check()
            await asyncio.sleep(0.2)

    def check(self) -> None:
        """Make sure that no node ended by itself."""
        for node in self.nodes:
            if node.child is not None and node.child.returncode not in (None, 0, -signal.SIGKILL):
                raise AssertionError(f"{node.name} ended with {node.child.returncode}\n{self.logs()}")

    def logs(self, lines: int = 25) -> str:
        return "\n".join(f"--- {n.name}\n{n.child.tail(lines)}" for n in self.nodes if n.child is not None)

    def store(self) -> RedisUserStore:
        """A store to look at what the workers wrote."""
        return user_store(self.settings)

    def producer(self, **options: Any) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=self.settings.kafka.bootstrap, enable_idempotence=True, linger_ms=5, **options
        )

    async def ends(self, topic: str) -> dict[Source, int]:
        """The offset after the last record of each partition of a topic."""
        async with AIOKafkaConsumer(bootstrap_servers=self.settings.kafka.bootstrap) as consumer:
            found = await consumer.end_offsets([TopicPartition(topic, p) for p in range(self._partitions(topic))])
        return {Source(*tp): end for tp, end in found.items()}

    async def read(self, topic: str) -> list[ConsumerRecord]:
        """Everything that is on a topic now, in the order of its partitions."""
        ends = {tp: end for tp, end in (await self.ends(topic)).items() if end}
        if not ends:
            return []
        found: dict[Source, list[ConsumerRecord]] = {source: [] for source in ends}
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka.bootstrap,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=8 << 20,
        )
        async with consumer:
            consumer.assign([TopicPartition(*source) for source in ends])
            while ends:
                for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                    found[Source(*tp)] += records
                at = {source: await consumer.position(TopicPartition(*source)) for source in ends}
                ends = {source: end for source, end in ends.items() if at[source] < end}
        return [record for source in sorted(found) for record in found[source]]

    async def committed(self, group: str, topic: str) -> dict[Source, int]:
        """The committed offset of each partition of a topic that has one."""
        async with admin_client(bootstrap_servers=self.settings.kafka.bootstrap) as client:
            found = await client.list_consumer_group_offsets(f"{self.settings.kafka.group_prefix}.{group}")
        return {Source(*tp): value.offset for tp, value in found.items() if tp.topic == topic}

    def name(self, topic: TopicName) -> str:
        return self.settings.topics.name(topic)

    def _partitions(self, topic: str) -> int:
        return next(spec.partitions for spec in topic_specs(self.settings) if spec.topic == topic)
