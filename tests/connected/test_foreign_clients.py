"""Clients of other languages, by the snippets of docs/produce.md and docs/consume.md, and a worker on Apache Kafka."""

import asyncio
import importlib.metadata
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from aiokafka import ConsumerRecord

from deploy.embedded import Valkey
from deploy.kafka import KafkaServer, java
from embeddings.events import Source
from embeddings.ids import murmur2
from streams.contract.catalogue_records import read_catalogue
from streams.contract.cloudevents import INPUT, header, place_of
from streams.contract.consent import Judge
from streams.contract.deadletters import REROUTED
from streams.contract.decode import Decoded, decode
from streams.contract.parsing import Rules
from streams.contract.records import decode_slate
from streams.contract.schemas import document
from streams.settings import TopicName
from tests.connected.cluster import ROOT, Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PARTITIONS = 4
PREFIX = "foreign"
CLIENTS = ("Python, Go, C and whatever else is librdkafka", "Node: kafkajs", "Java's console tools", "kcat")
CONSOLE = {
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
}


def snippets(page: str) -> dict[str, tuple[str, str]]:
    """Language and text of the snippet under each heading of a page."""
    parts = re.split(r"^## (.+)\n", (ROOT / "docs" / page).read_text(), flags=re.M)[1:]
    found = {}
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        if fence := re.search(r"```(\w+)\n(.*?)```", text, re.S):
            found[title] = (fence[1], fence[2].replace("marquee.", f"{PREFIX}."))
    return found


PRODUCE, CONSUME = snippets("produce.md"), snippets("consume.md")


