import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.ads.prediction import (
    UNKNOWN,
    Calibration,
    CalibrationSettings,
    Drift,
    measured,
    unsampled,
)

RNG = np.random.default_rng


def chance(logit_R: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit_R))


def drawn(p_R: np.ndarray, seed: int = 0) -> np.ndarray:
    return RNG(seed).random(len(p_R)) < p_R


def nobody(logit_R: np.ndarray) -> np.ndarray:
    return np.full(len(logit_R), UNKNOWN)


def learned(calibration: Calibration, logit_R: np.ndarray, label_R: np.ndarray) -> np.ndarray:
    return calibration.learn(logit_R, label_R, nobody(logit_R), nobody(logit_R))


def test_it_begins_by_believing_the_model() -> None:
    logit_R = np.linspace(-9, 3, 7)
    assert Calibration().predict(logit_R, nobody(logit_R), nobody(logit_R)) == pytest.approx(chance(logit_R))


def test_it_undoes_a_shift_and_a_stretch_of_rare_clicks() -> None:
    truth_R = RNG(1).normal(-5, 1, 100_000)
    calibration = Calibration(settings=CalibrationSettings(horizon_rows=1e6))
    shown_R = learned(calibration, 1.5 * truth_R + 1.0, drawn(chance(truth_R)))
    found = measured(shown_R[50_000:], drawn(chance(truth_R))[50_000:])
    assert found.ratio == pytest.approx(1, abs=0.1)
    assert found.error < 0.002
    assert calibration.shared_X[0] == pytest.approx(1 / 1.5, abs=0.06)


def test_learning_predicts_each_row_before_it_learns_it_whatever_the_batch() -> None:
    logit_R = RNG(2).normal(-2, 1, 40)
    label_R, group_R = drawn(chance(logit_R)), RNG(3).integers(-1, 3, 40)
    whole, apart = Calibration(), Calibration()
    shown_R = whole.learn(logit_R, label_R, group_R, group_R[::-1].copy())
    for r in range(40):
        row = slice(r, r + 1)
        expected = apart.predict(logit_R[row], group_R[row], group_R[::-1][row])
        assert apart.learn(logit_R[row], label_R[row], group_R[row], group_R[::-1][row])[0] == pytest.approx(
            expected[0], rel=1e-12
        )
        assert shown_R[r] == pytest.approx(expected[0], rel=1e-12)
    assert apart.shared_X.tolist() == whole.shared_X.tolist()


def test_one_block_learns_what_a_newton_step_of_the_whole_regression_would() -> None:
    """With nothing forgotten, the precision is the prior plus the Fisher information of the rows."""
    calibration = Calibration(settings=CalibrationSettings(horizon_rows=1e18))
    logit_R = RNG(4).normal(-3, 1, 200)
    shown_R = learned(calibration, logit_R, drawn(chance(logit_R)))
    x_R, w_R = logit_R + 5.0, shown_R * (1 - shown_R)
    expected = [0.3**-2 + (w_R * x_R**2).sum(), (w_R * x_R).sum(), 2.0**-2 + w_R.sum()]
    assert calibration.shared_X[2:] == pytest.approx(expected)


