"""The batch transport against Apache Kafka: what is committed was processed, and the obvious ways do lose records.

Each scenario is a consumer group; scenarios that may share a fate share a process (`batching_worker.py`). Records are
numbered; a worker logs what it began and what it finished, and the group's committed offsets are read from the broker.
"""

import asyncio
import random
import signal
from collections import Counter, defaultdict
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin.records_to_delete import RecordsToDelete

from streams.transport.watchdog import EXIT_STUCK
from tests.connected.batching_lab import Lab, eventually, until

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("batching_worker.py")


async def without_every_third(lab: Lab, name: str) -> str:
    """A topic whose log has holes as compaction leaves them: aborted records and control records are not delivered."""
    topic = await lab.topic(name, records=0)
    plain = AIOKafkaProducer(bootstrap_servers=lab.kafka.bootstrap)
    transactional = AIOKafkaProducer(bootstrap_servers=lab.kafka.bootstrap, transactional_id=topic)
    async with plain, transactional:
        for block in range(40):
            for _ in range(25):
                await plain.send(topic, b"kept", partition=0)
            await plain.flush()
            await transactional.begin_transaction()
            for _ in range(5):
                await transactional.send(topic, b"doubtful", partition=0)
            if block % 2:
                await transactional.commit_transaction()
            else:
                await transactional.abort_transaction()
    return topic


async def compacted(lab: Lab, name: str) -> str:
    """A topic from which the cleaner removed most records: 1,000 of 250 keys, then one more segment."""
    settings = {
        "cleanup_policy": "compact",
        "segment_ms": 200,
        "min_cleanable_dirty_ratio": 0.001,
        "segment_bytes": 1048576,
    }
    topic = await lab.topic(name, records=0, **settings)
    async with AIOKafkaProducer(bootstrap_servers=lab.kafka.bootstrap) as producer:
        for n in range(1000):
            await producer.send(topic, b"%d" % n, key=b"%d" % (n * 7 % 250 if n < 700 else n), partition=0)
        await producer.flush()
        for n in range(30):  # rolls segments: only closed ones are compacted
            await asyncio.sleep(0.25)
            await producer.send_and_wait(topic, b"last", key=b"last%d" % n, partition=0)
            if n > 8 and len(await offsets_in(lab, topic)) < 900:
                return topic
    pytest.fail("the cleaner did not run")


async def offsets_in(lab: Lab, topic: str) -> list[int]:
    """The offsets that a reader of committed records gets."""
    tp = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=lab.kafka.bootstrap, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    offsets: list[int] = []
    async with consumer:
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        while await consumer.position(tp) < end:
            offsets += [r.offset for r in (await consumer.getmany(tp, timeout_ms=200)).get(tp, [])]
    return offsets


async def test_a_unit_that_is_not_acknowledged_is_never_committed_over_and_comes_again(lab: Lab) -> None:
    """Scenarios: where they begin, which unit is never acknowledged. Later units are acknowledged all the same."""
    names = ["new_first", "hundred_first", "hundred_third", "blocked", "single", "aborted", "compacted", "expired"]
    made = await asyncio.gather(
        *(lab.topic(name) for name in names[:5]),
        without_every_third(lab, "aborted"),
        compacted(lab, "compacted"),
        lab.topic("expired"),
    )
    topics = dict(zip(names, made, strict=True))
    other = await lab.topic("other")
    readable = {name: await offsets_in(lab, topic) for name, topic in topics.items()}
    async with lab.admin() as admin:
        await admin.delete_records({TopicPartition(topics["expired"], 0): RecordsToDelete(before_offset=350)})
    readable["expired"] = readable["expired"][350:]
    skipped = dict.fromkeys(names, 0) | {"hundred_third": 2, "aborted": 2, "compacted": 2, "expired": 1, "single": 5}
    size = dict.fromkeys(names, 100) | {"single": 1}
    began = dict.fromkeys(names, -1) | {"hundred_first": 100, "hundred_third": 100, "single": 990, "expired": 100}

    def groups(style: str, skip: bool) -> list[dict[str, Any]]:
        made = []
        for name, topic in topics.items():
            behaviour = {"max_batch": size[name], "depth": 4, "skip": skipped[name] if skip else None}
            other_stream = {other: {}} if name == "blocked" else {}
            made.append({"group": f"{style}.{topic}", "topics": {topic: behaviour, **other_stream}, "style": style})
        return made

    for style in ("units", "chunks"):
        for name, offset in began.items():
            if offset >= 0:
                await lab.commit(f"{style}.{topics[name]}", topics[name], offset)
    todo = {name: [o for o in offsets if o >= began[name]] for name, offsets in readable.items()}
    hole = {name: todo[name][skipped[name] * size[name] :][: size[name]] for name in names}
    units, chunks = lab.start(*groups("units", True)), lab.start(*groups("chunks", True))
    for worker, style in ((units, "units"), (chunks, "chunks")):
        for name, topic in topics.items():
            enough = len(todo[name]) - size[name]
            await until(lambda: len(worker.finished(f"{style}.{topic}", topic)) >= enough, 40, worker)  # noqa: B023
    await eventually(lambda: _committed_of(lab, "units", {"other": other}, topics["blocked"]), {"other": 1000})
    await asyncio.sleep(1.0)  # three commit intervals

    kept = {name: (await lab.committed(f"units.{t}")).get(t, -1) for name, t in topics.items()}
    before = {name: max([o + 1 for o in todo[name] if o < hole[name][0]], default=began[name]) for name in names}
    assert kept == before
    lost = {}
    for name, topic in topics.items():
        reached = (await lab.committed(f"chunks.{topic}")).get(topic, -1)
        lost[name] = sum(o < reached for o in hole[name])
    print("records that the obvious way commits unprocessed:", lost)
    assert sum(lost.values()) >= 500, "the negative control shows no loss"

    first = {name: units.finished(f"units.{t}", t) for name, t in topics.items()}
    units.child.kill()
    chunks.child.kill()
    again = lab.start(*groups("units", False))
    for name, topic in topics.items():
        want = {(0, o) for o in todo[name]}
        await until(lambda: want <= {*first[name], *again.finished(f"units.{topic}", topic)}, 40, again)  # noqa: B023
        assert not {*first[name], *again.finished(f"units.{topic}", topic)} - want  # nothing aborted is delivered
        await eventually(lambda: _committed_of(lab, "units", {"": topic}, topic), {"": todo[name][-1] + 1})  # noqa: B023


