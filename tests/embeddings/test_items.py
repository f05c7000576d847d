import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embeddings.errors import IdCollision
from embeddings.fading import DAY_S, HalfLives
from embeddings.ids import item_id, item_ids
from embeddings.item_columns import CATEGORIES
from embeddings.items import SHORT, ItemCounts, ItemFacts, Items

NOW = 1_750_000_000


def a_fact(name: str, **facts: Any) -> ItemFacts:
    return ItemFacts(name=name, added_s=NOW, **facts)


def counts(clock_s: int, epoch: int = 0, **popularity: float) -> ItemCounts:
    """Absolute counts of some items as of an event time."""
    N = len(popularity)
    return ItemCounts(
        item_N=item_ids(list(popularity)),
        popularity_N4=np.array([[value] * 4 for value in popularity.values()], np.float32),
        likes_N=np.full(N, 2, np.float32),
        dislikes_N=np.full(N, 1, np.float32),
        shown_N=np.zeros(N, np.float32),
        clicked_N=np.zeros(N, np.float32),
        last_taken_s_N=np.full(N, NOW),
        first_seen_s_N=np.full(N, NOW - 9),
        clock_s=clock_s,
        epoch=epoch,
    )


def named(items: Items, rows_R: Any) -> list[str]:
    return [items.names[row] for row in rows_R.tolist()]


def test_rows_are_given_once_and_kept_while_the_table_grows() -> None:
    items = Items(capacity=8)
    first = items.add([a_fact("a", title="A", year=1999), a_fact("b")])
    items.ensure(item_ids([f"x{n}" for n in range(500)]))
    assert items.ids.rows(item_ids(["a", "b"])).tolist() == first.tolist() == [0, 1]
    assert len(items.columns.year_N) >= len(items) == 502
    assert (items.columns.year_N[0], items.titles[0], items.titles[1]) == (1999, "A", "b")


def test_a_second_name_for_an_id_is_refused_and_the_first_stays() -> None:
    items = Items()
    items.ensure(np.array([77], np.uint64), ["first"])
    with pytest.raises(IdCollision, match="'first' and 'second'"):
        items.ensure(np.array([78, 77], np.uint64), ["other", "second"])
    assert items.names[:2] == ["first", "other"]


def test_an_item_without_a_name_is_blocked_until_somebody_says_it() -> None:
    items = Items()
    (row,) = items.ensure(item_ids(["a"])).tolist()
    assert items.blocked(NOW)[row]
    items.learn_names({item_id("a"): "a"})
    assert not items.blocked(NOW)[row]
    items.learn_names({item_id("a"): "another"})
    assert items.names[row] == "a"


def test_availability_begins_and_ends_to_the_second() -> None:
    items = Items()
    (row,) = items.add([a_fact("a", available_from_s=NOW, available_until_s=NOW + 10)]).tolist()
    assert [bool(items.blocked(NOW + s)[row]) for s in (-1, 0, 9, 10)] == [True, False, False, True]


def test_a_removed_item_is_blocked_until_it_is_added_again() -> None:
    items = Items()
    items.add([a_fact("a")])
    row = items.remove("a")
    assert items.blocked(NOW)[row]
    items.add([a_fact("a")])
    assert not items.blocked(NOW)[row]
    assert items.remove("never heard of") == -1
    assert len(items) == 1


def test_every_change_is_counted_so_that_readers_notice() -> None:
    items = Items()
    seen = [items.changes]
    for change in (lambda: items.add([a_fact("a")]), lambda: items.remove("a")):
        change()
        seen.append(items.changes)
    assert seen == sorted(set(seen))


def test_facts_are_cut_to_what_a_column_holds() -> None:
    items = Items()
    (row,) = items.add([a_fact("a", categories=tuple("abcdefgh"), year=10**9)]).tolist()
    assert items.columns.categories_NC[row].tolist() == list(range(CATEGORIES))
    assert items.columns.year_N[row] == 32_767
    items.add([a_fact("a", categories=("h", "b"), year=-5)])
    assert items.columns.categories_NC[row].tolist() == [6, 1, -1, -1, -1, -1]
    assert items.columns.year_N[row] == 0


