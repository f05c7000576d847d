"""Heads of ads learn, serve what was learned, and go on as they were."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ranking.ad_trainer import AdTrainer
from ranking.ads.features import OUTCOMES, RATES, AdFeature
from ranking.ads.heads import TOWER, AdHeads, ad_weights, base_logits
from ranking.errors import WeightsRefused
from ranking.features import COLUMNS
from ranking.frozen import FrozenTower
from ranking.weights import Shape

SMALL = Shape(buckets=64, width=8, item_width=2, crosses=1)
RATE_O = np.array([0.1, 0.5, 0.01])


def rows(count: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """Impressions of whose clicks affinity decides."""
    draw = np.random.default_rng(seed)
    x_RX = draw.normal(size=(count, COLUMNS)).astype(np.float32)
    x_RX[:, RATES], x_RX[:, AdFeature.context], x_RX[:, AdFeature.learned] = np.log(RATE_O), 3, 0
    rate_RO = np.tile(RATE_O, (count, 1))
    rate_RO[:, 0] = np.where(x_RX[:, AdFeature.category_affinity] > 0, 0.18, 0.02)
    return x_RX, draw.integers(0, 20, count), draw.random((count, len(OUTCOMES))) < rate_RO


def ones(count: int) -> NDArray[np.float64]:
    return np.ones((count, len(OUTCOMES)))


def test_they_begin_at_the_rates_of_the_creative() -> None:
    x_RX, item_R, label_RO = rows(10)
    logit_RO = AdTrainer(SMALL).learn(x_RX, item_R, label_RO, ones(10))
    assert 1 / (1 + np.exp(-logit_RO)) == pytest.approx(np.tile(RATE_O, (10, 1)), rel=1e-3)


def test_they_learn_who_clicks() -> None:
    trainer = AdTrainer(SMALL)
    x_RX, item_R, label_RO = rows(20_000)
    logit_RO = trainer.learn(x_RX, item_R, label_RO, ones(20_000))[-2_000:]
    p_R, for_them_R = 1 / (1 + np.exp(-logit_RO[:, 0])), x_RX[-2_000:, AdFeature.category_affinity] > 0
    assert p_R[for_them_R].mean() > 3 * p_R[~for_them_R].mean()


def test_an_outcome_without_weight_teaches_nothing() -> None:
    one, other = AdTrainer(SMALL), AdTrainer(SMALL)
    x_RX, item_R, label_RO = rows(200)
    weight_RO = ones(200) * [1, 0, 1]
    one.learn(x_RX, item_R, label_RO, weight_RO)
    other.learn(x_RX, item_R, label_RO ^ [False, True, False], weight_RO)
    mine, theirs = one.state(), other.state()
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_a_row_that_is_no_number_is_refused_and_spoils_nothing() -> None:
    one, other = AdTrainer(SMALL), AdTrainer(SMALL)
    x_RX, item_R, label_RO = rows(64)
    spoilt_RX = np.insert(x_RX, 5, np.nan, axis=0)
    logit_RO = one.learn(spoilt_RX, np.insert(item_R, 5, 1), np.insert(label_RO, 5, True, axis=0), ones(65))
    other.learn(x_RX, item_R, label_RO, ones(64))
    assert np.isnan(logit_RO[5]).all()
    assert (one.refused, one.rows) == (1, 64)
    assert np.array_equal(one.tensors()["model.ad.wide.weight"], other.tensors()["model.ad.wide.weight"])


def test_it_goes_on_to_the_bit_after_a_restart() -> None:
    one, other = AdTrainer(SMALL), AdTrainer(SMALL, seed=9)
    one.learn(*rows(300), ones(300))
    other.restore(one.state())
    for trainer in (one, other):
        trainer.learn(*rows(100, seed=1), ones(100))
    assert all(np.array_equal(array, other.state()[name]) for name, array in one.state().items())


def test_a_state_that_lacks_something_changes_nothing() -> None:
    trainer = AdTrainer(SMALL)
    state = trainer.state()
    with pytest.raises(WeightsRefused, match="wide"):
        trainer.restore({name: array for name, array in state.items() if name != "model.ad.wide.weight"})
    assert all(np.array_equal(array, trainer.state()[name]) for name, array in state.items())


def test_what_serves_says_what_was_learned() -> None:
    trainer = AdTrainer(SMALL)
    trainer.learn(*rows(1_000), ones(1_000))
    x_RX, item_R, label_RO = rows(12, seed=2)
    heads = AdHeads(tower=FrozenTower(ad_weights(trainer.tensors()), TOWER))
    served_PKO = heads.logits(x_RX.reshape(3, 4, -1), item_R.reshape(3, 4), np.ones((3, 4), np.bool_))
    logit_RO = trainer.learn(x_RX, item_R, label_RO, ones(12))
    assert served_PKO.reshape(12, -1) == pytest.approx(logit_RO, abs=0.02), "but for one step of normalisation"


@pytest.mark.slow
def test_conversions_that_come_late_are_not_half_of_what_is_expected() -> None:
    """Each is a row that says no, then one that says yes; that alone would make a chance of .3 one of .23."""
    draw = np.random.default_rng(0)
    trainer, rate = AdTrainer(SMALL), 0.3
    weight_RO = ones(64) * [0, 0, 1]
    said = []
    for step in range(400):
        x_RX, item_R, label_RO = rows(64, seed=step)
        x_RX[:, AdFeature.conversion_rate] = np.log(0.1)
        label_RO[:] = False
        said.append(trainer.learn(x_RX, item_R, label_RO, weight_RO)[:, 2])
        late = np.flatnonzero(draw.random(64) < rate)
        trainer.learn(x_RX[late], item_R[late], ~label_RO[late], weight_RO[late])
    p_R = 1 / (1 + np.exp(-np.concatenate(said[-100:])))
    assert p_R.mean() == pytest.approx(rate, abs=0.02)


def test_heads_begin_at_what_suits_as_well() -> None:
    x_RX = rows(2)[0]
    x_RX[:, AdFeature.learned] = [0, 1]
    assert np.diff(base_logits(x_RX), axis=0).tolist() == [[1, 0, 1]]
