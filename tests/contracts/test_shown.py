"""What every `UserStore` promises of the ads that people saw, and of the items they were shown without an answer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embeddings.events import Action, EventBatch, Fate
from embeddings.exposures import LOG
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


def of_impressions(batch: EventBatch, action: Action, things: int) -> EventBatch:
    """A batch in which nine of ten events are impressions, of so many things."""
    batch.item_B[:] = 1 + batch.item_B % np.uint64(things)
    batch.action_B[np.arange(len(batch)) % 10 > 0] = action
    return batch


SHOWN = pytest.mark.parametrize(
    ("name", "action", "held_of"),
    [
        ("exposures", Action.ad_impression, lambda exposures: exposures.seen_U.tolist()),
        ("unanswered", Action.impression, lambda unanswered: unanswered.held_U.tolist()),
    ],
    ids=["ads", "items"],
)
Held = Callable[[Any], list[int]]


@SHOWN
def test_what_was_shown_is_stored_with_the_state_and_goes_with_it(
    backend: Backend, name: str, action: Action, held_of: Held
) -> None:
    store, users = an_owner(backend), ["a", "b", "c"]
    before = apply(store, a_batch(["c"]))
    batch = of_impressions(a_batch(users[:2], 200), action, things=9)
    loaded = store.load(batch.user_ids, batch.sources)
    expected = effect(batch, loaded, folded(loaded, batch))[name]
    apply(store, batch)
    kept = getattr(store.read(users), name)
    assert held_of(kept)[2] == 0 < min(held_of(kept)[:2])
    assert all(np.array_equal(was, now[:2]) for was, now in zip(expected, kept, strict=True))
    others = getattr(backend.open().read(users), name)
    assert all(np.array_equal(was, now) for was, now in zip(kept, others, strict=True))
    assert set(before.fate_B.tolist()) == {Fate.applied}
    store.forget("a")
    assert held_of(getattr(store.read(["a"]), name)) == [0]


@SHOWN
def test_impressions_delivered_again_or_in_overlapping_batches_count_once(
    backend: Backend, name: str, action: Action, held_of: Held
) -> None:
    store, users = an_owner(backend), ["a", "b"]
    whole = of_impressions(a_batch(users, rows=400), action, things=90)
    for begin, end in ((0, 200), (0, 200), (120, 400)):
        number = keep(store, a_slice(whole, begin, end))
    store.flush(number)
    lone = an_owner(in_memory())
    apply(lone, whole)
    assert everything(store, users) == everything(lone, users)
    kept = store.read(users)
    assert min(held_of(getattr(kept, name))) > 50
    if name == "exposures":
        assert kept.exposures.seen_U.tolist() == [LOG, LOG]
        assert kept.exposures.old_U.min() > 0
