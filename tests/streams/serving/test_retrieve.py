import numpy as np

from embeddings.candidates import Proposed
from tests.streams.serving.moments import POSITIONS, a_moment

PERSONAL = Proposed.vector | Proposed.neighbours


def test_who_may_not_be_known_is_proposed_what_is_trending_and_new() -> None:
    source_PM = a_moment(personal_P=np.arange(POSITIONS) > 0).retrieved.source_PM
    assert not (source_PM[0] & PERSONAL).any()
    assert source_PM[0].any()
    assert (source_PM[1:] & PERSONAL).any(1).all()
