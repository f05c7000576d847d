import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking import features as ranking
from ranking.features import AWAY_S, COLUMNS, Candidates, Feature, Histories, ItemRows, Neighbours, dots
from tests.fuzzing import thorough

NOW = 1_700_000_000


def features(histories, candidates, neighbours, items, **rates):
    return ranking.features(histories, candidates, neighbours, items._replace(**rates))


def a_world(seed=0, *, positions=3, held=6, candidates=8, items=40, near=5):
    rng = np.random.default_rng(seed)
    row_PH = np.stack([rng.permutation(items)[:held] for _ in range(positions)]).astype(np.int32)
    row_PH[rng.random(row_PH.shape) < 0.1] = -1
    ages = np.sort(rng.integers(0, 5000, (positions, held)), 1)
    histories = Histories(
        row_PH,
        rng.choice([-1, 0, 1], (positions, held), p=[0.2, 0.4, 0.4]).astype(np.int8),
        NOW - ages.astype(np.int64),
        np.full(positions, NOW, np.int64),
        rng.integers(0, 64, positions).astype(np.int16),
    )
    row_PK = np.stack([rng.permutation(items)[:candidates] for _ in range(positions)]).astype(np.int32)
    row_PK[rng.random(row_PK.shape) < 0.2] = -1
    sources = rng.integers(1, 16, row_PK.shape).astype(np.uint8)
    shown = Candidates(row_PK, sources, rng.normal(size=row_PK.shape).astype(np.float32))
    near_NM = np.stack([rng.permutation(items)[:near] for _ in range(items)]).astype(np.int32)
    neighbours = Neighbours(near_NM, rng.random((items, near)).astype(np.float32))
    return histories, shown, neighbours, some_items(rng, items)


def some_items(rng, items):
    counts = [rng.integers(0, 50, items).astype(np.float32) for _ in range(4)]
    times = [NOW - rng.integers(0, 10**6, items) for _ in range(2)]
    categories = np.sort(rng.integers(-1, 5, (items, 3)), 1)[:, ::-1].astype(np.int16)
    years = rng.choice([0, 1970, 1999], items).astype(np.int16)
    return ItemRows(
        rng.random((items, 3), np.float32) * 99,
        np.stack(counts, 1),
        np.full(items, NOW),
        *times,
        years,
        np.ascontiguousarray(categories),
        NOW,
        np.array([1e5, 1e6, 1e7, 1e7]),
    )


def co_occurrence(histories, neighbours, p, row, fade):
    """The sum of one candidate, written the slow way: `fade(place, liked so far, appeal, age)` per item held.

    Its age is as of the latest.
    """
    total, liked = 0.0, 0
    for h, held in enumerate(histories.row_PH[p]):
        appeal = histories.appeal_PH[p, h]
        weight = fade(h, liked, appeal, histories.time_PH[p, 0] - histories.time_PH[p, h])
        liked += appeal > 0
        if held >= 0:
            total += weight * neighbours.weight_NM[held][neighbours.row_NM[held] == row].sum()
    return total


VIEWS = {
    Feature.cooc_last: lambda place, liked, appeal, age: place == 0,
    Feature.cooc_last3: lambda place, liked, appeal, age: place < 3,
    Feature.cooc_decayed: lambda place, liked, appeal, age: 0.9**place,
    Feature.cooc_liked: lambda place, liked, appeal, age: 0.9**liked * (appeal > 0),
    Feature.cooc_session: lambda place, liked, appeal, age: age <= 1800,
}


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
@pytest.mark.parametrize("seed", range(3))
def test_co_occurrence_views_equal_the_sum_written_the_slow_way(view, seed):
    histories, shown, neighbours, _ = world = a_world(seed)
    x_PKX = features(*world).x_PKX
    for p, k in zip(*np.nonzero(shown.row_PK >= 0), strict=True):
        expected = co_occurrence(histories, neighbours, p, shown.row_PK[p, k], VIEWS[view])
        assert x_PKX[p, k, view] == pytest.approx(np.log(expected + 1e-3), abs=1e-4)


def test_because_names_the_item_that_gave_most_of_those_nobody_blamed():
    histories, shown, neighbours, items = a_world(1)
    because_PK, named = features(histories, shown, neighbours, items).because_PK, 0
    for p, k in zip(*np.nonzero(shown.row_PK >= 0), strict=True):
        parts = np.array([
            0.9**h * neighbours.weight_NM[row][neighbours.row_NM[row] == shown.row_PK[p, k]].sum() if row >= 0 else 0.0
            for h, row in enumerate(histories.row_PH[p])
        ])  # fmt: skip
        good = np.where(histories.appeal_PH[p] >= 0, parts, 0)
        carried = good.max() > 0 and good.max() >= 0.2 * parts.sum()
        assert because_PK[p, k] == (int(np.argmax(good)) if carried else -1)
        named += carried
    assert named > 3
    assert (histories.appeal_PH < 0).any()


