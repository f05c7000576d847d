import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ranking.errors import WeightsRefused
from ranking.features import COLUMNS, Feature
from ranking.frozen import FrozenTower
from ranking.model import GAIN, RankingModel
from ranking.ranker import Ranker
from ranking.trainer import Trainer
from ranking.weights import Shape, shapes
from tests.fuzzing import thorough

SMALL = Shape(buckets=64, width=8, item_width=2)


def some_columns(rng, *shape):
    x = rng.normal(size=(*shape, COLUMNS)).astype(np.float32)
    x[..., Feature.from_vector : Feature.from_fresh + 1] = 1
    x[..., Feature.click_rate] = np.log(0.05)
    x[..., Feature.context] = 7
    return x


def some_tensors(seed=0):
    """Weights away from their start in every place, and marked as learned."""
    rng = np.random.default_rng(seed)
    tensors = Trainer(SMALL).tensors()
    moved = {name: (array + rng.normal(0, 0.1, array.shape)).astype(array.dtype) for name, array in tensors.items()}
    return moved | {"learned": np.ones(1, np.uint8), "model.scale_F": tensors["model.scale_F"]}


def a_ranker(seed=0):
    return Ranker.from_tensors(some_tensors(seed), version=3)


def some_candidates(seed=0, positions=40, candidates=30):
    rng = np.random.default_rng(seed)
    x_PKX = some_columns(rng, positions, candidates)
    mask_PK = rng.random((positions, candidates)) < 0.8
    return np.where(mask_PK[..., None], x_PKX, 0), rng.integers(1, 2**40, mask_PK.shape), mask_PK


@pytest.mark.parametrize("ranker", [a_ranker(), Ranker.untaught()], ids=["learned", "untaught"])
def test_a_score_does_not_depend_on_the_batch_around_it(ranker):
    x_PKX, item_PK, mask_PK = some_candidates()
    together = ranker.score(x_PKX, item_PK, mask_PK)
    for p in (0, 17, 39):
        alone = ranker.score(x_PKX[p : p + 1], item_PK[p : p + 1], mask_PK[p : p + 1])
        for batched, single in zip(together, alone, strict=True):
            np.testing.assert_allclose(batched[p], single[0], atol=1e-5)


@thorough(20)
@given(st.integers(0, 2**32 - 1))
def test_scores_follow_their_candidates_when_these_are_shuffled(seed):
    x_PKX, item_PK, mask_PK = some_candidates(seed, positions=2)
    order = np.random.default_rng(seed).permutation(30)
    straight = a_ranker().score(x_PKX, item_PK, mask_PK)
    shuffled = a_ranker().score(x_PKX[:, order], item_PK[:, order], mask_PK[:, order])
    for before, after in zip(straight, shuffled, strict=True):
        np.testing.assert_allclose(before[:, order], after, atol=1e-5)


def test_absent_candidates_score_zero_and_change_nothing():
    x_PKX, item_PK, mask_PK = some_candidates(positions=1)
    held = np.flatnonzero(mask_PK[0])
    full = a_ranker().score(x_PKX, item_PK, mask_PK)
    bare = a_ranker().score(x_PKX[:, held], item_PK[:, held], mask_PK[:, held])
    for padded, dense in zip(full, bare, strict=True):
        np.testing.assert_allclose(padded[:, held], dense, atol=1e-6)
        assert not padded[~mask_PK].any()


def test_next_is_a_distribution_over_the_candidates():
    next_PK = a_ranker().score(*some_candidates()).next_PK
    np.testing.assert_allclose(next_PK.sum(1), 1, atol=1e-5)


def test_outcomes_do_not_depend_on_rival_candidates():
    x_PKX, item_PK, mask_PK = some_candidates(positions=1)
    among_all = a_ranker().score(x_PKX, item_PK, mask_PK)
    k = int(np.flatnonzero(mask_PK[0])[0])
    alone = a_ranker().score(x_PKX[:, k : k + 1], item_PK[:, k : k + 1], mask_PK[:, k : k + 1])
    assert alone.click_PK[0, 0] == pytest.approx(among_all.click_PK[0, k], abs=1e-5)
    assert alone.complete_PK[0, 0] == pytest.approx(among_all.complete_PK[0, k], abs=1e-5)


@pytest.mark.parametrize("crosses", [0, 1, 2, 3])
def test_a_frozen_tower_says_what_the_module_says(crosses):
    shape = Shape(buckets=64, width=8, item_width=2, crosses=crosses)
    model = RankingModel(shape).requires_grad_(False)
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter += 0.3 * torch.randn(parameter.shape, generator=draw)
    x_PKX, item_PK, mask_PK = some_candidates(positions=11)
    x, item = torch.from_numpy(x_PKX), torch.from_numpy(item_PK)
    z, context_P = model.normalised(x), torch.from_numpy(x_PKX[..., Feature.context].max(1)).long()
    chosen = model.next_logits(x, z, item, torch.from_numpy(mask_PK).float()).numpy()
    outcomes = model.outcome(z, item & 63, context_P).numpy()
    outcomes += GAIN * model.outcome.place.weight[0].numpy()
    weights = {name: parameter.numpy() for name, parameter in model.served().items()}
    assert {name: weight.shape for name, weight in weights.items()} == shapes(shape)
    frozen_next = FrozenTower(weights, "next").logits(x_PKX, item_PK, mask_PK)[..., 0]
    frozen_outcome = FrozenTower(weights, "outcome").logits(x_PKX, item_PK, mask_PK)
    np.testing.assert_allclose(frozen_next[mask_PK], chosen[mask_PK], atol=1e-4)
    np.testing.assert_allclose(frozen_outcome[mask_PK], outcomes[mask_PK], atol=1e-4)