def fresh(items: Items, now_s: int) -> list[int]:
    return items.fresh(200, now_s, 100, items.blocked(now_s)).tolist()


def test_an_item_is_new_once_and_for_a_while() -> None:
    items = Items()
    items.add([a_fact("a"), ItemFacts(name="b", added_s=NOW + 50)])
    items.add([ItemFacts(name="a", added_s=NOW + 60)])
    assert fresh(items, NOW + 60) == [1, 0]
    assert fresh(items, NOW + 99) == [1, 0]
    assert fresh(items, NOW + 100) == [1]


def test_an_item_with_a_date_is_new_when_it_opens_whenever_its_record_came() -> None:
    items = Items()
    items.add([a_fact("coming", available_from_s=NOW + 500), a_fact("old", available_from_s=NOW - 500)])
    assert fresh(items, NOW) == []
    assert fresh(items, NOW + 500) == fresh(items, NOW + 599) == [0]
    items.add([ItemFacts(name="coming", added_s=NOW + 900, available_from_s=NOW + 500)])
    assert fresh(items, NOW + 900) == []


def test_a_catalogue_published_again_makes_nothing_new() -> None:
    items = Items(catalogue_unread=True)
    items.add([a_fact("a"), a_fact("b", available_from_s=NOW - 10)])
    assert fresh(items, NOW) == [1]
    items.catalogue_unread = False
    items.add([a_fact("a"), a_fact("c")])
    assert fresh(items, NOW) == [2, 1]


def test_what_came_at_once_is_new_in_no_order_of_rows() -> None:
    items = Items()
    items.add([a_fact(f"e{n}") for n in range(50)])
    rows = fresh(items, NOW)
    assert sorted(rows) == list(range(50))
    assert rows not in (sorted(rows), sorted(rows)[::-1])


def test_rows_are_due_when_a_window_opens_or_closes() -> None:
    items = Items()
    items.add([a_fact("a", available_from_s=NOW - 1000, available_until_s=NOW + 500)])
    items.add([a_fact("b", available_from_s=NOW + 50), a_fact("c")])
    seen = [items.due(NOW + after, NOW + until).tolist() for after, until in ((0, 49), (0, 50), (50, 499), (499, 500))]
    assert seen == [[], [1], [], [0]]


def test_the_32001st_category_is_no_category() -> None:
    items = Items()
    items.categories.update({f"c{n}": n for n in range(32_000)})
    (row,) = items.add([a_fact("a", categories=("beyond", "c7"))]).tolist()
    assert items.columns.categories_NC[row].tolist() == [7, *[-1] * (CATEGORIES - 1)]


def test_a_category_named_twice_counts_once() -> None:
    items = Items()
    (row,) = items.add([a_fact("a", categories=("x", "x", "y", "x", *"abcdef"))]).tolist()
    assert [items.category_names[code] for code in items.columns.categories_NC[row]] == list("xyabcd")


def test_counts_that_lack_when_an_item_was_first_seen_do_not_make_it_new_again() -> None:
    items = Items(catalogue_unread=True)
    items.add([a_fact("a")])
    items.catalogue_read()
    items.count(replace(counts(NOW, a=3), first_seen_s_N=np.zeros(1, np.int64)))
    items.add([a_fact("a"), a_fact("b")])
    assert named(items, items.fresh(10, NOW, 100, items.blocked(NOW))) == ["b"]
    assert items.columns.first_seen_s_N[:2].tolist() == [NOW, NOW]