def test_a_placement_and_an_advertiser_learn_how_they_differ() -> None:
    R = 120_000
    logit_R, placement_R, advertiser_R = np.full(R, -4.0), RNG(5).integers(0, 3, R), RNG(6).integers(0, 2, R)
    truth_R = -4 + np.array([-0.7, 0.0, 0.7])[placement_R] + np.array([-0.4, 0.4])[advertiser_R]
    calibration = Calibration()
    shown_R = calibration.learn(logit_R, drawn(chance(truth_R)), placement_R, advertiser_R)
    late = slice(R // 2, R)
    for place in range(3):
        for who in range(2):
            at = (placement_R[late] == place) & (advertiser_R[late] == who)
            assert shown_R[late][at].mean() == pytest.approx(chance(truth_R[late][at]).mean(), rel=0.2)


def test_a_group_of_few_rows_stays_near_the_shared_calibration() -> None:
    calibration = Calibration()
    logit_R = np.full(50_000, -4.0)
    calibration.learn(logit_R, drawn(chance(logit_R)), np.zeros(50_000, int), nobody(logit_R))
    calibration.learn(logit_R[:5], np.ones(5, np.bool_)[:5] & (np.arange(5) == 0), np.ones(5, int), nobody(logit_R[:5]))
    one = calibration.predict(np.array([-4.0]), np.array([1]), np.array([UNKNOWN]))[0]
    shared = calibration.predict(np.array([-4.0]), np.array([UNKNOWN]), np.array([UNKNOWN]))[0]
    assert 1 < one / shared < 1.6, "one click in five shows is a rate eleven times as high"


@pytest.mark.parametrize(("before", "now"), [(0.02, 0.005), (0.005, 0.02)])
def test_it_follows_a_rate_that_drifts_after_any_time(before: float, now: float) -> None:
    calibration = Calibration(settings=CalibrationSettings(horizon_rows=10_000))
    logit_R = np.full(300_000, np.log(before))
    learned(calibration, logit_R, drawn(np.full(300_000, before)))
    shown_R = learned(calibration, logit_R[:40_000], drawn(np.full(40_000, now), seed=1))
    assert shown_R[30_000:].mean() == pytest.approx(now, rel=0.3)


def test_a_log_odds_that_is_not_finite_bids_nothing_and_is_not_learned() -> None:
    calibration, odd_R = Calibration(), np.array([np.nan, np.inf, -np.inf])
    before = calibration.shared_X.copy()
    assert learned(calibration, odd_R, np.ones(3, np.bool_)).tolist() == [0, 0, 0]
    assert calibration.predict(odd_R, nobody(odd_R), nobody(odd_R)).tolist() == [0, 0, 0]
    assert calibration.shared_X.tolist() == before.tolist()


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans(), st.integers(-1, 3)), min_size=1, max_size=60))
def test_any_rows_leave_chances_inside_the_unit_interval(rows: list[tuple[float, bool, int]]) -> None:
    logit_R, label_R, group_R = (np.array(column) for column in zip(*rows, strict=True))
    calibration = Calibration()
    for _ in range(3):
        shown_R = calibration.learn(logit_R, label_R, group_R, group_R)
        assert ((shown_R > 0) & (shown_R < 1)).all()
        assert np.isfinite(calibration.shared_X).all()


def test_negatives_that_were_left_out_are_put_back() -> None:
    truth_R = np.array([0.001, 0.02, 0.5])
    odds_R = truth_R / (1 - truth_R) / 0.05  # one negative in twenty was learned
    assert unsampled(odds_R / (1 + odds_R), 0.05) == pytest.approx(truth_R)


def test_figures_are_those_of_their_definitions() -> None:
    p_R, label_R = np.array([0.1, 0.1, 0.4, 0.8]), np.array([False, False, True, True])
    found = measured(p_R, label_R)
    assert found.ratio == pytest.approx(0.7)
    assert found.error == pytest.approx((0.1 + 0.1 + 0.6 + 0.2) / 4)
    assert found.loss == pytest.approx(-(2 * np.log(0.9) + np.log(0.4) + np.log(0.8)) / 4)
    assert found.entropy == pytest.approx(found.loss / np.log(2))


@pytest.mark.parametrize("label_R", [np.zeros(0, np.bool_), np.zeros(3, np.bool_)])
def test_without_a_click_there_is_no_ratio_and_no_entropy(label_R: np.ndarray) -> None:
    found = measured(np.full(len(label_R), 0.1), label_R)
    assert np.isnan(found.ratio)
    assert np.isnan(found.entropy)


def test_bins_have_equal_mass() -> None:
    """450 rows in 15 bins of 30: each bin is off by what it promises, in either direction."""
    p_R = np.sort(RNG(7).random(450))
    label_R = np.zeros(450, np.bool_)
    assert measured(p_R, label_R).error == pytest.approx(p_R.mean())


def test_an_alarm_needs_a_difference_that_chance_does_not_explain() -> None:
    drift, p_R = Drift(), np.full(8_000, 0.01)
    drift.learn(np.zeros(8_000, int), p_R, drawn(p_R))
    drift.learn(np.ones(8_000, int), p_R, drawn(p_R / 3))
    drift.learn(np.full(8_000, 2), p_R, drawn(p_R * 3))
    drift.learn(np.full(20, 3), p_R[:20], np.zeros(20, np.bool_))
    assert drift.alarms().tolist() == [False, True, True, False]
    factor_G = drift.factors()
    assert factor_G[1] == pytest.approx(1 / 3, abs=0.1)
    assert factor_G[[0, 2, 3]].tolist() == [1, 1, 1], "who is better than predicted bids as before"


def test_an_alarm_ends_when_predictions_come_true_again() -> None:
    drift, p_R = Drift(horizon_rows=2_000), np.full(10_000, 0.05)
    drift.learn(np.zeros(10_000, int), p_R, drawn(p_R / 3))
    assert drift.alarms()[0]
    drift.learn(np.zeros(10_000, int), p_R, drawn(p_R, seed=1))
    assert not drift.alarms()[0]
