"""Fifty thousand events, three workers and two learners that are killed all the time, every effect exactly once.

The run happens once; the tests look at what it left: states and marks in Valkey, the dead letters, the slates, and the
learner's last checkpoint. What they must be is worked out from the published log by `tests.embeddings.oracle`.
"""

import asyncio
import hashlib
import json
import os
import random
import signal
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from aiokafka import ConsumerRecord

from deploy.embedded import Valkey
from deploy.kafka import KafkaServer
from embeddings.events import Action, Fate
from embeddings.ids import item_id
from embeddings.store import PartitionMark, Profiles
from streams.contract import observations
from streams.contract.cloudevents import Stub
from streams.contract.deadletters import CODE, OFFSET, PARTITION
from streams.contract.records import Slate, decode_slate
from streams.learning.checkpoints import Checkpoint, CheckpointFolder
from tests.connected.cluster import Cluster, Node
from tests.connected.lives import (
    GARBAGE,
    HALF_LIFE_S,
    LATENESS_S,
    MAX_BYTES,
    Life,
    Sent,
    a_log,
    learner_differences,
    lives_of,
    state_differences,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(540)]

STORE_FIRST = Path(__file__).with_name("store_first_worker.py")
SEED = int(os.environ.get("ORDEAL_SEED", "7"))
EVENTS, PARTITIONS = 50_000, 8
PUBLISHING_S, PAUSE_S, SESSION_S = 100.0, (3.5, 6.5), 3.0
KILL, CAUGHT, TERMINATE, SUSPEND = "kill", "kill between publish and store", "terminate", "suspend"
DEEDS = [(KILL, "worker")] * 5 + [(CAUGHT, "worker")] * 5 + [(KILL, "learner")] * 4
DEEDS += [(deed, role) for deed in (TERMINATE, SUSPEND) for role in ("worker", "learner")]
SETTINGS: dict[str, object] = {
    "topics__partitions": PARTITIONS,
    "kafka__session_timeout_s": SESSION_S,
    "kafka__rebalance_timeout_s": 10,
    "events__max_bytes": MAX_BYTES,
    "events__lateness_s": LATENESS_S,
    "slates__size": 5,
    "slates__candidates": 50,
    "observe__negatives": 8,
    **{f"half_lives__{name}_s": HALF_LIFE_S for name in ("pairs", "reactions", "short", "mid", "long", "trending")},
    "learner__checkpoint_every_s": 1,
    "learner__refresh_min_s": 5,
}


class Aftermath(NamedTuple):
    """What was published, what must have come of it, and what did."""

    log: list[Sent]
    lives: dict[str, Life]
    deeds: Counter[str]
    seconds: float
    ends: dict[int, int]
    user_ids: list[str]
    profiles: Profiles
    marks: dict[int, PartitionMark]
    dead: list[ConsumerRecord]
    slates: list[Slate]
    told: int
    checkpoint: Checkpoint


