"""Item counts as records of `counters`, and back."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from embeddings.fading import HalfLives
from embeddings.ids import item_ids
from embeddings.items import ItemCounts
from streams.contract.records import Counter


def counters_of(counts: ItemCounts, names: Mapping[int, str], now_ms: int) -> Iterator[Counter]:
    """One record per item whose name is known."""
    columns = zip(
        counts.item_N.tolist(),
        counts.popularity_N4.tolist(),
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
                epoch=counts.epoch,
                clock_s=counts.clock_s,
                time_ms=now_ms,
            )


def of_one_life(counters: Sequence[Counter]) -> list[Counter]:
    """Those of the latest life of the learner that any of them is of; the others say nothing beside them."""
    epoch = max((counter.epoch for counter in counters), default=0)
    return [counter for counter in counters if counter.epoch == epoch]


def counts_of(counters: Sequence[Counter], half_lives: HalfLives | None = None) -> ItemCounts:
    """The records of N items, all of one life, as columns, faded to the latest of them.

    Records of a release that faded by events have no clock: theirs is the time they were published. Nor have they a
    count of what is trending: that is their shortest-lived one.
    """
    clock_N = np.array([counter.clock_s or counter.time_ms // 1000 for counter in counters], np.float64)
    kept_N5 = (half_lives or HalfLives()).kept(clock_N.max() - clock_N)
    popularity_N4 = np.array([_four(counter.popularity) for counter in counters])
    reactions_N4 = np.array([(c.likes, c.dislikes, c.shown, c.clicked) for c in counters]) * kept_N5[:, 4:]
    likes_N, dislikes_N, shown_N, clicked_N = reactions_N4.T.astype(np.float32)
    return ItemCounts(
        item_N=item_ids([counter.item_id for counter in counters]),
        popularity_N4=(popularity_N4 * kept_N5[:, :4]).astype(np.float32),
        likes_N=likes_N,
        dislikes_N=dislikes_N,
        shown_N=shown_N,
        clicked_N=clicked_N,
        last_taken_s_N=np.array([counter.last_taken_s for counter in counters], np.int64),
        first_seen_s_N=np.array([counter.first_seen_s for counter in counters], np.int64),
        clock_s=int(clock_N.max()),
        epoch=counters[0].epoch,
        events=max(counter.events for counter in counters),
    )


def _four(popularity: tuple[float, ...]) -> tuple[float, ...]:
    """Short, middle, long, trending."""
    return popularity[:4] if len(popularity) > 3 else ((*popularity, 0.0, 0.0, 0.0)[:3] + (*popularity, 0.0)[:1])
