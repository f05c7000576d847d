"""Chances of ads for people, and for nobody."""

import numpy as np
import pytest

from ranking.ads.campaigns import BidType
from ranking.ads.features import AdFeature
from streams.serving.ad_scoring import AdCandidates, AdScorer, chance_for, expected
from streams.serving.creatives import creative_id
from tests.streams.serving.ad_world import KINDS, AdWorld, a_creative, a_house, a_line

WAR, LOVE = range(2)


@pytest.fixture(scope="module")
def world() -> AdWorld:
    made = [
        a_creative("war", categories=("war",)),
        a_creative("love", categories=("love",)),
        a_creative("film", item_id="i000", format="video", duration_s=30),
        a_creative("plain"),
    ]
    return AdWorld(a_house(*[a_line(f"{one.key}", one) for one in made]))


def test_people_are_near_to_ads_that_are_like_what_they_hold(world: AdWorld) -> None:
    x_UCF = world.chances([WAR, LOVE]).x_CF.reshape(2, 4, -1)
    for column in (AdFeature.category_affinity, AdFeature.category_recent, AdFeature.dot):
        assert x_UCF[WAR, 0, column] > x_UCF[WAR, 1, column]
        assert x_UCF[LOVE, 1, column] > x_UCF[LOVE, 0, column]
    assert x_UCF[WAR, 2, AdFeature.cooc_flat] > x_UCF[LOVE, 2, AdFeature.cooc_flat], "i000 goes with what they hold"
    assert x_UCF[:, :, AdFeature.video].tolist() == [[0, 0, 1, 0]] * 2


def test_who_does_not_let_the_profile_be_used_is_anybody(world: AdWorld) -> None:
    chances = world.chances([WAR, LOVE], personal=False, draw=1)
    one, other = (each.reshape(2, 4, -1) for each in (chances.bid_CO, chances.x_CF))
    assert np.array_equal(one[0], one[1])
    assert np.array_equal(other[0], other[1])
    again = world.chances([LOVE, WAR], personal=False, draw=2, seed=5)
    assert np.array_equal(again.bid_CO, chances.bid_CO), "whoever asks, whatever is drawn"


def test_a_request_that_comes_again_is_decided_alike(world: AdWorld) -> None:
    one, again, other = (world.chances([WAR], draw=draw) for draw in (3, 3, 4))
    assert np.array_equal(one.bid_CO, again.bid_CO)
    assert (one.bid_CO != other.bid_CO).any()
    assert np.array_equal(one.p_CO, other.p_CO), "what is expected is not drawn"


def test_a_cold_ad_can_win_and_one_that_is_known_keeps_to_what_is_known(world: AdWorld) -> None:
    wins = np.zeros(4)
    for draw in range(100):
        wins[world.chances([WAR], draw=draw).bid_CO[:, 0].argmax()] += 1
    assert (wins > 5).all()


def test_auctions_are_scored_alike_alone_and_together(world: AdWorld) -> None:
    creatives, people = world.creatives, world.viewers([WAR, LOVE])
    candidates = AdCandidates(
        np.array([0, 3, 3, 5]), np.array([2, 0, 3, 1, 2], np.int32), np.array([1, 0, 0]), np.zeros(3, np.uint32)
    )
    draw_C = np.arange(5, dtype=np.uint64) << np.uint64(60)
    together = world.scorer.chances(creatives, people, candidates, draw_C)
    for p, some in ((0, slice(0, 3)), (2, slice(3, 5))):
        alone = AdCandidates(
            np.array([0, some.stop - some.start]), candidates.creative_C[some], candidates.viewer_P[[p]],
            np.zeros(1, np.uint32),
        )  # fmt: skip
        each = world.scorer.chances(creatives, people, alone, draw_C[some])
        assert each.bid_CO == pytest.approx(together.bid_CO[some], rel=1e-5)
        assert each.x_CF == pytest.approx(together.x_CF[some], rel=1e-5)


def test_no_auction_and_no_candidate_is_no_error(world: AdWorld) -> None:
    none = AdCandidates(np.array([0, 0]), np.empty(0, np.int32), np.array([0]), np.zeros(1, np.uint32))
    for candidates in (
        none,
        AdCandidates(np.array([0]), *(np.empty(0, kind) for kind in (np.int32, np.intp, np.uint32))),
    ):
        chances = world.scorer.chances(world.creatives, world.viewers([WAR]), candidates, np.empty(0, np.uint64))
        assert chances.bid_CO.shape == (0, 3)
        assert not len(world.scorer.near(world.creatives, world.viewers([WAR]), candidates))