@pytest.fixture(scope="module")
def aftermath(kafka: KafkaServer, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    with Cluster(kafka, valkey, a_prefix(), tmp_path_factory.mktemp("nodes"), **SETTINGS) as cluster:
        yield asyncio.run(ordeal(cluster, redis.Redis.from_url(valkey.url)))


def a_prefix() -> str:
    return f"x{uuid.uuid4().hex[:10]}"


async def ordeal(cluster: Cluster, client: "redis.Redis[bytes]") -> Aftermath:
    """Publish while everything is killed; then let it finish, and collect what there is."""
    rng = random.Random(SEED)
    log = a_log(EVENTS, rng, int(time.time()))
    await cluster.create_topics()
    nodes = [*cluster.start("worker", 3), *cluster.start("learner", 2)]
    await cluster.until(lambda: all(node.is_ready for node in nodes), 90, "all nodes are ready")
    began = time.monotonic()
    deeds, _ = await asyncio.gather(torment(cluster, client, rng), publish(cluster, log, PUBLISHING_S))
    await everything_is_considered(cluster)
    return await collect(cluster, log, deeds, time.monotonic() - began)


async def everything_is_considered(cluster: Cluster) -> None:
    ends, store = await cluster.ends(cluster.name("events")), cluster.store()

    def true() -> bool:
        return all(mark.offset + 1 == ends[source] for source, mark in store.marks(list(ends)).items())

    await cluster.until(true, 90, "every record is considered")


async def collect(cluster: Cluster, log: list[Sent], deeds: Counter[str], seconds: float) -> Aftermath:
    """Stop everything in good order and read what is left."""
    await stop(cluster)
    ends, store, lives = await cluster.ends(cluster.name("events")), cluster.store(), lives_of(log)
    user_ids = [user for user, life in lives.items() if life.person.marks]
    checkpoint = CheckpointFolder(cluster.settings.learner.checkpoint_dir).latest()
    assert checkpoint is not None
    return Aftermath(
        log=log,
        lives=lives,
        deeds=deeds,
        seconds=seconds,
        ends={source.partition: end for source, end in ends.items()},
        user_ids=user_ids,
        profiles=store.read(user_ids),
        marks={source.partition: mark for source, mark in store.marks(list(ends)).items()},
        dead=await cluster.read(cluster.settings.topics.dead_letters("events")),
        slates=[decode_slate(record.value) for record in await cluster.read(cluster.name("slates"))],
        told=sum(len(observations.decode(r.value)) for r in await cluster.read(cluster.name("observations"))),
        checkpoint=checkpoint,
    )


async def stop(cluster: Cluster) -> None:
    """SIGTERM the workers, then the learners once everything that was told was learned."""
    running = [node for node in cluster.nodes if node.runs]
    await cluster.until(lambda: all(node.is_ready for node in running), 60, "all nodes are back")
    workers = [node for node in running if node.role == "worker"]
    assert not any(await asyncio.gather(*(worker.stop() for worker in workers))), cluster.logs()
    topic = cluster.name("observations")
    told = {source: end for source, end in (await cluster.ends(topic)).items() if end}
    give_up = time.monotonic() + 60
    while await cluster.committed("learner", topic) != told and time.monotonic() < give_up:
        await asyncio.sleep(0.3)
        cluster.check()
    assert await cluster.committed("learner", topic) == told, cluster.logs()
    assert not any(await asyncio.gather(*(node.stop() for node in running if node.runs))), cluster.logs()


async def publish(cluster: Cluster, log: Sequence[Sent], seconds: float) -> None:
    """Publish evenly over some time, and note where each record went."""
    async with cluster.producer() as producer:
        began, sending = time.monotonic(), []
        for n, sent in enumerate(log):
            if n % 25 == 0:
                await asyncio.sleep(max(0.0, began + seconds * n / len(log) - time.monotonic()))
            key, topic = sent.user.encode(), cluster.name("events")
            sending.append(await producer.send(topic, sent.value, key=key, headers=sent.headers))
        for sent, place in zip(log, await asyncio.gather(*sending), strict=True):
            sent.partition, sent.offset = place.partition, place.offset


async def torment(cluster: Cluster, client: "redis.Redis[bytes]", rng: random.Random) -> Counter[str]:
    """Do every deed to a node of its role at random and start that again; returns what was done to whom."""
    done: Counter[str] = Counter()
    restarting: list[asyncio.Task[None]] = []
    for deed, role in rng.sample(DEEDS, len(DEEDS)):
        await asyncio.sleep(rng.uniform(*PAUSE_S))
        await cluster.until(lambda role=role: any(alive(cluster, role)), 60, f"a {role} is there")  # type: ignore[misc]
        node = rng.choice(alive(cluster, role))
        if deed in (CAUGHT, SUSPEND):
            client.execute_command("CLIENT", "PAUSE", 500, "WRITE")  # a batch is published and waits for its save
            await asyncio.sleep(0.3)
        await DEED[deed](node)
        done[f"{deed} a {role}"] += 1
        if not node.runs:
            restarting.append(asyncio.create_task(restart(node, rng.uniform(0, 2))))
    await asyncio.gather(*restarting)
    cluster.check()
    return done


def alive(cluster: Cluster, role: str) -> list[Node]:
    return [node for node in cluster.nodes if node.role == role and node.runs]


async def kill(node: Node) -> None:
    await asyncio.to_thread(node.kill)


async def terminate(node: Node) -> None:
    """In good order; a node that is just starting knows none yet."""
    assert await node.stop() in (0, -signal.SIGTERM)


async def suspend(node: Node) -> None:
    """The others take over; then it wakes and does not know that it is out."""
    node.send(signal.SIGSTOP)
    await asyncio.sleep(2 * SESSION_S + 1)
    node.send(signal.SIGCONT)


async def restart(node: Node, after_s: float) -> None:
    await asyncio.sleep(after_s)
    node.start()


DEED = {KILL: kill, CAUGHT: kill, TERMINATE: terminate, SUSPEND: suspend}


def test_the_run_was_as_hard_as_it_says(aftermath: Aftermath) -> None:
    kills = sum(count for deed, count in aftermath.deeds.items() if deed.startswith(KILL))
    fates = Counter(fate for life in aftermath.lives.values() for _, fate in life.fates)
    print(f"{len(aftermath.log)} records in {aftermath.seconds:.0f} s: {dict(fates)}; {dict(aftermath.deeds)}")
    repeated = len(aftermath.slates) - len({slate.slate_id for slate in aftermath.slates})
    print(f"{aftermath.told - fates['applied']} rows told again, {repeated} slates published again")
    assert kills >= 10
    assert aftermath.told > fates["applied"], "no kill fell between publish and store"
    assert repeated > 0
    assert len(aftermath.log) > EVENTS * 1.1
    assert len(aftermath.lives) > 500
    assert fates["duplicate"] == sum(sent.repeats for sent in aftermath.log) > EVENTS * 0.09
    assert fates["late"] > 100
    assert {sent.code for sent in aftermath.log} - {""} == {code for code, _ in GARBAGE}
    assert sum(len(life.seen) > 0 for life in aftermath.lives.values()) > 100


def test_every_state_and_seen_set_is_what_the_oracle_says(aftermath: Aftermath) -> None:
    wrong = state_differences(aftermath.lives, aftermath.user_ids, aftermath.profiles)
    assert wrong == []


def test_every_record_has_one_fate_and_every_fate_is_counted_once(aftermath: Aftermath) -> None:
    expected: dict[int, Counter[str]] = {partition: Counter() for partition in aftermath.ends}
    for life in aftermath.lives.values():
        for partition, fate in life.fates:
            expected[partition][fate] += 1
    for partition, mark in aftermath.marks.items():
        totals = {fate.name: total for fate, total in zip(Fate, mark.totals, strict=True) if total}
        totals.pop("replayed", None)
        assert sum(totals.values()) == aftermath.ends[partition]
        assert totals == dict(expected[partition])


def test_every_piece_of_garbage_is_kept_byte_for_byte(aftermath: Aftermath) -> None:
    kept = {place_of(record): record for record in aftermath.dead}
    garbage = {(sent.partition, sent.offset): sent for sent in aftermath.log if sent.code}
    assert kept.keys() == garbage.keys()
    for place, sent in garbage.items():
        record = kept[place]
        headers = dict(record.headers)
        assert headers[CODE].decode() == sent.code
        assert record.key == sent.user.encode()
        assert list(record.headers)[: len(sent.headers)] == sent.headers
        if sent.code == "too_large":
            assert sent.value is not None
            stub = Stub(len(sent.value), hashlib.sha256(sent.value).hexdigest())
            assert json.loads(record.value) == {"size_bytes": stub.size_bytes, "sha256": stub.sha256}
        else:
            assert record.value == sent.value


def place_of(letter: ConsumerRecord) -> tuple[int, int]:
    headers = dict(letter.headers)
    return int(headers[PARTITION]), int(headers[OFFSET])


def test_a_slate_covers_the_last_event_of_every_user(aftermath: Aftermath) -> None:
    covered: defaultdict[str, int] = defaultdict(lambda: -1)
    for slate in aftermath.slates:
        covered[slate.user_id] = max(covered[slate.user_id], slate.offset)
    applied = {user: life for user, life in aftermath.lives.items() if life.person.applied}
    assert [user for user, life in applied.items() if covered[user] < life.last_applied.offset] == []


def test_the_last_slates_offer_nothing_that_was_seen(aftermath: Aftermath) -> None:
    for slate in aftermath.slates:
        life = aftermath.lives[slate.user_id]
        if slate.offset >= life.last_applied.offset:
            touched = {event.item for event in life.person.all_items()}
            assert not touched & {item_id(item.item_id) for item in slate.items}


def test_a_slate_told_twice_has_one_id(aftermath: Aftermath) -> None:
    places = {(slate.partition, slate.offset, slate.user_id) for slate in aftermath.slates}
    assert len({slate.slate_id for slate in aftermath.slates}) == len(places)


def test_the_learner_counted_every_row_once(aftermath: Aftermath) -> None:
    assert learner_differences(aftermath.lives, aftermath.checkpoint) == []


@pytest.mark.parametrize("spoil", ["lose", "repeat"])
def test_one_lost_or_repeated_event_would_be_seen(aftermath: Aftermath, spoil: str) -> None:
    """The comparisons can fail: by one event of fifty thousand, in the states and in what was learned."""
    user, mine, at = next(nameless_plays(aftermath))
    event, place = mine[at].event, mine[at]
    assert event is not None
    again = Sent(user, b"", [], event, partition=place.partition, offset=place.offset + 1)
    spoilt = aftermath.lives | lives_of([*mine[:at], *([place, again] if spoil == "repeat" else []), *mine[at + 1 :]])
    assert state_differences(spoilt, aftermath.user_ids, aftermath.profiles) == [user]
    assert learner_differences(spoilt, aftermath.checkpoint)


def nameless_plays(aftermath: Aftermath) -> Iterator[tuple[str, list[Sent], int]]:
    """Applied events that nothing but their offset tells from a repetition, with room after them."""
    for user, life in aftermath.lives.items():
        mine = [sent for sent in aftermath.log if sent.user == user]
        for at, (sent, (_, fate)) in enumerate(zip(mine[:-1], life.fates, strict=False)):
            nameless_play = sent.event is not None and sent.event[2:] == (Action.play, 0)
            if nameless_play and fate == "applied" and mine[at + 1].offset > sent.offset + 1:
                yield user, mine, at


def test_storing_before_publishing_would_lose_what_a_kill_catches_between(
    kafka: KafkaServer, valkey: Valkey, tmp_path: Path
) -> None:
    """Why a batch is published first: the other order leaves every state right, and the learner short of rows."""
    with Cluster(kafka, valkey, a_prefix(), tmp_path, **SETTINGS) as cluster:
        left = asyncio.run(caught_between_store_and_publish(cluster))
    assert state_differences(left.lives, left.user_ids, left.profiles) == []
    assert learner_differences(left.lives, left.checkpoint)


async def caught_between_store_and_publish(cluster: Cluster) -> Aftermath:
    log = a_log(2_000, random.Random(SEED), int(time.time()))
    await cluster.create_topics()
    nodes = [*cluster.start("worker", program=[str(STORE_FIRST)]), *cluster.start("learner")]
    await cluster.until(lambda: all(node.is_ready for node in nodes), 90, "both nodes are ready")
    await publish(cluster, log, seconds=0)
    ends, store = await cluster.ends(cluster.name("events")), cluster.store()
    await cluster.until(lambda: any(m.offset >= 0 for m in store.marks(list(ends)).values()), 60, "a batch is stored")
    await kill(nodes[0])
    cluster.start("worker")
    await everything_is_considered(cluster)
    return await collect(cluster, log, Counter(), 0.0)
