import numpy as np

from streams.serving.values import Kind
from tests.streams.serving.moments import POSITIONS, a_moment, none_seen


def test_what_may_be_shown_to_nobody_is_dropped_and_counted() -> None:
    blocked = int(a_moment().retrieved.row_PM[0, 0])
    moment = a_moment(blocked=blocked, seen=none_seen)
    found, row_PM = moment.found, moment.retrieved.row_PM
    assert found.dropped is not None
    assert not (found.candidates.row_PK == blocked).any()
    assert found.dropped.proposed_P.tolist() == (row_PM >= 0).sum(1).tolist()
    assert found.dropped.blocked_P.tolist() == (row_PM == blocked).sum(1).tolist()
    assert not found.dropped.seen_P.any()


def test_what_was_seen_is_dropped_and_counted() -> None:
    found = a_moment(seen=lambda at, item_PK: np.ones(item_PK.shape, np.bool_)).found
    assert found.dropped is not None
    assert (found.candidates.row_PK == -1).all()
    assert (found.dropped.seen_P == found.dropped.proposed_P).all()


def test_nothing_is_counted_where_nobody_traces() -> None:
    assert a_moment(trace_P=np.zeros(POSITIONS, np.bool_)).found.dropped is None


def test_a_candidate_is_of_a_kind_and_knows_who_proposed_it() -> None:
    candidates = a_moment().found.candidates
    assert (candidates.kind_PK == Kind.content).all()
    assert candidates.kind_PK.shape == candidates.row_PK.shape == candidates.source_PK.shape
    assert ((candidates.row_PK >= 0) == (candidates.source_PK != 0)).all()
