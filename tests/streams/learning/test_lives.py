"""Lives of a learner: what workers make of the counters of one that was started again, or began anew."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from embeddings.events import Source
from embeddings.items import MID
from streams.contract.counter_records import counts_of, of_one_life
from streams.contract.manifests import key_of
from streams.contract.messages import Part
from streams.contract.records import Counter, ModelManifest, decode_counter
from streams.learning.learner_process import Teacher
from streams.transport.ledger import Unit
from streams.transport.logs import Stretch
from tests.streams.builders import NOW_MS, Service, a_log
from tests.streams.teachers import a_teacher, broker_of

INPUT = Source("marquee.observations.v1", 0)


class Told(NamedTuple):
    """A record of `observations`."""

    offset: int
    value: bytes
    key: bytes | None = b"0"
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = NOW_MS


@pytest.fixture(scope="module")
def records() -> list[Told]:
    """300 events as a worker tells them, 30 a record."""
    service, log = Service(), a_log(300, items=40)
    answers = [service.deliver(log[at : at + 30]) for at in range(0, 300, 30)]
    return [Told(offset, value) for offset, answer in enumerate(answers) for _, value in answer.told]


async def a_start(folder: Path, end: int) -> Teacher:
    """A learner that is assigned a partition with so many records."""
    teacher = a_teacher(folder)
    await teacher.positions({INPUT: Stretch(end=end)})
    return teacher


async def teach(teacher: Teacher, records: Sequence[Told]) -> list[Counter]:
    """Learn, and what is then published."""
    if records:
        await teacher(Unit([Part(INPUT, list(records), records[-1].offset, -1)], len(records), INPUT.topic))
    before = len(broker_of(teacher).of("counters"))
    await teacher._publish_counters()
    return [decode_counter(value) for value in broker_of(teacher).of("counters")[before:]]


def popular(counters: Sequence[Sequence[Counter]]) -> list[str]:
    """The most taken items, as a worker has them that heard these, one publication after the other."""
    service = Service()
    for said in counters:
        if said:
            heard = of_one_life(said)
            service.serving.count(counts_of(heard), [counter.item_id for counter in heard])
    items = service.serving.items
    return [items.names[row] for row in items.popular(10, items.blocked(NOW_MS // 1000), MID).tolist()]


def most_taken(teacher: Teacher) -> list[str]:
    learner = teacher.learner
    counts = learner.counters.of(np.arange(len(learner.ids), dtype=np.int32))
    best = np.lexsort((counts.item_N, -counts.popularity_N4[:, MID]))[:10]
    return [learner.names[item] for item in counts.item_N[best].tolist()]


async def test_a_learner_started_again_goes_on_with_its_life(tmp_path: Path, records: list[Told]) -> None:
    first = await a_start(tmp_path, 0)
    before = await teach(first, records[:6])
    await first.checkpoint()
    before += await teach(first, records[6:8])
    second = await a_start(tmp_path, 8)
    assert await teach(second, []) == [], "behind what it had told before it died"
    after = await teach(second, records[6:])
    assert {counter.epoch for counter in before} == {counter.epoch for counter in after} != {0}
    assert popular([before, after]) == most_taken(second)


async def test_a_learner_that_began_anew_does_not_turn_popularity_round(tmp_path: Path, records: list[Told]) -> None:
    """Its checkpoint is gone: it reads what is left of the log, and says nothing before it has."""
    first = await a_start(tmp_path / "first", 0)
    before = await teach(first, records)
    second = await a_start(tmp_path / "second", 10)
    latest = first.learner.counters.epoch + 50
    second.builder.said.take(key_of(latest), ModelManifest(version=str(latest), uri="file:///x", sha256="00"))
    assert await teach(second, records[2:5]) == [], "what it has read so far is no popularity"
    after = await teach(second, records[5:])
    assert min(counter.epoch for counter in after) > max(counter.epoch for counter in before) + 50
    assert popular([before, after]) == most_taken(second)
    at_start = {counter.item_id: counter for counter in [*before, *after]}
    assert popular([list(at_start.values())]) == most_taken(second), "a worker that starts later reads what is left"


async def test_the_first_of_what_a_life_tells_are_the_most_taken(tmp_path: Path, records: list[Told]) -> None:
    """A worker that has heard a part of it has the right order, not that of the rows."""
    teacher = await a_start(tmp_path, 10)
    counters = await teach(teacher, records)
    assert popular([counters[:10]]) == most_taken(teacher)


async def test_the_end_that_is_never_reached_by_a_record_is_no_end(tmp_path: Path, records: list[Told]) -> None:
    """What is left to read there is a marker of a transaction."""
    teacher = await a_start(tmp_path, 11)
    assert await teach(teacher, records) == []
    teacher.unread = lambda source: 0
    assert await teach(teacher, [])


async def test_what_is_announced_is_known_before_a_life_gets_its_number(tmp_path: Path, records: list[Told]) -> None:
    teacher = await a_start(tmp_path, 0)
    teacher.control.caught_up.clear()
    assert await teach(teacher, records[:1]) == []
    teacher.control.caught_up.set()
    assert await teach(teacher, [])


async def test_a_row_is_of_no_later_time_than_it_was_told(tmp_path: Path, records: list[Told]) -> None:
    """Somebody's clock is years ahead: all other counts would be nothing beside that row's."""
    teacher = await a_start(tmp_path, 0)
    early = [record._replace(timestamp=NOW_MS - 86_400_000) for record in records]
    await teach(teacher, early)
    assert teacher.learner.counters.clock_s == NOW_MS // 1000 - 86_400
