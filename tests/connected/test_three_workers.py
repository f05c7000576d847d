"""Three workers share the load: who owns what, what reaches all of them, and what a swap or a removal may never do."""

import asyncio
import json
import random
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import redis
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from deploy.embedded import Valkey
from deploy.kafka import KafkaServer
from deploy.kafka_admin import admin_client
from embeddings.errors import Fenced
from embeddings.events import Fate, Source
from embeddings.ids import item_id, murmur2
from streams.commands.paused import release
from streams.contract.deadletters import OFFSET, PARTITION, REROUTED
from streams.contract.records import Slate, decode_slate
from tests.connected.cluster import Cluster, Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PARTITIONS, ITEMS, USERS = 8, 200, 80
SETTINGS: dict[str, object] = {
    "topics__partitions": PARTITIONS,
    "kafka__session_timeout_s": 4,
    "slates__per_event": "all",
    "slates__size": 10,
    "slates__candidates": 50,
    "slates__deadline_ms": 10_000,
    "observe__negatives": 8,
    "learner__refresh_events": 300,
    "learner__refresh_min_s": 0.5,
}


class Installation:
    """Three workers and a learner with a catalogue, the same for all tests of this file; users differ."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.workers: list[Node] = []
        self.rng = random.Random(3)
        self.published: Counter[str] = Counter()

    async def begin(self) -> None:
        await self.cluster.create_topics()
        await self.send("catalog", [(f"item-{n}", {"title": f"Item {n}"}) for n in range(ITEMS)])
        self.workers = self.cluster.start("worker", 3)
        self.cluster.start("learner")
        await self.cluster.until(lambda: all(node.is_ready for node in self.cluster.nodes), 90, "all are ready")
        await self.until_assigned(3)

    async def until_assigned(self, members: int) -> None:
        give_up = time.monotonic() + 60
        while len([a for a in (await self.assignments()).values() if a]) != members:
            assert time.monotonic() < give_up, self.cluster.logs()
            await asyncio.sleep(0.3)

    async def assignments(self) -> dict[str, set[Source]]:
        """What the group coordinator gave to each worker."""
        group = f"{self.cluster.settings.kafka.group_prefix}.serving"
        async with admin_client(bootstrap_servers=self.cluster.settings.kafka.bootstrap) as client:
            (reply,) = await client.describe_consumer_groups([group])
        members = reply.groups[0][5]
        return {
            client_id: {Source(*tp) for tp in ConsumerProtocolMemberAssignment.decode(assignment).partitions()}
            for _, client_id, _, _, assignment, *_ in [tuple(member) for member in members]
            if assignment
        }

    async def send(
        self, topic: Any, records: Sequence[tuple[str, Mapping[str, Any] | None]], over_s: float = 0.0
    ) -> list[Any]:
        """Publish records by key, evenly over some time; where and when each was written."""
        name = self.cluster.name(topic)
        async with self.cluster.producer() as producer:
            began, sending = time.monotonic(), []
            for n, (key, body) in enumerate(records):
                await asyncio.sleep(max(0.0, began + over_s * n / len(records) - time.monotonic()))
                value = None if body is None else json.dumps(body).encode()
                sending.append(await producer.send(name, value, key=key.encode()))
            return await asyncio.gather(*sending)

    def events(self, prefix: str, count: int) -> list[tuple[str, dict[str, Any]]]:
        """Plays of items by `USERS` users of that prefix, each user's clock going forward."""
        began_ms = int(time.time() * 1000) - 3_600_000
        return [
            (f"{prefix}-{self.rng.randrange(USERS)}", an_event(f"item-{self.rng.randrange(ITEMS)}", began_ms + n))
            for n in range(count)
        ]

    async def slates(self) -> list[Slate]:
        return [decode_slate(record.value) for record in await self.cluster.read(self.cluster.name("slates"))]

    async def until_considered(self) -> None:
        """Every event and request has been handled and committed."""
        for topic in (self.cluster.name("events"), self.cluster.name("requests")):
            ends = {source: end for source, end in (await self.cluster.ends(topic)).items() if end}
            give_up = time.monotonic() + 60
            while (found := await self.cluster.committed("serving", topic)) != ends:
                assert time.monotonic() < give_up, f"{found}\n{ends}\n{self.cluster.logs()}"
                self.cluster.check()
                await asyncio.sleep(0.2)

    async def totals(self) -> Counter[str]:
        """Fates of all events so far, after checking that each partition's add up to its records."""
        ends = await self.cluster.ends(self.cluster.name("events"))
        out: Counter[str] = Counter()
        for source, mark in self.cluster.store().marks(list(ends)).items():
            totals = {fate.name: n for fate, n in zip(Fate, mark.totals, strict=True) if fate is not Fate.replayed}
            assert sum(totals.values()) == ends[source], source
            out.update(totals)
        return out


