import numpy as np

from streams.serving.planning import ExampleBudget

OFFSETS = np.arange(1_000)


def test_no_more_examples_are_told_than_a_second_holds() -> None:
    budget = ExampleBudget(per_s=100, rate=1.0)
    first = budget.spend(OFFSETS, 1_000_000).sum()
    assert 70 < first < 130
    assert budget.spend(OFFSETS, 1_000_000).sum() < 40
    assert 30 < budget.spend(OFFSETS, 1_000_500).sum() < 80


def test_no_larger_share_than_wanted_is_told_and_always_the_same() -> None:
    first, again = (ExampleBudget(per_s=1e6, rate=0.25).spend(OFFSETS, 1_000_000) for _ in range(2))
    assert 200 < first.sum() < 300
    assert (first == again).all()


def test_a_quiet_time_saves_up_no_more_than_a_second() -> None:
    budget = ExampleBudget(per_s=100, rate=1.0)
    budget.spend(OFFSETS[:50], 1_000_000)
    assert budget.spend(OFFSETS, 9_000_000).sum() < 130
