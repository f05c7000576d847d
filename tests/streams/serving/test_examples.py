import numpy as np
import pytest

from streams.serving.examples import examples_of
from streams.serving.values import Told
from tests.streams.serving.moments import POSITIONS, a_moment


def test_an_example_is_the_item_taken_beside_some_of_its_candidates() -> None:
    moment = a_moment()
    found, ids_N = moment.found, moment.stock.items.ids.ids_N
    examples = examples_of(moment.asked, found, moment.stock, moment.settings)
    assert len(examples.position_E)
    for at, item_S, log_q_S in zip(examples.position_E, examples.item_ES, examples.log_q_ES, strict=True):
        row_K = found.candidates.row_PK[at]
        others = set(ids_N[row_K[row_K >= 0]].tolist()) - {int(item_S[0])}
        drawn = [item for item in item_S[1:].tolist() if item]
        assert item_S[0] == moment.asked.told.taken_P[at]
        assert len(set(drawn)) == len(drawn) == min(moment.settings.observe.negatives, len(others))
        assert set(drawn) <= others
        assert log_q_S[0] == 0
        assert log_q_S[1:] == pytest.approx(np.log(len(drawn) / len(others)), abs=1e-2)


def test_where_nothing_was_taken_there_is_no_example() -> None:
    moment = a_moment(told=Told.nothing(POSITIONS))
    assert len(examples_of(moment.asked, moment.found, moment.stock, moment.settings).position_E) == 0
