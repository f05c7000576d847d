"""What every `UserStore` promises of what people were shown without an answer."""

import numpy as np

from embeddings.events import Action, EventBatch, Fate
from tests.contracts.backends import (
    Backend,
    a_batch,
    a_slice,
    an_owner,
    apply,
    effect,
    everything,
    folded,
    in_memory,
    keep,
)


def of_impressions(batch: EventBatch, items: int) -> EventBatch:
    """A batch in which nine of ten events are impressions, of so many items."""
    batch.item_B[:] = 1 + batch.item_B % np.uint64(items)
    batch.action_B[np.arange(len(batch)) % 10 > 0] = Action.impression
    return batch


def test_what_was_shown_without_an_answer_is_stored_with_the_state_and_goes_with_it(backend: Backend) -> None:
    store, users = an_owner(backend), ["a", "b", "c"]
    before = apply(store, a_batch(["c"]))
    batch = of_impressions(a_batch(users[:2], 200), items=9)
    loaded = store.load(batch.user_ids, batch.sources)
    expected = effect(batch, loaded, folded(loaded, batch))["unanswered"]
    apply(store, batch)
    kept = store.read(users).unanswered
    assert kept.held_U.tolist()[2] == 0 < min(kept.held_U.tolist()[:2])
    assert all(np.array_equal(was, now[:2]) for was, now in zip(expected, kept, strict=True))
    assert all(np.array_equal(was, now) for was, now in zip(kept, backend.open().read(users).unanswered, strict=True))
    assert set(before.fate_B.tolist()) == {Fate.applied}
    store.forget("a")
    assert store.read(["a"]).unanswered.held_U.tolist() == [0]


def test_impressions_delivered_again_or_in_overlapping_batches_count_once(backend: Backend) -> None:
    store, users = an_owner(backend), ["a", "b"]
    whole = of_impressions(a_batch(users, rows=300), items=90)
    for begin, end in ((0, 200), (0, 200), (120, 300)):
        number = keep(store, a_slice(whole, begin, end))
    store.flush(number)
    lone = an_owner(in_memory())
    apply(lone, whole)
    assert everything(store, users) == everything(lone, users)
    assert store.read(users).unanswered.held_U.min() > 50
