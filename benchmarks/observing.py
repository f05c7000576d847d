"""What metrics and spans add to an event: the events lane without either, with metrics, and with spans sent besides.

    python -m benchmarks.observing [--rounds 9]

Whole batches go through the lane in memory, without Kafka and Redis, which cost the same for all: µs of CPU per event,
of all threads of this process, in turns; the median of the rounds. `slates` answers every event and tells the learner,
`ingest` only folds. Every event comes with a `traceparent`. Spans go to a collector in a process of its own.
"""

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Any, NamedTuple

from embeddings.events import Source
from embeddings.memory import MemoryUserStore
from streams.contract.messages import Outgoing, Part
from streams.lab.synthetic import World
from streams.process.tracing import spans_of
from streams.serving.stages import untimed
from streams.settings import Consent, Observe, Settings, Slates, Topics
from streams.tracing_settings import Tracing
from streams.transport.ledger import Unit
from streams.transport.letters import DeadLetterTopic
from streams.worker.worker import Worker

BATCH, BATCHES, WARM = 256, 12, 4
HERE = Source("marquee.events.v1", 0)


class Raw(NamedTuple):
    """A record as Kafka would deliver it."""

    offset: int
    value: bytes
    key: bytes
    headers: Sequence[tuple[str, bytes]]
    timestamp: int
    timestamp_type: int = 0


class Broker:
    """Takes everything at once."""

    async def send_all(self, records: Iterable[Outgoing], **_options: Any) -> None:
        """Take them."""
        list(records)

    async def missing(self, topics: Collection[str]) -> set[str]:
        """None is."""
        return set()

    async def written(self) -> None:
        """At once."""
        await asyncio.sleep(0)

    async def read(self) -> AsyncIterator[Sequence[Any]]:
        """Nothing lies there."""
        yield []


class Mute:
    """Metrics that do nothing, whatever they are asked."""

    def __getattr__(self, _name: str) -> "Mute":
        return self

    def __call__(self, *_said: Any, **_named: Any) -> Any:
        """A block, or whatever else is made of it."""
        return _NOTHING


class _Nothing(nullcontext[None], Mute):  # type: ignore[misc]
    """What a muted call returns: a block, or anything else."""


_NOTHING = _Nothing()


@dataclass
class Contender:
    """An events lane and what is left of its log."""

    worker: Worker
    log: list[Raw]

    async def batches(self, many: int) -> float:
        """Microseconds of CPU per event of so many batches."""
        began_s = time.process_time()
        for _ in range(many):
            records, self.log = self.log[:BATCH], self.log[BATCH:]
            await self.worker.events(Unit([Part(HERE, records, records[-1].offset, -1)], len(records), HERE.topic))
        return (time.process_time() - began_s) / (many * BATCH) * 1e6


def a_lane(settings: Settings, world: World, log: list[Raw], snapshot: Any) -> Worker:
    worker, broker = Worker(settings), Broker()
    worker.serving.swap(snapshot)
    store, lane = MemoryUserStore(), worker.events
    world.settle(store, [HERE])
    store.claim([HERE])
    lane.recommender.users = store
    lane.publisher = lane.teller = lane.unstored.publisher = lane.unstored.teller = broker  # type: ignore[assignment]
    letters = DeadLetterTopic(topic="dlq", publisher=broker, read=broker.read)  # type: ignore[arg-type]
    lane.letters = lane.unstored.letters = letters
    return worker


def muted(worker: Worker) -> Worker:
    lane: Any = worker.events
    lane.recommender.stage = untimed
    lane.metrics = lane.shown = lane.unstored.metrics = lane.unstored.shown = Mute()
    lane.paused.metrics = Mute()
    return worker


def collect(port: Any) -> None:
    """Take spans and forget them; tells its port first."""

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take spans."""
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_said: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        port.send(server.server_port)
        server.serve_forever()


async def measure(settings: Settings, endpoint: str, rounds: int) -> dict[str, float]:
    world = World(items=5_000, users=2_000)
    snapshot, header = world.snapshot(), "traceparent"
    needed = BATCH * (WARM + BATCHES * rounds)
    log = [
        Raw(n, value, key, [(header, b"00-%032x-%016x-01" % (n + 1, n + 1))], world.now_s * 1000)
        for n, (key, value) in enumerate(world.log("uniform", needed))
    ]
    traced = a_lane(settings, world, log, snapshot)
    traced.metrics.spans = spans_of(settings.model_copy(update={"tracing": Tracing(endpoint=endpoint)}), "worker")
    contenders = {
        "off": Contender(muted(a_lane(settings, world, log, snapshot)), log),
        "metrics": Contender(a_lane(settings, world, log, snapshot), log),
        "metrics and spans": Contender(traced, log),
    }
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        await contender.batches(WARM)
    for turn in range(rounds):
        names = list(contenders)
        for name in names[turn % 3 :] + names[: turn % 3]:
            found[name].append(await contenders[name].batches(BATCHES))
    traced.metrics.spans.close()
    return {name: median(took) for name, took in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    ours, theirs = multiprocessing.Pipe()
    collector = multiprocessing.get_context("spawn").Process(target=collect, args=(theirs,), daemon=True)
    collector.start()
    endpoint = f"http://127.0.0.1:{ours.recv()}"
    consent, one = Consent(default="grant"), Topics(partitions=1)
    modes = {
        "slates": Settings(consent=consent, topics=one, slates=Slates(per_event="all")),
        "ingest": Settings(
            consent=consent, topics=one, slates=Slates(per_event="requests"), observe=Observe(enabled=False)
        ),
    }
    for mode, settings in modes.items():
        found = asyncio.run(measure(settings, endpoint, rounds))
        off = found["off"]
        beside = ", ".join(f"{name} {us:.1f} ({us - off:+.1f}, {us / off - 1:+.1%})" for name, us in found.items())
        print(f"{mode}: µs of CPU per event: {beside}")
    collector.terminate()


if __name__ == "__main__":
    main()