class Foreign:
    """A worker on Apache Kafka, and what runs snippets beside it."""

    def __init__(self, cluster: Cluster, environment: Mapping[str, str]) -> None:
        self.cluster, self.environment = cluster, environment

    def run(self, snippet: tuple[str, str]) -> str:
        """What a snippet prints that ends by itself."""
        done = subprocess.run(
            _command(*snippet), env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run_until(self, snippet: tuple[str, str], said: str) -> str:
        """The line of a snippet that goes on for ever in which something is said."""
        child = subprocess.Popen(
            _command(*snippet), env=self.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert child.stdout is not None
        late = threading.Timer(60, os.killpg, (child.pid, signal.SIGKILL))
        late.start()
        try:
            return next((line for line in child.stdout if said in line), "")
        finally:
            late.cancel()
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            child.stdout.close()

    def records(self, topic: TopicName) -> list[ConsumerRecord]:
        return asyncio.run(self.cluster.read(self.cluster.name(topic)))

    def wait(self, what: Callable[[], Any], said: str) -> Any:
        """What is true at last."""
        give_up = time.monotonic() + 40
        while not (found := what()):
            assert time.monotonic() < give_up, f"{said}\n{self.cluster.logs()}"
            time.sleep(0.2)
        return found

    def slate_of(self, event: ConsumerRecord) -> ConsumerRecord:
        """The slate that an event led to."""
        place = place_of(event.topic, event.partition, event.offset)
        found: ConsumerRecord = self.wait(
            lambda: next((one for one in self.records("slates") if header(one.headers, INPUT) == place), None),
            f"no slate of {place!r}",
        )
        return found


def _command(language: str, text: str) -> list[str]:
    return {"python": [sys.executable, "-c", text], "js": ["node", "-e", text], "sh": ["bash", "-ec", text]}[language]


@pytest.fixture(scope="module")
def foreign(
    kafka: KafkaServer, valkey: Valkey, npm_packages: Path, kcat: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Foreign]:
    folder = tmp_path_factory.mktemp("foreign")
    for name, main in CONSOLE.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(java(main))} "$@"\n')
        (folder / name).chmod(0o755)
    environment = {
        **os.environ,
        "BROKER": kafka.bootstrap,
        "NODE_PATH": str(npm_packages / "node_modules"),
        "PATH": f"{folder}:{os.environ['PATH']}",
    }
    said = {"topics__partitions": PARTITIONS, "slates__per_event": "all", "slates__size": 3}
    with Cluster(kafka, valkey, PREFIX, folder, **said) as cluster:
        asyncio.run(cluster.create_topics())
        cluster.start("worker")
        asyncio.run(_stocked(cluster))
        asyncio.run(cluster.until(lambda: all(node.is_ready for node in cluster.nodes), 60, "a worker is ready"))
        yield Foreign(cluster, environment)


async def _stocked(cluster: Cluster) -> None:
    async with cluster.producer() as producer:
        for name in ("m1", "m2", "m3", "m4"):
            item = json.dumps({"item_id": name, "title": f"Film {name}"}).encode()
            await producer.send_and_wait(cluster.name("catalog"), item, key=name.encode())


def decoded(record: ConsumerRecord) -> Decoded:
    """What the worker makes of a record, partitions judged as there."""
    rules = Rules(judge=Judge(15), partitions={record.topic: PARTITIONS})
    return decode([(Source(record.topic, record.partition), [record])], rules, time.time_ns() // 1_000_000)


def home_of(user: str) -> int:
    return int(murmur2([user.encode()])[0]) % PARTITIONS


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_publishes_an_event_and_reads_the_slate_it_led_to(foreign: Foreign, client: str) -> None:
    before = {(one.partition, one.offset) for one in foreign.records("events")}
    foreign.run(PRODUCE[client])
    (event,) = [one for one in foreign.records("events") if (one.partition, one.offset) not in before]
    assert (event.key, event.partition) == (b"ann", home_of("ann"))
    made = decoded(event)
    assert not made.dead
    assert not made.misrouted
    assert [(one.user_id, one.item_id, one.type) for one in made.events] == [("ann", "m1", "play")]
    jsonschema_rs.validator_for(document("events")).validate(json.loads(event.value))
    slate = decode_slate(foreign.slate_of(event).value)
    assert {item.item_id for item in slate.items} == {"m2", "m3", "m4"}
    line = foreign.run_until(CONSUME[client], slate.slate_id)
    assert line.startswith("ann")
    assert {"m2", "m3", "m4"} <= set(re.findall(r"\bm\d\b", line))


def test_a_slate_is_asked_for_and_answered(foreign: Foreign) -> None:
    slate_id = foreign.run(CONSUME["Asking for a slate"]).split()[0]
    (answer,) = [slate for slate in map(_slate, foreign.records("slates")) if slate["slate_id"] == slate_id]
    assert (answer["trigger"], answer["user_id"], answer["surface"]) == ("request", "ann", "home")
    assert answer["items"]


def _slate(record: ConsumerRecord) -> dict[str, Any]:
    slate: dict[str, Any] = json.loads(record.value)
    return slate


def test_content_comes_and_goes_by_kcat(foreign: Foreign) -> None:
    foreign.run(PRODUCE["Content, and taking it away"])
    records = [record for record in foreign.records("catalog") if record.key == b"m9"]
    source, rules = Source(foreign.cluster.name("catalog"), 0), Rules(judge=Judge(15))
    (facts,), _, dead = read_catalogue(source, records[:1], rules)
    assert (facts.facts.name, facts.facts.title, dead) == ("m9", "Film 9", [])
    assert read_catalogue(source, records, rules) == ([], ["m9"], [])


def test_librdkafka_left_to_itself_goes_by_another_hash_and_is_published_again(foreign: Foreign) -> None:
    from confluent_kafka import Producer

    user = next(f"z{n}" for n in range(100) if zlib.crc32(b"z%d" % n) % PARTITIONS != home_of(f"z{n}"))
    producer = Producer({"bootstrap.servers": foreign.environment["BROKER"], "acks": "all"})
    event = {"type": "play", "user_id": user, "item_id": "m1", "event_time": time.time_ns() // 1_000_000}
    producer.produce(foreign.cluster.name("events"), json.dumps(event), key=user)
    assert producer.flush(30) == 0

    def of_user() -> list[ConsumerRecord]:
        return [one for one in foreign.records("events") if one.key == user.encode()]

    foreign.wait(lambda: len(of_user()) == 2, "not published again")
    (first,), again = (
        [one for one in of_user() if bool(header(one.headers, REROUTED)) == rerouted] for rerouted in (0, 1)
    )
    assert first.partition == zlib.crc32(user.encode()) % PARTITIONS
    assert len(decoded(first).misrouted) == 1
    assert again[0].partition == home_of(user)
    assert decode_slate(foreign.slate_of(again[0]).value).user_id == user


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_what_a_foreign_producer_packed_is_read_with_what_a_plain_install_brings(foreign: Foreign, codec: str) -> None:
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": foreign.environment["BROKER"],
            "partitioner": "murmur2_random",
            "compression.type": codec,
            "linger.ms": 50,
        }
    )
    event = {"type": "play", "item_id": "m1", "event_time": time.time_ns() // 1_000_000}
    for n in range(20):
        whole = json.dumps(event | {"user_id": codec, "event_id": f"{codec}{n}", "context": {"surface": "home" * 20}})
        producer.produce(foreign.cluster.name("events"), whole, key=codec)
    assert producer.flush(30) == 0
    records = [one for one in foreign.records("events") if one.key == codec.encode()]
    assert len(records) == 20
    assert {len(decoded(record).events) for record in records} == {1}
    assert decode_slate(foreign.slate_of(records[-1]).value).user_id == codec


def test_what_java_packed_in_frames_of_its_own_is_read(foreign: Foreign) -> None:
    """Its snappy is not that of librdkafka: blocks behind a header of snappy-java's."""
    text = (
        PRODUCE["Java's console tools"][1]
        .replace("ann", "java")
        .replace("--topic", "--compression-codec snappy --topic")
    )
    foreign.run(("sh", text.replace('"item_id":"m1"', f'"item_id":"m1","event_id":"{"packed" * 40}"')))
    (record,) = [one for one in foreign.records("events") if one.key == b"java"]
    assert decode_slate(foreign.slate_of(record).value).user_id == "java"


def test_codecs_come_with_a_plain_install() -> None:
    plain = [need for need in importlib.metadata.requires("marquee") or () if "extra ==" not in need]
    assert any(need.startswith("cramjam") for need in plain)
    assert not [need for need in plain if need.startswith(("lz4", "python-snappy", "zstandard", "confluent"))]
