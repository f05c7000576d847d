import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings import turnover
from embeddings.ids import item_id, item_ids
from embeddings.item_columns import Columns
from embeddings.items import ItemCounts, ItemFacts, Items
from embeddings.turnover import GRACE_S, Turnover

NOW = 1_750_000_000
NOBODY = np.empty(0, np.int32)


@pytest.fixture(autouse=True)
def _one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnover, "_LEAST", 1)


def named(*names: str) -> dict[int, str]:
    return {item_id(name): name for name in names}


def counted(*names: str, takes: float = 4.0, clock_s: int = NOW) -> ItemCounts:
    column_N, times_N = np.full(len(names), takes, np.float32), np.full(len(names), clock_s if takes else 0)
    return ItemCounts(
        item_N=item_ids(names), popularity_N4=np.repeat(column_N[:, None], 4, 1), likes_N=column_N,
        dislikes_N=column_N, shown_N=column_N, clicked_N=column_N, last_taken_s_N=times_N, first_seen_s_N=times_N,
        clock_s=clock_s,
    )  # fmt: skip


def catalogued(*names: str) -> Items:
    """A catalogue that was read to its end, every fact of every item stated."""
    items = Items(catalogue_unread=True)
    items.add([
        ItemFacts(
            name=name, title=f"The {name}", categories=("x",), makers=("y",), language="de", year=1999,
            available_from_s=NOW - 10, available_until_s=NOW + 10**6, added_s=NOW, territories=("DE",),
            surfaces=("tv",), languages=("de",), age=12, hidden=True, length_s=60.0,
        )
        for name in names
    ])  # fmt: skip
    items.catalogue_read()
    return items


def known(items: Items, *names: str) -> list[bool]:
    return (items.ids.rows(item_ids(names)) >= 0).tolist()


def sweep(turnover: Turnover, hours: float, *held: str) -> tuple[int, int]:
    rows_R = turnover.items.ids.rows(item_ids(held))
    return turnover.sweep(rows_R[rows_R >= 0], NOW + int(hours * 3_600))


def test_what_a_catalogue_that_was_read_lacks_takes_no_row() -> None:
    items = catalogued("a")
    items.count(counted("shown only"))
    Turnover(items).hear(named("a", "unheard of", "shown only"), NOW)
    assert known(items, "a", "unheard of", "shown only") == [True, False, True]
    assert items.names[:2] == ["a", "shown only"]
    assert items.remove("unheard of") == -1


def test_without_a_catalogue_an_event_brings_its_item_and_only_so_many_between_two_sweeps() -> None:
    items = Items()
    turnover = Turnover(items, strangers=3)
    for n in range(40):
        turnover.hear(named(f"i{n}"), NOW + n)
    assert known(items, "i0", "i5", "i6") == [True, True, False]
    items.count(counted("i30"), ["i30"])
    assert known(items, "i30") == [True]


def test_those_that_were_named_least_recently_go_first_and_nobody_is_shown_them() -> None:
    items = Items()
    turnover = Turnover(items, strangers=2)
    for n, name in enumerate(["a", "b", "c", "a", "d"]):
        turnover.hear(named(name), NOW + n)
    seen = items.offered.end
    assert sweep(turnover, 0) == (2, 0)
    assert known(items, "a", "b", "c", "d") == [True, False, False, True]
    assert items.blocked(NOW)[:4].tolist() == [False, True, True, False]
    changed = items.offered.since(seen)
    assert changed is not None
    assert changed.tolist() == [1, 2]
    turnover.hear(named("b", "e"), NOW + 5)
    assert known(items, "b", "e") == [True, True]


def test_what_was_counted_or_is_held_is_no_stranger() -> None:
    items = Items()
    turnover = Turnover(items, strangers=0)
    items.learn_names(named("taken", "held", "only named"))
    items.count(counted("taken"))
    sweep(turnover, 0, "held")
    assert known(items, "taken", "held", "only named") == [True, True, False]
    items.count(counted("taken", takes=0))
    sweep(turnover, 0)
    assert known(items, "taken", "held") == [False, False]


def test_what_left_the_catalogue_an_hour_ago_goes_unless_it_is_back_or_counted_or_held() -> None:
    names = "gone", "back", "counted", "held", "stays"
    items = catalogued(*names)
    turnover = Turnover(items)
    assert sweep(turnover, 0) == (0, 0)
    for name in names[:-1]:
        items.remove(name)
    items.count(counted("counted"))
    assert sweep(turnover, 0.9, "held") == (0, 0)
    items.add([ItemFacts(name="back", added_s=NOW)])
    assert sweep(turnover, 1, "held") == (1, 0)
    assert known(items, *names) == [False, True, True, True, True]
    items.count(counted("counted", takes=0))
    assert sweep(turnover, 1.9) == (0, 1)
    assert sweep(turnover, 2) == (2, 0)
    assert known(items, *names) == [False, True, False, False, True]


def test_nothing_goes_while_the_catalogue_is_read() -> None:
    items = Items(catalogue_unread=True)
    items.learn_names(named("a", "b"))
    turnover = Turnover(items, strangers=0)
    assert (sweep(turnover, 0), known(items, "a", "b")) == ((0, 0), [True, True])


