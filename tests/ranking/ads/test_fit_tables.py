"""Which creatives fit, remembered: the same as asked anew, whatever the slots, the times and the order they come in."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ranking.ads.fit_tables import FitTables
from ranking.ads.selection import Slot, Slots, fitting
from tests.fuzzing import thorough
from tests.ranking.ads.test_selection import NOW_MS, creative, house_of, line

SLOTS = [
    Slot(),
    Slot(formats=("video",)),
    Slot(blocked=("adv:a.example",)),
    Slot(age_limit=12),
    Slot(deals=("d1",), deals_only=True),
    Slot(sizes=((300, 250),)),
]
LINES = [
    line("l0"),
    line("l1", creatives=(creative(), creative("v", format="video"), creative("big", size=(728, 90)))),
    line("l2", flights=((NOW_MS, NOW_MS + 1_000),)),
    line("l3", flights=((NOW_MS - 9_000, NOW_MS - 1), (NOW_MS + 5_000, NOW_MS + 9_000)), creatives=()),
    line("l4", creatives=(creative(approved=False), creative("old", age=16))),
    line("l5", creatives=(creative(adomain=("b.example",)),)),
]
BATCH = st.tuples(
    st.lists(st.tuples(st.sampled_from(SLOTS), st.sets(st.integers(0, len(LINES) - 1))), max_size=5),
    st.sampled_from([NOW_MS - 10_000, NOW_MS - 1, NOW_MS, NOW_MS + 999, NOW_MS + 1_000, NOW_MS + 6_000]),
    st.booleans(),
)


@thorough(60)
@given(batches=st.lists(BATCH, max_size=8), most=st.integers(0, 3))
def test_remembered_is_what_is_found_anew(
    batches: list[tuple[list[tuple[Slot, set[int]]], int, bool]], most: int
) -> None:
    houses, tables = (house_of(*LINES), house_of(*LINES[::-1])), FitTables(most)
    for asked, now_ms, other in batches:
        house, slots = houses[other], [slot for slot, _ in asked]
        start_P1 = np.append(0, np.cumsum([len(rows) for _, rows in asked])).astype(np.int64)
        row_M = np.array([row for _, rows in asked for row in sorted(rows)], np.int32)
        anew = fitting(house, Slots.of(slots, house), start_P1, row_M, now_ms)
        for found, expected in zip(tables.fitting(house, slots, start_P1, row_M, now_ms), anew, strict=True):
            assert found.tolist() == expected.tolist()
        assert tables.held <= most


def test_a_slot_has_a_table_once_it_was_asked_about_as_often_as_there_are_line_items() -> None:
    house, tables, rows = house_of(*LINES), FitTables(), np.arange(3, dtype=np.int32)
    held = []
    for _ in range(3):
        tables.fitting(house, [Slot()], np.array([0, 3]), rows, NOW_MS)
        held.append(tables.held)
    assert held == [0, 1, 1]
