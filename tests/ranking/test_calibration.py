import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.calibration import Platt


def drawn(p_R, seed=0):
    return np.random.default_rng(seed).random(len(p_R)) < p_R


def calibration_error(p_R, label_R, bins=15):
    """Mean over rows of |mean p - mean label| of their bin, bins of equal mass."""
    parts = np.array_split(np.argsort(p_R, kind="stable"), bins)
    return sum(abs(p_R[part].mean() - label_R[part].mean()) * len(part) for part in parts) / len(p_R)


def test_it_starts_as_the_identity():
    for logit in np.array([-2.0, 0.0, 3.0], np.float32):
        assert Platt().learn(np.array([logit]), np.array([True]))[0] == pytest.approx(1 / (1 + np.exp(-logit)))


def test_it_undoes_a_shift_and_a_stretch():
    truth = np.random.default_rng(0).normal(-2, 1, 60_000)
    label = drawn(1 / (1 + np.exp(-truth)))
    platt = Platt()
    shown = platt.learn((2 * truth + 1).astype(np.float32), label)
    assert platt.state[0] == pytest.approx(0.5, abs=0.05)
    assert platt.state[1] == pytest.approx(-0.5, abs=0.1)
    assert calibration_error(shown[30_000:], label[30_000:]) < 0.01


def test_each_row_is_predicted_before_it_is_learned():
    platt = Platt()
    shown = platt.learn(np.array([1.0, 1.0], np.float32), np.array([False, False]))
    assert shown[0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert shown[1] < shown[0]


def test_a_logit_that_is_not_finite_is_not_learned():
    platt = Platt()
    before = platt.state.copy()
    shown = platt.learn(np.array([np.nan, np.inf], np.float32), np.array([True, False]))
    assert np.isfinite(shown).all()
    np.testing.assert_array_equal(platt.state, before)


@pytest.mark.parametrize(("before", "now"), [(0.2, 0.05), (0.02, 0.04)])
def test_it_follows_a_rate_that_drifts_after_any_time(before, now):
    platt, noise = Platt(), np.random.default_rng(2).normal(0, 0.3, 200_000)
    logit_R = (np.log(before / (1 - before)) + noise).astype(np.float32)
    platt.learn(logit_R, drawn(np.full(200_000, before)))
    shown = platt.learn(logit_R[:30_000], drawn(np.full(30_000, now), seed=1))
    assert shown[20_000:].mean() == pytest.approx(now, rel=0.1)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), st.booleans()), min_size=1, max_size=50))
def test_predictions_stay_strictly_inside_the_unit_interval(rows):
    logits = np.array([logit for logit, _ in rows], np.float32)
    label_R = np.array([label for _, label in rows])
    platt = Platt()
    for _ in range(2):
        shown = platt.learn(logits, label_R)
        assert ((shown > 0) & (shown < 1)).all()
