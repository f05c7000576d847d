"""What every `UserStore` promises, held against the one in memory, Valkey and Redis 7."""

import numpy as np
import pytest

from embeddings.errors import Fenced, StoreUnavailable
from embeddings.events import Fate, Source
from embeddings.stoprule import BadRun
from embeddings.store import PartitionMark, StoreRewound, UserStore, advance
from tests.contracts.backends import (
    EVENTS,
    OTHER,
    WIDTH,
    Backend,
    a_batch,
    a_slice,
    an_owner,
    apply,
    everything,
    folded,
    in_memory,
    keep,
    save,
)
from tests.embeddings import saving
from tests.embeddings.saving import save_slates


def test_of_an_unknown_user_nothing_is_known(backend: Backend) -> None:
    loaded = an_owner(backend).load(["u"], [EVENTS])
    assert (loaded.states.count_U[0], loaded.tastes.version_U[0], loaded.seen.count_U[0]) == (0, 0, 0)
    assert (loaded.floor_offset_S.tolist(), loaded.marks) == ([-1], {EVENTS: PartitionMark()})


def test_what_is_saved_is_loaded_again_bit_for_bit(backend: Backend) -> None:
    store, batch = an_owner(backend), a_batch(["a", "b"])
    life = apply(store, batch)
    again = store.load(batch.user_ids, [EVENTS])
    assert all(np.array_equal(was, now) for was, now in zip(life.states, again.states, strict=True))
    assert again.tastes.version_U.tolist() == [3, 3]
    assert again.seen.count_U.sum() == len(life.evicted.item_E) > 0
    assert again.marks[EVENTS] == PartitionMark(199, (200, *[0] * 9))


def test_a_batch_delivered_twice_leaves_every_byte_as_it_was(backend: Backend) -> None:
    store, batch = an_owner(backend), a_batch(["a", "b", "c"])
    apply(store, batch)
    first = everything(store, batch.user_ids)
    life = apply(store, batch)
    assert set(life.fate_B.tolist()) == {Fate.replayed}
    assert everything(store, batch.user_ids) == first


def test_overlapping_deliveries_give_what_one_delivery_gives(backend: Backend) -> None:
    store, users = an_owner(backend), ["a", "b"]
    whole = a_batch(users, rows=300)
    apply(store, a_slice(whole, 0, 200))
    apply(store, a_slice(whole, 120, 300))
    control = in_memory()
    lone = an_owner(control)
    apply(lone, whole)
    assert everything(store, users) == everything(lone, users)


def test_only_users_whose_state_changed_are_written(backend: Backend) -> None:
    store, batch = an_owner(backend), a_batch(["a", "b"])
    batch.refused_B[batch.user_B == 1] = Fate.unconsented
    apply(store, batch)
    assert store.read(["b"]).tastes.version_U[0] == 0
    totals = store.marks([EVENTS])[EVENTS].totals
    assert totals[Fate.unconsented] == (batch.user_B == 1).sum()
    assert sum(totals) == len(batch)


def test_a_batch_of_nothing_readable_still_moves_the_mark(backend: Backend) -> None:
    store = an_owner(backend)
    loaded = store.load([], [EVENTS])
    dead = np.array([Fate.dead_lettered, Fate.misrouted], np.uint8)
    marks = advance(loaded.marks, [EVENTS], np.zeros(2, np.int32), np.array([7, 9]), dead)
    none = np.empty((0, WIDTH), np.float32)
    changed_U = np.empty(0, np.bool_)
    nothing = {"changed_U": changed_U, "taste_UD": none, "taste_version": 0, "unanswered": loaded.unanswered}
    nothing["exposures"] = loaded.exposures
    saving.save(store, user_ids=[], states=loaded.states, **nothing, marks=marks)
    assert store.marks([EVENTS]) == {EVENTS: PartitionMark(9, (*[0] * 8, 1, 1))}


def test_records_at_or_below_a_mark_are_counted_once() -> None:
    marks = {EVENTS: PartitionMark(5, (6, *[0] * 9)), OTHER: PartitionMark()}
    source_R, offset_R = np.array([0, 0, 1], np.int32), np.array([5, 6, 0])
    after = advance(marks, [EVENTS, OTHER], source_R, offset_R, np.array([1, 2, 0], np.uint8))
    assert after == {EVENTS: PartitionMark(6, (6, 0, 1, *[0] * 7)), OTHER: PartitionMark(0, (1, *[0] * 9))}


def test_a_worker_that_lost_its_partition_can_neither_load_nor_save(backend: Backend) -> None:
    zombie, batch = an_owner(backend), a_batch(["a"])
    loaded = zombie.load(batch.user_ids, batch.sources)
    owner = an_owner(backend)
    apply(owner, batch)
    kept = everything(owner, batch.user_ids)
    with pytest.raises(Fenced):
        save(zombie, batch, loaded, folded(loaded, batch))
    with pytest.raises(Fenced):
        zombie.load(batch.user_ids, batch.sources)
    assert everything(owner, batch.user_ids) == kept


