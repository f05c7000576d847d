import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings import names
from embeddings.names import Names

steps = st.lists(st.tuples(st.booleans(), st.dictionaries(st.integers(0, 30), st.text(min_size=1))), max_size=12)


@pytest.mark.slow
@settings(deadline=None)
@given(steps)
def test_rows_have_the_names_they_were_given_last(many: list[tuple[bool, dict[int, str]]]) -> None:
    held, expected, rows = Names(), dict[int, str](), np.arange(40, dtype=np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "LEAST_WASTE", 8)
        for forgets, named in many:
            if forgets:
                held.forget(np.array(list(named), np.int32))
                expected = {row: name for row, name in expected.items() if row not in named}
            else:
                new = {row: name for row, name in named.items() if row not in expected}
                held.put(np.array(list(new), np.int32), list(new.values()))
                expected |= new
        again = held.copy()
    for each in (held, again):
        assert each.of(rows) == [expected.get(row, "") for row in rows.tolist()]
        assert each.known(rows).tolist() == [row in expected for row in rows.tolist()]
        assert each.held == len(expected)


def test_names_that_are_gone_take_no_room() -> None:
    held, one = Names(), np.zeros(1, np.int32)
    for n in range(300):
        held.forget(one)
        held.put(one, [str(n) * 10_000])
    assert held.of(one) == ["299" * 10_000]
    assert held.state()["text"].nbytes < 2 * names.LEAST_WASTE
