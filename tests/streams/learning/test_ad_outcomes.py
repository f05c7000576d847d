"""What is learned of ads in a world where it is known whom each suits."""

import numpy as np
import pytest
from numpy.typing import NDArray

from embeddings.events import CONSENT_ADS, CONSENT_ALL, CONSENT_PROFILE, Action
from ranking.ads.heads import PRIOR_RATES
from ranking.ads.prediction import measured
from streams.learning.learner import Learner
from tests.streams.serving.ad_world import KINDS, AdWorld, a_creative, a_house, a_line

CREATIVES = 8
RATE_KN = np.array([[0.2 if n % 2 == kind else 0.02 for n in range(CREATIVES)] for kind in range(2)])
RATE_KN = RATE_KN * (np.arange(CREATIVES) / CREATIVES + 0.5)


def a_world() -> AdWorld:
    """Ads of two advertisers; of half of them the words say whom they suit."""
    categories = [(KINDS[n % 2],) if n < CREATIVES // 2 else () for n in range(CREATIVES)]
    made = [a_creative(f"c{n}", categories=some) for n, some in enumerate(categories)]
    return AdWorld(a_house(*[a_line(f"{'ab'[n // 4]}{n}", one) for n, one in enumerate(made)]))


def area_under_curve(p_R: NDArray[np.floating], label_R: NDArray[np.bool_]) -> float:
    _, at_R, count = np.unique(p_R, return_inverse=True, return_counts=True)
    rank_R = (np.cumsum(count) - (count - 1) / 2)[at_R]
    ones = int(label_R.sum())
    return float((rank_R[label_R].sum() - ones * (ones + 1) / 2) / (ones * (len(label_R) - ones)))


@pytest.mark.slow
def test_it_learns_which_creative_suits_whom_and_its_chances_come_true() -> None:
    world, told, came, mean = a_world(), list[NDArray[np.floating]](), list[NDArray[np.bool_]](), RATE_KN.mean(0)
    means: list[NDArray[np.floating]] = []
    for turn in range(24):
        p_U, clicked_U = world.live(RATE_KN, 400, seed=turn)
        told.append(p_U)
        came.append(clicked_U)
        means.append(mean[np.random.default_rng(turn).integers(0, CREATIVES, 400)])
        if turn % 2:
            world.service.swap()
    p_R, label_R, mean_R = (np.concatenate(each[-10:]) for each in (told, came, means))
    ours, theirs = measured(p_R, label_R), measured(mean_R, label_R)
    assert ours.entropy < theirs.entropy - 0.08, "than that of always saying a creative's true click rate"
    assert area_under_curve(p_R, label_R) > area_under_curve(mean_R, label_R) + 0.1
    assert 0.9 < ours.ratio < 1.1
    figures = world.service.learner.ads.figures()["click"]
    assert figures.rows == 24 * 400
    assert ours.error < 0.03


def one_impression(world: AdWorld, *actions: Action, consent: int = CONSENT_ALL) -> None:
    names, _ = world.decide([0], np.array([0]))
    world.happen((names[0], Action.ad_impression), *[(names[0], action) for action in actions], consent=consent)
    world.wait()


def test_nothing_is_learned_of_who_does_not_let_ads_use_the_profile() -> None:
    world = a_world()
    for consent in (CONSENT_ALL & ~CONSENT_ADS, CONSENT_ALL & ~CONSENT_PROFILE, 0):
        one_impression(world, Action.ad_click, consent=consent)
    assert world.service.learner.ads.rows == 0
    assert not any(name.startswith("ads.") for name in world.service.learner.freeze().ranker)


def test_ads_teach_organic_ranking_nothing() -> None:
    with_ads, without = a_world(), a_world()
    for _ in range(5):
        one_impression(with_ads, Action.ad_click, Action.ad_complete, Action.ad_conversion)
    assert with_ads.service.learner.ads.rows > 0
    one, other = with_ads.service.learner, without.service.learner
    assert all(np.array_equal(one.trainer.state()[name], array) for name, array in other.trainer.state().items())
    assert np.array_equal(one.counters.popularity_N4, other.counters.popularity_N4)
    assert np.array_equal(one.counters.reactions_N4, other.counters.reactions_N4)
    assert one.ids.held == other.ids.held


def test_what_came_of_a_creative_is_served() -> None:
    world = a_world()
    before = world.creatives.rows.rate_NO[0].copy()
    assert np.exp(before) == pytest.approx(PRIOR_RATES, rel=1e-3)
    for _ in range(20):
        one_impression(world, Action.ad_click)
    world.service.swap()
    after = world.creatives
    assert after.shown_N.tolist() == pytest.approx([20] + [0] * (CREATIVES - 1), rel=0.01)
    assert after.rows.rate_NO[0, 0] > before[0] + 2
    assert after.rows.rate_NO[0, 2] < before[2]


def test_who_was_promised_too_much_of_bids_less() -> None:
    world = a_world()
    ads = world.service.learner.ads
    one_impression(world)
    for drift in ads.drifts:
        drift.learn(np.zeros(3_000, np.int64), np.full(3_000, 0.1), np.arange(3_000) % 50 == 0)
    assert ads.alarms() == {"click": 1, "complete": 1}
    world.service.swap()
    world.scorer.exploration = 0
    first, chances = world.creatives.advertiser_N == 0, world.chances([0])
    assert first.sum() == CREATIVES // 2
    factor_C = (chances.bid_CO / chances.p_CO)[:, 0]
    assert (factor_C[first] < 0.5).all()
    assert factor_C[~first] == pytest.approx(1)


def test_it_goes_on_as_it_was_after_a_restart() -> None:
    world = a_world()
    world.live(RATE_KN, 100)
    one, other = world.service.learner, Learner(world.service.settings)
    arrays, text = one.state()
    other.restore({name: np.array(array) for name, array in arrays.items()}, text)
    offset, now_s = world.offset, world.now_s
    for world.service.learner in (one, other):
        world.offset, world.now_s = offset, now_s
        world.live(RATE_KN, 100, seed=1)
    mine, theirs = one.state()[0], other.state()[0]
    of_ads = [name for name in mine if name.startswith("ads.")]
    assert len(of_ads) > 20
    assert all(np.array_equal(mine[name], theirs[name]) for name in of_ads)
    tensors = one.ads.tensors()
    assert all(np.array_equal(tensors[name], array) for name, array in other.ads.tensors().items())


def test_a_checkpoint_of_before_there_were_ads_is_read() -> None:
    world = a_world()
    arrays, text = world.service.learner.state()
    assert not any(name.startswith("ads.") for name in arrays)
    restored = Learner(world.service.settings)
    restored.restore(dict(arrays), text.replace('"ad_clocks": []', '"other": []'))
    assert restored.ads.rows == 0


def test_a_snapshot_of_before_there_were_ads_serves_counters() -> None:
    world = a_world()
    assert world.creatives.model.ads.tower is None
    assert world.chances([0, 1]).p_CO == pytest.approx(np.tile(PRIOR_RATES, (2 * CREATIVES, 1)), rel=1e-3)
