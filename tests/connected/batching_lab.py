"""Worker processes of the transport (`batching_worker.py`) on Apache Kafka, and what a test asks of them."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from deploy.kafka import KafkaServer
from deploy.kafka_admin import admin_client
from deploy.processes import Child

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("batching_worker.py")


@dataclass
class Worker:
    """A worker process and what it said."""

    child: Child
    log: Path

    def lines(self, what: str, group: str, topic: str | None = None) -> list[dict[str, Any]]:
        said = [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]
        return [x for x in said if x["what"] == what and x["group"] == group and topic in (None, x.get("topic"))]

    def finished(self, group: str, topic: str) -> list[tuple[int, int]]:
        return [(p, o) for line in self.lines("end", group, topic) for p, o in line["offsets"]]

    async def ended(self, timeout_s: float) -> int:
        await until(lambda: self.child.returncode is not None, timeout_s, self)
        return self.child.wait(0)


@dataclass
class Lab:
    """Kafka, and a place for the workers of one test."""

    kafka: KafkaServer
    prefix: str
    folder: Path
    workers: list[Worker] = field(default_factory=list)

    def start(self, *groups: dict[str, Any]) -> Worker:
        name = f"w{len(self.workers)}"
        scenario, log = self.folder / f"{name}.json", self.folder / f"{name}.log"
        log.touch()
        scenario.write_text(json.dumps({"bootstrap": self.kafka.bootstrap, "log": str(log), "groups": groups}))
        env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        child = Child([sys.executable, str(WORKER), str(scenario)], self.folder / f"{name}.err", env=env)
        self.workers.append(Worker(child, log))
        return self.workers[-1]

    async def topic(self, name: str, records: int = 1000, partitions: int = 1, **config: object) -> str:
        topic = f"{self.prefix}.{name}"
        self.kafka.create_topic(topic, partitions, **config)
        await self.produce(topic, range(records), partitions)
        return topic

    async def produce(self, topic: str, numbers: range, partitions: int = 1) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.kafka.bootstrap) as producer:
            for n in numbers:
                await producer.send(topic, b"%d" % n, partition=n % partitions)

    async def committed(self, group: str) -> dict[str, int]:
        """The committed offset of each one-partition topic of a group."""
        async with self.admin() as admin:
            found = await admin.list_consumer_group_offsets(group)
        return {tp.topic: value.offset for tp, value in found.items()}

    async def commit(self, group: str, topic: str, offset: int) -> None:
        tp = TopicPartition(topic, 0)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka.bootstrap, group_id=group, enable_auto_commit=False)
        async with consumer:
            consumer.assign([tp])
            await consumer.commit({tp: offset})

    def admin(self) -> AbstractAsyncContextManager[AIOKafkaAdminClient]:
        return admin_client(bootstrap_servers=self.kafka.bootstrap)


async def until(true: Callable[[], bool], timeout_s: float, *workers: Worker) -> None:
    give_up = monotonic() + timeout_s
    while not true():
        if monotonic() > give_up:
            pytest.fail("not in time\n" + "\n".join(w.child.tail(25) for w in workers))
        await asyncio.sleep(0.1)


async def eventually(found: Callable[[], Awaitable[Any]], expected: Any, timeout_s: float = 60.0) -> None:
    give_up = monotonic() + timeout_s
    while (now := await found()) != expected and monotonic() < give_up:  # noqa: ASYNC110 - brokers tell nobody
        await asyncio.sleep(0.2)
    assert now == expected