def test_a_closer_look_is_taken_at_what_is_near_what_pays_and_what_was_sold() -> None:
    count = 40
    made = [a_creative(f"c{n}", categories=(KINDS[n % 2],)) for n in range(count)]
    world = AdWorld(a_house(*[a_line(f"l{one.key}", one) for one in made]))
    world.scorer.most = 8
    candidates, worth_C, always_C = world.all_for(2), np.arange(2 * count) % count * 1.0, np.zeros(2 * count, bool)
    always_C[[1, 3]] = True
    keep_C = world.scorer.near(world.creatives, world.viewers([WAR, LOVE]), candidates, worth_C, always_C)
    for person, kept in enumerate(keep_C.reshape(2, count)):
        at = np.flatnonzero(kept)
        assert len(at) == 8 + 2 * (person == 0)
        taste_D = world.viewers([WAR, LOVE]).taste_UD[person]
        near_N = world.creatives.rows.vector_ND @ taste_D
        nearest = [n for n in np.argsort(-near_N).tolist() if person or n not in (1, 3)][:4]
        assert {*range(count - 4, count), *nearest} <= set(at.tolist())
        assert {n % 2 for n in nearest} == {person}
    nobody_C = world.scorer.near(world.creatives, world.viewers([WAR, LOVE], personal=False), candidates, worth_C)
    assert nobody_C.reshape(2, count)[:, -8:].all()
    assert nobody_C.sum() == 16


def test_no_advertiser_crowds_the_others_out_and_many_slots_are_filled() -> None:
    """Of forty ads of one advertiser, the dearest, and six of others, two of the eight looked at are the first's."""
    world = AdWorld(a_house(*[a_line(f"l{n}", a_creative(f"c{n}")) for n in range(46)]))
    world.scorer.most = 8
    candidates, worth_C = world.all_for(1), np.arange(46)[::-1] * 1.0
    viewers, nothing_C = world.viewers([WAR], personal=False), np.zeros(46, np.bool_)
    whose_C, told = np.maximum(np.arange(46), 39), (world.creatives, viewers, candidates, worth_C, nothing_C)
    assert np.flatnonzero(world.scorer.near(*told, whose_C)).tolist() == [0, 1, *range(40, 46)]
    assert world.scorer.near(*told, whose_C, np.array([10])).sum() == 40


def test_some_of_the_candidates_are_those_of_the_same_auctions(world: AdWorld) -> None:
    candidates = world.all_for(2)
    some = candidates.at(np.array([1, 0, 0, 1, 0, 0, 0, 1], np.bool_))
    assert some.start_P1.tolist() == [0, 2, 3]
    assert some.creative_C.tolist() == [0, 3, 3]
    assert some.auction_C.tolist() == [0, 0, 1]


def test_bids_are_for_what_they_are_paid_by() -> None:
    types = np.array([BidType.cpm, BidType.cpc, BidType.cpa, BidType.cpcv])
    assert chance_for(types, np.tile([0.1, 0.2, 0.3], (4, 1))).tolist() == [1, 0.1, 0.3, 0.2]


def test_what_an_impression_brings_is_roughly_known_beforehand(world: AdWorld) -> None:
    types, bids = np.array([BidType.cpm, BidType.cpc, BidType.cpcv]), np.array([5_000_000, 800_000, 100])
    rough_C = expected(world.creatives, np.array([0, 1, 2], np.int32), types, bids)
    assert rough_C.tolist() == pytest.approx([5_000, 8_000, 50], abs=1)


def test_creatives_are_no_items(world: AdWorld) -> None:
    items = world.service.serving.items
    ids_N = np.array([creative_id(one.key) for one in world.house.creatives], np.uint64)
    assert (world.creatives.item_N == ids_N).all()
    assert (items.ids.rows(ids_N) == -1).all()


def test_only_what_changed_is_made_anew(world: AdWorld) -> None:
    scorer = AdScorer(world.service.serving, world.service.settings)
    first = scorer.prepare(world.house)
    assert scorer.prepare(world.house) is first
    lines = [line for line in world.house.lines if line]
    added = a_house(a_line("new", a_creative("new", categories=("war",))), *lines[1:])
    second = scorer.prepare(added)
    assert [one.key for one in added.creatives] == ["new", "love", "film", "plain"]
    assert second.item_N[0] == creative_id("new")
    assert np.array_equal(second.rows.vector_ND[1:], first.rows.vector_ND[1:])
    assert np.array_equal(second.rows.category_NC[0], first.rows.category_NC[0])
    world.service.swap()
    assert scorer.prepare(added) is not second, "another model sees other vectors"


def test_a_category_that_items_have_since_is_known(world: AdWorld) -> None:
    house = a_house(a_line("x", a_creative("x", categories=("opera",))))
    scorer = AdScorer(world.service.serving, world.service.settings)
    assert scorer.prepare(house).rows.category_NC[0, 0] == -1
    world.service.catalogue("aida", categories=("opera",))
    assert scorer.prepare(house).rows.category_NC[0, 0] == world.service.serving.items.categories["opera"]
