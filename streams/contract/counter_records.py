"""Item counts as records of `counters`, and back."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from embeddings.ids import item_ids
from embeddings.items import POPULARITY_HALF_LIVES, ItemCounts
from streams.contract.records import Counter


def counters_of(counts: ItemCounts, names: Mapping[int, str], now_ms: int) -> Iterator[Counter]:
    """One record per item whose name is known."""
    columns = zip(
        counts.item_N.tolist(),
        counts.popularity_N3.tolist(),
        counts.likes_N.tolist(),
        counts.dislikes_N.tolist(),
        counts.shown_N.tolist(),
        counts.clicked_N.tolist(),
        counts.last_taken_s_N.tolist(),
        counts.first_seen_s_N.tolist(),
        strict=True,
    )
    for item, popularity, likes, dislikes, shown, clicked, last_taken_s, first_seen_s in columns:
        if name := names.get(item):
            yield Counter(
                item_id=name,
                popularity=tuple(popularity),
                likes=likes,
                dislikes=dislikes,
                shown=shown,
                clicked=clicked,
                last_taken_s=last_taken_s,
                first_seen_s=first_seen_s,
                events=counts.events,
                time_ms=now_ms,
            )


def counts_of(counters: Sequence[Counter]) -> ItemCounts:
    """The records of N items as columns, faded to the latest of them."""
    events_N = np.array([counter.events for counter in counters])
    fade_N3 = np.exp2((events_N - events_N.max())[:, None] / np.array(POPULARITY_HALF_LIVES))
    popularity_N3 = np.array([(*counter.popularity, 0.0, 0.0, 0.0)[:3] for counter in counters])
    return ItemCounts(
        item_N=item_ids([counter.item_id for counter in counters]),
        popularity_N3=(popularity_N3 * fade_N3).astype(np.float32),
        likes_N=np.array([counter.likes for counter in counters], np.float32),
        dislikes_N=np.array([counter.dislikes for counter in counters], np.float32),
        shown_N=np.array([counter.shown for counter in counters], np.float32),
        clicked_N=np.array([counter.clicked for counter in counters], np.float32),
        last_taken_s_N=np.array([counter.last_taken_s for counter in counters], np.int64),
        first_seen_s_N=np.array([counter.first_seen_s for counter in counters], np.int64),
        events=float(events_N.max()),
    )
