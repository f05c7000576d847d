import dataclasses
import threading
import time

import numpy as np
import pytest

from embeddings.content import WORDS, blended
from embeddings.errors import IdCollision
from embeddings.ids import item_ids
from embeddings.items import ItemFacts, Items
from embeddings.snapshots import Snapshot
from ranking.errors import WeightsRefused
from streams.contract.counter_records import counts_of
from streams.contract.records import Counter
from streams.serving.live_model import LiveModel, Serving
from streams.serving.pipeline import Answer
from tests.streams.builders import NOW_MS, Service, a_log, an_event, shown, slates_of, small

ITEMS = [f"i{n:03d}" for n in range(40)]
LOG = a_log(400, items=40)


@pytest.fixture
def service() -> Service:
    """40 items of two categories, and a snapshot of 300 events."""
    service = Service(small(slates={"size": 20, "candidates": 60, "trace_rate": 1.0}))
    for n, name in enumerate(ITEMS):
        service.catalogue(name, categories=("even",) if n % 2 == 0 else ("odd",))
    service.live_through(LOG[:300])
    return service


def snapshot_of(service: Service) -> Snapshot:
    snapshot, service.learner.factors = service.learner.freeze().build(service.now_ms)
    return snapshot


def findable(serving: Serving) -> set[str]:
    """What a search for anything can bring."""
    width = serving.live.source_ND.shape[1]
    rows, _ = serving.live.index.search(np.ones((1, width), np.float32), max(serving.live.index.size, 1))
    return {serving.items.names[row] for row in rows[0].tolist() if row >= 0}


def offered(service: Service, user: str = "nobody") -> set[str]:
    """A slate of twenty for somebody, one event later."""
    (slate,) = slates_of(service.respond([an_event(900, user, "never-heard-of", "view")]))
    return set(shown(slate))


def test_a_snapshot_is_scattered_into_the_rows_of_this_process(service: Service) -> None:
    snapshot = snapshot_of(service)
    elsewhere = Items()
    elsewhere.ensure(item_ids(["first", "second"]), ["first", "second"])
    model = LiveModel.of(snapshot, elsewhere, service.serving.build)
    rows = elsewhere.ids.rows(snapshot.ids_N)
    assert rows.min() == 2
    said_ND = model.content.vectors(np.full((len(rows), WORDS), -1, np.int16), snapshot.ids_N)  # no catalogue here
    np.testing.assert_array_equal(model.target_ND[rows], blended(snapshot.target_ND, said_ND, snapshot.counts_N))
    np.testing.assert_array_equal(model.source_ND[rows], snapshot.source_ND)
    theirs = np.where(snapshot.neighbours_NK >= 0, rows[snapshot.neighbours_NK], -1)
    np.testing.assert_array_equal(model.neighbours_NM[rows], theirs)
    assert elsewhere.names[rows[0]] == snapshot.names[0]
    assert (model.version, model.created_ms, model.ranker.version) == (snapshot.version, NOW_MS, snapshot.version)


def test_a_new_item_is_findable_at_once_by_what_is_said_of_it(service: Service) -> None:
    service.catalogue("newcomer", categories=("even",))
    (row,) = service.serving.items.ids.rows(item_ids(["newcomer"])).tolist()
    live = service.serving.live
    assert "newcomer" in findable(service.serving)
    rows_R = service.serving.items.ids.rows(item_ids(ITEMS))
    even_D, odd_D = live.target_ND[rows_R[0::2]].mean(0), live.target_ND[rows_R[1::2]].mean(0)
    assert live.target_ND[row] @ (even_D - odd_D) > (even_D + odd_D) / 2 @ (even_D - odd_D), "rather even than odd"
    (trace,) = service.respond([an_event(900, "u1", "i001")]).traces
    assert "newcomer" in trace.candidates


def test_before_the_first_snapshot_new_items_are_findable_too() -> None:
    service = Service()
    service.catalogue("a", "b")
    assert findable(service.serving) == {"a", "b"}
    assert offered(service) == {"a", "b"}


def test_an_item_is_admitted_however_far_the_table_has_grown(service: Service) -> None:
    many = [f"x{n}" for n in range(3 * len(service.serving.live.target_ND))]
    service.catalogue(*many, categories=("odd",))
    assert len(service.serving.live.target_ND) >= len(service.serving.items)
    assert findable(service.serving) >= set(many)
    service.deliver([an_event(400, "u1", many[-1])])


def test_a_removed_item_is_gone_at_once_and_stays_gone_after_a_swap(service: Service) -> None:
    before = offered(service, "u1")
    gone = sorted(before)[0]
    service.serving.catalogue([], [gone])
    assert gone not in offered(service, "u1")
    assert gone not in findable(service.serving)
    service.swap()
    assert gone not in findable(service.serving)
    assert gone not in offered(service, "u1")


def test_a_removed_item_that_comes_back_is_findable_again(service: Service) -> None:
    service.serving.catalogue([], ["i003"])
    service.catalogue("i003")
    assert "i003" in findable(service.serving)
    service.swap()
    assert "i003" in findable(service.serving)


