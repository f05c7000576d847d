import numpy as np
import pytest

from ranking.errors import WeightsRefused
from ranking.features import COLUMNS, Feature
from ranking.ranker import Ranker
from ranking.trainer import Trainer, TrainerSettings
from ranking.weights import Shape

SMALL = Shape(buckets=64, width=16, item_width=2)
FLAGS = slice(Feature.from_vector, Feature.from_fresh + 1)


def some_choices(seed=0, rows=512, candidates=20, by=Feature.year_distance):
    """Rows whose taken item (slot 0) has the largest value in one column; retrieval order says nothing of it."""
    rng = np.random.default_rng(seed)
    x_RSX = rng.normal(size=(rows, candidates, COLUMNS)).astype(np.float32)
    x_RSX[..., Feature.context] = 0
    x_RSX[..., FLAGS] = 1
    best = x_RSX[..., by].argmax(1)
    x_RSX[np.arange(rows), best], x_RSX[:, 0] = x_RSX[:, 0].copy(), x_RSX[np.arange(rows), best].copy()
    item_RS = rng.integers(1, 2**40, (rows, candidates))
    return x_RSX, item_RS, np.ones((rows, candidates), bool), np.zeros((rows, candidates), np.float32)


def some_outcomes(seed=0, rows=2048):
    rng = np.random.default_rng(seed)
    x_RX = rng.normal(size=(rows, COLUMNS)).astype(np.float32)
    x_RX[:, Feature.context], x_RX[:, Feature.click_rate] = 0, np.log(0.5)
    label_R = rng.random(rows) < 1 / (1 + np.exp(-3 * x_RX[:, Feature.since_last]))
    return x_RX, rng.integers(1, 2**40, rows), label_R


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def test_it_learns_what_makes_an_item_the_one_that_is_taken():
    trainer = Trainer(SMALL)
    for seed in range(8):
        progress = trainer.learn_listwise(*some_choices(seed))
    assert progress.rows == 8 * 512
    assert progress.loss < 2.3 < np.log(20)
    assert progress.gain > 0.5
    ranker = Ranker.from_tensors(trainer.tensors(), version=1)
    x_RSX, item_RS, mask_RS, _ = some_choices(99)
    assert ranker.learned
    assert (ranker.score(x_RSX, item_RS, mask_RS).next_PK.argmax(1) == 0).mean() > 0.7


def test_progress_is_measured_before_the_row_is_learned():
    fresh = Trainer(SMALL).learn_listwise(*some_choices(rows=64))
    assert fresh.loss == pytest.approx(np.log(20), abs=1e-4)


def test_a_sample_of_the_candidates_trains_as_the_whole_set():
    """With log q the loss of an untaught model is that of the whole set, however few candidates were sampled."""
    x_RSX, item_RS, mask_RS, log_q_RS = some_choices(rows=64)
    log_q_RS[:, 1:6] = np.log(5 / 19)
    progress = Trainer(SMALL).learn_listwise(x_RSX[:, :6], item_RS[:, :6], mask_RS[:, :6], log_q_RS[:, :6])
    assert progress.loss == pytest.approx(np.log(20), abs=1e-4)


def test_items_no_source_proposed_teach_nothing():
    x_RSX, *rest = some_choices()
    x_RSX[:, 0, FLAGS] = 0
    trainer = Trainer(SMALL)
    before = trainer.state()
    trainer.learn_listwise(x_RSX, *rest)
    assert same(before, trainer.state())


def test_a_row_that_is_not_finite_is_refused_and_its_neighbours_are_learned():
    spoiled, clean = some_choices(rows=65), some_choices(rows=65)
    spoiled[0][7, 3, 2] = np.nan
    left, right = Trainer(SMALL), Trainer(SMALL)
    assert left.learn_listwise(*spoiled).refused == 1
    right.learn_listwise(*(np.delete(array, 7, 0) for array in clean))
    assert same(left.tensors(), right.tensors())


