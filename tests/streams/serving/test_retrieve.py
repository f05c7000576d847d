from dataclasses import replace

import numpy as np

from embeddings.candidates import Proposed
from streams.serving.retrieve import fresh
from tests.streams.builders import Service, a_log, a_request, an_event, shown, small
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


def test_who_has_seen_most_of_what_is_near_is_searched_for_further() -> None:
    """Of 300 items 280 were seen, and ten are ranked: the twenty nearest of them say nothing."""
    service = Service(small(slates={"candidates": 10, "size": 10}, retrieval={"trending": 0, "fresh": 0}))
    service.catalogue(*(f"i{n:03d}" for n in range(300)))
    service.live_through(a_log(600, items=300))
    service.deliver([an_event(1_000 + n, "heavy", f"i{n:03d}") for n in range(280)])
    heavy, light = service.ask(a_request(0, "heavy", n=10), a_request(1, "u1", n=10))
    assert len(shown(light)) == 10
    assert len(shown(heavy)) == 10
    assert set(shown(heavy)) <= {f"i{n:03d}" for n in range(280, 300)}
