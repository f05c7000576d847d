import numpy as np

from embeddings.fading import HalfLives
from embeddings.ids import item_id, item_ids
from embeddings.items import ItemCounts
from streams.contract.counter_records import counters_of, counts_of, of_one_life
from streams.contract.records import Counter, decode_counter, encode


def some_counts() -> ItemCounts:
    draw = np.random.default_rng(0)
    columns = {name: draw.random(3).astype(np.float32) for name in ("likes_N", "dislikes_N", "shown_N", "clicked_N")}
    return ItemCounts(
        item_N=item_ids(["a", "b", "nameless"]),
        popularity_N4=draw.random((3, 4)).astype(np.float32),
        last_taken_s_N=np.array([5, 6, 7]),
        first_seen_s_N=np.array([1, 2, 3]),
        clock_s=1_750_000_000,
        epoch=7,
        events=77.0,
        **columns,
    )


def test_counts_come_through_the_topic_as_they_were() -> None:
    counts = some_counts()
    sent = [encode(c) for c in counters_of(counts, {item_id("a"): "a", item_id("b"): "b"}, now_ms=9)]
    assert len(sent) == 2, "an item whose name nobody told is not told either"
    back = counts_of([decode_counter(value) for value in sent])
    for name in ItemCounts.__slots__:
        sent_as = getattr(counts, name)
        np.testing.assert_array_equal(getattr(back, name), sent_as[:2] if isinstance(sent_as, np.ndarray) else sent_as)


def test_a_foreign_counter_does_not_break_the_others() -> None:
    strange = Counter(item_id="x", popularity=(1.0,)), Counter(item_id="y", popularity=(1.0,) * 9), Counter(item_id="z")
    counts = counts_of(strange)
    assert counts.popularity_N4.tolist() == [[1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]]


def test_counters_are_as_of_the_latest_of_them() -> None:
    """Compaction keeps the last record of each item, however long ago that was."""
    half_lives, day = HalfLives(), 86_400
    old = Counter(item_id="a", clock_s=1_750_000_000 - day, popularity=(8.0,) * 4, likes=8.0)
    new = Counter(item_id="b", clock_s=1_750_000_000, popularity=(4.0,) * 4)
    counts = counts_of([old, new])
    assert counts.clock_s == 1_750_000_000
    expected = [8 * 2 ** (-day / half_life) for half_life in half_lives.popularity_4]
    np.testing.assert_allclose(counts.popularity_N4, [expected, [4.0] * 4], rtol=1e-6)
    assert counts.likes_N[0] == np.float32(8 * 2 ** (-1 / 30))


def test_counters_of_a_release_that_faded_by_events_are_read() -> None:
    """They have no clock but when they were published, no life, and three popularities."""
    value = (
        b'{"schema_version":1,"item_id":"a","popularity":[3.0,2.0,1.0],"likes":4.0,"shown":9.0,'
        b'"last_taken_s":1749999000,"first_seen_s":1740000000,"events":1000.0,"time_ms":1750000000000}'
    )
    counts = counts_of([decode_counter(value)])
    assert counts.popularity_N4.tolist() == [[3, 2, 1, 3]]
    assert (counts.clock_s, counts.epoch, counts.likes_N[0]) == (1_750_000_000, 0, 4)


def test_what_was_left_of_earlier_lives_is_no_count() -> None:
    """Compaction keeps the records of items that the life of now has not told of."""
    lives = [Counter(item_id=name, epoch=epoch) for name, epoch in (("a", 5), ("b", 9), ("c", 0), ("d", 9))]
    assert [counter.item_id for counter in of_one_life(lives)] == ["b", "d"]
    assert of_one_life([]) == []
