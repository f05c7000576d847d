from dataclasses import replace

import numpy as np

from embeddings.candidates import Proposed
from streams.serving.retrieve import fresh
from tests.streams.serving.moments import POSITIONS, a_moment

PERSONAL = Proposed.vector | Proposed.neighbours


def test_who_may_not_be_known_is_proposed_what_is_trending_and_new() -> None:
    source_PM = a_moment(personal_P=np.arange(POSITIONS) > 0).retrieved.source_PM
    assert not (source_PM[0] & PERSONAL).any()
    assert source_PM[0].any()
    assert (source_PM[1:] & PERSONAL).any(1).all()


def test_of_more_new_items_than_are_offered_everybody_gets_those_nearest_to_their_taste() -> None:
    moment = a_moment(personal_P=np.arange(POSITIONS) > 0)
    new_F, query = np.arange(30, dtype=np.int32), moment.query
    stock = replace(moment.stock, offer=replace(moment.stock.offer, fresh_F=new_F))
    chosen_PF = fresh(query, stock, 4)
    assert chosen_PF[0].tolist() == [0, 1, 2, 3], "of whom nothing is known gets the newest"
    score_PF = query.taste_PD @ stock.model.target_ND[:30].T
    assert (np.sort(chosen_PF[1:]) == np.sort(np.argsort(-score_PF[1:])[:, :4])).all()
    assert len(np.unique(chosen_PF[1:], axis=0)) > 1
    assert fresh(query, stock, 100).shape == (POSITIONS, 30)
