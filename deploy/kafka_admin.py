"""Kafka's admin client for everybody who asks a cluster: open while it is used, topics created until they are led.

`brokers` and `create_topic` are for plain code, which may run inside somebody's event loop: they ask in a thread of
their own and wait for the answer.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError

T = TypeVar("T")

_ALREADY_EXISTS = 36
_OF_CLIENTS = ("bootstrap_servers", "metadata_max_age_ms")
"""Options that a connection has not."""
_SETTLE_S = 15
_PATIENCE_MS = 1000

_REACH_S = 2.0

_apart = ThreadPoolExecutor(1, thread_name_prefix="admin")


class TopicsRefused(Exception):
    """The broker would not create a topic; what it said is in the message. It may be asked again."""


@asynccontextmanager
async def admin_client(**options: Any) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client; `options` are aiokafka's.

    Raises:
        KafkaError: nobody answers, or who does sends its clients to addresses that nobody answers at.
    """
    admin = AIOKafkaAdminClient(**options)
    try:
        await admin.start()
        await _reach_one(admin, options)
        yield admin
    finally:
        await admin.close()


async def unreached(admin: AIOKafkaAdminClient, options: Mapping[str, Any]) -> dict[str, str]:
    """The addresses that brokers tell their clients and where none is reached from here, each with the reason."""
    told = sorted({(broker.host, broker.port) for broker in admin._client.cluster.brokers()})
    how = {name: value for name, value in options.items() if name not in _OF_CLIENTS}
    reasons = await asyncio.gather(*(_why_unreached(host, port, how) for host, port in told))
    return {f"{host}:{port}": why for (host, port), why in zip(told, reasons, strict=True) if why}


def misled(bootstrap: str, away: Mapping[str, str]) -> str:
    """What is said of brokers that answer and lead away."""
    where = ", ".join(f"{address} ({why})" for address, why in away.items())
    return f"{bootstrap} answers and sends its clients to {where}: no broker is reached there, see advertised.listeners"


async def _reach_one(admin: AIOKafkaAdminClient, options: Mapping[str, Any]) -> None:
    away = await unreached(admin, options)
    if away and len(away) == len(admin._client.cluster.brokers()):
        raise KafkaConnectionError(misled(options["bootstrap_servers"], away))


async def _why_unreached(host: str, port: int, options: Mapping[str, Any]) -> str:
    try:
        (await asyncio.wait_for(create_conn(host, port, **options), _REACH_S)).close()
    except TimeoutError:
        return f"no answer within {_REACH_S:g} s"
    except (OSError, KafkaError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


async def create_topics(admin: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> None:
    """Create topics and return when every partition has a leader. One that exists already is left as it is.

    Raises:
        TopicsRefused: the broker said no, or leaders were not found in time.
    """
    reply = await admin.create_topics(topics)
    refused = [
        f"{name}: {text} (code {code})" for name, code, text in reply.topic_errors if code not in (0, _ALREADY_EXISTS)
    ]
    if refused:
        raise TopicsRefused("\n".join(refused))
    await _settle(admin, {topic.name for topic in topics}, asyncio.get_running_loop().time() + _SETTLE_S)


async def _settle(admin: AIOKafkaAdminClient, names: set[str], deadline: float) -> None:
    """Wait until the broker shows what the controller created: it answers before its brokers have heard of it."""
    while missing := names - {topic["topic"] for topic in await admin.describe_topics() if _led(topic)}:
        if asyncio.get_running_loop().time() > deadline:
            raise TopicsRefused(f"created, but without leaders after {_SETTLE_S} s: {', '.join(sorted(missing))}")
        await asyncio.sleep(0.05)


def _led(topic: Mapping[str, Any]) -> bool:
    return bool(topic["partitions"]) and all(p["leader"] >= 0 for p in topic["partitions"])


def brokers(bootstrap: str) -> int:
    """How many brokers the one at `bootstrap` (host:port) knows; 0 when it does not answer."""
    host, _, port = bootstrap.rpartition(":")
    try:  # to connect first: where nobody listens aiokafka logs an error each time
        socket.create_connection((host, int(port)), _PATIENCE_MS / 1000).close()
        return _ask(_brokers(bootstrap))
    except (OSError, KafkaError):
        return 0


def create_topic(bootstrap: str, topic: NewTopic) -> None:
    """Create one topic as `create_topics` does.

    Raises:
        TopicsRefused: see there.
    """
    _ask(_create(bootstrap, topic))


def _ask(question: Coroutine[Any, Any, T]) -> T:
    return _apart.submit(asyncio.run, question).result()


async def _brokers(bootstrap: str) -> int:
    async with admin_client(bootstrap_servers=bootstrap, request_timeout_ms=_PATIENCE_MS) as admin:
        return len((await admin.describe_cluster())["brokers"])


async def _create(bootstrap: str, topic: NewTopic) -> None:
    async with admin_client(bootstrap_servers=bootstrap) as admin:
        await create_topics(admin, [topic])
