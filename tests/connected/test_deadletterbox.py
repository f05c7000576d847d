"""One suite on both brokers: a dead-letter topic is listed, replayed and discarded."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from deploy.embedded import Broker
from embeddings.events import CONSENT_ALL, Source
from streams.commands.dead_letter_admin import DeadLetterBox, Letter, TooScattered
from streams.contract.consent import Judge
from streams.contract.deadletters import Code, DeadLetter, Outgoing, dead_letter_record
from streams.contract.decode import decode
from streams.contract.parsing import Rules
from streams.transport.publishing import Publisher
from tests.streams.builders import Raw

POISON = [b"{", b'{"type":"play"}', b"[1]", b'{"type":"play","event_time":1,"user_id":"u"}', b"\xff"]


class Installation:
    """An events topic with five unreadable records, and their dead letters."""

    def __init__(self, broker: Any, prefix: str) -> None:
        self.options = {"bootstrap_servers": broker.bootstrap}
        self.events, self.dlq = f"{prefix}.events.v1", f"{prefix}.events.v1.dlq"
        broker.create_topic(self.events, 2)
        broker.create_topic(self.dlq, 1)
        self.idempotent = not isinstance(broker, Broker)
        self.box = DeadLetterBox(
            client_options=self.options,
            topic=self.dlq,
            group=f"{prefix}.dlq",
            idempotent=self.idempotent,
        )

    async def produce(self, topic: str, records: list[Outgoing]) -> None:
        async with AIOKafkaProducer(**self.options) as producer:
            for record in records:
                await producer.send_and_wait(topic, record.value, record.key, 0, headers=list(record.headers))

    async def records(self, topic: str) -> list[Any]:
        async with AIOKafkaConsumer(topic, **self.options, auto_offset_reset="earliest") as consumer:
            out: list[Any] = []
            while fetched := await consumer.getmany(timeout_ms=700):
                out += [record for records in fetched.values() for record in records]
            return out

    async def bury(self) -> None:
        """What a worker does with what it cannot read."""
        source = Source(self.events, 0)
        records = [record for record in await self.records(self.events) if record.partition == 0]
        decoded = decode([(source, records)], Rules(judge=Judge(CONSENT_ALL)), 1_750_000_000_000)
        publisher = Publisher(self.options, idempotent=self.idempotent)
        await publisher.send_all(dead_letter_record(letter, self.dlq) for letter in decoded.dead)
        await publisher.stop()


EMBEDDED = pytest.param("embedded_broker", marks=pytest.mark.embedded)
KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)
#: The embedded broker forgets the metadata of a commit, and so what was dealt with out of order.
on_kafka = pytest.mark.parametrize("installation", [KAFKA], indirect=True)


@pytest.fixture(params=[EMBEDDED, KAFKA])
async def installation(request: pytest.FixtureRequest, topic_prefix: str) -> Installation:
    found = Installation(request.getfixturevalue(request.param), topic_prefix)
    poison = [Outgoing(found.events, f"k{n}".encode(), v, [("ce_id", b"%d" % n)]) for n, v in enumerate(POISON)]
    await found.produce(found.events, poison)
    await found.bury()
    return found


def everything(_letter: Letter) -> bool:
    return True


def coded(code: Code) -> Any:
    return lambda letter: letter.code == code


async def test_letters_are_listed_with_reason_and_origin(installation: Installation) -> None:
    letters = await installation.box.letters()
    assert [letter.code for letter in letters] == [
        Code.malformed, Code.missing_field, Code.malformed, Code.missing_field, Code.malformed,
    ]  # fmt: skip
    assert [letter.reason and letter.reason.offset for letter in letters] == [0, 1, 2, 3, 4]
    assert [letter.record.value for letter in letters] == POISON
    assert len(await installation.box.letters(most=2)) == 2


async def test_one_letter_is_shown(installation: Installation) -> None:
    letter = await installation.box.letter(0, 3)
    assert letter is not None
    assert letter.record.value == POISON[3]
    assert await installation.box.letter(0, 99) is None
    assert await installation.box.letter(7, 0) is None


async def test_a_dry_run_changes_nothing(installation: Installation) -> None:
    report = await installation.box.replay(everything, most_attempts=3, dry_run=True)
    assert report.handled == {"malformed": 3, "missing_field": 2}
    assert len(await installation.records(installation.events)) == 5
    assert len(await installation.box.letters()) == 5


@on_kafka
async def test_a_replay_goes_back_once_with_its_identity(installation: Installation) -> None:
    report = await installation.box.replay(coded(Code.missing_field), most_attempts=3, rate_per_s=1000)
    assert report.handled == {"missing_field": 2}
    replayed = [dict(record.headers) for record in await installation.records(installation.events)][5:]
    came_back = [r for r in await installation.records(installation.events) if "marquee.attempts" in dict(r.headers)]
    assert sorted(record.value for record in came_back) == sorted([POISON[1], POISON[3]])
    assert sorted(dict(record.headers)["ce_id"] for record in came_back) == [b"1", b"3"]
    assert len(replayed) == 2
    assert [letter.record.value for letter in await installation.box.letters()] == [POISON[0], POISON[2], POISON[4]]
    assert (await installation.box.replay(coded(Code.missing_field), most_attempts=3)).handled == {}
    assert len(await installation.box.letters(done=True)) == 5


async def test_what_was_dealt_with_in_order_is_not_listed_again(installation: Installation) -> None:
    await installation.box.discard(lambda letter: letter.offset < 2)
    report = await installation.box.replay(everything, most_attempts=3, rate_per_s=1000)
    assert report.handled.total() == 3
    assert await installation.box.letters() == []
    assert len(await installation.records(installation.events)) == 8


async def test_a_replay_is_slowed_to_its_rate(installation: Installation) -> None:
    started = time.monotonic()
    await installation.box.replay(everything, most_attempts=3, rate_per_s=5)
    assert time.monotonic() - started >= 0.9


async def test_a_letter_is_replayed_a_limited_number_of_times(installation: Installation) -> None:
    tired = dead_letter_record(
        DeadLetter(
            Source(installation.events, 0), 0,
            (await installation.records(installation.events))[0], Code.malformed, "r",
        ),
        installation.dlq,
    )  # fmt: skip
    headers = [(name, b"3" if name == "marquee.attempts" else value) for name, value in tired.headers]
    await installation.produce(installation.dlq, [tired._replace(headers=headers)])
    report = await installation.box.replay(everything, most_attempts=3, rate_per_s=1000)
    assert report.handled.total() == 5
    assert report.left == {"replayed 3 times already": 1}


@on_kafka
async def test_what_was_discarded_is_not_replayed(installation: Installation) -> None:
    assert (await installation.box.discard(coded(Code.malformed))).handled == {"malformed": 3}
    assert (await installation.box.replay(everything, most_attempts=3)).handled == {"missing_field": 2}
    assert await installation.box.letters() == []


async def test_records_of_others_stay_where_they_are(installation: Installation) -> None:
    await installation.produce(installation.dlq, [Outgoing(installation.dlq, None, b"?", [])])
    report = await installation.box.replay(everything, most_attempts=3, rate_per_s=1000)
    assert report.left == {"not a dead letter: its error headers are missing": 1}
    assert [letter.code for letter in await installation.box.letters()] == ["foreign"]


@on_kafka
async def test_more_scattered_letters_than_a_commit_can_name_are_refused(installation: Installation) -> None:
    await installation.produce(installation.dlq, [Outgoing(installation.dlq, None, b"%d" % n) for n in range(400)])
    with pytest.raises(TooScattered):
        await installation.box.discard(lambda letter: letter.offset % 2 == 1)
    assert len(await installation.box.letters()) == 405 - 150


class Catalogue(Installation):
    """A compacted topic, and what a worker put aside of it."""

    def __init__(self, broker: Any, prefix: str) -> None:
        super().__init__(broker, prefix)
        self.box.compacted = self.events

    async def put(self, key: str, value: bytes | None) -> None:
        await self.produce(self.events, [Outgoing(self.events, key.encode(), value, [])])

    async def letters_of(self, *offsets: int) -> None:
        found = {record.offset: record for record in await self.records(self.events)}
        letters = [DeadLetter(Source(self.events, 0), n, found[n], Code.malformed, "r") for n in offsets]
        await self.produce(self.dlq, [dead_letter_record(letter, self.dlq) for letter in letters])

    async def values(self, key: str) -> list[bytes | None]:
        return [record.value for record in await self.records(self.events) if record.key == key.encode()]


@pytest.fixture(params=[EMBEDDED, KAFKA])
def catalogue(request: pytest.FixtureRequest, topic_prefix: str) -> Catalogue:
    return Catalogue(request.getfixturevalue(request.param), topic_prefix)


async def test_an_old_version_does_not_become_the_newest_nor_come_back(catalogue: Catalogue) -> None:
    """Item a was mended since, b removed, c is as it was, d was broken again: only c and the last of d go back."""
    for key, value in [("a", b"{"), ("b", b"{"), ("c", b"{"), ("d", b"[1"), ("a", b"{}"), ("b", None), ("d", b"[2")]:
        await catalogue.put(key, value)
    await catalogue.letters_of(0, 1, 2, 3, 6)
    dry = await catalogue.box.replay(everything, most_attempts=3, dry_run=True)
    report = await catalogue.box.replay(everything, most_attempts=3, rate_per_s=1000)
    assert report.left == dry.left == {"a newer record of its key stands in the topic": 3}
    assert report.handled == dry.handled == {"malformed": 2}
    found = {key: Counter(await catalogue.values(key)) for key in "abcd"}
    assert found["a"] == {b"{": 1, b"{}": 1}
    assert found["b"] == {b"{": 1, None: 1}
    assert found["c"] == {b"{": 2}
    assert found["d"] == {b"[1": 1, b"[2": 2}


async def test_what_compaction_took_away_stays_away(catalogue: Catalogue) -> None:
    """The tombstone went too: nothing of the key is there."""
    await catalogue.put("a", b"{")
    await catalogue.letters_of(0)
    gone = dead_letter_record(
        DeadLetter(Source(catalogue.events, 0), 7, Raw(7, b"{", b"gone"), Code.malformed, "r"), catalogue.dlq
    )
    await catalogue.produce(catalogue.dlq, [gone])
    report = await catalogue.box.replay(everything, most_attempts=3, rate_per_s=1000)
    assert report.handled == {"malformed": 1}
    assert report.left == {"its record was replaced or removed since: nothing of its key stands in the topic": 1}


async def test_a_version_that_comes_while_letters_are_replayed_stays_the_newest(catalogue: Catalogue) -> None:
    for key in "ab":
        await catalogue.put(key, b"{")
    await catalogue.letters_of(0, 1)
    replaying = asyncio.create_task(catalogue.box.replay(everything, most_attempts=3, rate_per_s=0.3))
    for _ in range(20):
        if await catalogue.values("a") == [b"{", b"{"]:
            break
    await catalogue.put("b", b"{}")
    report = await replaying
    assert (report.handled, report.left.total()) == ({"malformed": 1}, 1)
    assert await catalogue.values("b") == [b"{", b"{}"]
