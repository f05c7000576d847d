"""What `marquee bench slates` measures a worker's latency beside: processes that answer every event of a topic.

`echo` is an aiokafka loop that sends each event back as it is. `transport` does the same as a handler of Marquee's
lanes. `floor` adds to that what no worker can do without, and only as calls of libraries: one round trip to Redis for
the users' states, the vector search of FAISS, the ranker's matrix products, and answers of a slate's size. What a
worker takes above the floor is Marquee's own: decoding, folding, gathering, features, composing, observing, storing.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from embeddings.codec import state_dtype
from embeddings.redis_connection import RedisLine
from embeddings.snapshots import Snapshot, load, manifests
from ranking.features import COLUMNS
from ranking.ranker import Ranker
from streams.configuration import load_settings
from streams.contract import cloudevents
from streams.contract.messages import Outgoing
from streams.process.host import run_apps
from streams.process.member import Membership, make_app, serve
from streams.process.threads import OwnLoop
from streams.serving.live_model import index_builder
from streams.settings import Settings
from streams.transport.fetching import Batching
from streams.transport.gates import Lane
from streams.transport.ledger import Unit
from streams.transport.publishing import Publisher

YARDSTICKS = "echo", "transport", "floor"
_SLATE_BYTES, _STATES = 2_950, 4_096
"""A slate of 20 items as JSON, and how many states there are."""


def topics_of(yardstick: str, settings: Settings) -> tuple[str, str]:
    """What a yardstick reads and where it answers."""
    return f"{settings.topics.prefix}.{yardstick}", f"{settings.topics.prefix}.{yardstick}.back"


async def echo(settings: Settings) -> None:
    """Send every event of the echo topic back, until stopped."""
    (topic, back), servers = topics_of("echo", settings), settings.kafka.bootstrap
    async with (
        AIOKafkaConsumer(topic, bootstrap_servers=servers, fetch_max_wait_ms=10) as consumer,
        AIOKafkaProducer(bootstrap_servers=servers, linger_ms=0, acks="all", enable_idempotence=True) as producer,
    ):
        while True:
            fetched = await consumer.getmany(timeout_ms=1_000)
            sending = [
                await producer.send(back, r.value, key=r.key, headers=_place(r))
                for part in fetched.values()
                for r in part
            ]
            await asyncio.gather(*sending)


def on_transport(name: str, settings: Settings, answers: Callable[[list[Any]], list[bytes]]) -> None:
    """Answer as a handler of Marquee's lanes, in a loop of its own like theirs, until stopped."""
    topic, back = topics_of(name, settings)
    options, loop = settings.kafka.client_options(), OwnLoop(name)
    publisher = Publisher(options, idempotent=settings.kafka.idempotent)

    async def answer(unit: Unit) -> None:
        unit.top_up()
        records = [record for part in unit.parts for record in part.records]
        back_again = [
            Outgoing(back, r.key, value, _place(r)) for r, value in zip(records, answers(records), strict=True)
        ]
        sending = asyncio.ensure_future(publisher.send_all(back_again))
        await publisher.written()
        unit.answered()
        await sending

    # An idle one asks the broker twice a second: it shares the core of whoever is measured.
    app = make_app(
        Membership(group=f"{settings.kafka.group_prefix}.{name}"),
        Batching(client_options=options, lanes={topic: Lane(behind=8)}, fetch_wait_ms=500),
    )
    serve(app, topic, lambda unit: loop.run(answer(unit)))
    run_apps([app])


def floor(settings: Settings, snapshot: Snapshot) -> Callable[[list[Any]], list[bytes]]:
    """Answers of a slate's size after one exchange with Redis, one search and one call of the ranker."""
    k, rng = settings.slates.candidates, np.random.default_rng(0)
    index = index_builder(settings)(np.arange(len(snapshot), dtype=np.int32), snapshot.target_ND)
    taste_SD = snapshot.source_ND[rng.integers(0, len(snapshot), (_STATES, 4))].sum(1)
    ranker = Ranker.from_tensors(snapshot.ranker, version=snapshot.version)
    x_PKX = rng.standard_normal((settings.batching.max_batch, k, COLUMNS), np.float32)
    item_PK, there_PK = rng.integers(0, 1 << 40, x_PKX.shape[:2]), np.ones(x_PKX.shape[:2], np.bool_)
    line = RedisLine(settings.redis.url, timeout_s=10.0)
    keys = [b"floor:%d" % n for n in range(_STATES)]
    state, answer, at = bytes(state_dtype(settings.learner.dimensions).itemsize), bytes(_SLATE_BYTES), 0
    line.exchange(*(("SET", key, state, "EX", 3_600) for key in keys))

    def answers(records: list[Any]) -> list[bytes]:
        nonlocal at
        at = at + len(records) if at + 2 * len(records) <= _STATES else 0
        end = at + len(records)
        line.exchange(("MGET", *keys[at:end]))
        index.search(taste_SD[at:end], k)
        ranker.score(x_PKX[: len(records)], item_PK[: len(records)], there_PK[: len(records)], outcomes=False)
        return [answer] * len(records)

    return answers


def ready(folder: Path, yardstick: str) -> Path:
    """The file that is there once a yardstick has what it needs; until then it keeps the core busy."""
    return folder / f"{yardstick}.ready"


def _as_it_came(records: list[Any]) -> list[bytes]:
    return [record.value for record in records]


def _place(record: Any) -> cloudevents.Headers:
    return cloudevents.echo(record.topic, record.partition, record.offset, record.headers)


def main(name: str, folder: Path) -> None:
    """Run a yardstick; `folder` holds the worker's snapshot."""
    settings = load_settings()
    answers = floor(settings, load(manifests(folder)[-1])) if name == "floor" else _as_it_came
    ready(folder, name).touch()
    if name == "echo":
        asyncio.run(echo(settings))
    else:
        on_transport(name, settings, answers)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
