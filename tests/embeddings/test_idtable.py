import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings import idtable
from embeddings.idtable import IdTable

ids = st.lists(st.integers(0, 2**40 - 1), max_size=300)


@settings(deadline=None)
@given(ids, ids)
def test_rows_are_given_in_order_of_arrival_and_never_change(first: list[int], second: list[int]) -> None:
    table = IdTable(8)
    table.ensure(np.array(first, np.uint64))
    table.ensure(np.array(second, np.uint64))
    expected = {item: row for row, item in enumerate(dict.fromkeys(i for i in first + second if i))}
    assert len(table) == len(expected)
    assert table.ids_N.tolist() == list(expected)
    asked = [*first, *second, 12345]
    assert table.rows(np.array(asked, np.uint64)).tolist() == [expected.get(i, -1) for i in asked]


def test_shape_is_kept_and_no_item_has_no_row() -> None:
    table = IdTable()
    rows = table.ensure(np.array([[5, 0], [7, 5]], np.uint64))
    assert rows.dtype == np.int32
    assert rows.tolist() == [[0, -1], [1, 0]]


def test_ids_cannot_be_written_through_the_view() -> None:
    table = IdTable()
    table.ensure(np.array([5], np.uint64))
    with pytest.raises(ValueError, match="read-only"):
        table.ids_N[0] = 6


def test_a_table_beyond_its_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idtable, "MAX_ROWS", 4)
    table = IdTable()
    with pytest.raises(OverflowError, match="4 distinct"):
        table.ensure(np.arange(1, 7, dtype=np.uint64))


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(1, 60), max_size=20)), max_size=12))
def test_rows_that_were_taken_back_are_given_again_lowest_first(steps: list[tuple[bool, list[int]]]) -> None:
    table, expected = IdTable(8), dict[int, int]()
    for gives_back, items in steps:
        known = [item for item in dict.fromkeys(items) if item in expected]
        if gives_back:
            table.free(np.array([expected.pop(item) for item in known], np.int32))
            continue
        for item in dict.fromkeys(items):
            if item not in expected:
                expected[item] = min(set(range(61)) - set(expected.values()))
        table.ensure(np.array(items, np.uint64))
    everything = np.arange(1, 61, dtype=np.uint64)
    again = IdTable()
    again.restore(table.ids_N)
    for each in (table, again):
        assert each.rows(everything).tolist() == [expected.get(item, -1) for item in everything.tolist()]
        assert each.held == len(expected)
        assert np.flatnonzero(each.ids_N).tolist() == sorted(expected.values())
    newcomers = np.arange(100, 110, dtype=np.uint64)
    assert table.ensure(newcomers).tolist() == again.ensure(newcomers).tolist()