def test_a_row_is_what_it_was_for_whoever_holds_it_and_given_to_others_when_nobody_does() -> None:
    items = catalogued("old", "stays")
    turnover = Turnover(items)
    sweep(turnover, 0)
    items.remove("old")
    held = turnover.era
    assert sweep(turnover, 2) == (1, 0)
    assert sweep(turnover, 2) == (0, 0)
    items.add([ItemFacts(name="new", added_s=NOW)])
    assert items.ids.rows(item_ids(["old", "stays", "new"])).tolist() == [-1, 1, 2]
    assert (items.names[0], items.titles[0], items.ids.ids_N[0]) == ("old", "The old", item_id("old"))
    items.add([ItemFacts(name="old", title="Another", added_s=NOW)])
    assert items.ids.rows(item_ids(["old"])).tolist() == [3]
    assert (items.names[0], items.titles[0]) == ("old", "The old")
    later = turnover.era
    items.remove("new")
    sweep(turnover, 2)
    assert sweep(turnover, 4) == (1, 0)
    del later
    assert sweep(turnover, 4) == (0, 0), "an earlier era has holders"
    del held
    assert sweep(turnover, 4) == (0, 2)
    assert items.add([ItemFacts(name="x", added_s=NOW)]).tolist() == [0]
    assert items.add([ItemFacts(name="y", added_s=NOW)]).tolist() == [2]


def test_nothing_of_before_is_in_a_row_that_is_given_anew() -> None:
    items = catalogued("old", "stays")
    items.count(counted("old"))
    items.count(counted("old", takes=0))
    turnover, forgotten = Turnover(items), list[int]()
    sweep(turnover, 0)
    items.remove("old")
    assert sweep(turnover, 2) == (1, 0)
    turnover.sweep(NOBODY, NOW, lambda rows_R: forgotten.extend(rows_R.tolist()))
    assert forgotten == [0]
    assert (items.names[0], items.titles.get(0), items.ids.ids_N[0]) == ("", None, 0)
    clean = Columns(1)
    for name in Columns.__annotations__.keys() - {"used_s_N"}:
        np.testing.assert_array_equal(getattr(items.columns, name)[0], getattr(clean, name)[0], name)
    items.ensure(item_ids(["new"]), ["new"])
    assert items.blocked(NOW)[0]


def test_dates_that_hold_no_more_are_kept_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnover, "_CHUNK", 1)
    items = Items()
    sweeper, held = Turnover(items), list[int]()
    for n in range(40):
        items.add([ItemFacts(name="a", added_s=NOW, available_from_s=NOW + n, available_until_s=NOW + 100 + n)])
        sweep(sweeper, 0)
        held.append(len(items.windows) + len(items.news))
    assert max(held) == 6
    assert items.due(NOW + 38, NOW + 39).tolist() == items.due(NOW + 138, NOW + 139).tolist() == [0]
    assert fresh_rows(items, NOW + 39) == [0]


def fresh_rows(items: Items, now_s: int) -> list[int]:
    return items.fresh(9, now_s, 10, items.blocked(now_s)).tolist()


def test_room_for_rows_is_not_made_where_some_are_free() -> None:
    items = catalogued(*(f"a{n}" for n in range(4_000)))
    turnover, columns = Turnover(items), items.columns
    sweep(turnover, 0)
    for n in range(4_000):
        items.remove(f"a{n}")
    assert sweep(turnover, 1) == (4_000, 0)
    assert sweep(turnover, 1) == (0, 4_000)
    items.add([ItemFacts(name=f"b{n}", added_s=NOW) for n in range(4_000)])
    assert items.columns is columns
    assert len(items) == 4_000


steps = st.lists(st.tuples(st.sampled_from(["named", "removed", "added", "counted", "uncounted", "swept"]),
                           st.sets(st.integers(0, 11), max_size=6)), max_size=40)  # fmt: skip


@settings(deadline=None)
@given(steps, st.booleans())
def test_whatever_comes_and_goes_an_id_has_one_row_that_says_its_name(
    steps: list[tuple[str, set[int]]], binding: bool
) -> None:
    items = catalogued("i0") if binding else Items()
    turnover, hour, held = Turnover(items, strangers=3), 0, []
    for what, numbers in steps:
        names = [f"i{n}" for n in sorted(numbers)]
        if what == "named":
            turnover.hear(named(*names), NOW + 3_600 * hour)
        elif what == "added" and binding and names:
            items.add([ItemFacts(name=name, title=name.upper(), added_s=NOW) for name in names])
        elif what == "removed":
            for name in names:
                items.remove(name)
        elif what.endswith("counted") and names:
            items.count(counted(*names, takes=what == "counted"), names)
        else:
            hour += 1
            held = [turnover.era, *held][: len(names)]
            sweep(turnover, hour, *names)
        given_N = np.flatnonzero(items.ids.given(slice(0, len(items))))
        ids_N = items.ids.ids_N[given_N]
        assert items.ids.rows(ids_N).tolist() == given_N.tolist()
        assert len(np.unique(ids_N)) == len(ids_N) == items.ids.held
        assert [item_id(items.names[row]) for row in given_N] == ids_N.tolist()
        blocked_N = items.blocked(NOW)
        assert blocked_N[np.setdiff1d(np.arange(len(items.columns)), given_N)].all()


def test_a_catalogue_that_is_removed_and_added_again_makes_nothing_new() -> None:
    items = Items()
    items.add([ItemFacts(name="a", added_s=NOW)])
    turnover = Turnover(items)
    turnover.sweep(NOBODY, NOW)
    items.remove("a")
    turnover.sweep(NOBODY, NOW + GRACE_S - 1)
    items.add([ItemFacts(name="a", added_s=NOW + GRACE_S)])
    assert items.columns.fresh_s_N[0] == NOW
