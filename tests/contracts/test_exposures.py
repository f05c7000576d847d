"""What every `UserStore` promises of the ads that people saw."""

import numpy as np

from embeddings.events import Action, EventBatch
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


def of_ads(batch: EventBatch, ads: int) -> EventBatch:
    """A batch in which nine of ten events are impressions of so many ads."""
    batch.item_B[:] = 1 + batch.item_B % np.uint64(ads)
    batch.action_B[np.arange(len(batch)) % 10 > 0] = Action.ad_impression
    return batch


def test_which_ads_were_seen_is_stored_with_the_state_and_goes_with_it(backend: Backend) -> None:
    store, users = an_owner(backend), ["a", "b", "c"]
    apply(store, a_batch(["c"]))
    batch = of_ads(a_batch(users[:2], 200), ads=9)
    loaded = store.load(batch.user_ids, batch.sources)
    expected = effect(batch, loaded, folded(loaded, batch))["exposures"]
    apply(store, batch)
    kept = store.read(users).exposures
    assert kept.seen_U.tolist()[2] == 0 < min(kept.seen_U.tolist()[:2])
    assert all(np.array_equal(was, now[:2]) for was, now in zip(expected, kept, strict=True))
    assert all(np.array_equal(was, now) for was, now in zip(kept, backend.open().read(users).exposures, strict=True))
    store.forget("a")
    assert store.read(["a"]).exposures.seen_U.tolist() == [0]


def test_impressions_of_ads_delivered_again_or_in_overlapping_batches_count_once(backend: Backend) -> None:
    store, users = an_owner(backend), ["a", "b"]
    whole = of_ads(a_batch(users, rows=400), ads=90)
    for begin, end in ((0, 200), (0, 200), (120, 400)):
        number = keep(store, a_slice(whole, begin, end))
    store.flush(number)
    lone = an_owner(in_memory())
    apply(lone, whole)
    assert everything(store, users) == everything(lone, users)
    seen = store.read(users).exposures
    assert seen.seen_U.tolist() == [LOG, LOG]
    assert seen.old_U.min() > 0