def test_counts_fade_by_the_time_that_passed_since() -> None:
    items, day = Items(), int(DAY_S)
    items.add([a_fact("a"), a_fact("b")])
    items.count(counts(NOW, a=8.0, b=4.0))
    items.count(counts(NOW + day, b=4.0))
    for h, half_life in enumerate(HalfLives().popularity_4.tolist()):
        assert items.takes(np.array([0, 1], np.int32), h).tolist() == [pytest.approx(8 * 2 ** (-day / half_life)), 4.0]
        assert items.all_takes(h) == pytest.approx(4 + 8 * 2 ** (-day / half_life))
    assert items.reactions()[:2] == pytest.approx([2 * 2 ** (-1 / 30) + 2, 2 ** (-1 / 30) + 1])


def test_counts_that_come_late_are_faded_to_now() -> None:
    items = Items(half_lives=HalfLives(short_s=1_000))
    items.count(counts(NOW + 1_000, a=4.0))
    items.count(counts(NOW, b=8.0))
    assert items.clock_s == NOW + 1_000
    assert items.takes(np.arange(2, dtype=np.int32), SHORT).tolist() == pytest.approx([4.0, 4.0])


def test_counts_of_a_learner_that_began_anew_end_those_of_before() -> None:
    """Its sums are over fewer rows: beside them what was not counted again would be the most popular for days."""
    items = Items()
    items.add([a_fact("hit"), a_fact("old"), a_fact("rare")])
    items.count(counts(NOW, 1, hit=900.0, old=400.0, rare=1.0))
    items.count(counts(NOW - 50, 2, hit=90.0, rare=2.0))
    assert named(items, items.popular(3, items.blocked(NOW))) == ["hit", "rare", "old"]
    assert (items.columns.popularity_N4[1] == 0).all()
    assert items.clock_s == NOW - 50


def test_counts_of_an_earlier_life_are_passed_over() -> None:
    items = Items()
    items.add([a_fact("hit"), a_fact("rare")])
    items.count(counts(NOW, 2, hit=90.0, rare=2.0))
    items.count(counts(NOW + 9, 1, rare=900.0))
    assert named(items, items.popular(3, items.blocked(NOW))) == ["hit", "rare"]
    assert items.clock_s == NOW


def test_counts_may_come_before_the_name() -> None:
    items = Items()
    items.count(counts(NOW, a=4.0))
    assert len(items.popular(5, items.blocked(NOW))) == 0
    items.add([a_fact("a")])
    assert named(items, items.popular(5, items.blocked(NOW))) == ["a"]


def test_the_most_taken_come_first_and_ties_by_id() -> None:
    items = Items()
    names = ["a", "b", "c", "d", "e", "gone"]
    items.add([a_fact(name) for name in names])
    items.count(counts(NOW, c=5.0, gone=9.0, a=2.0))
    items.remove("gone")
    rest = sorted(["b", "d", "e"], key=item_id)
    assert named(items, items.popular(9, items.blocked(NOW))) == ["c", "a", *rest]
    assert named(items, items.popular(2, items.blocked(NOW))) == ["c", "a"]
    assert Items().popular(5, items.blocked(NOW)).tolist() == []


def test_names_are_learned_while_the_table_grows_in_another_thread() -> None:
    items, stop = Items(capacity=8), threading.Event()
    faults: list[Exception] = []

    def learn() -> None:
        n = 0
        while not stop.is_set():
            try:
                items.learn_names({item_id(f"i{n % 3000}"): f"i{n % 3000}"})
            except Exception as fault:
                faults.append(fault)
                return
            n += 1

    thread = threading.Thread(target=learn)
    thread.start()
    for n in range(3000):
        items.ensure(item_ids([f"i{n}"]))
    stop.set()
    thread.join()
    assert not faults


def test_once_the_catalogue_was_read_only_what_it_holds_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    items = Items(catalogue_unread=True)
    items.add([a_fact("a")])
    gone = int(items.ensure(item_ids(["gone"]), ["gone"])[0])  # a snapshot names it; compaction took its removal
    items.ensure(item_ids(["b", "c"]), ["b", "c"])
    assert not items.blocked(NOW)[gone]
    items.catalogue_read()
    assert items.blocked(NOW)[: len(items)].tolist() == [False, True, True, True]
    assert "the catalogue has 1 items and 4 are known by name" in caplog.text