def test_a_claim_of_one_partition_leaves_the_owner_of_another_alone(backend: Backend) -> None:
    first, second = an_owner(backend), backend.open()
    second.claim([OTHER])
    apply(first, a_batch(["a"]))
    apply(second, a_batch(["b"], source=OTHER))


def test_who_never_claimed_or_released_is_fenced(backend: Backend) -> None:
    store = backend.open()
    with pytest.raises(Fenced, match="not claimed"):
        store.load(["a"], [EVENTS])
    store.claim([EVENTS])
    store.release([EVENTS])
    with pytest.raises(Fenced, match="not claimed"):
        store.load(["a"], [EVENTS])


def test_a_claim_tells_how_far_the_partition_is(backend: Backend) -> None:
    apply(an_owner(backend), a_batch(["a"]))
    assert backend.open().claim([EVENTS, OTHER]) == {
        EVENTS: PartitionMark(199, (200, *[0] * 9)),
        OTHER: PartitionMark(),
    }


def test_one_load_is_good_for_one_save(backend: Backend) -> None:
    store, batch = an_owner(backend), a_batch(["a"])
    loaded = store.load(batch.user_ids, batch.sources)
    life = folded(loaded, batch)
    save(store, batch, loaded, life)
    with pytest.raises(StoreUnavailable, match="load the batch again"):
        save(store, batch, loaded, life)


def test_a_claim_between_load_and_save_asks_for_the_batch_again(backend: Backend) -> None:
    store, batch = an_owner(backend), a_batch(["a"])
    loaded = store.load(batch.user_ids, batch.sources)
    store.claim([OTHER])
    with pytest.raises(StoreUnavailable, match="load the batch again"):
        save(store, batch, loaded, folded(loaded, batch))
    assert set(apply(store, batch).fate_B.tolist()) == {Fate.applied}


def test_marks_of_partitions_that_were_not_loaded_are_a_bug(backend: Backend) -> None:
    store, batch = an_owner(backend), a_batch(["a"])
    loaded = store.load(batch.user_ids, batch.sources)
    foreign = loaded._replace(marks={OTHER: PartitionMark()})
    with pytest.raises(ValueError, match="not loaded"):
        save(store, a_batch(["a"], source=OTHER), foreign, folded(loaded, batch))


def test_batches_kept_one_on_the_other_are_stored_as_if_each_had_been_saved(backend: Backend) -> None:
    store, users = an_owner(backend), ["a", "b", "c"]
    batches = [a_batch(users[:2]), a_batch(users[1:], 200), a_batch(users, 400)]
    for batch in batches:
        number = keep(store, batch)
    assert everything(backend.open(), users) == everything(in_memory().open(), users)
    store.flush(number)
    lone = an_owner(in_memory())
    for batch in batches:
        apply(lone, batch)
    assert everything(backend.open(), users) == everything(lone, users)


def test_a_flush_stores_what_was_kept_up_to_it_and_no_more(backend: Backend) -> None:
    store, users, batches = an_owner(backend), ["a", "b"], [a_batch(["a", "b"]), a_batch(["b", "a"], 200)]
    first, second = (keep(store, batch) for batch in batches)
    lone = an_owner(in_memory())
    for number, batch in zip((first, second), batches, strict=True):
        store.flush(number)
        apply(lone, batch)
        assert everything(backend.open(), users) == everything(lone, users)
    assert set(apply(store, batches[1]).fate_B.tolist()) == {Fate.replayed}


def test_what_was_kept_beyond_a_flush_is_fenced_as_well(backend: Backend) -> None:
    zombie = an_owner(backend)
    first, second = keep(zombie, a_batch(["a"])), keep(zombie, a_batch(["a"], 200))
    zombie.flush(first)
    owner = an_owner(backend)
    kept = everything(owner, ["a"])
    with pytest.raises(Fenced):
        zombie.flush(second)
    assert everything(owner, ["a"]) == kept


def test_a_claim_drops_what_was_kept(backend: Backend) -> None:
    store, batch = an_owner(backend), a_batch(["a"])
    number = keep(store, batch)
    assert store.claim([EVENTS, OTHER]) == {EVENTS: PartitionMark(), OTHER: PartitionMark()}
    with pytest.raises(Fenced, match="claimed anew"):
        store.flush(number)
    assert set(apply(store, batch).fate_B.tolist()) == {Fate.applied}


def test_a_store_that_lost_everything_says_so_at_flush(backend: Backend) -> None:
    store = an_owner(backend)
    number = keep(store, a_batch(["a"]))
    backend.wipe()
    with pytest.raises(StoreRewound):
        store.flush(number)


def test_who_is_forgotten_is_not_written_back_by_what_was_kept(backend: Backend) -> None:
    store = an_owner(backend)
    number = keep(store, a_batch(["a", "b"]))
    store.forget("a")
    store.flush(number)
    assert store.read(["a", "b"]).states.count_U.tolist() == [0, 50]


