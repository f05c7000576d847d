"""What the benchmarks share: servers, one core for what is measured and another for the rest, topics, figures."""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil
from aiokafka import AIOKafkaProducer

from deploy.embedded import Broker, Server, Valkey
from deploy.kafka import KafkaServer
from deploy.processes import Child
from embeddings.events import Source
from embeddings.store import UserStore
from streams.contract.records import topic_specs
from streams.settings import Settings

Say = Callable[[str], None]
Row = tuple[bytes, bytes, *tuple[tuple[str, bytes], ...]]
"""A record to be: key, value, and headers, if any."""
PARTITIONS = 4
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class Site:
    """Servers for a benchmark, on the last core; what is measured gets the first core to itself.

    Apache Kafka where Java is installed, else the embedded broker; `broker_name` says which.
    """

    def __init__(self) -> None:
        """Choose the broker; nothing starts before `with`."""
        self._exit = ExitStack()
        self.broker: KafkaServer | Broker = KafkaServer() if shutil.which("java") else Broker()
        self.valkey = Valkey()
        self.folder = Path(tempfile.mkdtemp(prefix="marquee-bench-"))
        self._exit.callback(shutil.rmtree, self.folder, ignore_errors=True)

    @property
    def broker_name(self) -> str:
        """What the figures were measured on."""
        return "Apache Kafka" if isinstance(self.broker, KafkaServer) else "Tansu (embedded, in memory)"

    def __enter__(self) -> "Site":
        try:
            for server in (self.broker, self.valkey):
                self._exit.enter_context(server)
                pin(_pid(server), measured=False)
            pin(os.getpid(), measured=False)
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def environment(self, prefix: str, **more: str) -> dict[str, str]:
        """Settings of a worker on these servers, as environment variables; `more` are further ones."""
        return {
            **ONE_THREAD,
            "MARQUEE_KAFKA__BOOTSTRAP": self.broker.bootstrap,
            "MARQUEE_KAFKA__IDEMPOTENT": str(isinstance(self.broker, KafkaServer)).lower(),
            "MARQUEE_KAFKA__GROUP_PREFIX": prefix,
            "MARQUEE_REDIS__URL": self.valkey.url,
            "MARQUEE_REDIS__PREFIX": prefix,
            "MARQUEE_TOPICS__PREFIX": prefix,
            "MARQUEE_TOPICS__PARTITIONS": str(PARTITIONS),
            "MARQUEE_CONSENT__DEFAULT": "grant",
            "MARQUEE_HTTP__PORT": "0",
            "MARQUEE_LOG__LEVEL": "warning",
            **more,
        }

    def create_topics(self, settings: Settings) -> None:
        """All topics of an installation."""
        for spec in topic_specs(settings):
            self.broker.create_topic(spec.topic, spec.partitions)

    @contextmanager
    def child(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[Child]:
        """A Python module as a child on the measured core, stopped at the end of the block."""
        child = Child([sys.executable, "-m", *arguments], self.folder / f"{name}.log", env=environment)
        pin(child.pid, measured=True)
        try:
            yield child
        finally:
            child.stop()


def _pid(server: Server) -> int:
    assert server.child is not None
    return server.child.pid


def pin(pid: int, *, measured: bool) -> None:
    """Keep a process on the first core, or off it. Does nothing on one core or where the system has no such call."""
    if not hasattr(os, "sched_setaffinity") or len(cores := sorted(os.sched_getaffinity(1))) < 2:
        return
    for task in psutil.Process(pid).threads():
        os.sched_setaffinity(task.id, cores[:1] if measured else cores[1:])


def rotated(names: Iterable[str], turn: int) -> list[str]:
    """In which order they come this turn: everybody is the first in one of them.

    >>> rotated(["a", "b", "c"], 4)
    ['b', 'c', 'a']
    """
    found = list(names)
    at = turn % len(found)
    return found[at:] + found[:at]


def sources(settings: Settings) -> list[Source]:
    """The partitions of the events topic."""
    return [Source(settings.topics.name("events"), partition) for partition in range(settings.topics.partitions)]


def stored(store: UserStore, here: Sequence[Source]) -> int:
    """How many records of these partitions are in the store."""
    return sum(mark.offset + 1 for mark in store.marks(here).values())


async def publish(bootstrap: str, topic: str, rows: Iterable[Row]) -> None:
    """Write records to a topic as fast as it takes them."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, max_batch_size=1 << 18, acks="all")
    await producer.start()
    try:
        for n, (key, value, *headers) in enumerate(rows):
            await producer.send(topic, value, key=key, headers=headers)
            if n % 500 == 0:
                await asyncio.sleep(0)
        await producer.flush()
    finally:
        await producer.stop()


class Looks:
    """How far a process was at several moments, and its pace between them."""

    def __init__(self, child: Child) -> None:
        """Nothing was looked at yet."""
        self._process, self._looks = psutil.Process(child.pid), list[tuple[int, float, float]]()

    def add(self, count: int) -> int:
        """Take down that it has done `count` by now; returns it."""
        self._looks.append((count, time.monotonic(), sum(self._process.cpu_times()[:2])))
        return count

    @property
    def units(self) -> int:
        """How many were done between the first look and the last."""
        return self._looks[-1][0] - self._looks[0][0]

    def pace(self) -> tuple[float, float]:
        """See `pace`."""
        return pace(self._looks)


def pace(looks: Sequence[tuple[int, float, float]]) -> tuple[float, float]:
    """Units per second of the wall clock and per second of CPU time; a look is how many were done, and both clocks.

    From the look that saw a fifth done to the first that saw all; from the look before that if it is the same.
    """
    look_L3 = np.array(looks)
    first, last = look_L3[0, 0], look_L3[-1, 0]
    begin, end = np.searchsorted(look_L3[:, 0], (first + (last - first) / 5, last))
    units, wall_s, cpu_s = look_L3[end] - look_L3[max(min(begin, end - 1), 0)]
    return units / max(wall_s, 1e-9), units / max(cpu_s, 1e-9)


def pace_of(child: Child, done: Callable[[], int], total: int, *, timeout_s: float = 300.0) -> tuple[float, float]:
    """Follow `done()` to `total`, see `Looks.pace`.

    Raises:
        StartFailed: the child ended.
        TimeoutError: it did not get there.
    """
    looks, deadline = Looks(child), time.monotonic() + timeout_s
    while (count := looks.add(done())) < total:
        child.expect_running()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count} of {total} done\n{child.tail()}")
        time.sleep(0.01)
    return looks.pace()