@thorough(25)
@given(st.integers(0, 2**32 - 1))
def test_a_position_does_not_depend_on_its_batch(seed):
    histories, shown, neighbours, items = a_world(seed)
    together = features(histories, shown, neighbours, items)
    for p in range(3):
        alone = Histories(*(array[p : p + 1] for array in histories)), Candidates(*(a[p : p + 1] for a in shown))
        single = features(*alone, neighbours, items)
        np.testing.assert_array_equal(single.x_PKX[0], together.x_PKX[p])
        np.testing.assert_array_equal(single.because_PK[0], together.because_PK[p])


@thorough(25)
@given(st.integers(0, 2**32 - 1))
def test_columns_are_finite_also_as_half_floats_and_absent_candidates_are_zero(seed):
    histories, shown, neighbours, items = a_world(seed)
    empty = histories._replace(row_PH=np.full_like(histories.row_PH, -1))
    never = items._replace(last_taken_s_N=np.zeros(40, np.int64), first_seen_s_N=np.zeros(40, np.int64))
    for world in ((histories, items), (empty, never)):
        x_PKX = features(world[0], shown, neighbours, world[1]).x_PKX
        assert np.isfinite(x_PKX.astype(np.float16)).all()
        assert not x_PKX[shown.row_PK < 0].any()


def test_category_affinity_is_the_share_of_the_history_in_the_candidates_categories():
    histories, _, neighbours, items = a_world()
    categories = np.full((40, 3), -1, np.int16)
    categories[:20, 0], categories[20:, 0] = 3, 4
    categories[5, 1] = 4
    rows = np.array([[1, 2, 5, 30, -1, -1]], np.int32)
    one = Histories(rows, *(array[:1] for array in histories[1:]))
    candidates = Candidates(np.array([[7, 31]], np.int32), np.ones((1, 2), np.uint8), np.zeros((1, 2), np.float32))
    x_PKX = features(one, candidates, neighbours, items._replace(category_NC=categories)).x_PKX
    assert x_PKX[0, :, Feature.category_affinity] == pytest.approx([3 / 4, 2 / 4])
    assert x_PKX[0, :, Feature.category_recent] == pytest.approx([1.0, 1 / 3])


def test_rates_are_smoothed_towards_the_prior():
    histories, shown, neighbours, items = a_world()
    none = np.zeros((40, 4), np.float32)
    counted = items._replace(reactions_N4=none)
    x_PKX = features(histories, shown, neighbours, counted, like_rate=0.6, click_rate=0.1).x_PKX[shown.row_PK >= 0]
    assert x_PKX[:, Feature.like_rate] == pytest.approx(0.6)
    assert x_PKX[:, Feature.click_rate] == pytest.approx(np.log(0.1), abs=1e-5)


def test_source_bits_become_four_columns():
    _, shown, *_ = world = a_world()
    x_PKX = features(*world).x_PKX
    for bit in range(4):
        flag_PK = np.where(shown.row_PK >= 0, (shown.source_PK >> bit) & 1, 0)
        np.testing.assert_array_equal(x_PKX[..., Feature.from_vector + bit], flag_PK)


def test_dots_are_inner_products_and_zero_where_nothing_is():
    rng = np.random.default_rng(0)
    taste, target = rng.normal(size=(2, 8)).astype(np.float32), rng.normal(size=(9, 8)).astype(np.float32)
    rows = np.array([[0, 8, -1], [3, -1, 4]], np.int32)
    expected = np.where(rows >= 0, np.einsum("pd,pkd->pk", taste, target[rows]), 0)
    np.testing.assert_allclose(dots(taste, target, rows), expected, atol=1e-5)


def test_shares_of_praise_and_blame_are_those_of_the_history():
    histories, shown, *_ = world = a_world()
    x_PKX = features(*world).x_PKX
    for p, k in zip(*np.nonzero(shown.row_PK >= 0), strict=True):
        appeal_H = histories.appeal_PH[p][histories.row_PH[p] >= 0]
        assert x_PKX[p, k, Feature.liked_share] == pytest.approx((appeal_H > 0).mean())
        assert x_PKX[p, k, Feature.disliked_share] == pytest.approx((appeal_H < 0).mean())


def test_the_kernel_knows_how_many_columns_there_are():
    assert len(Feature) == COLUMNS


def test_who_comes_back_after_years_is_seen_as_who_comes_back_tomorrow():
    """But for how long that was, at most `AWAY_S`, nothing depends on the moment: items are as of their counts."""
    histories, *others = a_world()
    columns = [
        features(histories._replace(now_s_P=histories.now_s_P + away_s), *others).x_PKX
        for away_s in (0, AWAY_S + 5_000, 10 * 365 * 86_400)
    ]
    np.testing.assert_array_equal(columns[1], columns[2])
    same = np.arange(COLUMNS) != Feature.since_last
    np.testing.assert_array_equal(columns[0][..., same], columns[1][..., same])
    assert columns[2][..., Feature.since_last].max() == pytest.approx(np.log1p(AWAY_S))
