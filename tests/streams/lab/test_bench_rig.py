"""Paces of benchmarks: what is left out, and what becomes of a contender that ends."""

import sys
from pathlib import Path

import pytest

from deploy.processes import Child, StartFailed
from streams.lab.bench_rig import pace, pace_of


def test_the_first_fifth_is_no_part_of_the_pace() -> None:
    slow_to_begin_with = [(1_000, 10.0, 1.0), (1_020, 20.0, 6.0), (1_070, 20.5, 6.2), (1_100, 21.0, 6.4)]
    assert pace(slow_to_begin_with) == pytest.approx((80.0, 200.0))


def test_what_is_looked_at_after_the_end_is_no_part_of_it() -> None:
    assert pace([(0, 0.0, 0.0), (50, 1.0, 1.0), (100, 2.0, 2.0), (100, 9.0, 2.5)]) == pytest.approx((50.0, 50.0))


def test_all_done_between_two_looks_has_a_pace() -> None:
    assert pace([(0, 0.0, 0.0), (0, 1.0, 0.5), (100, 2.0, 1.0)]) == pytest.approx((100.0, 200.0))


def test_a_contender_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    child = Child([sys.executable, "-c", "print('no broker'); raise SystemExit(3)"], tmp_path / "log")
    with pytest.raises(StartFailed, match=r"exited with 3\nno broker"):
        pace_of(child, lambda: 0, 100)