def test_without_a_catalogue_what_events_name_is_shown() -> None:
    items = Items(catalogue_unread=True)
    items.ensure(item_ids(["a"]), ["a"])
    items.catalogue_read()
    assert not items.blocked(NOW)[0]


def test_a_batch_of_counts_touches_its_rows_and_no_others() -> None:
    items, everything = Items(), ("popularity_N4", "reactions_N4", "clock_s_N", "last_taken_s_N", "first_seen_s_N")
    items.count(counts(NOW, **{f"i{n}": n + 1.0 for n in range(100)}))
    columns = items.columns
    before = {name: getattr(columns, name).copy() for name in everything}
    items.count(counts(NOW + 60, i7=50.0, i30=0.5))
    assert items.columns is columns
    for name in everything:
        differs_N = (getattr(columns, name) != before[name]).reshape(len(columns), -1).any(1)
        assert set(np.flatnonzero(differs_N).tolist()) <= {7, 30}
    assert items.popular(3, np.zeros(len(columns), np.bool_)).tolist() == [99, 98, 97]


@pytest.mark.slow
def test_readers_see_whole_rows_while_counts_are_written() -> None:
    items, stop, faults = Items(), threading.Event(), list[Exception]()
    names = [f"i{n}" for n in range(10_000)]
    rows_R = items.ensure(item_ids(names), names)

    def write() -> None:
        n = 0
        while not stop.is_set() and not faults:
            n += 1
            told_N = np.full(len(names), n, np.float32)
            times_N = np.full(len(names), n)
            try:
                items.count(ItemCounts(
                    item_N=item_ids(names), popularity_N4=np.repeat(told_N[:, None], 4, 1), likes_N=told_N,
                    dislikes_N=told_N, shown_N=told_N, clicked_N=told_N, last_taken_s_N=times_N,
                    first_seen_s_N=times_N, clock_s=NOW + n,
                ))  # fmt: skip
            except Exception as fault:
                faults.append(fault)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen: set[int] = set()
        while len(seen) < 20 and not faults:
            with items.lock:
                c = items.columns
                one_R = c.popularity_N4[rows_R, 0]
                whole = (c.popularity_N4[rows_R] == one_R[:, None]).all() and (c.last_taken_s_N[rows_R] == one_R).all()
                whole &= (c.reactions_N4[rows_R] == one_R[:, None]).all()
                whole &= (c.clock_s_N[rows_R] == np.where(one_R > 0, NOW + one_R.astype(np.int64), 0)).all()
                assert whole
                assert items.names[rows_R[-1]] == names[-1]
            seen.add(int(one_R[0]))
    finally:
        stop.set()
        thread.join()
    assert not faults


def test_the_most_taken_are_those_that_counting_all_would_find() -> None:
    draw, items = np.random.default_rng(0), Items()
    for turn in range(30):
        some = {f"i{n}": float(draw.integers(0, 30)) for n in draw.permutation(500)[:40].tolist()}
        items.count(counts(NOW + 600 * turn, **some))
    blocked_N = draw.random(len(items.columns)) < 0.5
    rows = np.flatnonzero(~blocked_N[: len(items)]).astype(np.int32)
    takes_R = items.takes(rows)
    best = rows[np.lexsort((items.ids.ids_N[rows], -takes_R))]
    taken = int((takes_R > 0).sum())
    assert items.popular(50, blocked_N).tolist() == best[:50].tolist()
    assert items.popular(9_999, blocked_N)[:taken].tolist() == best[:taken].tolist()
    assert items.all_takes() == pytest.approx(items.takes(np.arange(len(items), dtype=np.int32)).sum(), rel=1e-5)
