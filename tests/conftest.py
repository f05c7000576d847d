"""Servers as fixtures. Who uses one carries its marker without saying so.

A server that cannot be had skips its tests, unless `REQUIRE_SERVERS` is set, as `make test` does: then they fail.
"""

import gc
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import npm
from deploy.embedded import Broker, Valkey
from deploy.kafka import KafkaServer
from tests import fuzzing  # noqa: F401  says how many examples a property has

MARKERS = {
    "kafka": "kafka",
    "embedded_broker": "embedded",
    "valkey": "embedded",
    "redis7": "redis",
    "npm_packages": "node",
    "kcat": "kcat",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKERS:
                item.add_marker(MARKERS[fixture])


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    _one_root_of_logging()


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """Valkey from pip, one for the whole run: a test that counts keys takes a prefix of its own or flushes first."""
    with Valkey() as server:
        yield server


@pytest.fixture(scope="session")
def redis7() -> Iterator[Valkey]:
    """Debian's redis-server: Redis 7, which has no MSETEX."""
    _needs("redis-server")
    with Valkey(binary="redis-server") as server:
        yield server


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[Broker]:
    """The broker from pip, one for the whole run: every test takes a topic prefix of its own."""
    with Broker() as server:
        yield server


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    """Apache Kafka, one for the whole run: every test takes a topic prefix of its own, and none kills it."""
    _needs("java")
    with KafkaServer() as server:
        yield server


@pytest.fixture(scope="session")
def npm_packages() -> Path:
    """The folder of the packages from npm that `deploy.npm` names."""
    _needs("node")
    _needs("npm")
    return npm.packages()


@pytest.fixture(scope="session")
def kcat() -> str:
    """Debian's kcat."""
    _needs("kcat")
    return "kcat"


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for topics, groups and keys that no other test has."""
    return f"t{uuid.uuid4().hex[:10]}"


def _one_root_of_logging() -> None:
    """Torch's forty loggers pass on to the root: pytest puts its handlers on each that does not, six times a test."""
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.startswith(("torch", "strobelight", "c10d")):
            logger.propagate = True


def _needs(program: str) -> None:
    if shutil.which(program) is None:
        refuse = pytest.fail if os.environ.get("REQUIRE_SERVERS") else pytest.skip
        refuse(f"{program} is not installed: make test installs it")
