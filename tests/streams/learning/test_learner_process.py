import asyncio
import math
import resource
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import aiohttp
import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError

from deploy.processes import free_port
from embeddings import snapshots
from embeddings.events import Source
from ranking.trainer import Fading
from streams.contract.messages import Part
from streams.contract.observations import LaterObservation, decode, encode
from streams.contract.records import decode_counter, decode_model
from streams.learning import checkpoints
from streams.learning.learner_process import Teacher
from streams.process.health import examine
from streams.settings import Http
from streams.transport.control import _Reading
from streams.transport.deliveries import Lag
from streams.transport.ledger import Unit
from streams.transport.publishing import PublishFailed
from tests.streams.builders import NOW_MS, Service, a_log, committed
from tests.streams.teachers import a_teacher, broker_of

INPUT = Source("marquee.observations.v1", 0)


class Told(NamedTuple):
    """A record of `observations`."""

    offset: int
    value: bytes | None
    key: bytes | None = b"0"
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = NOW_MS


@pytest.fixture(scope="module")
def records() -> list[Told]:
    """300 events as a worker tells them, 30 a record."""
    service = Service()
    service.catalogue(*(f"i{n:03d}" for n in range(40)))
    log = a_log(300, items=40)
    answers = [service.deliver(log[at : at + 30]) for at in range(0, 300, 30)]
    return [Told(offset, value) for offset, answer in enumerate(answers) for _, value in answer.told]


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


async def teach(teacher: Teacher, records: list[Told]) -> None:
    """What the transport does with a unit, and the build that may follow."""
    await teacher(Unit([Part(INPUT, records, records[-1].offset, -1)], len(records), INPUT.topic))
    await until(lambda: not teacher.builder.building)


async def test_a_snapshot_is_written_and_announced_when_enough_was_learned(tmp_path: Path, records: list[Told]) -> None:
    teacher = a_teacher(tmp_path)
    await teacher.positions(committed({INPUT: -1}))
    await teach(teacher, records[:3])
    assert broker_of(teacher).of("models") == []
    await teach(teacher, records[3:4])
    manifest = decode_model(broker_of(teacher).of("models")[0])
    written = snapshots.manifests(tmp_path / "s")[0]
    assert (manifest.version, manifest.uri, manifest.sha256) == (str(written.version), written.uri, written.sha256)
    assert (manifest.events, manifest.dimensions, manifest.kind) == (120, 8, "snapshot")
    assert len(snapshots.load(written)) == manifest.items > 10
    assert teacher.metrics.registry.get_sample_value("marquee_learner_snapshots_total") == 1


