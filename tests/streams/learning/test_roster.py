"""Which items a learner knows: what the catalogue says, who gives way where there is no room, and what is left then."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from embeddings.events import Source
from embeddings.ids import item_id, item_ids
from embeddings.snapshots import Snapshot
from streams.contract.messages import Part
from streams.contract.records import Counter, decode_counter
from streams.learning.learner import Learner
from streams.learning.learner_process import Teacher
from streams.transport.ledger import Unit
from streams.transport.logs import Stretch
from tests.streams.builders import NOW_MS, Raw, Service, a_learner, a_log, an_event, small, told
from tests.streams.controlled import AN_ITEM
from tests.streams.teachers import a_teacher, broker_of

INPUT = Source("marquee.observations.v1", 0)
ITEMS = [f"i{n:03d}" for n in range(40)]
LEFT, STAYED = ITEMS[:3], ITEMS[3:]


class Read(NamedTuple):
    """A record as a reader hands it over."""

    offset: int
    value: bytes | None
    key: bytes | None = b"0"
    topic: str = "marquee.catalog.v1"
    partition: int = 0
    headers: Sequence[tuple[str, bytes]] = ()
    timestamp: int = NOW_MS


@pytest.fixture(scope="module")
def records() -> list[Read]:
    """300 events as a worker tells them, 30 a record."""
    service, log = Service(), a_log(300, items=40)
    answers = [service.deliver(log[at : at + 30]) for at in range(0, 300, 30)]
    return [Read(offset, value) for offset, answer in enumerate(answers) for _, value in answer.told]


async def a_start(folder: Path) -> Teacher:
    """A learner that is assigned a partition, and has not read the control topics yet."""
    teacher = a_teacher(folder)
    teacher.control.caught_up.clear()
    await teacher.positions({INPUT: Stretch()})
    return teacher


async def read(teacher: Teacher, *names: str, removed: Sequence[str] = ()) -> None:
    """What the catalogue has, then its end, if that was not reached before."""
    values = dict.fromkeys(names, AN_ITEM) | dict.fromkeys(removed)
    found = [Read(n, value, name.encode()) for n, (name, value) in enumerate(values.items())]
    if found:
        await teacher.control.handlers["marquee.catalog.v1"](found)  # type: ignore[arg-type]
    teacher.control.at_end()
    teacher.control.caught_up.set()


async def teach(teacher: Teacher, records: Sequence[Read]) -> None:
    await teacher(Unit([Part(INPUT, list(records), records[-1].offset, -1)], len(records), INPUT.topic))


async def said(teacher: Teacher) -> dict[str, Counter | None]:
    """The counters that are published now."""
    before = len(broker_of(teacher).published)
    await teacher._publish_counters()
    new = [r for r in broker_of(teacher).published[before:] if r.topic == "marquee.counters.v1"]
    return {(r.key or b"").decode(): decode_counter(r.value) if r.value else None for r in new}


def built(teacher: Teacher) -> Snapshot:
    return teacher.learner.freeze().build(0)[0]


async def test_what_left_the_catalogue_while_the_learner_was_down_is_gone(tmp_path: Path, records: list[Read]) -> None:
    """Its tombstone was compacted away: only that it is not there any more says so."""
    first = await a_start(tmp_path)
    await read(first, *ITEMS)
    await teach(first, records[:6])
    assert set(LEFT) < set(built(first).names)
    await first.checkpoint()
    second = await a_start(tmp_path)
    assert set(LEFT) < set(built(second).names), "before the end is read nobody knows what is missing"
    await read(second, *STAYED)
    await teach(second, records[6:])  # their histories hold what left
    snapshot = built(second)
    assert set(snapshot.names) <= set(STAYED)
    assert snapshot.ids_N.tolist() == item_ids(snapshot.names).tolist()
    assert snapshot.neighbours_NK.max() < len(snapshot)
    counters = await said(second)
    assert {name for name, counter in counters.items() if counter is None} == set(LEFT)
    assert {name for name, counter in counters.items() if counter} <= set(STAYED)
    assert not set(second.learner.roster.names.of(np.arange(99, dtype=np.int32))) & set(LEFT) - set(
        second.learner.names.values()
    )


async def test_what_is_removed_goes_with_the_next_snapshot_and_comes_back_clean(
    tmp_path: Path, records: list[Read]
) -> None:
    teacher = await a_start(tmp_path)
    await read(teacher, *ITEMS)
    await teach(teacher, records[:6])
    before = await said(teacher)
    await read(teacher, removed=LEFT)
    assert not set(LEFT) & {name for name, counter in (await said(teacher)).items() if counter}
    assert set(built(teacher).names) <= set(STAYED)
    await read(teacher, *LEFT)
    await teach(teacher, records[6:7])
    after = await said(teacher)
    back = [name for name in LEFT if after.get(name)]
    assert back
    for name in back:
        (then, now) = (before[name], after[name])
        assert then is not None
        assert now is not None
        assert now.popularity[2] < then.popularity[2] / 2


async def test_without_a_catalogue_what_events_name_is_told(tmp_path: Path, records: list[Read]) -> None:
    teacher = await a_start(tmp_path)
    await read(teacher)
    await teach(teacher, records)
    assert set(built(teacher).names) == set(teacher.learner.names.values()) == set(await said(teacher))


async def test_what_comes_to_the_catalogue_later_is_told_with_what_was_counted(
    tmp_path: Path, records: list[Read]
) -> None:
    teacher = await a_start(tmp_path)
    await read(teacher, *STAYED)
    await teach(teacher, records)
    assert not set(LEFT) & set(await said(teacher))
    await read(teacher, *LEFT)
    late = await said(teacher)
    assert set(late) == set(LEFT)
    assert all(counter is not None and counter.popularity[2] > 1 for counter in late.values())
    assert set(LEFT) < set(built(teacher).names)


@pytest.mark.parametrize("names_first", [True, False])
async def test_a_catalogue_much_smaller_than_what_events_name_is_one_warning(
    tmp_path: Path, records: list[Read], caplog: pytest.LogCaptureFixture, names_first: bool
) -> None:
    teacher = await a_start(tmp_path)
    if names_first:
        await teach(teacher, records)
        await read(teacher, *ITEMS[:4])
    else:
        await read(teacher, *ITEMS[:4])
        await teach(teacher, records)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            built(teacher)
    assert [r.message for r in caplog.records if "the catalogue has 4 items" in r.message] == [
        f"the catalogue has 4 items and events name {len(teacher.learner.names)}: the others are not shown"
    ]


def taught(learner: Learner, log: Sequence[Raw], service: Service, batch: int = 25) -> None:
    for at in range(0, len(log), batch):
        for observation in told(service.deliver(log[at : at + batch])):
            learner.learn(observation)


def a_wave(begin: int, items: Sequence[str], users: int = 4) -> list[Raw]:
    """Everybody takes these items, one after the other."""
    return [an_event(begin + n, f"u{n % users}", item) for n, item in enumerate(i for i in items for _ in range(users))]


def test_when_there_is_no_room_what_was_taken_least_recently_goes() -> None:
    learner, service = a_learner(small(learner={"max_items": 100})), Service()
    taught(learner, a_wave(0, [f"a{n:02d}" for n in range(60)]), service)
    taught(learner, a_wave(300, [f"a{n:02d}" for n in range(5)] + [f"b{n:02d}" for n in range(60)]), service)
    names = set(learner.names.values())
    assert len(learner.ids) <= 100
    assert learner.ids.held == len(names) <= 100
    assert {f"b{n:02d}" for n in range(60)} < names
    assert {f"a{n:02d}" for n in range(5)} < names, "taken again since"
    gone = {f"a{n:02d}" for n in range(5, 60)} - names
    assert gone == {f"a{n:02d}" for n in range(5, 5 + len(gone))}
    assert set(learner.withdrawn) == gone


def test_what_was_not_withdrawn_before_a_restart_is_after_it() -> None:
    """Its counters would stand in their topic for ever, for every worker that starts."""
    settings = small(learner={"max_items": 100})
    learner, again = a_learner(settings), a_learner(settings)
    taught(learner, a_wave(0, [f"ä{n:0247d}" for n in range(130)]), Service())
    again.restore(*learner.state())
    assert again.withdrawn == learner.withdrawn
    assert len(again.withdrawn) >= 30


@pytest.mark.slow
def test_whoever_gets_a_row_begins_as_in_a_new_one() -> None:
    """Counts, pairs, contexts, vectors and names: a small learner knows of its items what a large one does."""
    small_one, large = (a_learner(small(learner={"max_items": most})) for most in (100, 10_000))
    for learner in (small_one, large):
        service = Service()
        for wave in range(8):
            taught(learner, a_wave(120 * wave, [f"{wave}-{n:02d}" for n in range(40)], users=3), service)
            learner.factors = learner.freeze().build(0)[1]
    last = item_ids([f"{wave}-{n:02d}" for wave in (6, 7) for n in range(40)])
    rows, others = (learner.ids.rows(last) for learner in (small_one, large))
    assert rows.min() >= 0
    for name in ("popularity_N4", "likes_N", "shown_N", "last_taken_s_N", "first_seen_s_N"):
        ours, theirs = (getattr(each.counters.of(r), name) for each, r in ((small_one, rows), (large, others)))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(small_one.pairs.counts_N[rows], large.pairs.counts_N[others], rtol=1e-6)
    mine, theirs = (each.freeze().build(0)[0] for each in (small_one, large))
    for name in (f"7-{n:02d}" for n in range(20, 40)):
        ours, all_of_them = neighbours(mine, name), neighbours(theirs, name)
        same = {near: weight for near, weight in all_of_them.items() if near in mine.names}
        assert len(same) > 5
        assert {near: ours.get(near) for near in same} == pytest.approx(same, rel=1e-4)
    for key in mine.contexts.key_C.tolist():
        ours, all_of_them = takes(mine, key), takes(theirs, key)
        assert ours == pytest.approx({name: all_of_them[name] for name in ours}, rel=1e-5)


def neighbours(snapshot: Snapshot, name: str) -> dict[str, float]:
    """An item's neighbours and their weights, by name."""
    at = snapshot.names.index(name)
    near_K, weight_K = snapshot.neighbours_NK[at].tolist(), snapshot.weights_NK[at].tolist()
    return {snapshot.names[near]: weight for near, weight in zip(near_K, weight_K, strict=True) if near >= 0}


