"""The whole path as `marquee up` starts it: embedded broker and Valkey, a worker and a learner as child processes.

One installation for the file; every test takes people of its own, and the last one kills the worker.
"""

import asyncio
import dataclasses
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.producer import message_accumulator, producer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from prometheus_client.parser import text_string_to_metric_families

from embeddings.events import Fate, Source
from embeddings.ids import murmur2
from streams.commands.paused import release
from streams.contract.messages import Outgoing
from streams.contract.records import Slate, decode_slate, encode
from streams.lab.demo import DemoRun, run_demo
from streams.lab.local_stack import Stack
from streams.lab.replay import event_records
from streams.lab.report import render
from streams.settings import Settings, TopicName
from streams.transport.letters import read_to_end
from streams.transport.publishing import Publisher
from streams.worker.stores import user_store
from tests.connected import scraping
from tests.connected.validation import validated
from tests.streams.builders import a_table

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.timeout(240)]

T = TypeVar("T")
LOG = a_table(2_000, users=60, items=80)
PARTITIONS = 4
OVERRIDES = {
    "MARQUEE_TOPICS__PARTITIONS": str(PARTITIONS),
    "MARQUEE_SLATES__PER_EVENT": "all",
    "MARQUEE_SLATES__SIZE": "10",
    "MARQUEE_SLATES__DEADLINE_MS": "20000",
    "MARQUEE_LEARNER__REFRESH_EVENTS": "300",
    "MARQUEE_LEARNER__REFRESH_MIN_S": "0.2",
    "MARQUEE_LEARNER__COUNTERS_EVERY_S": "0.2",
    "MARQUEE_KAFKA__SESSION_TIMEOUT_S": "2",
    "OMP_NUM_THREADS": "1",
}