@pytest.mark.parametrize("at_ms", [-1, -(2**63), 0, NOW_MS // 1000, NOW_MS * 1000, NOW_MS + 10**12, 2**63 - 1])
async def test_no_timestamp_of_a_record_changes_what_is_learned(
    tmp_path: Path, records: list[Told], at_ms: int
) -> None:
    teachers = [a_teacher(tmp_path / name) for name in ("right", "odd")]
    for teacher, timestamp in zip(teachers, (NOW_MS + 10**6, at_ms), strict=True):
        await teacher.positions(committed({INPUT: -1}))
        await teach(teacher, [record._replace(timestamp=timestamp) for record in records[:3]])
    right, odd = (teacher.learner.counters.state() for teacher in teachers)
    assert teachers[1].learner.rows == teachers[0].learner.rows > 0
    assert np.array_equal(right["counters.popularity"], odd["counters.popularity"])


async def test_a_snapshot_that_cannot_be_announced_is_followed_by_the_next(tmp_path: Path, records: list[Told]) -> None:
    teacher = a_teacher(tmp_path)
    await teacher.positions(committed({INPUT: -1}))
    broker_of(teacher).errors = [PublishFailed(1, 1, KafkaTimeoutError())]
    await teach(teacher, records[:4])
    assert broker_of(teacher).of("models") == []
    teacher.builder.took_s = 0
    await teach(teacher, records[4:])
    assert len(broker_of(teacher).of("models")) == 1


async def test_builds_take_at_most_a_tenth_of_the_time(tmp_path: Path, records: list[Told]) -> None:
    teacher = a_teacher(tmp_path)
    await teacher.positions(committed({INPUT: -1}))
    await teach(teacher, records[:4])
    teacher.builder.took_s = 60
    await teach(teacher, records[4:])
    assert len(broker_of(teacher).of("models")) == 1


async def clock(teacher: Teacher, seconds: float) -> None:
    """Let the clock run for a while, then end it as the process would."""
    task = asyncio.create_task(teacher.run_clock())
    await asyncio.sleep(seconds)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_counters_and_checkpoints_come_on_time_and_at_the_end(tmp_path: Path, records: list[Told]) -> None:
    teacher = a_teacher(tmp_path)
    await teacher.positions(committed({INPUT: -1}))
    await teach(teacher, records[:2])
    await clock(teacher, 0.35)
    counters = [decode_counter(value) for value in broker_of(teacher).of("counters")]
    assert {counter.events for counter in counters} == {60}
    assert len({counter.item_id for counter in counters}) == len(counters) > 10
    assert len(list((tmp_path / "c").iterdir())) == 1, "one, as nothing was learned since"
    await teach(teacher, records[2:3])
    await clock(teacher, 0.0)
    assert len(list((tmp_path / "c").iterdir())) == 2


async def test_a_checkpoint_that_was_cut_short_is_written_at_the_end(tmp_path: Path, records: list[Told]) -> None:
    """A slow disk holds the writer when the process is told to end."""
    teacher, held = a_teacher(tmp_path), threading.Event()
    await teacher.positions(committed({INPUT: -1}))
    await teach(teacher, records[:2])
    clock = asyncio.create_task(teacher.run_clock())
    await until((tmp_path / "c").exists)
    writing = asyncio.create_task(teacher._writer.run(held.wait))
    await teacher(Unit([Part(INPUT, records[2:3], 2, -1)], 1, INPUT.topic))
    await asyncio.sleep(0.3)  # the next checkpoint waits for its turn to be written
    clock.cancel()
    await asyncio.sleep(0.1)
    held.set()
    await asyncio.wait([clock, writing])
    assert len(list((tmp_path / "c").iterdir())) == 2


async def test_a_disk_that_is_full_ends_no_learner(
    tmp_path: Path, records: list[Told], caplog: pytest.LogCaptureFixture
) -> None:
    teacher, limits = a_teacher(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    await teacher.positions(committed({INPUT: -1}))
    await teach(teacher, records[:2])
    running = asyncio.create_task(teacher.run_clock())
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        await until(lambda: "no checkpoint, it is tried again" in caplog.text)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await until(lambda: len(list((tmp_path / "c").glob("*.safetensors"))) == 1)
    assert not running.done()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_build_does_not_hold_up_the_checkpoint_at_the_end(tmp_path: Path, records: list[Told]) -> None:
    teacher, held = a_teacher(tmp_path), threading.Event()
    await teacher.positions(committed({INPUT: -1}))
    await teach(teacher, records[:2])
    building = asyncio.create_task(teacher.builder.thread.run(held.wait))
    try:
        await asyncio.wait_for(teacher.checkpoint(), 5)
    finally:
        held.set()
        await building
    assert len(list((tmp_path / "c").iterdir())) == 1


async def test_counters_that_were_not_published_come_with_the_next(tmp_path: Path, records: list[Told]) -> None:
    teacher = a_teacher(tmp_path)
    await teacher.positions(committed({INPUT: -1}))
    await teach(teacher, records[:2])
    broker_of(teacher).errors = [PublishFailed(1, 1, KafkaTimeoutError())]
    running, give_up_s = asyncio.create_task(teacher.run_clock()), time.monotonic() + 20
    while not (values := broker_of(teacher).of("counters")) and time.monotonic() < give_up_s:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert {decode_counter(value).item_id for value in values} == set(teacher.learner.names.values())


async def test_who_stands_by_says_nothing(tmp_path: Path, records: list[Told]) -> None:
    teacher = a_teacher(tmp_path)
    teacher.leads = lambda: False
    await clock(teacher, 0.25)
    assert broker_of(teacher).published == []
    assert not (tmp_path / "c").exists()


async def test_who_no_longer_leads_says_not_how_well_it_learns_and_who_leads_again_does(
    tmp_path: Path, records: list[Told]
) -> None:
    teacher = a_teacher(tmp_path)
    await teacher.positions(committed({INPUT: 0}))
    await teach(teacher, records)
    registry = teacher.metrics.registry

    def hits() -> float:
        return registry.get_sample_value("marquee_learner_hit_ratio", {"order": "retrieval"}) or 0.0

    await clock(teacher, 0.25)
    assert hits() > 0
    teacher.leads = lambda: False
    await clock(teacher, 0.25)
    assert math.isnan(hits())
    teacher.leads = lambda: True
    await clock(teacher, 0.25)
    assert hits() > 0


async def test_after_a_death_it_goes_on_where_its_counts_end(tmp_path: Path, records: list[Told]) -> None:
    first, control = a_teacher(tmp_path / "a"), a_teacher(tmp_path / "b")
    for teacher in (first, control):
        assert await teacher.positions(committed({INPUT: 99})) == {INPUT: 0}, (
            "committed offsets say nothing about counts"
        )
    await teach(first, records[:4])
    await first.checkpoint()
    await teach(first, records[4:6])
    second = a_teacher(tmp_path / "a")
    assert await second.positions(committed({INPUT: 6})) == {INPUT: 4}
    assert second.learner.rows == 120
    await teach(second, records[4:])
    await teach(control, records)
    for each in ("rows", "marks", "names"):
        assert getattr(second.learner, each) == getattr(control.learner, each)
    assert second.learner.pairs.counts_N.tolist() == control.learner.pairs.counts_N.tolist()


async def test_what_changed_since_the_first_checkpoint_is_found_after_a_death(
    tmp_path: Path, records: list[Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_LARGEST_SHARE", 100)
    first = a_teacher(tmp_path)
    await first.positions(committed({INPUT: 99}))
    for n in range(6):
        await teach(first, records[n : n + 1])
        await first.checkpoint()
    second = a_teacher(tmp_path)
    assert await second.positions(committed({INPUT: 99})) == {INPUT: 6}
    names = ["checkpoint", *["increment"] * 5]
    assert sorted(path.name.partition("-")[0] for path in (tmp_path / "c").iterdir()) == names
    for each in ("rows", "marks", "names", "version"):
        assert getattr(second.learner, each) == getattr(first.learner, each)
    for learner in (first, second):
        await teach(learner, records[6:])
    assert second.learner.pairs.counts_N.tolist() == first.learner.pairs.counts_N.tolist()
    await second.checkpoint()
    assert len([*(tmp_path / "c").glob("checkpoint-*")]) == 2, "who was assigned anew begins with a whole"


async def test_a_rebalance_does_not_throw_away_what_is_in_memory(tmp_path: Path, records: list[Told]) -> None:
    teacher = a_teacher(tmp_path)
    await teacher.positions(committed({INPUT: -1}))
    await teach(teacher, records[:2])
    await teacher.checkpoint()
    await teach(teacher, records[2:3])
    assert await teacher.positions(committed({INPUT: 0})) == {INPUT: 3}
    assert teacher.learner.rows == 90


async def test_who_stood_by_takes_over_what_the_leader_wrote(tmp_path: Path, records: list[Told]) -> None:
    leader, standby = a_teacher(tmp_path), a_teacher(tmp_path)
    await leader.positions(committed({INPUT: -1}))
    await standby.positions(committed({}))
    await teach(leader, records[:5])
    await leader.checkpoint()
    assert await standby.positions(committed({INPUT: 0})) == {INPUT: 5}
    assert standby.learner.rows == 150


async def test_what_is_no_observation_is_put_aside_and_the_others_are_learned(
    tmp_path: Path, records: list[Told]
) -> None:
    teacher = a_teacher(tmp_path)
    await teacher.positions(committed({INPUT: -1}))
    value = records[0].value or b""
    foreign = [None, b"", b"garbage", b"{}", value[:-3], b"x" * 300_000]
    await teach(teacher, [records[0], *(Told(n + 1, value) for n, value in enumerate(foreign)), records[1]])
    assert teacher.learner.rows == 60
    letters = [p for p in teacher.publisher.published if p.topic.endswith("dlq")]  # type: ignore[attr-defined]
    assert {letter.topic for letter in letters} == {"marquee.observations.v1.dlq"}
    assert [letter.value for letter in letters[:-1]] == foreign[:-1]
    codes = [dict(letter.headers)["marquee.code"] for letter in letters]
    assert codes == [b"null_value", *[b"malformed"] * 4, b"too_large"]
    counted = teacher.metrics.registry.get_sample_value
    assert counted("marquee_dead_letters_total", {"topic": "observations", "code": "malformed"}) == 4


async def test_what_was_put_aside_before_is_not_put_aside_again(tmp_path: Path) -> None:
    """A learner goes on from its checkpoint, which may be older than what the group has committed."""
    teacher = a_teacher(tmp_path)
    await teacher.positions(committed({INPUT: -1}))
    part = Part(INPUT, [Told(0, b"old"), Told(1, b"new")], 1, committed=1)
    await teacher(Unit([part], 2, INPUT.topic))
    assert [letter.value for letter in teacher.publisher.published] == [b"new"]  # type: ignore[attr-defined]


async def test_a_learner_that_was_killed_before_its_commit_writes_no_second_letter(tmp_path: Path) -> None:
    teacher, again = a_teacher(tmp_path), a_teacher(tmp_path)
    again.letters = teacher.letters
    for learner in (teacher, again):
        await learner.positions(committed({INPUT: -1}))
        await teach(learner, [Told(0, b"foreign")])
    assert [letter.value for letter in teacher.publisher.published] == [b"foreign"]  # type: ignore[attr-defined]


async def test_observations_of_a_later_release_end_the_learner_before_it_loses_rows(
    tmp_path: Path, records: list[Told]
) -> None:
    teacher = a_teacher(tmp_path)
    await teacher.positions(committed({INPUT: -1}))
    value = records[0].value or b""
    with pytest.raises(LaterObservation, match=r"marquee\.observations\.v1/0/0"):
        await teach(teacher, [records[0]._replace(value=value[:1] + b"\x03" + value[2:])])


async def test_workers_may_tell_different_numbers_of_candidates(tmp_path: Path, records: list[Told]) -> None:
    """As while `observe.negatives` is changed from one worker to the next; or while features are."""
    teacher = a_teacher(tmp_path)
    await teacher.positions(committed({INPUT: -1}))
    observation = decode(records[1].value or b"")
    fewer = {name: getattr(observation, name)[:, :-1] for name in ("example_item_ES", "example_x_ESF", "log_q_ES")}
    changed = [records[0].value, encode(replace(observation, **fewer)), records[2].value]
    last = decode(records[3].value or b"")
    older = {name: getattr(last, name)[..., :-1] for name in ("example_x_ESF", "shown_x_LNF")}
    await teach(teacher, [Told(n, value) for n, value in enumerate([*changed, encode(replace(last, **older))])])
    assert teacher.learner.rows == 120


async def test_rows_that_were_learned_before_are_counted_apart(tmp_path: Path, records: list[Told]) -> None:
    teacher = a_teacher(tmp_path)
    await teacher.positions(committed({INPUT: -1}))
    await teach(teacher, records[:2])
    await teach(teacher, records[:3])
    value = teacher.metrics.registry.get_sample_value
    assert value("marquee_learner_rows_total") == 90
    assert value("marquee_learner_rows_skipped_total") == 60


async def test_calibration_is_reported_once_somebody_was_shown_something(tmp_path: Path, records: list[Told]) -> None:
    teacher = a_teacher(tmp_path)
    await teacher.positions(committed({INPUT: -1}))
    teacher.learner.outcomes.sums["click", "home"] = Fading(np.array([3.0, 2.0]), 20)
    teacher.learner.outcomes.sums["complete", "home"] = Fading(np.array([3.0, 0.0]), 20)
    teacher.learner.outcomes.attribution.dropped = 5
    await teach(teacher, records[:4])
    value = teacher.metrics.registry.get_sample_value
    ratio = "marquee_learner_calibration_ratio"
    assert value(ratio, {"objective": "engage", "surface": "home"}) == 1.5
    assert math.isnan(value(ratio, {"objective": "engage", "surface": "other"}) or 0)
    assert math.isnan(value(ratio, {"objective": "complete", "surface": "home"}) or 0), "nothing came"
    assert value("marquee_learner_dropped_total", {"kind": "impressions"}) == 5
    await teach(teacher, records[4:5])
    assert value("marquee_learner_dropped_total", {"kind": "impressions"}) == 5, "said once"


async def test_pages_say_what_was_not_read_and_how_far_behind_it_is(tmp_path: Path) -> None:
    teacher, port = a_teacher(tmp_path), free_port()
    teacher.settings = teacher.settings.model_copy(update={"http": Http(port=port)})
    teacher.lags = lambda: {INPUT: Lag(7, 2.5)}
    pages = asyncio.create_task(teacher.run_pages())
    try:
        await teacher.positions(committed({INPUT: -1}))
        await asyncio.sleep(0.5)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            ready = await (await session.get("/readyz")).json()
            metrics = await (await session.get("/metrics")).text()
        assert ready["checks"]["checkpoint"] == "ok"
        assert "is not read yet" in ready["checks"]["control"]
        assert 'marquee_lag_records{lane="observations",partition="0",topic="marquee.observations.v1"} 7.0' in metrics
    finally:
        pages.cancel()
        await asyncio.wait([pages])


async def test_checks_of_a_learner_say_what_keeps_it_from_its_work(tmp_path: Path) -> None:
    teacher = a_teacher(tmp_path)
    for topic in teacher.control.handlers:
        reading = _Reading()
        reading.follow(SimpleNamespace(position=9, highwater=9, lso=9, timestamp=4_000_000_000_000), quiet=False)
        teacher.control._readings[TopicPartition(topic, 0)] = reading

    def failing() -> dict[str, str]:
        return {name: why for name, why in examine(teacher.checks()).items() if why}

    assert failing() == {"checkpoint": "stands by: nothing is assigned"}
    await teacher.positions(committed({INPUT: -1}))
    assert failing() == {}
    teacher.holdup = lambda: "no broker was heard for 9 s"
    teacher.misfit_topics = lambda: "marquee.counters.v1 is gone"
    assert failing() == {"work": "no broker was heard for 9 s", "topics": "marquee.counters.v1 is gone"}
    teacher.control._readings.clear()
    assert "is not read yet" in failing()["control"]


async def test_snapshots_are_served_to_workers_on_other_machines(tmp_path: Path, records: list[Told]) -> None:
    teacher = a_teacher(tmp_path, serve=True)
    pages = asyncio.create_task(teacher.run_pages())
    try:
        await teacher.positions(committed({INPUT: -1}))
        await until(lambda: teacher.server.port > 0)
        await teach(teacher, records[:4])
        manifest = decode_model(broker_of(teacher).of("models")[0])
        assert manifest.uri.startswith(f"http://127.0.0.1:{teacher.server.port}/")
        written = snapshots.manifests(tmp_path / "s")[0]
        snapshot = await asyncio.to_thread(snapshots.load, written)
        assert str(snapshot.version) == manifest.version
        async with aiohttp.ClientSession() as session:
            for path in ("", "../c", "%2e%2e/c"):
                async with session.get(f"http://127.0.0.1:{teacher.server.port}/{path}") as answer:
                    assert answer.status in (403, 404)
    finally:
        pages.cancel()
        with suppress(asyncio.CancelledError):
            await pages
        await teacher.server.stop()
