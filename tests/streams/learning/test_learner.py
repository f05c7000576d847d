import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.events import CONSENT_ALL, CONSENT_STORE, Action, Source
from embeddings.ids import item_id
from embeddings.items import ItemCounts
from streams.contract.messages import Part
from streams.contract.observations import Observation, decode, pieces
from streams.contract.records import Slate, decode_slate
from streams.learning.checkpoints import Checkpoint, CheckpointFolder, UnreadableCheckpoint
from streams.learning.learner import Learner
from streams.learning.outcomes import surfaces_of
from streams.serving.pipeline import Answer
from streams.serving.shown_writer import observe_shown
from tests.fuzzing import thorough
from tests.streams.builders import (
    EVENTS,
    NOW_MS,
    REQUESTS,
    Raw,
    Service,
    a_learner,
    a_log,
    a_request,
    an_event,
    shown,
    slates_of,
    small,
    told,
)

ITEMS = [f"i{n:03d}" for n in range(40)]
LOG = a_log(300, items=40)


@pytest.fixture(scope="module")
def observations() -> list[Observation]:
    """What a worker tells of 300 events in batches of 20, with snapshots on the way."""
    service = Service()
    service.catalogue(*ITEMS)
    out = []
    for at in range(0, 300, 20):
        answer = service.deliver(LOG[at : at + 20])
        out += told(answer)
        service.learn(answer)
        if at % 100 == 80:
            service.swap()
    return out


def taught(observations: list[Observation]) -> Learner:
    learner = a_learner()
    for observation in observations:
        learner.learn(observation)
    return learner


def counts(learner: Learner) -> dict[str, Any]:
    """What a learner has counted and up to where, comparable bit by bit."""
    rows = learner.ids.rows(np.sort(learner.ids.ids_N))
    items, near = learner.counters.of(rows), learner.pairs.neighbours(40)
    known = {name: getattr(items, name) for name in items.__slots__}
    columns = {name: value for name, value in known.items() if isinstance(value, np.ndarray)}
    columns |= {"pairs": learner.pairs.counts_N, "rows": near[0], "weights": near[1]}
    text = json.loads(learner.state()[1])
    return (
        {name: column.tobytes() for name, column in columns.items()}
        | text
        | {"events": items.events, "clock_s": items.clock_s}
    )


def everything(learner: Learner) -> dict[str, Any]:
    """The same with the ranker's weights and its optimiser's."""
    weights = learner.trainer.state()
    return counts(learner) | {name: array.tobytes() for name, array in weights.items()}


def test_what_was_told_twice_is_learned_once(observations: list[Observation]) -> None:
    once, twice = taught(observations), a_learner()
    for n, observation in enumerate(observations):
        assert twice.learn(observation) == len(observation)
        assert twice.learn(observations[max(n - 1, 0)]) == 0
        assert twice.learn(observation) == 0
    assert everything(once) == everything(twice)
    assert once.rows == 300


def test_of_an_overlap_only_the_new_rows_are_learned() -> None:
    """A worker died before it stored: its successor cuts the log elsewhere and tells some of it again."""
    first, second, whole = Service(), Service(), Service()
    early, late = told(first.deliver(LOG[:120]))[0], told(second.deliver(LOG[:70]))[0]
    rest = told(second.deliver(LOG[70:200]))[0]
    learner = a_learner()
    assert [learner.learn(o) for o in (early, late, rest)] == [120, 0, 80]
    assert counts(learner) == counts(taught(told(whole.deliver(LOG[:200]))))


@pytest.mark.slow
@given(st.lists(st.integers(1, 199), max_size=6))
@thorough(15)
def test_counts_do_not_depend_on_how_the_log_was_cut(cuts: list[int]) -> None:
    ends = [0, *sorted(set(cuts)), 200]
    service = Service()
    parts = taught([o for a, b in pairwise(ends) for o in told(service.deliver(LOG[a:b]))])
    whole = taught(told(Service().deliver(LOG[:200])))
    assert counts(parts) == counts(whole)


def test_a_restored_learner_goes_on_to_the_bit(observations: list[Observation]) -> None:
    learner, restored = taught(observations[:9]), a_learner()
    restored.restore(*learner.state())
    for observation in observations[9:]:
        assert learner.learn(observation) == restored.learn(observation)
    assert everything(learner) == everything(restored)
    one, other = (each.freeze().build(5)[0] for each in (learner, restored))
    np.testing.assert_array_equal(one.target_ND, other.target_ND)
    np.testing.assert_array_equal(one.neighbours_NK, other.neighbours_NK)
    assert (one.names, one.version) == (other.names, other.version)