def test_a_loss_that_is_not_finite_moves_no_weight():
    trainer = Trainer(SMALL)
    trainer.learn_listwise(*some_choices(rows=64))
    before = trainer.tensors()
    *choices, log_q_RS = some_choices(rows=64)
    log_q_RS[:, 0] = 1e4  # the taken item stands for no candidate at all
    progress = trainer.learn_listwise(*choices, log_q_RS)
    x_RX, item_R, label_R = some_outcomes(rows=64)
    trainer.learn_pointwise(x_RX, item_R, label_R, "click", np.full(64, 3e38, np.float32))
    after = trainer.tensors()
    assert progress.refused == 64
    assert trainer.listwise().refused == 128
    assert all(np.array_equal(before[name], after[name]) for name in before if "_F" not in name)


def test_the_same_calls_give_the_same_bits():
    trainers = [Trainer(SMALL, seed=5) for _ in range(2)]
    for trainer in trainers:
        trainer.learn_listwise(*some_choices())
        trainer.learn_pointwise(*some_outcomes(), "complete")
    assert same(trainers[0].state(), trainers[1].state())


def test_a_restored_trainer_goes_on_bit_for_bit():
    straight = Trainer(SMALL, seed=1)
    straight.learn_listwise(*some_choices(0))
    straight.learn_pointwise(*some_outcomes(0), "click")
    resumed = Trainer(SMALL, seed=2)
    resumed.restore(straight.state())
    for trainer in (straight, resumed):
        trainer.learn_listwise(*some_choices(1))
        trainer.learn_pointwise(*some_outcomes(1), "click")
    assert same(straight.state(), resumed.state())
    assert straight.listwise() == resumed.listwise()
    assert straight.outcome("click") == resumed.outcome("click")


@pytest.mark.parametrize("name", ["next.mean", "moments", "click.platt", "model.next.deep.weight", "rows"])
def test_a_spoiled_checkpoint_is_refused_and_changes_nothing(name):
    trainer = Trainer(SMALL)
    trainer.learn_listwise(*some_choices())
    before, spoiled = trainer.state(), trainer.state()
    del spoiled[name]
    with pytest.raises(WeightsRefused):
        trainer.restore(spoiled)
    assert same(before, trainer.state())


def test_outcomes_are_learned_and_come_true():
    trainer = Trainer(SMALL)
    for seed in range(3):
        shown_R = trainer.learn_pointwise(*some_outcomes(seed), "click")
    progress = trainer.outcome("click")
    assert progress.rows == 3 * 2048
    assert shown_R.mean() == pytest.approx(progress.predicted, abs=0.03)
    assert progress.loss < 0.6 < np.log(2)
    assert progress.predicted == pytest.approx(progress.observed, abs=0.03)


@pytest.mark.slow
def test_calibration_follows_a_click_rate_that_drifts():
    """After as long a time as you like: what has been summed up by then must not hold the steps back."""
    trainer, rng = Trainer(SMALL), np.random.default_rng(0)
    x_RX, item_R, _ = some_outcomes(rows=4096)
    x_RX[:, Feature.click_rate] = np.log(0.2)  # the counter is of thirty days, and as late as ever
    trainer.learn_pointwise(x_RX, item_R, rng.random(4096) < 0.2, "click")
    trainer._outcomes["click"].platt.state[2:] *= 1e4
    for _ in range(10):
        shown_R = trainer.learn_pointwise(x_RX, item_R, rng.random(4096) < 0.05, "click")
    assert shown_R.mean() == pytest.approx(0.05, rel=0.15)


def shown_in_places(rows=12_000):
    """Two items of one worth: the first stands mostly above, where five times as many click, the second below."""
    rng = np.random.default_rng(1)
    x_RX = np.zeros((rows, COLUMNS), np.float32)
    x_RX[:, Feature.click_rate] = np.log(0.2)
    second_R = np.arange(rows) % 2 == 1
    below_R = rng.random(rows) < np.where(second_R, 0.85, 0.15)
    label_R = rng.random(rows) < np.where(below_R, 0.08, 0.4)
    return x_RX, np.where(second_R, 7, 5), label_R, np.where(below_R, 9, 0)


