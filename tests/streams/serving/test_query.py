import numpy as np

from tests.streams.serving.moments import POSITIONS, a_moment


def test_who_may_not_be_known_is_looked_for_without_a_history() -> None:
    query = a_moment(personal_P=np.arange(POSITIONS) > 0).query
    assert not query.taste_PD[0].any()
    assert (query.row_PH[0] == -1).all()
    assert query.taste_PD[1:].any(1).all()


def test_as_many_are_looked_for_as_are_wanted_and_half_of_what_was_seen() -> None:
    seen_P = 10 * np.arange(POSITIONS)
    assert a_moment(seen_P=seen_P).query.reach_P.tolist() == [20 + min(seen // 2, 20) for seen in seen_P.tolist()]


def test_some_of_the_positions_are_the_query_of_these_alone() -> None:
    query = a_moment().query
    some = query.at(np.array([7, 3]))
    assert some.position_P.tolist() == [7, 3]
    assert (some.taste_PD == query.taste_PD[[7, 3]]).all()
