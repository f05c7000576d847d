import numpy as np

from embeddings.ids import item_id, item_ids
from embeddings.items import POPULARITY_HALF_LIVES, ItemCounts
from streams.contract.counter_records import counters_of, counts_of
from streams.contract.records import Counter, decode_counter, encode


def some_counts() -> ItemCounts:
    draw = np.random.default_rng(0)
    columns = {name: draw.random(3).astype(np.float32) for name in ("likes_N", "dislikes_N", "shown_N", "clicked_N")}
    return ItemCounts(
        item_N=item_ids(["a", "b", "nameless"]),
        popularity_N3=draw.random((3, 3)).astype(np.float32),
        last_taken_s_N=np.array([5, 6, 7]),
        first_seen_s_N=np.array([1, 2, 3]),
        events=77.0,
        **columns,
    )


def test_counts_come_through_the_topic_as_they_were() -> None:
    counts = some_counts()
    sent = [encode(c) for c in counters_of(counts, {item_id("a"): "a", item_id("b"): "b"}, now_ms=9)]
    assert len(sent) == 2, "an item whose name nobody told is not told either"
    back = counts_of([decode_counter(value) for value in sent])
    assert back.events == 77
    for name in ItemCounts.__slots__:
        if name != "events":
            np.testing.assert_array_equal(getattr(back, name), getattr(counts, name)[:2], err_msg=name)


def test_a_foreign_counter_does_not_break_the_others() -> None:
    strange = Counter(item_id="x", popularity=(1.0,)), Counter(item_id="y", popularity=(1.0,) * 9), Counter(item_id="z")
    counts = counts_of(strange)
    assert counts.popularity_N3.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]


def test_counters_are_as_of_the_latest_of_them() -> None:
    """Compaction keeps the last record of each item, however long ago that was."""
    old = Counter(item_id="a", events=1_000, popularity=(8.0, 8.0, 8.0))
    new = Counter(item_id="b", events=2_000, popularity=(4.0, 4.0, 4.0))
    counts = counts_of([old, new])
    assert counts.events == 2_000
    expected = [8 * 2 ** (-1_000 / half_life) for half_life in POPULARITY_HALF_LIVES]
    np.testing.assert_allclose(counts.popularity_N3, [expected, [4.0] * 3], rtol=1e-6)
