import numpy as np

from streams.serving.planning import ExampleBudget

OFFSETS = np.arange(1_000)


def test_no_more_examples_are_told_than_a_second_holds() -> None:
    budget = ExampleBudget(per_s=100, rate=1.0)
    first = budget.spend(OFFSETS, 1_000_000).told_T.sum()
    assert 70 < first < 130
    assert budget.spend(OFFSETS, 1_000_000).told_T.sum() < 40
    assert 30 < budget.spend(OFFSETS, 1_000_500).told_T.sum() < 80


def test_no_larger_share_than_wanted_is_told_and_always_the_same() -> None:
    first, again = (ExampleBudget(per_s=1e6, rate=0.25).spend(OFFSETS, 1_000_000).told_T for _ in range(2))
    assert 200 < first.sum() < 300
    assert (first == again).all()


def test_a_quiet_time_saves_up_no_more_than_a_second() -> None:
    budget = ExampleBudget(per_s=100, rate=1.0)
    budget.spend(OFFSETS[:50], 1_000_000)
    assert budget.spend(OFFSETS, 9_000_000).told_T.sum() < 130


def test_all_are_told_until_the_ranker_is_taught_and_then_a_sample() -> None:
    budget = ExampleBudget(per_s=100, rate=1.0, first=2_500)
    chosen = [budget.spend(OFFSETS, 1_000_000, taught=False) for _ in range(2)]
    assert [c.told_T.sum() for c in chosen] == [1_000, 1_000]
    assert [c.rate for c in chosen] == [1, 1]
    assert 500 < budget.spend(OFFSETS, 1_000_000, taught=False).told_T.sum() < 750, "no more than there are"
    assert budget.spend(OFFSETS, 1_000_000, taught=False).told_T.sum() < 100
    chosen = [ExampleBudget(per_s=100, rate=1.0, first=2_500).spend(OFFSETS, 1_000_000)]
    assert 70 < chosen[0].told_T.sum() < 130, "it is taught"
    assert chosen[0].rate == 0.1


def test_what_is_told_in_many_small_batches_adds_up_to_the_seconds_that_passed() -> None:
    budget = ExampleBudget(per_s=100, rate=1.0)
    told = [budget.spend(np.arange(20 * n, 20 * n + 20), 1_000_000 + 10 * n).told_T.sum() for n in range(2_000)]
    assert 2_000 <= sum(told) < 2_150


def test_a_clock_that_is_set_back_costs_none_of_the_first_examples() -> None:
    budget = ExampleBudget(per_s=100, rate=1.0, first=2_000)
    chosen = [budget.spend(OFFSETS, now_ms, taught=False).told_T.sum() for now_ms in (9_000_000, 1_000_000)]
    assert chosen == [1_000, 1_000]
    assert budget.first > 0
    assert budget.spend(OFFSETS[:100], 1_001_000).told_T.sum() > 20, "it goes on from there"