@pytest.mark.slow
def test_an_item_is_not_thought_better_for_the_place_it_stood_in():
    x_RX, item_R, label_R, place_R = shown_in_places()

    def served(place_R):
        trainer = Trainer(SMALL)
        trainer.learn_pointwise(x_RX, item_R, label_R, "click", None, place_R)
        ranker = Ranker.from_tensors(trainer.tensors(), version=1)
        return ranker.score(x_RX[None, :2], item_R[None, :2], np.ones((1, 2), bool)).click_PK[0]

    blind, told = served(None), served(place_R)
    assert blind[0] > 2.5 * blind[1]
    assert told == pytest.approx([0.4, 0.4], abs=0.06), "as in the first place"


def test_a_checkpoint_of_a_release_that_knew_nothing_of_places_is_gone_on_from():
    old = Trainer(SMALL)
    old.learn_pointwise(*some_outcomes(), "click")
    state = old.state()
    for name in ("standing", "model.outcome.place.weight", "outcome.squares.2"):
        moved = state.pop(name)
    assert moved.shape == (64, 2)
    trainer = Trainer(SMALL)
    trainer.restore(state)
    assert trainer.outcome("click") == old.outcome("click")
    assert not trainer.model.outcome.place.weight.any()
    trainer.learn_pointwise(*some_outcomes(1), "click", None, np.arange(2048) % 99)
    assert trainer.model.outcome.place.weight[63].any(), "beyond the last is the last"


def test_heads_keep_to_their_tower():
    trainer = Trainer(SMALL)
    trainer.learn_listwise(*some_choices())
    start = trainer.tensors()
    trainer.learn_pointwise(*some_outcomes(), "complete")
    middle = trainer.tensors()
    trainer.learn_listwise(*some_choices(1))
    end = trainer.tensors()
    assert all(np.array_equal(start[name], middle[name]) for name in start if name.startswith("model.next"))
    assert all(np.array_equal(middle[name], end[name]) for name in start if name.startswith("model.outcome"))
    np.testing.assert_array_equal(start["platt"][0], end["platt"][0])


def test_it_has_learned_only_after_enough_rows_and_a_better_order_than_retrieval():
    trainer = Trainer(SMALL, TrainerSettings(learned_rows=1024))
    trainer.learn_listwise(*some_choices(0))
    assert trainer.listwise().gain > 0
    assert not trainer.learned
    assert Ranker.from_tensors(trainer.tensors(), version=1).state == "few_examples"
    trainer.learn_listwise(*some_choices(1))
    assert trainer.learned
    assert Ranker.from_tensors(trainer.tensors(), version=2).state == "serves"
    worse = Trainer(SMALL, TrainerSettings(learned_rows=64, rate=1e-6, item_rate=1e-6))
    x_RSX, *rest = some_choices(2, by=Feature.cooc_decayed)
    worse.learn_listwise(x_RSX, *rest)
    assert not worse.learned
    tensors = worse.tensors()
    assert Ranker.from_tensors(tensors, version=1).state == "behind_retrieval"
    del tensors["standing"]
    assert not Ranker.from_tensors(tensors, version=1).learned, "as earlier releases write it"


def test_an_impossible_sampling_probability_poisons_nothing():
    trainer = Trainer(SMALL)
    *choices, log_q_RS = some_choices(rows=64)
    log_q_RS[3, 4], log_q_RS[5, 2] = -np.inf, np.nan
    assert trainer.learn_listwise(*choices, log_q_RS).refused == 1
    assert all(np.isfinite(array).all() for array in trainer.state().values())


def test_nothing_is_left_of_items_that_are_forgotten_but_what_they_share():
    trainer = Trainer(SMALL)
    trainer.learn_listwise(*some_choices())
    before = trainer.state()
    trainer.forget(np.array([64 + 5, 7, 9]), np.array([128 + 9, 11]))
    now = trainer.state()
    for name in ("model.next.item.weight", "model.next.item_bias.weight"):
        assert not now[name][[5, 7]].any()
        others = np.setdiff1d(np.arange(64), [5, 7])
        assert np.array_equal(now[name][others], before[name][others])
    assert (now["next.squares.0"][[5, 7]] < 1e-9).all()
    assert (now["next.squares.0"][9] == before["next.squares.0"][9]).all()