async def _committed_of(lab: Lab, style: str, topics: dict[str, str], group: str) -> dict[str, int]:
    found = await lab.committed(f"{style}.{group}")
    return {name: found.get(topic, -1) for name, topic in topics.items()}


@pytest.mark.parametrize("number", [0, 2])
async def test_what_an_agent_raised_on_is_delivered_again_under_both_supervisors(lab: Lab, number: int) -> None:
    topic = await lab.topic("events")
    behaviour = {"raise_at": number, "stuck_after_s": 3.0}
    crash, restart, take = (f"{lab.prefix}.{kind}" for kind in ("crash", "restart", "take"))
    crashing = lab.start({"group": crash, "topics": {topic: behaviour}})
    restarting = lab.start({"group": restart, "topics": {topic: behaviour}, "restarting_supervisor": True})
    taking = lab.start({"group": take, "topics": {topic: behaviour}, "style": "take", "restarting_supervisor": True})
    assert await crashing.ended(40) == 1
    assert await restarting.ended(40) == EXIT_STUCK
    for group in (crash, restart):
        assert (await lab.committed(group)).get(topic, 0) == number * 100
    assert "Thread 0x" in restarting.child.log.read_text(), "the watchdog left no stacks"

    async def lost() -> bool:
        return (await lab.committed(take)).get(topic, 0) > len(taking.finished(take, topic))

    await eventually(lost, True, 40)  # the control: stock `take` commits what raised


async def test_sigterm_commits_what_ends_in_time_and_only_that(lab: Lab) -> None:
    """Exit code 0 within 20 s. Unit 1 ends in 2 s, never, or never and says that it is being retried."""
    topic = await lab.topic("events")
    slow, stuck, retried, take = (f"{lab.prefix}.{kind}" for kind in ("slow", "stuck", "retried", "take"))
    worker = lab.start(
        {"group": slow, "topics": {topic: {"sleep_at": 1, "sleep_s": 3.0}}},
        {"group": stuck, "topics": {topic: {"sleep_at": 1}}, "drain_s": 4.0},
        {"group": retried, "topics": {topic: {"sleep_at": 1, "retrying": True}}, "drain_s": 15.0},
    )
    taking = lab.start({"group": take, "topics": {topic: {"sleep_at": 1}}, "style": "take", "wait_empty": False})
    groups = {slow: worker, stuck: worker, retried: worker, take: taking}
    await until(lambda: all(len(w.lines("begin", g)) == 2 for g, w in groups.items()), 40, worker, taking)
    asked = monotonic()
    for one in (worker, taking):
        one.child.send(signal.SIGTERM)
    assert await worker.ended(20) == 0
    print(f"three apps stopped within {monotonic() - asked:.1f} s")
    await taking.ended(20)
    kept = {group: (await lab.committed(group)).get(topic, 0) for group in groups}
    assert {g: kept[g] for g in (slow, stuck, retried)} == {slow: 200, stuck: 100, retried: 100}
    assert kept[take] > len(taking.finished(take, topic)), "the control shows no loss"


