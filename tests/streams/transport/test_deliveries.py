from time import time

import pytest

from embeddings.events import Source
from streams.contract.messages import Part
from streams.transport.ahead import Ahead
from streams.transport.deliveries import Deliveries
from streams.transport.gates import Lane
from streams.transport.ledger import Unit
from tests.streams.builders import NOW_MS, Raw

HERE, THERE, ELSEWHERE = Source("events", 0), Source("events", 1), Source("requests", 0)


@pytest.fixture
def ahead() -> Ahead:
    return Ahead()


@pytest.fixture
def deliveries(ahead: Ahead) -> Deliveries:
    lanes = {"events": Lane(max_batch=3), "requests": Lane()}
    return Deliveries(lanes, ahead, {HERE: 5, THERE: -1, ELSEWHERE: 0}.__getitem__)


def cut(deliveries: Deliveries, topic: str = "events") -> Unit:
    unit = deliveries.cut(topic, {HERE, THERE} if topic == "events" else {ELSEWHERE})
    assert unit is not None
    return unit


def some(*offsets: int) -> list[Raw]:
    return [Raw(offset, None, timestamp=NOW_MS + 1_000 * offset) for offset in offsets]


def test_a_unit_is_cut_of_what_was_fetched_and_no_larger_than_its_lane_allows(
    deliveries: Deliveries, ahead: Ahead
) -> None:
    assert deliveries.cut("events", {HERE}) is None
    ahead.add({HERE: some(5, 6), THERE: some(0, 1), ELSEWHERE: some(0)})
    unit = cut(deliveries)
    assert [(part.source, part.last, part.committed) for part in unit.parts] == [(HERE, 6, 5), (THERE, 0, -1)]
    assert ahead.counts() == {THERE: 1, ELSEWHERE: 1}


def test_a_lane_that_is_busy_lets_the_others_through(deliveries: Deliveries, ahead: Ahead) -> None:
    ahead.add({HERE: some(5), ELSEWHERE: some(0)})
    unit = cut(deliveries)
    deliveries.deliver(unit, generation=1)
    ahead.add({HERE: some(6)})
    assert not deliveries.is_open("events")
    assert deliveries.cut("events", {HERE}) is None
    assert deliveries.is_open("requests")
    assert deliveries.let_back(unit)
    assert deliveries.is_open("events")
    assert not deliveries.let_back(unit), "it was open already"


def test_what_is_void_is_neither_delivered_nor_committed(deliveries: Deliveries, ahead: Ahead) -> None:
    ahead.add({HERE: some(5), ELSEWHERE: some(0)})
    out, other = cut(deliveries), cut(deliveries, "requests")
    ahead.add({HERE: some(6)})
    fetched = cut(deliveries)
    for unit in (out, other):
        deliveries.deliver(unit, generation=1)
    with deliveries.void({HERE, THERE}):
        assert not deliveries.is_open("events")
    assert deliveries.is_open("events")
    deliveries.deliver(fetched, generation=1)
    assert fetched.parts == []
    for unit in (out, other):
        deliveries.ledger.ack(unit)
    assert list(deliveries.ledger.committable()) == [ELSEWHERE]


def test_a_lane_that_is_sent_back_twice_at_once_opens_after_both(deliveries: Deliveries) -> None:
    with deliveries.void({HERE}):
        with pytest.raises(ValueError, match="no positions"), deliveries.void({THERE}):
            raise ValueError("no positions")
        assert not deliveries.is_open("events")
    assert deliveries.is_open("events")


def test_lag_is_what_is_not_committed_and_how_old_the_last_delivery_is(deliveries: Deliveries, ahead: Ahead) -> None:
    assert (deliveries.lag(HERE, 9).records, deliveries.lag(THERE, 9).records) == (4, 9)
    assert deliveries.lag(HERE, 9).seconds == 0.0, "nothing was delivered"
    ahead.add({HERE: some(5)})
    deliveries.deliver(cut(deliveries), generation=1)
    assert deliveries.lag(HERE, 9).seconds == pytest.approx(time() - NOW_MS / 1000 - 5.0, abs=60.0)
    odd = Raw(6, None, timestamp=NOW_MS // 1000)
    ahead.add({HERE: [odd]})
    deliveries.deliver(Unit([Part(HERE, [odd], 6, 5)], 1, "events"), generation=1)
    assert deliveries.lag(HERE, 9).seconds < time() - NOW_MS / 1000 + 60, "a timestamp in seconds is none"
    assert deliveries.lag(HERE, 5) == deliveries.lag(HERE, 4), "nothing is behind"
    assert deliveries.lag(HERE, 5).seconds == 0.0


def test_a_unit_is_topped_up_with_what_came_since_and_not_while_its_lane_is_sent_back(
    deliveries: Deliveries, ahead: Ahead
) -> None:
    ahead.add({HERE: some(5)})
    unit = cut(deliveries)
    deliveries.deliver(unit, generation=1)
    ahead.add({HERE: some(6), THERE: some(0, 1)})
    deliveries.top_up(unit, {HERE, THERE}, lambda: False)
    assert unit.size == 1
    deliveries.gates["events"].closed += 1
    deliveries.top_up(unit, {HERE, THERE}, lambda: True)
    deliveries.gates["events"].closed -= 1
    assert unit.size == 1
    deliveries.top_up(unit, {HERE, THERE}, lambda: True)
    assert {part.source: part.last for part in unit.parts} == {HERE: 6, THERE: 0}
    assert ahead.counts() == {THERE: 1}, "no more than a unit holds"