def test_a_checkpoint_comes_back_from_disk_as_it_was(observations: list[Observation], tmp_path: Path) -> None:
    learner, folder = taught(observations), CheckpointFolder(tmp_path / "new", keep=2)
    offsets = {Source("marquee.observations.v1", 3): 41}
    assert folder.latest() is None
    for serial in (5, 30, 100):
        folder.write(Checkpoint(*learner.state(), offsets), serial)
    assert [path.name for path in sorted(folder.folder.iterdir())] == [
        f"checkpoint-{serial:020d}.safetensors" for serial in (30, 100)
    ]
    found = folder.latest()
    assert found is not None
    assert found.offsets == offsets
    restored = a_learner()
    restored.restore(found.arrays, found.text)
    assert everything(restored) == everything(learner)
    assert folder.latest(beyond=99) is not None
    assert folder.latest(beyond=100) is None


def test_a_damaged_checkpoint_is_not_passed_over(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    good = folder.write(Checkpoint(*a_learner().state(), {}), 1)
    damaged = folder.write(Checkpoint(*a_learner().state(), {}), 2)
    damaged.write_bytes(damaged.read_bytes()[: good.stat().st_size // 2])
    with pytest.raises(UnreadableCheckpoint, match=damaged.name):
        folder.latest()


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    path = folder.write(Checkpoint(*a_learner().state(), {}), 1)
    path.rename(path.with_suffix(".part"))
    assert folder.latest() is None


def test_rows_of_people_who_allowed_no_profile_teach_nothing(observations: list[Observation]) -> None:
    learner, observation = a_learner(), observations[0]
    unwilling = CONSENT_ALL & CONSENT_STORE
    refused = {**columns(observation), "consent_R": np.full(len(observation), unwilling, np.uint8)}
    assert learner.learn(Observation(**refused)) == 0
    assert len(learner.pairs) == learner.ids.held == 0
    assert learner.marks == {(observation.source, observation.log): observation.last}


def columns(observation: Observation) -> dict[str, Any]:
    return {name: getattr(observation, name) for name in Observation.__slots__}


def test_features_that_are_no_numbers_are_refused_and_the_rest_is_learned(observations: list[Observation]) -> None:
    learner = a_learner()
    for observation in observations:
        spoiled = observation.example_x_ESF.copy()
        spoiled[::2] = np.nan
        learner.learn(Observation(**{**columns(observation), "example_x_ESF": spoiled}))
    learner.step()
    assert learner.trainer.refused >= sum(len(o.example_E) for o in observations) // 2
    assert all(np.isfinite(array).all() for array in learner.trainer.tensors().values())
    assert learner.rows == 300


START = NOW_MS - 8_000_000
WINDOW_MS = 1000 * small().learner.attribution_s
LATER = dict.fromkeys(("event_time", "timestamp"), NOW_MS + WINDOW_MS)


def a_slate(service: Service, learner: Learner, asked: bool) -> Slate:
    """What ann is shown after an event, or when she asks; the learner is told."""
    answer = service.deliver([an_event(0, "ann", "i000", event_time=START)])
    learn(learner, answer)
    if not asked:
        return slates_of(answer)[0]
    slates, _ = service.answerer.respond([Part(REQUESTS, [a_request(0, "ann", n=3)], 0, -1)])
    for observation in observe_shown(slates, 1.0):
        for value in pieces(observation):
            assert learner.learn(decode(value)) == learner.learn(decode(value)) == 0, "told twice says it twice"
    assert {source for source, _ in learner.marks} == {EVENTS}, "nothing of requests is counted"
    return decode_slate(slates[0].value)


def learn(learner: Learner, answer: Answer) -> None:
    for observation in told(answer):
        learner.learn(observation)


@pytest.mark.parametrize("asked", [False, True], ids=["written", "asked for"])
@pytest.mark.parametrize("by_slot", [False, True], ids=["by item", "by slot"])
def test_impressions_of_shown_slates_teach_the_pointwise_heads(asked: bool, by_slot: bool) -> None:
    learner, service = a_learner(), Service()
    service.catalogue(*ITEMS)
    slate = a_slate(service, learner, asked)
    item = shown(slate)[2]
    which = {"item": None, "slot": 2} if by_slot else {"item": item}
    events = [
        an_event(1, "ann", kind="impression", slate_id=slate.slate_id, event_time=START + 5_000, **which),
        an_event(2, "ann", item, "click", event_time=START + 9_000),
        an_event(3, "bob", "i009", "play", event_time=START + 6_000 + WINDOW_MS),
    ]
    learn(learner, service.deliver(events))
    assert learner.trainer.outcome("click").rows == 1
    assert learner.trainer.outcome("click").observed == 1
    assert learner.trainer.outcome("complete").observed == 0
    assert learner.trainer.model.outcome.place.weight[2, 0] > 0
    known = learner.counters.of(learner.ids.rows(np.array([item_id(item)], np.uint64)))
    assert (known.shown_N[0], known.clicked_N[0]) == pytest.approx((1, 1), rel=1e-2)


def test_places_beyond_what_was_asked_for_are_not_told() -> None:
    service = Service()
    service.catalogue(*ITEMS)
    asked = [a_request(n, "ann", n=size) for n, size in enumerate((2, 4))]
    slates, _ = service.answerer.respond([Part(REQUESTS, asked, 1, -1)])
    (observation,) = observe_shown(slates, 1.0)
    assert (observation.source, len(observation)) == (REQUESTS, 0)
    assert observation.policy_L.tolist() == [slate.trigger.policy.hash for slate in slates]
    assert (observation.shown_item_LN != 0).sum(1).tolist() == [2, 4]
    for slate, told_N in zip(slates, observation.shown_item_LN.tolist(), strict=True):
        names = shown(decode_slate(slate.value))
        assert told_N[: len(names)] == [item_id(name) for name in names]


def test_the_click_rate_is_the_rate_of_what_the_click_head_learns() -> None:
    """A play answers an impression as a click does; a click that answers none is no click of an impression."""
    learner, service = a_learner(), Service()
    service.catalogue(*ITEMS)
    slate = a_slate(service, learner, asked=False)
    names = {"slate_id": slate.slate_id}
    events = [
        an_event(1 + n, "ann", item, "impression", event_time=START, **names) for n, item in enumerate(shown(slate)[:4])
    ]
    events += [an_event(6, "ann", shown(slate)[0], event_time=START)]
    events += [an_event(7, "bob", shown(slate)[1], "click", event_time=START)]
    learn(learner, service.deliver(events))
    learn(learner, service.deliver([an_event(8, "cid")]))
    counted = learner.counters.of(np.arange(len(learner.ids), dtype=np.int32))
    assert (counted.clicked_N.sum(), counted.shown_N.sum()) == pytest.approx((1, 4), rel=1e-2)
    assert learner.trainer.outcome("click").observed == pytest.approx(1 / 4)
    service.serving.count(counted)
    assert service.serving.click_rate == pytest.approx(3.5 / 54, rel=1e-3)


def test_what_was_predicted_over_what_came_is_known_by_surface() -> None:
    learner, service = a_learner(), Service()
    service.catalogue(*ITEMS)
    slate = a_slate(service, learner, asked=False)
    where = ({}, {"surface": "news"}, {"surface": "elsewhere"})
    for n, (item, context) in enumerate(zip(shown(slate), where, strict=False)):
        seen = an_event(1 + 2 * n, "ann", item, "impression", slate_id=slate.slate_id, context=context)
        learn(learner, service.deliver([seen, an_event(2 + 2 * n, "ann", item)]))
    learn(learner, service.deliver([an_event(9, "bob", **LATER)]))
    assert {which for which, _ in learner.outcomes.calibration().items()} == {
        ("click", "home"),
        ("click", "news"),
        ("click", "other"),
    }
    assert set(surfaces_of(learner.settings)) == {"home", "continue_watching", "news", "other"}
    kids = small(policies={"kids": {}})
    assert surfaces_of(kids)[-2:] == ("kids", "other")


def test_a_learner_that_was_killed_closes_what_was_open_as_if_it_had_lived() -> None:
    learner, service = a_learner(), Service()
    service.catalogue(*ITEMS)
    slate = a_slate(service, learner, asked=False)
    item = shown(slate)[0]
    learn(learner, service.deliver([an_event(1, "ann", item, "impression", slate_id=slate.slate_id)]))
    restored = a_learner()
    restored.restore(*learner.state())
    slot = an_event(4, "ann", None, "impression", slate_id=slate.slate_id, slot=1)  # of a slate of before
    rest = service.deliver([an_event(2, "ann", item), slot, an_event(5, "bob", **LATER)])
    for each in (learner, restored):
        learn(each, rest)
        assert (each.trainer.outcome("click").rows, each.trainer.outcome("click").observed) == (2, pytest.approx(0.5))
    assert everything(learner) == everything(restored)


def test_versions_only_rise(observations: list[Observation]) -> None:
    learner = taught(observations[:3])
    assert [learner.freeze(now_s).version for now_s in (0, 100, 50, 0)] == [1, 100, 101, 102]


def test_learning_goes_on_beside_a_build(observations: list[Observation]) -> None:
    learner, control = taught(observations[:5]), taught(observations[:5])
    frozen = learner.freeze()
    for observation in observations[5:]:
        learner.learn(observation)
    late, early = frozen.build(0)[0], control.freeze().build(0)[0]
    np.testing.assert_array_equal(late.target_ND, early.target_ND)
    assert late.names == early.names


def test_a_snapshot_names_every_item_it_has_counts_of(observations: list[Observation]) -> None:
    snapshot, _ = taught(observations).freeze().build(0)
    assert all(snapshot.names)
    assert [item_id(name) for name in snapshot.names] == snapshot.ids_N.tolist()
    assert snapshot.source_ND.shape == (len(snapshot), 8)


def test_no_more_items_are_learned_than_allowed(observations: list[Observation]) -> None:
    learner = a_learner(small(learner={"max_items": 100}))
    many = a_log(600, users=4, items=400, seed=3)
    service = Service()
    for at in range(0, 600, 25):
        for observation in told(service.deliver(many[at : at + 25])):
            learner.learn(observation)
    assert len(learner.ids) == 100
    learner.freeze().build(0)


def test_a_skip_counts_against_an_item_and_pairs_with_nothing(observations: list[Observation]) -> None:
    service, learner = Service(), a_learner()
    for observation in told(service.deliver([an_event(0, item="a"), an_event(1, item="b", kind="skip")])):
        assert observation.action_R.tolist() == [Action.play, Action.skip]
        learner.learn(observation)
    counts_now = learner.counters.of(learner.ids.rows(np.array([item_id("b")], np.uint64)))
    assert counts_now.dislikes_N.tolist() == pytest.approx([1.0])
    assert learner.pairs.counts_N.tolist() == pytest.approx([1.0], rel=1e-4)


def learned(log: list[Raw], batch: int = 50) -> Learner:
    """What is learned of a log that one worker was given."""
    service = Service()
    for at in range(0, len(log), batch):
        service.learn(service.deliver(log[at : at + batch]))
    return service.learner


def of_item(learner: Learner, item: str) -> ItemCounts:
    return learner.counters.of(learner.ids.rows(np.array([item_id(item)], np.uint64)))


def neighbours(learner: Learner, item: str) -> set[str]:
    rows_NK, _ = learner.pairs.neighbours(10)
    (row,) = learner.ids.rows(np.array([item_id(item)], np.uint64)).tolist()
    return {learner.names[int(learner.ids.ids_N[near])] for near in rows_NK[row] if near >= 0}


@pytest.mark.parametrize("kind", ["dislike", "skip", "hide"])
def test_what_people_turned_down_goes_with_nothing_they_take_later(kind: str) -> None:
    log = [an_event(0, "first", "a"), an_event(1, "first", "c")]
    for n in range(2, 82, 2):
        log += [an_event(n, f"u{n}", "a", kind), an_event(n + 1, f"u{n}", "b")]
    learner = learned(log)
    assert (neighbours(learner, "a"), neighbours(learner, "b")) == ({"c"}, set())
    assert of_item(learner, "a").dislikes_N[0] == pytest.approx(40, rel=1e-3)


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 100, 1_000])
def test_a_film_whose_player_reports_every_ten_seconds_is_taken_once(batch: int) -> None:
    start = NOW_MS - 9_000_000
    log = [an_event(0, item="before", event_time=start - 1_000), an_event(1, item="film", event_time=start)]
    log += [an_event(n + 2, item="film", kind="progress", event_time=start + 10_000 * n) for n in range(720)]
    learner = learned(log, batch)
    one = 2.0 ** (-7_190 / learner.settings.half_lives.long_s)
    assert of_item(learner, "film").popularity_N4[0, 2] == pytest.approx(one, rel=1e-5)
    assert learner.pairs.counts_N[:2].max() <= 1.0
    assert float(learner.contexts.popularity(5).takes_CK.max()) <= 1.0


@pytest.mark.parametrize(("last", "likes"), [("unlike", 1), ("remove", 2), ("dislike", 2)])
@pytest.mark.parametrize("batch", [1, 50])
def test_only_an_unlike_takes_its_like_back(last: str, likes: int, batch: int) -> None:
    log = [an_event(0, "ann", "a"), an_event(1, "ann", "a", "like"), an_event(2, "bob", "a", "like")]
    log += [an_event(3, "bob", "a", "like"), an_event(4, "ann", "a", "progress"), an_event(5, "ann", "a", last)]
    log += [an_event(6, "ann", "a", last), an_event(7, "eve", "a", "unlike")]
    counted = of_item(learned(log, batch), "a")
    assert counted.likes_N[0] == pytest.approx(likes, rel=1e-4)
    assert counted.popularity_N4[0, 2] == pytest.approx(2, rel=1e-3)


@given(st.lists(st.integers(1, 149), max_size=6), st.integers(0, 2**20))
@thorough(10)
def test_whatever_people_do_counts_do_not_depend_on_how_it_was_cut(cuts: list[int], seed: int) -> None:
    draw, kinds = np.random.default_rng(seed), [action.name for action in Action if 0 < action < 16]
    times = NOW_MS - 40 * 3_600_000 + np.cumsum(draw.integers(0, 1_800_000, 150)) // 4
    log = [
        an_event(n, f"u{draw.integers(2)}", f"i{draw.integers(4)}", str(draw.choice(kinds)), event_time=int(time))
        for n, time in enumerate(times)
    ]
    service = Service()
    parts = [o for a, b in pairwise([0, *sorted(set(cuts)), 150]) for o in told(service.deliver(log[a:b]))]
    assert counts(taught(parts)) == counts(taught(told(Service().deliver(log))))


def test_rows_of_a_log_made_anew_are_new_though_their_offsets_are_low(observations: list[Observation]) -> None:
    learner, first = a_learner(), observations[0]
    old, new = (replace(first, log=log) for log in ("cluster/1", "cluster/2"))
    assert learner.learn(first) == len(first)
    assert learner.learn(old) == 0, "the first name of a log is that of the rows before"
    assert learner.learn(new) == len(first)
    again = a_learner()
    again.restore(*learner.state())
    assert (again.learn(old), again.learn(new)) == (0, 0)


def test_workers_that_say_more_and_less_of_a_log_take_turns(observations: list[Observation]) -> None:
    """One by one they are upgraded, or the brokers: what one told another tells again."""
    learner, before = a_learner(), observations[0]
    for n, observation in enumerate(observations):
        said, other = ("", "cluster", "cluster/1")[n % 3], ("", "cluster", "cluster/1")[n // 3 % 3]
        assert learner.learn(replace(observation, log=said)) == len(observation)
        assert learner.learn(replace(before, log=other)) == learner.learn(replace(observation, log=other)) == 0
        before = observation
    assert list(learner.marks) == [(EVENTS, "cluster/1")]
    assert learner.learn(replace(before, log="cluster/2")) == len(before)
    assert learner.learn(before) == learner.learn(replace(before, log="cluster/1")) == 0


def test_a_checkpoint_that_starts_over_knows_what_was_learned_and_no_offset(tmp_path: Path) -> None:
    folder, learner = CheckpointFolder(tmp_path), a_learner()
    assert folder.start_over() is None
    here = Source("marquee.observations.v1", 0)
    path = folder.write(Checkpoint(*learner.state(), {here: 7}, {here: "cluster/1"}), 5)
    kept = folder.latest()
    assert kept is not None
    assert (kept.offsets, kept.logs) == ({here: 7}, {here: "cluster/1"})
    assert folder.start_over() == path
    anew = folder.latest()
    assert anew is not None
    assert (anew.offsets, anew.logs, anew.text) == ({}, {}, kept.text)