def test_topics_keep_their_numbers_whoever_claims_first(backend: Backend) -> None:
    more, batch = Source("more", 7), a_batch(["a"])
    first, second = an_owner(backend), backend.open()
    second.claim([more, OTHER])
    assert second.load(["a"], [more, OTHER]).source_code_S.tolist() == [1 << 12 | 7, 1]
    assert first.load(batch.user_ids, batch.sources).source_code_S.tolist() == [0]


def test_a_partition_that_marks_cannot_name_is_refused_before_it_is_read(backend: Backend) -> None:
    with pytest.raises(ValueError, match="4,096 partitions"):
        backend.open().claim([Source("events", 4096)])


def test_a_store_that_lost_everything_says_so_at_load_and_at_save(backend: Backend) -> None:
    store, batch = an_owner(backend), a_batch(["a"])
    loaded = store.load(batch.user_ids, batch.sources)
    backend.wipe()
    with pytest.raises(StoreRewound):
        save(store, batch, loaded, folded(loaded, batch))
    with pytest.raises(StoreRewound):
        store.load(batch.user_ids, batch.sources)
    assert store.claim([EVENTS]) == {EVENTS: PartitionMark()}
    apply(store, batch)


def test_a_store_that_lost_its_last_writes_says_so_at_load(backend: Backend) -> None:
    store = an_owner(backend)
    apply(store, a_batch(["a"]))
    backend.set_mark(EVENTS, PartitionMark(50))
    with pytest.raises(StoreRewound, match="at 50"):
        store.load(["a"], [EVENTS])
    assert store.claim([EVENTS])[EVENTS].offset == 50
    store.load(["a"], [EVENTS])


def test_reading_needs_no_claim_and_disturbs_no_batch(backend: Backend) -> None:
    store, batch = an_owner(backend), a_batch(["a"])
    loaded = store.load(batch.user_ids, batch.sources)
    assert store.read(["a", "b"]).states.count_U.tolist() == [0, 0]
    save(store, batch, loaded, folded(loaded, batch))
    assert backend.open().read(["a"]).states.count_U.tolist() == [50]
    assert len(store.read([]).states.count_U) == 0


def keep_slates(store: UserStore, ttl_s: int, **slates: bytes) -> None:
    """Load and save for the sake of slates."""
    save_slates(store, store.load(list(slates), [EVENTS]), slates, ttl_s, width=WIDTH)


def test_the_latest_slate_is_kept_until_its_time_is_over(backend: Backend) -> None:
    store = an_owner(backend)
    keep_slates(store, 100, a=b"old", b=b"slate of b")
    keep_slates(store, 1, a=b"new")
    keep_slates(store, 1)
    assert (store.latest_slate("a"), store.latest_slate("b")) == (b"new", b"slate of b")
    save(store, batch := a_batch(["b"]), loaded := store.load(["b"], batch.sources), folded(loaded, batch))
    slates, profiles = store.read_slates(["b", "c", "a"])
    assert slates == [b"slate of b", None, b"new"]
    assert profiles.states.count_U.tolist() == store.read(["b", "c", "a"]).states.count_U.tolist() == [50, 0, 0]
    assert store.read_slates([])[0] == []
    backend.wait(1.1)
    assert (store.latest_slate("a"), store.latest_slate("c")) == (None, None)


def test_who_lost_the_partition_keeps_no_slate(backend: Backend) -> None:
    store = an_owner(backend)
    loaded = store.load(["a"], [EVENTS])
    an_owner(backend)
    with pytest.raises(Fenced):
        save_slates(store, loaded, {"a": b"slate"}, 100, width=WIDTH)
    assert store.latest_slate("a") is None


def test_forget_removes_everything_held_under_a_user(backend: Backend) -> None:
    store, batch = an_owner(backend), a_batch(["a", "b"])
    apply(store, batch)
    keep_slates(store, 100, a=b"slate", b=b"slate")
    others = everything(store, ["b"])
    assert store.forget("a") == 3
    assert store.forget("a") == 0
    nothing = store.read(["a"])
    assert (nothing.states.events_U[0], nothing.seen.count_U[0], store.latest_slate("a")) == (0, 0, None)
    assert everything(store, ["b"]) == others


def test_a_paused_partition_is_released_by_its_mark_and_no_other_is_touched(backend: Backend) -> None:
    paused = PartitionMark(199, (0,) * 9 + (200,), BadRun(200, 200, "malformed", paused=True))
    backend.set_mark(EVENTS, paused)
    backend.set_mark(OTHER, PartitionMark(4))
    owner, operator = backend.open(), backend.open()
    assert owner.claim([EVENTS])[EVENTS] == paused, "whoever claims it knows"
    assert operator.go_on([EVENTS, OTHER]) == {EVENTS: paused}
    assert operator.go_on([EVENTS, OTHER]) == {}
    assert operator.go_on([]) == {}
    marks = operator.marks([EVENTS, OTHER])
    assert marks == {EVENTS: paused.go_on(), OTHER: PartitionMark(4)}
    assert owner.load([], [EVENTS]).marks[EVENTS].run.released, "its owner goes on from there"


def test_a_closed_store_opens_again(backend: Backend) -> None:
    store = an_owner(backend)
    store.close()
    apply(store, a_batch(["a"]))