def takes(snapshot: Snapshot, key: int) -> dict[str, float]:
    """How often items were taken in a context, by name."""
    contexts, at = snapshot.contexts, snapshot.contexts.place(key)
    row_K, takes_K = contexts.row_CK[at].tolist(), contexts.takes_CK[at].tolist()
    return {snapshot.names[row]: taken for row, taken in zip(row_K, takes_K, strict=True) if row >= 0}


def test_ids_of_no_catalogue_take_nobodys_place() -> None:
    """Somebody invents ids: the catalogue's items stay, and the last strangers are known."""
    learner, service = a_learner(small(learner={"max_items": 100})), Service()
    held = [f"c{n:02d}" for n in range(90)]
    learner.heed(item_ids(held), np.zeros(0, np.uint64))
    learner.catalogue.read = True
    taught(learner, a_wave(0, held), service)
    before = learner.counters.of(learner.ids.rows(item_ids(held))).popularity_N4
    taught(learner, a_wave(400, [f"junk{n}" for n in range(140)]), service)
    assert learner.ids.held <= 100
    assert learner.ids.rows(item_ids(held)).min() >= 0
    assert learner.counters.of(learner.ids.rows(item_ids(held))).popularity_N4[:, 2] == pytest.approx(
        before[:, 2], rel=0.1
    )
    assert learner.ids.rows(item_ids(["junk139"]))[0] >= 0
    assert set(learner.freeze().build(0)[0].names) == set(held)
    assert learner.withdrawn == [], "nobody was told of them"


