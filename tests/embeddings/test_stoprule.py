import random
from itertools import cycle, islice

import pytest

from embeddings.stoprule import WELL_AGAIN, BadRun, StopRule

HALF = StopRule(0.5)


def follow(rule: StopRule, bad: list[bool], *, batch: int = 1, run: BadRun | None = None) -> tuple[int | None, BadRun]:
    """After how many records the partition pauses, if it does, and its run then or at the end."""
    run = run or BadRun()
    for at in range(0, len(bad), batch):
        some = bad[at : at + batch]
        run = rule.after(run, records=len(some), dead=sum(some), code="malformed")
        if run.paused:
            return at + len(some), run
    return None, run


def repeated(pattern: str, count: int) -> list[bool]:
    return [letter == "x" for letter in islice(cycle(pattern), count)]


@pytest.mark.parametrize("batch", [1, 7, 64, 333, 512])
@pytest.mark.parametrize("pattern", ["x.", ".x", "xx..", "." * 20 + "x" * 20, "x..", "."])
def test_half_and_less_never_pause_however_they_are_batched(pattern: str, batch: int) -> None:
    assert follow(HALF, repeated(pattern, 10_000), batch=batch)[0] is None


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_half_in_any_order_is_chance(seed: int) -> None:
    draw = random.Random(seed)
    assert follow(HALF, [draw.random() < 0.5 for _ in range(50_000)])[0] is None


def test_three_bad_records_of_a_small_partition_are_bad_records() -> None:
    assert follow(HALF, [True] * 3)[0] is None
    assert follow(HALF, repeated("x", 60))[0] is None


@pytest.mark.parametrize(("pattern", "at_most"), [("x", 120), ("xxxxxxxxx.", 160), ("xx.", 500), ("xxx..", 1_100)])
@pytest.mark.parametrize("good", [0, 100_000])
def test_a_bad_deploy_pauses_soon_whatever_was_before(pattern: str, at_most: int, good: int) -> None:
    run = HALF.after(BadRun(), records=good, dead=0, code="") if good else BadRun()
    after, run = follow(HALF, repeated(pattern, 5_000), run=run)
    assert after is not None
    assert after <= at_most
    assert run.code == "malformed"
    assert run.share == pytest.approx(pattern.count("x") / len(pattern), abs=0.01)


def test_a_paused_run_stays_as_it_is() -> None:
    run = follow(HALF, [True] * 500)[1]
    assert HALF.after(run, records=100, dead=0, code="") is run


def test_what_was_released_goes_through_whole_and_is_judged_again_once_it_is_well() -> None:
    run = follow(HALF, [True] * 500)[1].release()
    after, run = follow(HALF, [True] * 3_000, run=run)
    assert (after, run.released) == (None, True)
    after, run = follow(HALF, [False] * (WELL_AGAIN - 1), run=run)
    assert run.released
    after, run = follow(HALF, [False] * 2, run=run)
    assert run == BadRun()
    assert follow(HALF, [True] * 500, run=run)[0] is not None


@pytest.mark.parametrize(("limit", "stops"), [(0.0, 50), (0.01, 51), (0.9, 610), (1.0, None)])
def test_the_limit_is_a_setting(limit: float, stops: int | None) -> None:
    assert follow(StopRule(limit), [True] * 5_000)[0] == stops
