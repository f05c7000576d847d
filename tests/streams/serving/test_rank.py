import numpy as np
import pytest

from embeddings.candidates import Proposed
from ranking.features import Feature
from streams.serving.rank import rank
from tests.streams.serving.moments import POSITIONS, a_moment


@pytest.mark.parametrize("bit", [bit for bit in Proposed if bit < Proposed.popular])
def test_the_ranker_sees_who_proposed_a_candidate(bit: Proposed) -> None:
    moment = a_moment()
    found = moment.found
    x_PKX = rank(moment.asked, found, moment.stock, moment.settings).features.x_PKX
    column = x_PKX[..., Feature[f"from_{bit.name}"]]
    assert (column == ((found.candidates.source_PK & bit) != 0)).all()


def test_chunks_are_scored_as_the_whole_is() -> None:
    moment = a_moment()
    found = moment.found
    whole = rank(moment.asked, found, moment.stock, moment.settings)
    some_P = np.arange(POSITIONS) % 3 == 0
    part = rank(moment.asked, found.at(some_P), moment.stock, moment.settings)
    assert (part.item_PK == whole.item_PK[some_P]).all()
    assert np.allclose(part.score_PK, whole.score_PK[some_P], atol=1e-5)