def test_what_came_and_went_while_a_snapshot_was_built_is_in_the_new_model(service: Service) -> None:
    serving, snapshot = service.serving, snapshot_of(service)
    build = serving.build

    def building(rows: object, vectors: object) -> object:
        serving.build = build
        serving.catalogue([ItemFacts(name="late", categories=("odd",), added_s=1)], ["i001"])
        return build(rows, vectors)  # type: ignore[arg-type]

    serving.build = building  # type: ignore[assignment]
    serving.swap(snapshot)
    assert "late" in findable(serving)
    assert "i001" not in findable(serving)


def test_a_batch_sees_one_version_to_its_end(service: Service) -> None:
    """Snapshots are swapped as fast as they can be while batches are answered, until a few were seen."""
    snapshot, stop = snapshot_of(service), threading.Event()
    faults: list[Exception] = []
    answers: list[Answer] = []
    give_up_s = time.monotonic() + 60

    def swapping() -> None:
        version = snapshot.version
        while not stop.is_set():
            version += 1
            try:
                service.serving.swap(dataclasses.replace(snapshot, version=version))
            except Exception as fault:
                faults.append(fault)
                return

    thread = threading.Thread(target=swapping)
    thread.start()
    try:
        while len({answer.model_version for answer in answers}) < 4 and time.monotonic() < give_up_s:
            answers += [service.respond(LOG[at : at + 10]) for at in range(300, 400, 10)]
    finally:
        stop.set()
        thread.join()
    assert not faults
    assert all({s.model_version for s in slates_of(answer)} == {str(answer.model_version)} for answer in answers)
    assert len({answer.model_version for answer in answers}) >= 4


def test_a_snapshot_with_weights_that_cannot_be_used_changes_nothing(service: Service) -> None:
    snapshot, live = snapshot_of(service), service.serving.live
    broken = {
        name: np.full_like(array, np.nan) if array.dtype.kind == "f" else array
        for name, array in snapshot.ranker.items()
    }
    with pytest.raises(WeightsRefused):
        service.serving.swap(dataclasses.replace(snapshot, ranker=broken))
    assert service.serving.live is live
    assert offered(service)


def test_tastes_are_made_anew_for_a_new_version(service: Service) -> None:
    """Vectors of two versions never meet: the history is the truth."""
    service.swap()
    answer = service.deliver([an_event(400, "u1", "i001")])
    assert answer.model_version == 2
    states = answer.folded.states
    expected = service.recommender.scorer.tastes(states, service.serving.live)
    np.testing.assert_array_equal(answer.taste_UD, expected)
    assert service.users.read(["u1"]).tastes.version_U.tolist() == [2]


def test_an_item_whose_id_is_taken_is_refused_and_those_before_it_are_in(service: Service) -> None:
    items = service.serving.items
    items.ensure(item_ids(["squatted"]), ["squatter"])
    with pytest.raises(IdCollision):
        service.catalogue("fine", "squatted", "unheard")
    assert "squatted" not in items.names


def test_fresh_items_are_new_ones_for_a_while(service: Service) -> None:
    service.serving.fresh_for_s = 100
    service.catalogue("newcomer")
    row = service.serving.items.ids.rows(item_ids(["newcomer"]))[0]
    with service.serving.items.lock:
        assert row in service.serving.current().offer.fresh_F
        service.now_ms += 100_000
        assert row not in service.serving.current().offer.fresh_F


def test_before_the_first_snapshot_what_is_popular_is_offered_and_says_so() -> None:
    """Nothing names an item here but its counts: no catalogue, and no snapshot that could be read."""
    service = Service()
    counters = [Counter(item_id=name, popularity=(n, n, n)) for n, name in enumerate("abc", 1)]
    service.serving.count(counts_of(counters), "abc")
    (slate,) = slates_of(service.respond([an_event(1, "u1", "never-heard-of", "view")]))
    assert shown(slate)[:3] == ["c", "b", "a"]
    assert (slate.degraded, slate.ranked) == ("popular", False)
    service.swap()
    (slate,) = slates_of(service.respond([an_event(2, "u1", "never-heard-of", "view")]))
    assert slate.degraded is None


def test_where_there_is_a_catalogue_counts_alone_make_no_item() -> None:
    """It may have been removed so long ago that nothing says so any more."""
    service = Service()
    service.serving.count(counts_of([Counter(item_id=name, popularity=(1, 1, 1)) for name in "ab"]), "ab")
    service.catalogue("b")
    assert offered(service) == {"b"}
    service.catalogue("a")
    assert offered(service) == {"a", "b"}


def test_a_catalogue_is_let_in_without_copying_what_is_there_again_and_again() -> None:
    """What is copied is counted: twice the items are one more copy, not twice as many."""
    copies = []
    for count in (8_192, 16_384):
        serving, seen = Service().serving, dict[str, list[object]](columns=[], targets=[])
        for at in range(0, count, 256):
            serving.catalogue(
                [ItemFacts(name=f"i{n}", categories=("odd",), added_s=1) for n in range(at, at + 256)], []
            )
            for kind, now in (("columns", serving.items.columns), ("targets", serving.live.target_ND)):
                if all(now is not before for before in seen[kind]):
                    seen[kind].append(now)
        assert serving.live.index.size == count
        copies.append({kind: len(some) for kind, some in seen.items()})
    assert copies[1] == {kind: some + 1 for kind, some in copies[0].items()}
    assert max(copies[1].values()) <= 4