@dataclasses.dataclass
class Installation:
    """A stack through which a log went."""

    stack: Stack
    run: DemoRun
    events: int = 0

    @cached_property
    def settings(self) -> Settings:
        return self.stack.settings

    def topic(self, name: Any) -> str:
        return self.settings.topics.name(name)

    async def publish(self, *records: Outgoing) -> None:
        self.events += sum(record.topic == self.topic("events") for record in records)
        publisher = Publisher(self.settings.kafka.client_options(), idempotent=False)
        try:
            await publisher.send_all(records)
        finally:
            await publisher.stop()

    async def catalogue(self, name: str, item: dict[str, Any] | None) -> None:
        value = None if item is None else encode(item)
        await self.publish(Outgoing(self.topic("catalog"), name.encode(), value))

    def event(self, user: str, item: str, kind: str = "play") -> Outgoing:
        value = {"type": kind, "user_id": user, "item_id": item, "event_time": time.time_ns() // 1_000_000}
        return Outgoing(self.topic("events"), user.encode(), encode(value))

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.stack.http_port}{path}", timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    @asynccontextmanager
    async def slates(self) -> Any:
        """A reader of the slates that are published from now on: call it until it has what you wait for."""
        async with self.reader(self.topic("slates"), "latest") as consumer:
            heard: list[Slate] = []

            async def listen(until: Callable[[list[Slate]], bool], timeout_s: float = 30) -> list[Slate]:
                give_up = time.monotonic() + timeout_s
                while not until(heard):
                    assert time.monotonic() < give_up, self.stack.children["worker"].tail(30)
                    for records in (await consumer.getmany(timeout_ms=100)).values():
                        heard.extend(decode_slate(record.value) for record in records)
                return heard

            yield listen

    @asynccontextmanager
    async def reader(self, topic: str, start: str) -> Any:
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.stack.broker.bootstrap, auto_offset_reset=start, fetch_max_wait_ms=20
        )
        async with consumer:
            if start == "latest":
                await consumer.getmany(timeout_ms=300)  # from here on it is known where it begins
            yield consumer

    def totals(self) -> list[int]:
        """What became of every record of `events`, as it stands in Redis."""
        store = user_store(self.settings)
        marks = store.marks([Source(self.topic("events"), p) for p in range(PARTITIONS)])
        store.close()
        return [sum(mark.totals[fate] for mark in marks.values()) for fate in Fate]

    def settled(self) -> list[int]:
        """The totals once all that was published is in them: what a batch leads to is published before it is stored."""
        give_up = time.monotonic() + 60
        while sum(totals := self.totals()) < self.events:
            assert time.monotonic() < give_up, totals
            time.sleep(0.05)
        return totals


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The stack after catalogue and 2,000 events, every one of them answered."""
    with Stack(OVERRIDES, folder=tmp_path_factory.mktemp("stack")) as stack:
        stack.wait_until_ready()
        run = asyncio.run(run_demo(stack, LOG, lambda _: None, ads=False))
        yield Installation(stack, run, len(LOG))


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def test_every_event_is_answered_with_a_slate(installation: Installation, tmp_path: Path) -> None:
    run = installation.run
    assert run.slates == len(LOG)
    assert run.quality.events > 500
    assert run.quality.recall_10 > 0.1
    last = run.last[LOG.user_R[-1]]
    assert len(last.items) == 10
    seen = {item for user, item in zip(LOG.user_R, LOG.item_R, strict=True) if user == last.user_id}
    assert seen.isdisjoint(item.item_id for item in last.items)
    stamps = [last.received_ms, last.decoded_ms, last.folded_ms, last.retrieved_ms, last.ranked_ms, last.published_ms]
    assert stamps == sorted(stamps)
    assert render(run, tmp_path).stat().st_size > 10_000


def test_every_record_of_the_demo_is_valid_by_its_schema(installation: Installation) -> None:
    assert run(validated(installation.settings))["slates"] == len(LOG)


def test_what_the_learner_learned_serves_in_the_worker(installation: Installation) -> None:
    async def until_learned() -> Slate:
        give_up = time.monotonic() + 60
        async with installation.slates() as listen:
            for n in range(10_000):
                user = f"pupil{n}"
                await installation.publish(installation.event(user, f"i{n % 80:03d}"))
                heard = await listen(lambda heard, user=user: any(s.user_id == user for s in heard))
                if int(heard[-1].model_version):
                    return heard[-1]
                assert time.monotonic() < give_up, installation.stack.children["learner"].tail(30)
                await asyncio.sleep(0.1)
        raise AssertionError

    slate = run(until_learned())
    assert slate.model_version == slate.index_version
    assert any("neighbours" in item.source for item in slate.items)
    families = text_string_to_metric_families(installation.get("/metrics")[1].decode())
    swapped = [s.value for f in families for s in f.samples if s.labels.get("result") == "swapped"]
    assert swapped[0] >= 1


def test_every_event_has_one_fate(installation: Installation) -> None:
    totals = installation.settled()
    assert sum(totals) == installation.events
    assert totals[Fate.replayed] == 0


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_what_a_producer_compressed_is_read(installation: Installation, codec: Any) -> None:
    async def publish() -> None:
        where, topic = installation.stack.broker.bootstrap, installation.topic("events")
        async with AIOKafkaProducer(bootstrap_servers=where, compression_type=codec, linger_ms=20) as producer:
            events = [installation.event(f"{codec}{n % 3}", f"i{n}") for n in range(40)]
            await asyncio.gather(*[await producer.send(topic, e.value, key=e.key) for e in events])
        installation.events += len(events)

    before = installation.settled()[Fate.applied]
    run(publish())
    assert installation.settled()[Fate.applied] - before == 40


def test_a_header_may_be_called_anything(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    class Name(str):
        def encode(self, *_: object) -> bytes:
            return b"\xff\xfe"

    for module in (message_accumulator, producer):
        monkeypatch.setattr(module, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
    event = installation.event("named", "i1")

    async def publish() -> None:
        async with AIOKafkaProducer(bootstrap_servers=installation.stack.broker.bootstrap) as sender:
            headers = [(Name("x"), b"1")]
            await sender.send_and_wait(installation.topic("events"), event.value, key=event.key, headers=headers)
            await sender.send_and_wait(installation.topic("observations"), b"broken", headers=headers)

    before = installation.settled()
    installation.events += 1
    run(publish())
    assert installation.settled()[Fate.applied] - before[Fate.applied] == 1
    give_up = time.monotonic() + 60
    while not (letters := run(dead_letters(installation, "observations"))):
        assert time.monotonic() < give_up
    assert [letter["\\xff\\xfe"] for letter in letters] == [b"1"]


def test_a_request_is_answered_once_with_its_id(installation: Installation) -> None:
    async def ask() -> list[Slate]:
        asked = encode({"request_id": "r-1", "user_id": LOG.user_R[-1], "n": 4, "surface": "player"})
        async with installation.slates() as listen:
            await installation.publish(Outgoing(installation.topic("requests"), LOG.user_R[-1].encode(), asked))
            found: list[Slate] = await listen(lambda heard: any(s.request_id == "r-1" for s in heard))
            return [slate for slate in found if slate.request_id == "r-1"]

    (slate,) = run(ask())
    assert (slate.trigger, slate.surface, len(slate.items), slate.degraded) == ("request", "player", 4, None)


def test_the_latest_slate_is_served_over_http(installation: Installation) -> None:
    user = LOG.user_R[-1]
    status, body = installation.get(f"/v1/users/{user}/slate")
    assert status == 200
    assert decode_slate(body).user_id == user
    assert installation.get("/v1/users/nobody/slate")[0] == 404


def test_pages_tell_the_truth(installation: Installation) -> None:
    for page in ("/livez", "/readyz", "/startupz"):
        status, body = installation.get(page)
        assert (status, json.loads(body)["ok"]) == (200, True), page
    families = {f.name: f for f in text_string_to_metric_families(installation.get("/metrics")[1].decode())}
    applied = [s.value for s in families["marquee_events"].samples if s.labels.get("fate") == "applied"]
    assert applied[0] >= 0.9 * len(LOG)
    assert families["marquee_index_items"].samples[0].value >= len(set(LOG.item_R))
    assert scraping.faults(installation.stack.http_port, installation.stack.learner_port) == []
    users = set(LOG.user_R)
    assert not any(users & set(s.labels.values()) for family in families.values() for s in family.samples)


def test_garbage_lands_in_the_dead_letter_topic_as_it_was(installation: Installation) -> None:
    garbage = [b"{", b"\xff\xfe", b'{"type":"play","event_time":1}', b"[" * 50]

    async def spoil() -> list[tuple[bytes, dict[str, bytes]]]:
        topic = installation.topic("events")
        keys = [b"vandal"] * 2 + [b""] + [b"vandal"]
        headers = [("traceparent", b"00-1-2-3")]
        async with installation.slates() as listen:
            await installation.publish(
                *(Outgoing(topic, key, value, headers) for key, value in zip(keys, garbage, strict=True)),
                installation.event("neighbour", "i001"),
            )
            await listen(lambda heard: any(s.user_id == "neighbour" for s in heard))
        async with installation.reader(f"{topic}.dlq", "earliest") as consumer:
            letters: list[Any] = []
            give_up = time.monotonic() + 60
            while len(letters) < 4 and time.monotonic() < give_up:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    letters += records
            return [(letter.value, dict(letter.headers)) for letter in letters]

    letters = run(spoil())
    assert sorted(value for value, _ in letters) == sorted(garbage)
    codes = {value: headers["marquee.code"] for value, headers in letters}
    assert [codes[value] for value in garbage] == [b"malformed", b"malformed", b"missing_field", b"too_deep"]
    assert all(headers["traceparent"] == b"00-1-2-3" for _, headers in letters)
    assert installation.settled()[Fate.dead_lettered] == 4


def test_an_item_can_be_offered_a_second_after_it_came_and_never_after_it_went(installation: Installation) -> None:
    async def offered(user: str, items: Sequence[str]) -> list[Slate]:
        async with installation.slates() as listen:
            await installation.publish(*(installation.event(user, item) for item in items))
            heard = await listen(lambda heard: sum(s.user_id == user for s in heard) >= len(items))
        return [slate for slate in heard if slate.user_id == user]

    favourite = run(offered("fan", ["i000"]))[-1].items[0].item_id

    async def remove() -> None:
        await installation.catalogue(favourite, None)
        await asyncio.sleep(1)

    run(remove())
    after = run(offered("other", ["i000"])) + run(offered("fan", ["i001"]))
    assert all(favourite not in {item.item_id for item in slate.items} for slate in after)
    status, body = installation.get("/v1/users/fan/slate")
    assert status == 200
    assert favourite not in {item.item_id for item in decode_slate(body).items}

    async def bring_back() -> None:
        await installation.catalogue(favourite, {"title": "back"})
        await asyncio.sleep(1)

    run(bring_back())
    assert favourite in {item.item_id for item in run(offered("third", ["i000"]))[-1].items}


def test_a_bad_deploy_pauses_its_partition_alone_and_one_release_goes_through(installation: Installation) -> None:
    """A thousand unreadable records and ten good ones behind them; the worker is killed twice on the way."""
    stack, topic, before = installation.stack, installation.topic("events"), installation.settled()
    home = {user: int(murmur2([user.encode()])[0]) % PARTITIONS for user in ("flooded", "elsewhere", "aside")}
    assert home["flooded"] != home["elsewhere"]
    place = f"{topic}/{home['flooded']}"

    def says(path: str, text: str, timeout_s: float = 30) -> str:
        give_up = time.monotonic() + timeout_s
        while text not in (said := reached(path)):
            assert time.monotonic() < give_up, said + stack.children["worker"].tail(30)
            time.sleep(0.1)
        return said

    def reached(path: str) -> str:
        with suppress(OSError):
            return installation.get(path)[1].decode()
        return ""

    def kill() -> None:
        stack.children["worker"].kill()
        stack._spawn("worker", stack.http_port)

    async def flood() -> None:
        bad = [Outgoing(topic, b"flooded", b"{")] * 1_000
        await installation.publish(Outgoing(installation.topic("catalog"), b"broken", b"{"))  # read at every start
        await installation.publish(*bad, *(installation.event("flooded", f"i00{n}") for n in range(10)))

    def places() -> list[tuple[bytes, bytes]]:
        return [
            (headers["__connect.errors.partition"], headers["__connect.errors.offset"])
            for headers in run(dead_letters(installation, "events"))
            if headers["marquee.code"] == b"malformed" and headers["key"] == b"flooded"
        ]

    run(flood())
    said = says("/readyz", place)
    for word in ("malformed", "100%", f"marquee dlq release --topic events --partition {home['flooded']}"):
        assert word in said
    assert says("/metrics", f'marquee_partition_paused{{code="malformed",partition="{home["flooded"]}"')
    paused = len(places())
    assert 110 <= paused < 1_000
    kill()
    says("/readyz", place)

    async def others() -> None:
        async with installation.slates() as listen:
            await installation.publish(installation.event("elsewhere", "i001"))
            await listen(lambda heard: any(s.user_id == "elsewhere" for s in heard))

    run(others())
    lag = says("/metrics", f'marquee_lag_records{{lane="events",partition="{home["flooded"]}",topic="{topic}"}}')
    assert any(
        sample.value >= 1_010 - paused
        for family in text_string_to_metric_families(lag)
        for sample in family.samples
        if sample.name == "marquee_lag_records" and sample.labels["partition"] == str(home["flooded"])
    )
    assert len(places()) == paused
    (released,) = release(installation.settings)
    assert f"{released.topic}/{released.partition}" == place
    time.sleep(0.5)
    kill()
    totals = installation.settled()
    assert totals[Fate.dead_lettered] - before[Fate.dead_lettered] == 1_000
    assert totals[Fate.applied] - before[Fate.applied] == 11
    letters = places()
    assert (len(letters), len(set(letters))) == (1_000, 1_000)
    time.sleep(4)  # whoever may write letters of control topics does so by now
    assert [headers["key"] for headers in run(dead_letters(installation, "catalog"))] == [b"broken"]


async def dead_letters(installation: Installation, topic: TopicName) -> list[dict[str, Any]]:
    """Headers and key of every dead letter of a topic."""
    out: list[dict[str, Any]] = []
    options = installation.settings.kafka.client_options()
    async for records in read_to_end(options, installation.settings.topics.dead_letters(topic)):
        out += [{**dict(record.headers), "key": record.key} for record in records]
    return out


def test_a_worker_killed_under_load_loses_nothing_and_counts_nothing_twice(installation: Installation) -> None:
    stack, before = installation.stack, installation.totals()
    more = dataclasses.replace(
        a_table(1_000, users=40, items=80, seed=5), name="second", user_R=[f"k{n % 40}" for n in range(1_000)]
    )
    records = [Outgoing(installation.topic("events"), *record) for record in event_records(more)]

    async def killing() -> list[Slate]:
        async with installation.slates() as listen:
            await installation.publish(*records[:300])
            stack.children["worker"].kill()
            await installation.publish(*records[300:600])
            stack._spawn("worker", stack.http_port)
            await installation.publish(*records[600:])

            def last_of_each(heard: list[Slate]) -> bool:
                return len({(s.partition, s.offset) for s in heard if s.user_id.startswith("k")}) >= 700

            await listen(last_of_each, 60)
            give_up = time.monotonic() + 60
            while sum(installation.totals()) < installation.events:
                assert time.monotonic() < give_up, stack.children["worker"].tail(30)
                await asyncio.sleep(0.2)
            heard: list[Slate] = await listen(lambda heard: True)
            return heard

    slates = run(killing())
    totals = installation.totals()
    assert sum(totals) == installation.events, "nothing lost, nothing twice"
    assert totals[Fate.applied] - before[Fate.applied] == 1_000
    by_id = {slate.slate_id for slate in slates if slate.user_id.startswith("k")}
    places = {(slate.partition, slate.offset) for slate in slates if slate.user_id.startswith("k")}
    assert len(by_id) == len(places), "a repeated answer carries the same id"
    store = user_store(installation.settings)
    counted = store.read(sorted(set(more.user_R))).states.events_U
    store.close()
    assert counted.sum() == 1_000


def test_log_lines_name_nobody(installation: Installation) -> None:
    for child in installation.stack.children.values():
        text = child.log.read_text()
        assert not [line for line in text.splitlines() if "vandal" in line or "neighbour" in line or '"fan"' in line]
