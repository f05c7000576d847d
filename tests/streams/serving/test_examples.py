import numpy as np
import pytest

from ranking.features import AWAY_S, Feature
from streams.contract.observations import AT_EVENT, AT_TAKE
from streams.serving.draws import seeds, uniform
from streams.serving.examples import examples_of
from streams.serving.values import Told
from tests.streams.builders import EVENTS, NOW_MS, Service, an_event, told
from tests.streams.serving.moments import LOG, POSITIONS, a_moment


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


def test_half_of_the_takes_are_told_as_of_the_event_before_and_the_others_as_of_the_take() -> None:
    """The features say so: how long the person had been away."""
    service = Service()
    service.catalogue(*(f"i{n:03d}" for n in range(40)))
    service.live_through(LOG[:300])
    log = [
        an_event(300 + n, f"v{n % 12}", f"i{n % 40:03d}", event_time=NOW_MS - (200 - n) * 600_000) for n in range(200)
    ]
    (o,) = told(service.deliver(log))
    away_E = o.example_x_ESF[:, 0, Feature.since_last]
    assert 0.3 < (o.moment_E == AT_EVENT).mean() < 0.7
    later_E = np.isin(o.example_E, np.arange(12, 200))
    assert (away_E[(o.moment_E == AT_EVENT)] == 0).all()
    assert away_E[(o.moment_E == AT_TAKE) & later_E] == pytest.approx(np.log1p(AWAY_S), abs=0.01)


def test_what_is_drawn_depends_on_the_event_and_not_on_its_batch() -> None:
    """One event at a time draws what a batch of them draws, and not the same places every time."""
    whole, single = Service(), Service()
    for service in (whole, single):
        service.catalogue(*(f"i{n:03d}" for n in range(40)))
        service.live_through(LOG[:300])
    (o,) = told(whole.respond(LOG[300:]))
    ones = [told(single.respond([record]))[0] for record in LOG[300:]]
    alone = {int(one.offset_R[0]): one for one in ones if len(one.example_E)}
    same = 0
    for e, r in enumerate(o.example_E.tolist()):
        one = alone.get(int(o.offset_R[r]))
        if one is not None and (one.history_TH[0] == o.history_TH[o.take_T == r][0]).all():
            same += 1
            assert one.moment_E[0] == o.moment_E[e]
            assert set(one.example_item_ES[0].tolist()) == set(o.example_item_ES[e].tolist())
    assert same >= 3
    seed_E = seeds([EVENTS], np.zeros(500, np.int32), np.arange(500), 0)
    draws = {tuple(np.argsort(row)[:4].tolist()) for row in uniform(seed_E, 20)}
    assert len(draws) > 450
    share_K = (uniform(seed_E, 20) < 0.25).mean(0)
    assert ((share_K > 0.17) & (share_K < 0.33)).all(), "each place as often as another"


def test_seeds_of_partitions_differ() -> None:
    both = seeds([EVENTS, EVENTS._replace(partition=1)], np.array([0, 1], np.int32), np.array([7, 7]), 0)
    assert both[0] != both[1]