def an_event(item: str, time_ms: int) -> dict[str, Any]:
    return {"event_id": uuid.uuid4().hex, "item_id": item, "type": "play", "event_time": time_ms}


def places_of(slates: Sequence[Slate]) -> set[tuple[str, int, int]]:
    return {(slate.topic, slate.partition, slate.offset) for slate in slates}


def home(user: str) -> int:
    return int(murmur2([user.encode()])[0]) % PARTITIONS


@pytest.fixture(scope="module")
def installation(
    kafka: KafkaServer, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with Cluster(kafka, valkey, f"w{uuid.uuid4().hex[:10]}", tmp_path_factory.mktemp("three"), **SETTINGS) as cluster:
        installation = Installation(cluster)
        asyncio.run(installation.begin())
        yield installation


async def test_partitions_of_one_number_belong_to_one_worker(installation: Installation) -> None:
    assigned = await installation.assignments()
    events, requests = (installation.cluster.name(topic) for topic in ("events", "requests"))
    assert len(assigned) == 3
    for mine in assigned.values():
        numbers = {source.partition for source in mine if source.topic == events}
        assert numbers == {source.partition for source in mine if source.topic == requests}
        assert len(numbers) in (2, 3)


async def test_every_request_and_every_event_is_answered(installation: Installation) -> None:
    events = installation.events("asked", 1_500)
    requests = [(user, {"request_id": f"r{n}", "n": 5}) for n, (user, _) in enumerate(events[::5])]
    placed, _ = await asyncio.gather(
        installation.send("events", events, over_s=4), installation.send("requests", requests, over_s=4)
    )
    await installation.until_considered()
    slates = await installation.slates()
    answered = {slate.request_id for slate in slates if slate.request_id}
    assert answered == {request["request_id"] for _, request in requests}
    assert {(place.topic, place.partition, place.offset) for place in placed} <= places_of(slates)
    for slate in slates:
        assert slate.degraded == ("popular" if slate.model_version == "0" else None)
        assert len(slate.items) == (5 if slate.request_id else 10)
        assert slate.partition == home(slate.user_id)


async def test_snapshots_are_swapped_under_load_and_no_slate_mixes_them(installation: Installation) -> None:
    events = installation.events("swapped", 4_000)
    placed = {(p.partition, p.offset) for p in await installation.send("events", events, over_s=15)}
    await installation.until_considered()
    mine = [s for s in await installation.slates() if (s.partition, s.offset) in placed and s.request_id is None]
    assert len(mine) == len(placed)
    versions: defaultdict[int, list[int]] = defaultdict(list)
    for slate in mine:  # in the order of their partition
        assert slate.model_version == slate.index_version
        assert len(slate.items) == 10
        versions[slate.partition].append(int(slate.model_version))
    assert all(told == sorted(told) for told in versions.values())
    assert len({version for told in versions.values() for version in told}) >= 3
    for worker in installation.workers:
        assert worker.metric("marquee_snapshot_swaps_total", result="swapped") >= 2
        assert worker.metric("marquee_snapshot_swaps_total", result="refused") == 0


async def test_a_catalogue_item_reaches_every_worker(installation: Installation) -> None:
    await installation.until_considered()
    before = [worker.metric("marquee_index_items") for worker in installation.workers]
    assert before == [ITEMS] * 3
    await installation.send("catalog", [("novelty", {"title": "Just out"})])
    await installation.cluster.until(
        lambda: [w.metric("marquee_index_items") for w in installation.workers] == [ITEMS + 1] * 3, 10, "all have it"
    )


async def test_a_removed_item_is_offered_to_nobody_any_more(installation: Installation) -> None:
    """Nor by a worker that was killed and comes back while it is gone, with the removal somewhere in what it reads."""
    offered = Counter(item.item_id for slate in (await installation.slates())[-500:] for item in slate.items)
    item = offered.most_common(1)[0][0]
    load = asyncio.create_task(installation.send("events", removal_load(installation, item), over_s=12))
    await asyncio.sleep(1)
    (removal,) = await installation.send("catalog", [(item, None)])
    await asyncio.sleep(2)
    await asyncio.to_thread(installation.workers[0].kill)
    installation.workers[0].start()
    await load
    await installation.until_assigned(3)
    await installation.until_considered()
    with_it = [s.published_ms for s in await installation.slates() if item in {i.item_id for i in s.items}]
    assert any(removal.timestamp - 5_000 < ms for ms in with_it), "it was not offered before either"
    assert [ms - removal.timestamp for ms in with_it if ms > removal.timestamp + 1_000] == []


def removal_load(installation: Installation, item: str) -> list[tuple[str, dict[str, Any]]]:
    return [(user, event) for user, event in installation.events("removed", 2_400) if event["item_id"] != item]


async def test_a_misrouted_event_goes_home_once_and_counts_once(installation: Installation) -> None:
    before, now_ms = await installation.totals(), int(time.time() * 1000)
    users = [f"lost-{n}" for n in range(60)]
    topic = installation.cluster.name("events")
    async with installation.cluster.producer() as producer:
        for n, user in enumerate(users):
            body = {"item_id": f"item-{n}", "type": "play", "event_time": now_ms} | (
                {"event_id": f"l{n}"} if n % 2 else {}
            )
            wrong = (home(user) + 1) % PARTITIONS
            await producer.send_and_wait(topic, json.dumps(body).encode(), key=user.encode(), partition=wrong)
    await asyncio.sleep(1)
    await installation.until_considered()
    moved = [r for r in await installation.cluster.read(topic) if REROUTED in dict(r.headers)]
    assert Counter(record.key.decode() for record in moved) == Counter(users)
    assert all(record.partition == home(record.key.decode()) for record in moved)
    gained = await installation.totals() - before
    assert gained == {"misrouted": 60, "applied": 60}
    states = installation.cluster.store().read(users).states
    assert states.events_U.tolist() == [1] * 60
    assert states.item_UH[:, 0].tolist() == [item_id(f"item-{n}") for n in range(60)]


async def test_records_as_large_as_a_broker_takes_compressed_come_through(installation: Installation) -> None:
    """Keys, headers and values of megabytes: where they are put aside, each leaves one letter that its topic takes."""
    before, name, huge = await installation.totals(), installation.cluster.name, b"x" * 3_000_000
    trace, now_ms = [("traceparent", huge)], int(time.time() * 1000)
    good = json.dumps(an_event("item-1", now_ms) | {"user_id": "huge"}).encode()
    asking = json.dumps({"request_id": "huge", "user_id": "huge"}).encode()
    wrong = next(p for p in range(PARTITIONS) if p not in (home("huge"), home("spoilt")))  # letters are counted there
    sent: list[tuple[str, bytes | None, bytes, list[tuple[str, bytes]], int]] = [
        ("events", good, huge, trace, home("huge")),
        ("events", good, b"huge", trace, wrong),
        ("events", b"{", huge, trace, wrong),
        ("events", None, huge, [], wrong),
        ("events", huge * 7, b"k", [], wrong),
        ("requests", asking, huge, trace, 0),
        ("requests", b"{", huge, trace, 0),
        ("catalog", None, huge, trace, 0),
        ("observations", huge, huge, trace, 0),
        ("observations", None, huge, [], 0),
    ]
    async with installation.cluster.producer(compression_type="gzip", max_request_size=1 << 26) as producer:
        for topic, value, key, headers, partition in sent:
            await producer.send_and_wait(name(topic), value, key=key, headers=headers, partition=partition)
    await installation.until_considered()
    assert await installation.totals() - before == {"applied": 1, "dead_lettered": 4}
    wanted = {"events": 4, "requests": 1, "catalog": 1, "observations": 2}
    for topic, count in wanted.items():
        give_up = time.monotonic() + 60
        while len(letters := await installation.cluster.read(f"{name(topic)}.dlq")) < count:
            assert time.monotonic() < give_up, installation.cluster.logs()
            await asyncio.sleep(0.2)
        assert len(letters) == count or topic == "catalog"
    slates = await installation.cluster.read(name("slates"))
    ours = [record for record in slates if record.key == b"huge"]
    assert {decode_slate(record.value).trigger for record in ours} == {"event", "request"}
    assert all(b"sha256" in dict(record.headers)["traceparent"] for record in ours)
    installation.cluster.check()


async def test_only_the_owner_writes_and_takes_back_what_was_claimed_from_it(installation: Installation) -> None:
    before, topic = await installation.totals(), installation.cluster.name("events")
    everything = [Source(topic, partition) for partition in range(PARTITIONS)]
    intruder = installation.cluster.store()
    with pytest.raises(Fenced, match="not claimed here"):
        intruder.load([], everything)
    load = asyncio.create_task(installation.send("events", installation.events("fenced", 1_000), over_s=5))
    for _ in range(4):
        await asyncio.sleep(1)
        intruder.claim(everything)
    await load
    await installation.until_considered()
    with pytest.raises(Fenced, match="claimed by another worker"):
        intruder.load([], everything)
    assert await installation.totals() - before == {"applied": 1_000}
    states = intruder.read([f"fenced-{n}" for n in range(USERS)]).states
    assert states.events_U.sum() == 1_000


async def test_a_store_that_lost_everything_is_folded_again_from_the_log(
    installation: Installation, valkey: Valkey
) -> None:
    """And nothing else happens a second time: no slate is made and no misrouted event goes home again."""
    cluster, store = installation.cluster, installation.cluster.store()
    users = [f"{prefix}-{n}" for prefix in ("asked", "swapped", "removed", "lost", "fenced") for n in range(60)]
    states, totals, before = store.read(users).states, await installation.totals(), await installation.slates()
    with redis.Redis.from_url(valkey.url) as client:
        client.delete(*client.scan_iter(f"{cluster.settings.redis.prefix}:*", count=5_000))
    events = installation.events("after", 400)
    placed = {(p.topic, p.partition, p.offset) for p in await installation.send("events", events, over_s=2)}
    await installation.until_considered()
    await cluster.until(lambda: store.read(users).states.events_U.sum() == states.events_U.sum(), 60, "all are back")
    assert all(np.array_equal(was, now) for was, now in zip(states, store.read(users).states, strict=True))
    assert await installation.totals() - totals == {"applied": len(events)}
    slates = await installation.slates()
    assert places_of(slates) - places_of(before) == placed


async def test_a_paused_partition_stays_paused_with_its_next_owner(installation: Installation) -> None:
    """Its owner is killed; the other partitions go on; after the release every letter is there once."""
    cluster, before = installation.cluster, await installation.totals()
    topic = cluster.name("events")
    here = Source(topic, home("spoilt"))

    def paused() -> list[Node]:
        labels = {"topic": topic, "partition": str(here.partition), "code": "missing_field"}
        return [node for node in installation.workers if node.metric("marquee_partition_paused", **labels) == 1]

    async def letters() -> list[bytes]:
        found = [dict(r.headers) for r in await cluster.read(cluster.settings.topics.dead_letters("events"))]
        here_too = [headers[OFFSET] for headers in found if headers[PARTITION] == b"%d" % here.partition]
        return [offset for offset in here_too if offset not in earlier]

    earlier: list[bytes] = []
    earlier = await letters()  # of other tests
    await installation.send("events", [("spoilt", {"type": "play"})] * 1_000)
    await cluster.until(lambda: len(paused()) == 1, 60, "the partition is paused")
    (owner,) = paused()
    written = await letters()
    assert 110 <= len(written) < 1_000
    owner.kill()
    await cluster.until(lambda: paused() not in ([], [owner]), 40, "its next owner has it paused")
    owner.start()
    elsewhere = [event for event in installation.events("beside", 300) if home(event[0]) != here.partition]
    placed = {(p.topic, p.partition, p.offset) for p in await installation.send("events", elsewhere)}
    give_up = time.monotonic() + 60
    while placed - places_of(await installation.slates()):
        assert time.monotonic() < give_up, cluster.logs()
    assert await letters() == written
    await cluster.until(lambda: all(node.is_ready for node in installation.workers), 60, "the killed one is back")
    await cluster.until(lambda: len(paused()) == 1, 60, "one has it")
    release(cluster.settings)
    good = [event for event in installation.events("behind", 200) if home(event[0]) == here.partition]
    await installation.send("events", good)
    await installation.until_considered()
    assert await installation.totals() - before == {"applied": len(elsewhere) + len(good), "dead_lettered": 1_000}
    assert Counter(Counter(await letters()).values()) == {1: 1_000}


def test_nobody_died_but_who_was_killed(installation: Installation) -> None:
    installation.cluster.check()
    assert all(node.runs for node in installation.cluster.nodes)
