"""Events sent to a contender, as a backlog or at a steady rate, and the answers that come of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from numpy.typing import NDArray

from deploy.processes import Child
from streams.contract.cloudevents import INPUT, header, place_of
from streams.lab.bench_rig import Looks, Row


@dataclass(frozen=True, slots=True)
class Contender:
    """A process that answers every event of one topic in another; `beside` is what goes on while it is its turn."""

    child: Child
    topic: str
    answers: str
    beside: Callable[[], AbstractContextManager[object]] = nullcontext


@asynccontextmanager
async def connected(bootstrap: str) -> "AsyncIterator[Traffic]":
    """A block with traffic to and from some brokers."""
    async with (
        AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=0, acks="all") as producer,
        AIOKafkaConsumer(
            bootstrap_servers=bootstrap, fetch_max_wait_ms=5, max_partition_fetch_bytes=4 << 20
        ) as consumer,
    ):
        yield Traffic(producer, consumer)


class Traffic:
    """Sends events, and watches the topic where their answers appear; an answer names its event in a header."""

    def __init__(self, producer: AIOKafkaProducer, consumer: AIOKafkaConsumer) -> None:
        self._producer, self._consumer = producer, consumer

    async def work_off(
        self, contender: Contender, rows: Iterator[Row], done: Callable[[int], int] = int
    ) -> tuple[float, float, float]:
        """Publish a backlog and follow a contender to its end.

        Args:
            contender: who answers.
            rows: the events.
            done: how many of them it is done with, of the number of answers; that many, unless told otherwise.

        Returns:
            Answers and events per second of the wall clock and answers per second of CPU time, see `pace`.

        Raises:
            StartFailed: the contender ended.
        """
        partitions = await self._partitions(contender.answers)
        looks = Looks(contender.child)
        looks.add(await self._written(partitions))
        sending = [
            await self._producer.send(contender.topic, value, key=key, headers=headers) for key, value, *headers in rows
        ]
        published = asyncio.gather(*sending)
        while done(looks.units) < len(sending):
            await asyncio.sleep(0.02)
            contender.child.expect_running()
            if published.done():
                published.result()  # what failed is never done
            looks.add(await self._written(partitions))
        await published
        looks.add(await self._written(partitions))
        answers_ps, answers_per_cpu_s = looks.pace()
        return answers_ps, answers_ps * len(sending) / looks.units, answers_per_cpu_s

    async def _partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, partition) for partition in sorted(await self._producer.partitions_for(topic))]

    async def _written(self, partitions: list[TopicPartition]) -> int:
        return sum((await self._consumer.end_offsets(partitions)).values())

    async def latencies(
        self, contender: Contender, rows: Iterator[Row], load_eps: int, seconds: float
    ) -> NDArray[np.float64]:
        """Seconds from sending an event to receiving its answer, for all that were answered.

        Raises:
            StartFailed: the contender ended.
        """
        self._consumer.assign(await self._partitions(contender.answers))
        await self._consumer.seek_to_end()
        for partition in self._consumer.assignment():
            await self._consumer.position(partition)
        sent_s: dict[bytes, float] = {}
        sending = asyncio.create_task(self._send(contender.topic, rows, load_eps, seconds, sent_s))
        arrived_s: dict[bytes, float] = {}
        quiet = 0
        while not sending.done() or quiet < 5:
            fetched = await self._consumer.getmany(timeout_ms=100)
            now_s = time.monotonic()
            quiet = 0 if fetched else quiet + 1
            arrived_s |= {header(r.headers, INPUT) or b"": now_s for part in fetched.values() for r in part}
        await sending
        contender.child.expect_running()
        return np.array([arrived_s[place] - at_s for place, at_s in sent_s.items() if place in arrived_s])

    async def _send(
        self, topic: str, rows: Iterator[Row], load_eps: int, seconds: float, sent_s: dict[bytes, float]
    ) -> None:
        began, acks = time.monotonic(), []
        for n in range(int(load_eps * seconds)):
            await asyncio.sleep(max(0.0, began + n / load_eps - time.monotonic()))
            key, value, *headers = next(rows)
            acks.append((time.monotonic(), await self._producer.send(topic, value, key=key, headers=headers)))
        for at_s, ack in acks:
            place = await ack
            sent_s[place_of(place.topic, place.partition, place.offset)] = at_s