async def test_an_agent_may_take_longer_than_the_poll_interval(lab: Lab) -> None:
    """aiokafka leaves the group of a consumer that does not poll for that long, and Faust then waits for ever."""
    topic = await lab.topic("events")
    behaviour = {"sleep_at": 1, "sleep_s": 9.0}
    slow, silent = f"{lab.prefix}.slow", f"{lab.prefix}.silent"
    polling = lab.start({"group": slow, "topics": {topic: behaviour}, "poll_interval_s": 3.0})
    control = lab.start({"group": silent, "topics": {topic: behaviour}, "poll_interval_s": 3.0, "keep_polling": False})
    await until(lambda: len(polling.finished(slow, topic)) == 1000, 40, polling)
    assert polling.lines("begin", slow, topic)[0]["lag"] == 1000
    assert Counter(polling.finished(slow, topic)) == Counter((0, o) for o in range(1000))  # none of them twice
    await eventually(lambda: lab.committed(slow), {topic: 1000})
    await until(lambda: len(control.finished(silent, topic)) >= 200, 40, control)
    await asyncio.sleep(4.0)
    assert len(control.finished(silent, topic)) == 200, "the control did not stall"
    assert "LeaveGroup" in control.child.log.read_text()


async def test_a_blocked_lane_holds_no_other_back(lab: Lab) -> None:
    events, requests = await lab.topic("events"), await lab.topic("requests", records=0)
    group, topics = f"{lab.prefix}.lanes", {events: {"sleep_at": 1, "sleep_s": 20.0}, requests: {}}
    worker = lab.start({"group": group, "topics": topics})
    await until(lambda: len(worker.lines("begin", group, events)) == 2, 40, worker)
    async with AIOKafkaProducer(bootstrap_servers=lab.kafka.bootstrap) as producer:
        for _ in range(100):
            await producer.send_and_wait(requests, b"now", partition=0)
    await until(lambda: len(worker.finished(group, requests)) == 100, 40, worker)
    assert len(worker.lines("end", group, events)) == 1, "the requests waited for the events lane"
    await until(lambda: len(worker.finished(group, events)) == 1000, 40, worker)
    await eventually(lambda: lab.committed(group), {events: 1000, requests: 100})


async def test_a_handler_can_have_its_lane_fetched_again(lab: Lab) -> None:
    """As after Redis came back with an older state: processed again from there, marked, committed no lower."""
    topic, group = await lab.topic("events"), f"{lab.prefix}.group"
    worker = lab.start({"group": group, "topics": {topic: {"rewind_at": 5, "rewind_to": 250, "each_s": 0.5}}})
    await until(lambda: len(worker.finished(group, topic)) == 1250, 60, worker)
    assert [o for _, o in worker.finished(group, topic)] == [*range(500), *range(250, 1000)]
    below = sum(line["below_committed"] for line in worker.lines("begin", group, topic))
    assert 150 <= below <= 250  # the last acknowledgement may not have been committed yet
    await eventually(lambda: lab.committed(group), {topic: 1000})


async def test_three_workers_share_partitions_by_number_and_lose_nothing_when_one_dies(lab: Lab) -> None:
    events, requests = [await lab.topic(name, records=0, partitions=8) for name in ("events", "requests")]
    topics, group = {events: {"each_s": 0.02}, requests: {}}, f"{lab.prefix}.group"
    workers = [lab.start({"group": group, "topics": topics})]
    sent = 0

    async def publish(seconds: float) -> None:
        nonlocal sent
        until_s = monotonic() + seconds
        while monotonic() < until_s:
            for topic in (events, requests):
                await lab.produce(topic, range(sent, sent + 400), partitions=8)
            sent += 400
            await asyncio.sleep(0.2)

    await until(lambda: bool(workers[0].lines("assigned", group)), 30, workers[0])
    workers += [lab.start({"group": group, "topics": topics}) for _ in range(2)]
    await publish(9.0)
    latest = [worker.lines("assigned", group)[-1]["sources"] for worker in workers]
    for sources in latest:
        numbers = {topic: {p for t, p in sources if t == topic} for topic in (events, requests)}
        assert numbers[events] == numbers[requests]
        assert numbers[events]
    assert sorted(p for sources in latest for t, p in sources if t == events) == list(range(8))

    victim = random.Random(sent).choice(workers)
    victim.child.kill()
    await publish(3.0)
    await eventually(lambda: committed_in_all(lab, group, (events, requests)), 2 * sent, 40)
    processed: defaultdict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
    for worker in workers:
        for topic in (events, requests):
            processed[topic].update(worker.finished(group, topic))
    wanted = {(partition, offset) for partition in range(8) for offset in range(sent // 8)}
    again = {topic: sum(counts.values()) - len(counts) for topic, counts in processed.items()}
    print(f"{2 * sent} records, delivered again after joins and a SIGKILL: {sum(again.values())}")
    assert all(set(processed[topic]) == wanted for topic in (events, requests))


async def committed_in_all(lab: Lab, group: str, topics: tuple[str, ...]) -> int:
    async with lab.admin() as admin:
        found = await admin.list_consumer_group_offsets(group)
    return sum(value.offset for tp, value in found.items() if tp.topic in topics)