def test_an_item_of_the_catalogue_finds_room_among_strangers_and_then_among_its_own() -> None:
    learner, service = a_learner(small(learner={"max_items": 100})), Service()
    held = [f"c{n:03d}" for n in range(150)]
    learner.heed(item_ids(held), np.zeros(0, np.uint64))
    learner.catalogue.read = True
    taught(learner, a_wave(0, [f"junk{n}" for n in range(100)]), service)
    taught(learner, a_wave(400, held), service)
    names = set(learner.names.values())
    assert set(held[-90:]) <= names
    assert learner.ids.held <= 100
    assert learner.ids.rows(np.array([item_id(held[0])], np.uint64))[0] < 0


def test_a_lower_limit_holds_from_the_next_snapshot_on(records: list[Read]) -> None:
    learner, service = a_learner(), Service()
    taught(learner, a_wave(0, [f"a{n:03d}" for n in range(150)]), service)
    fewer = a_learner(small(learner={"max_items": 100}))
    fewer.restore(*learner.state())
    snapshot = fewer.freeze().build(0)[0]
    assert sorted(snapshot.names) == [f"a{n:03d}" for n in range(50, 150)]


def test_a_restart_goes_on_with_the_same_rows(records: list[Read]) -> None:
    log = a_log(600, users=4, items=400, seed=3)
    learner, service = a_learner(small(learner={"max_items": 100})), Service()
    observations = [o for at in range(0, 600, 25) for o in told(service.deliver(log[at : at + 25]))]
    for observation in observations[:16]:
        learner.learn(observation)
    again = a_learner(small(learner={"max_items": 100}))
    again.restore(*learner.state())
    for observation in observations[16:]:
        assert learner.learn(observation) == again.learn(observation)
    assert again.ids.ids_N.tolist() == learner.ids.ids_N.tolist()
    assert again.names == learner.names
    for ours, theirs in zip(again.pairs.neighbours(20), learner.pairs.neighbours(20), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert 80 < len(learner.ids) <= 100
