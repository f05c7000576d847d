"""Heads as a snapshot carries them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ranking.ad_trainer import AdTrainer
from ranking.ads.heads import PRIOR_RATES, AdHeads, numbers, smoothed
from ranking.ads.prediction import UNKNOWN
from ranking.errors import WeightsRefused
from ranking.weights import Shape


def tensors() -> dict[str, NDArray[np.generic]]:
    """Two placements, of which the second clicks more; one advertiser, to whom too much was promised."""
    made: dict[str, NDArray[np.generic]] = {
        "shared": np.tile([1.0, 0.0, 9.0, 0.0, 9.0], (3, 1)),
        "by_placement": np.array([[[0.0, 4.0], [1.0, 4.0]]] * 3),
        "by_advertiser": np.zeros((3, 1, 2)),
        "placement": np.array([700, 50], np.uint64),
        "advertiser": np.array([9], np.uint64),
        "factor": np.array([[0.5, 1.0, 1.0]]),
        "creative": np.array([30, 10], np.uint64),
        "count": np.array([[1, 2, 3], [4, 5, 6]], np.float32),
        "shown": np.array([7, 8], np.float32),
        "learned": np.ones((2, 4), np.float32),
        "rate": np.array([0.01, 0.5, 0.001]),
        **AdTrainer(Shape(buckets=8, width=4, item_width=2, crosses=1)).tensors(),
    }
    return {f"ads.{name}": array for name, array in made.items()}


def test_a_placement_deviates_and_one_that_nobody_knows_does_not() -> None:
    heads, logit_CO = AdHeads.from_tensors(tensors()), np.full((3, 3), -4.0)
    placement_C = numbers(heads.placement_G, np.array([700, 50, 3], np.uint64))
    assert placement_C.tolist() == [0, 1, UNKNOWN]
    p_CO = heads.calibrated(logit_CO, placement_C, np.zeros(3, np.int64))
    assert p_CO[0] == pytest.approx(p_CO[2])
    assert np.log(p_CO[1] / (1 - p_CO[1]))[:2] == pytest.approx([-3, -3])


def test_a_conversion_that_was_learned_twice_is_expected_once() -> None:
    heads = AdHeads()
    biased = 0.3 / 1.3
    p_CO = heads.calibrated(np.full((1, 3), np.log(biased / (1 - biased))), np.array([UNKNOWN]), np.array([UNKNOWN]))
    assert p_CO[0].tolist() == pytest.approx([biased, biased, 0.3])


def test_only_who_was_promised_too_much_is_held_back() -> None:
    factor_CO = AdHeads.from_tensors(tensors()).factors(np.array([0, UNKNOWN, 5]))
    assert factor_CO.tolist() == [[0.5, 1, 1], [1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("name", [name for name in sorted(tensors()) if "crosses" not in name])
def test_one_that_lacks_something_is_refused(name: str) -> None:
    some = {each: array for each, array in tensors().items() if each != name}
    if name == "ads.shared":
        assert AdHeads.from_tensors(some).tower is None, "nothing was learned of ads"
        return
    with pytest.raises(WeightsRefused):
        AdHeads.from_tensors(some)


@pytest.mark.parametrize("name", ["ads.count", "ads.by_placement", "ads.rate", "ads.model.ad.wide.weight"])
def test_so_is_one_with_a_number_that_is_none(name: str) -> None:
    spoilt = tensors()
    spoilt[name] = np.full_like(spoilt[name], np.nan)
    with pytest.raises(WeightsRefused):
        AdHeads.from_tensors(spoilt)


def test_untaught_ones_know_no_creative_and_have_rates_to_begin_with() -> None:
    heads = AdHeads()
    assert numbers(heads.creative_G, np.array([1], np.uint64)).tolist() == [UNKNOWN]
    rate_NO = smoothed(np.zeros((1, 3)), np.zeros(1), heads.rate_O)
    assert np.exp(rate_NO[0]).tolist() == pytest.approx(PRIOR_RATES)
