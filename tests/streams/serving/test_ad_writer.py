"""What decisions about ads, and their events, tell the learner."""

import numpy as np
import pytest

from embeddings.events import Action
from ranking.ads.features import AdFeature
from streams.contract.observations import decode, encode, pieces
from streams.learning.ad_impressions import AdImpressions
from streams.serving.ad_scoring import placement_of
from streams.serving.ad_writer import observe_ads
from streams.serving.creatives import creative_id, name_hash
from streams.serving.observation_writer import slate_hash
from tests.streams.builders import Service, an_event, told
from tests.streams.serving.ad_world import REQUESTS, AdWorld, a_creative, a_house, a_line

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def world() -> AdWorld:
    lines = [
        a_line(f"l{n}", a_creative(f"c{n}"), advertiser=f"a{n}", click_window_ms=(n + 1) * DAY_MS) for n in range(3)
    ]
    return AdWorld(a_house(*lines))


def test_an_event_of_an_ad_names_its_decision() -> None:
    events = [an_event(n, item=None, kind=kind, decision_id="d1") for n, kind in enumerate(("impression", "click"))]
    observation = told(Service().respond(events))[0]
    assert observation.action_R.tolist() == [Action.ad_impression, Action.ad_click]
    assert observation.slate_R.tolist() == [slate_hash("d1")] * 2


def test_a_decision_is_told_as_it_was_seen(world: AdWorld) -> None:
    creatives, people, candidates = world.creatives, world.viewers([0, 1]), world.all_for(2)
    chances = world.scorer.chances(creatives, people, candidates, np.zeros(6, np.uint64))
    lines = [line for line in world.house.lines if line]
    at_A = np.array([2, 3])  # the third ad for the first, the first for the second
    who = creatives, people, candidates, chances
    made = observe_ads(REQUESTS, [7, 5], ["x", "y"], [lines[2], lines[0]], at_A, *who, np.array([0.5, 1]))
    o = decode(encode(made))
    assert (o.first, o.last, len(o)) == (5, 7, 0)
    assert o.ad_A.tolist() == [slate_hash("x"), slate_hash("y")]
    assert o.ad_item_A.tolist() == [creative_id("c2"), creative_id("c0")]
    assert o.ad_advertiser_A.tolist() == [name_hash("a2"), name_hash("a0")]
    assert o.ad_placement_A.tolist() == [placement_of("top")] * 2
    assert o.ad_click_s_A.tolist() == [3 * 86_400, 86_400]
    assert o.ad_p_AO == pytest.approx(chances.p_CO[at_A], rel=1e-6)
    assert o.ad_x_AF == pytest.approx(chances.x_CF[at_A], rel=1e-3)
    assert np.linalg.norm(o.ad_taste_AD.astype(float), axis=1) == pytest.approx([1, 1], rel=1e-2)
    assert o.ad_x_AF[:, AdFeature.personal].tolist() == [1, 1]
    assert o.ad_propensity_A.tolist() == [0.5, 1]


def test_nothing_is_told_of_the_taste_of_nobody(world: AdWorld) -> None:
    people, candidates = world.viewers([0], personal=False), world.all_for(1)
    chances = world.scorer.chances(world.creatives, people, candidates, np.zeros(3, np.uint64))
    line = next(line for line in world.house.lines if line)
    who = world.creatives, people, candidates, chances
    o = observe_ads(REQUESTS, [0], ["x"], [line], np.array([0]), *who, np.ones(1))
    assert not o.ad_taste_AD.any()


def test_many_decisions_are_told_in_pieces_that_say_the_same(world: AdWorld) -> None:
    creatives, many = world.creatives, 200
    people, candidates = world.viewers([0] * many), world.all_for(many)
    chances = world.scorer.chances(creatives, people, candidates, np.zeros(3 * many, np.uint64))
    line = next(line for line in world.house.lines if line)
    names, at_A = [f"d{n}" for n in range(many)], 3 * np.arange(many)
    who = creatives, people, candidates, chances
    whole = observe_ads(REQUESTS, list(range(many)), names, [line] * many, at_A, *who, np.ones(many))
    parts = [decode(value) for value in pieces(whole, most_bytes=8_000)]
    assert len(parts) > 2
    assert np.concatenate([part.ad_A for part in parts]).tolist() == whole.ad_A.tolist()
    impressions = AdImpressions(60)
    for part in parts:
        impressions.show(part)
    assert len(impressions) == many
