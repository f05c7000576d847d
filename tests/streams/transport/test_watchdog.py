from collections.abc import Callable
from time import monotonic, sleep

import pytest

from streams.transport.gates import Gate, Lane
from streams.transport.ledger import Unit
from streams.transport.watchdog import EXIT_DISPLACED, EXIT_STALLED, EXIT_STUCK, Ending, LaneJudge, Watchdog

START_S = 1_000.0


@pytest.fixture
def gate() -> Gate:
    return Gate(Lane(stuck_after_s=60.0), moved_s=START_S)


def a_judge(gate: Gate, *, waits: bool = False) -> LaneJudge:
    judge = LaneJudge(gates={"events": gate}, stalled_after_s=30.0, waits=lambda topic: waits)
    judge._beat_s = START_S + 600.0
    return judge


def test_a_unit_that_is_out_for_too_long_is_stuck(gate: Gate) -> None:
    unit = Unit([], 7, "events", delivered_s=START_S)
    gate.out.add(unit)
    judge = a_judge(gate)
    assert judge(START_S + 60.0) is None
    verdict = judge(START_S + 61.0)
    assert verdict is not None
    assert verdict == Ending("events: un-acknowledged for 61 s, units [7]", EXIT_STUCK)
    unit.retrying("Redis is away", now_s=START_S + 50.0)
    assert judge(START_S + 61.0) is None


def test_records_that_wait_at_every_look_are_a_stall(gate: Gate) -> None:
    judge = a_judge(gate, waits=True)
    assert judge(START_S + 100.0) is None, "the first look"
    assert judge(START_S + 130.0) is None
    verdict = judge(START_S + 131.0)
    assert verdict is not None
    assert verdict.exit_code == EXIT_STALLED
    gate.moved_s = START_S + 110.0
    assert judge(START_S + 131.0) is None, "one was delivered since"


def test_records_that_a_unit_keeps_waiting_are_no_stall(gate: Gate) -> None:
    judge = a_judge(gate, waits=True)
    assert judge(START_S) is None
    gate.let_out(Unit([], 1, "events"))
    gate.moved_s = START_S + 100.0
    assert judge(START_S + 100.0) is None


def test_a_unit_that_waits_for_something_away_is_not_excused_for_ever(gate: Gate) -> None:
    gate.lane = Lane(stuck_after_s=60.0, give_up_after_s=300.0)
    unit = Unit([], 7, "events", delivered_s=START_S)
    gate.out.add(unit)
    judge = a_judge(gate)
    unit.retrying("Redis is away", now_s=START_S + 290.0)
    assert judge(START_S + 300.0) is None
    unit.retrying("Redis is away", now_s=START_S + 300.0)
    verdict = judge(START_S + 301.0)
    assert verdict == Ending("events: un-acknowledged for 301 s, waits for ['Redis is away']", EXIT_STUCK)


def test_partitions_whose_flow_does_not_begin_are_a_stall_unless_something_is_away(gate: Gate) -> None:
    judge = a_judge(gate)
    judge.stands, judge.give_up_after_s = lambda: "positions are not known yet", 300.0
    assert judge(START_S) is None
    assert judge.holdup(START_S + 10.0) is None
    assert judge.holdup(START_S + 20.0) == "positions are not known yet"
    assert judge(START_S + 31.0) == Ending("positions are not known yet, for 31 s", EXIT_STALLED)
    judge.declare("Redis is away", now_s=START_S + 290.0)
    assert judge(START_S + 300.0) is None
    assert judge(START_S + 301.0) == Ending("positions are not known yet, for 301 s", EXIT_STALLED)
    judge.stands = lambda: None
    assert judge(START_S + 302.0) is None


def test_brokers_that_are_never_heard_again_end_the_process(gate: Gate) -> None:
    judge = a_judge(gate)
    judge.unheard_s, judge.give_up_after_s = lambda now_s: now_s - START_S, 300.0
    assert judge(START_S + 300.0) is None
    assert judge(START_S + 301.0) == Ending("no broker was heard for 301 s", EXIT_STALLED)


def test_who_lost_its_place_in_the_group_ends(gate: Gate) -> None:
    judge = a_judge(gate)
    judge.displaced = lambda: True
    verdict = judge(START_S)
    assert verdict is not None
    assert verdict.exit_code == EXIT_DISPLACED


def test_a_loop_that_does_not_turn_is_stuck(gate: Gate) -> None:
    judge = a_judge(gate)
    judge.beat()
    now_s = monotonic()
    assert judge(now_s + 59.0) is None
    verdict = judge(now_s + 62.0)
    assert verdict is not None
    assert verdict.exit_code == EXIT_STUCK


def test_the_watchdog_asks_until_it_is_stopped() -> None:
    asked: list[float] = []
    watchdog = Watchdog(lambda now_s: asked.append(now_s), every_s=0.01)
    watchdog.start()
    wait_until(lambda: len(asked) > 2)
    watchdog.stop()
    watchdog.join(1.0)
    assert not watchdog.is_alive()
    assert asked == sorted(asked)
    assert Ending("why", 75).exit_code == 75


def wait_until(true: Callable[[], bool]) -> None:
    give_up = monotonic() + 5.0
    while not true() and monotonic() < give_up:
        sleep(0.01)