@pytest.mark.parametrize("crosses", [0, 1, 2, 3])
def test_a_share_is_the_slope_times_the_distance_from_the_mean_candidate(crosses):
    shape = Shape(buckets=64, width=8, item_width=2, crosses=crosses)
    model = RankingModel(shape).requires_grad_(False)
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter += 0.3 * torch.randn(parameter.shape, generator=draw)
    x_PKX, item_PK, mask_PK = some_candidates(positions=5)
    z_PKF = model.normalised(torch.from_numpy(x_PKX)).requires_grad_()
    there = torch.from_numpy(mask_PK).float()[..., None]
    middle_PF = ((z_PKF * there).sum(1) / there.sum(1)).detach()
    context_P = torch.from_numpy(x_PKX[..., Feature.context].max(1)).long()
    model.next(z_PKF, torch.from_numpy(item_PK) & 63, context_P, middle_PF).sum().backward()
    expected_PKF = (z_PKF.grad * (z_PKF - middle_PF[:, None])).detach().numpy()
    weights = {name: parameter.numpy() for name, parameter in model.state_dict().items()}
    index_PN = np.array([np.flatnonzero(held)[[3, 0, 7]] for held in mask_PK], np.int32)
    index_PN[2, 1:] = -1
    share_PNF = FrozenTower(weights, "next").shares(x_PKX, item_PK, mask_PK, index_PN)
    for p, n in zip(*np.nonzero(index_PN >= 0), strict=True):
        np.testing.assert_allclose(share_PNF[p, n], expected_PKF[p, index_PN[p, n]], atol=1e-4)


def test_before_it_has_learned_shares_are_those_of_retrieval_order():
    x_PKX, item_PK, mask_PK = some_candidates(positions=2)
    index_PN = np.array([np.flatnonzero(held)[:4] for held in mask_PK], np.int32)
    share_PNF = Ranker.untaught().shares(x_PKX, item_PK, mask_PK, index_PN)
    told = [Feature.cooc_decayed, Feature.dot, Feature.popularity_mid]
    assert not np.delete(share_PNF, told, axis=-1).any()
    cooc, dot = (np.exp(x_PKX[1, index_PN[1, 2], column]) for column in told[:2])
    apart = x_PKX[1, index_PN[1, 2], Feature.dot] - x_PKX[1, mask_PK[1], Feature.dot].mean()
    assert share_PNF[1, 2, Feature.dot] == pytest.approx(dot / (cooc + dot) * apart, rel=1e-4)


def test_nobody_to_rank_is_not_an_error():
    x_PKX, item_PK, mask_PK = some_candidates(positions=3)
    assert not any(scores.any() for scores in a_ranker().score(x_PKX, item_PK, np.zeros_like(mask_PK)))
    assert a_ranker().score(x_PKX[:0], item_PK[:0], mask_PK[:0]).next_PK.shape == (0, 30)


def test_before_it_has_learned_it_keeps_retrieval_order_and_says_so():
    ranker = Ranker.untaught()
    x_PKX, item_PK, mask_PK = some_candidates(positions=1)
    x_PKX[..., Feature.dot] = np.log(1e-3)
    retrieved = np.linspace(0.9, 0.1, 30, dtype=np.float32)
    x_PKX[0, :, Feature.cooc_decayed] = np.log(retrieved)
    x_PKX[..., Feature.popularity_mid] = 0
    scores = ranker.score(x_PKX, item_PK, np.ones_like(mask_PK))
    assert not ranker.learned
    assert (np.argsort(-scores.next_PK[0]) == np.arange(30)).all()
    np.testing.assert_allclose(scores.next_PK[0], (retrieved + 1e-3) / (retrieved + 1e-3).sum(), rtol=1e-4)


def test_an_untaught_click_is_the_smoothed_click_rate():
    x_PKX, item_PK, mask_PK = some_candidates()
    assert Ranker.untaught().score(x_PKX, item_PK, mask_PK).click_PK[mask_PK] == pytest.approx(0.05, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("model.next.wide.weight", lambda array: array[:, 1:]),
        ("model.next.wide.weight", lambda array: array * np.nan),
        ("model.outcome.from_deep.bias", lambda array: None),
        ("model.next.item.weight", lambda array: None),
        ("model.next.item.weight", lambda array: array[:33]),
        ("platt", lambda array: array * np.inf),
        ("learned", lambda array: None),
    ],
)
def test_spoiled_weights_are_refused(name, spoil):
    tensors = some_tensors()
    spoiled = spoil(tensors.pop(name))
    with pytest.raises(WeightsRefused):
        Ranker.from_tensors(tensors | ({} if spoiled is None else {name: spoiled}), version=1)


def test_weights_are_copied_from_the_snapshot():
    tensors = some_tensors()
    ranker = Ranker.from_tensors(tensors, version=1)
    before = ranker.score(*some_candidates()).next_PK
    for array in tensors.values():
        array[...] = 0
    np.testing.assert_array_equal(ranker.score(*some_candidates()).next_PK, before)
