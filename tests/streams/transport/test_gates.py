import pytest

from streams.transport.gates import Gate, Lane
from streams.transport.ledger import Unit


def test_a_gate_is_shut_at_its_depth() -> None:
    gate = Gate(Lane(depth=2))
    units = [Unit([], 0), Unit([], 0)]
    gate.out.add(units[0])
    assert gate.is_open
    gate.out.add(units[1])
    assert not gate.is_open


def test_a_gate_lets_so_many_past_that_were_answered() -> None:
    gate, units = Gate(Lane(depth=1, behind=2)), [Unit([], 0) for _ in range(3)]
    for unit in units:
        assert gate.is_open
        gate.out.add(unit)
        assert not gate.is_open
        unit.over.set()
    assert not gate.is_open
    gate.out.discard(units[0])
    assert gate.is_open
    gate.closed = 1
    assert not gate.is_open


@pytest.mark.parametrize("wrong", [{"max_batch": 0}, {"depth": 0}, {"behind": -1}])
def test_a_lane_has_room_for_something(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Lane(**wrong)  # type: ignore[arg-type]


def test_a_lane_is_stuck_since_anything_moved_or_a_retry_was_declared() -> None:
    gate = Gate(Lane(), moved_s=100.0)
    assert gate.stuck_s(500.0) == 0.0
    unit = Unit([], 3, delivered_s=100.0)
    gate.out.add(unit)
    assert gate.stuck_s(160.0) == 60.0
    unit.retrying("redis is away", now_s=150.0)
    assert gate.stuck_s(160.0) == 10.0
    gate.moved_s = 155.0
    assert gate.stuck_s(160.0) == 5.0
    assert gate.oldest_s(160.0) == 60.0
    assert unit.is_waiting(159.0)
    assert not unit.is_waiting(161.0)
