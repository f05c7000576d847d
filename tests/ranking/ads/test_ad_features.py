"""What heads of ads see, beside what the ranker sees of the items that the ads are about."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ranking.ads.features import AdFeature, CreativeRows, Viewers, features, nearness
from ranking.features import Candidates, Feature, Histories, ItemRows, Neighbours, dots
from ranking.features import features as item_features

N, U, D, H = 30, 4, 6, 8
DRAW = np.random.default_rng(0)
NEIGHBOURS = Neighbours(
    np.array([DRAW.permutation(N)[:10] for _ in range(N)], np.int32), DRAW.random((N, 10)).astype(np.float32)
)
ITEMS = ItemRows(
    popularity_N3=np.ones((N, 3), np.float32),
    reactions_N4=np.ones((N, 4), np.float32),
    clock_s_N=np.zeros(N, np.int64),
    last_taken_s_N=np.zeros(N, np.int64),
    first_seen_s_N=np.zeros(N, np.int64),
    year_N=np.zeros(N, np.int16),
    category_NC=np.c_[np.arange(N) % 3, np.full(N, -1)].astype(np.int16),
    clock_s=1_000,
    half_life_4=np.full(4, 1e6),
)
VECTORS = DRAW.normal(size=(N, D)).astype(np.float32)


def viewers(personal: bool = True) -> Viewers:
    row_UH = np.where(personal, DRAW.integers(0, N, (U, H)), -1).astype(np.int32)
    times_UH = 900 - 10 * np.tile(np.arange(H), (U, 1))
    appeal_UH = np.ones((U, H), np.int8)
    histories = Histories(row_UH, appeal_UH, times_UH, np.full(U, 1_000), np.full(U, 7, np.int16))
    taste_UD = DRAW.normal(size=(U, D)).astype(np.float32) * personal
    return Viewers(histories, taste_UD, np.full(U, personal))


def about(landing_N: NDArray[np.int32]) -> CreativeRows:
    """Creatives that are about items, and like them."""
    count = len(landing_N)
    at = np.maximum(landing_N, 0)
    return CreativeRows(
        vector_ND=VECTORS[at],
        learned_ND=VECTORS[at] / 3,
        landing_N=landing_N,
        category_NC=ITEMS.category_NC[at],
        rate_NO=np.log(np.full((count, 3), 0.1, np.float32)),
        shown_N=np.full(count, 2, np.float32),
        seconds_N=np.full(count, 3, np.float32),
        format_N=(np.arange(count) % 4).astype(np.uint8),
    )


ROWS = np.array([3, 7, 7, 12, 29], np.int32)


def test_what_goes_with_the_history_is_that_of_the_item_that_it_is_about() -> None:
    who, creatives = viewers(), about(ROWS)
    viewer_P = np.array([0, 1, 1, 3])
    x_PKX = features(who, creatives, NEIGHBOURS, ITEMS, viewer_P, np.tile(np.arange(5, dtype=np.int32), (4, 1)))
    histories = Histories._make(column[viewer_P] for column in who.histories)
    row_PK = np.tile(ROWS, (4, 1))
    for k in range(5):  # one at a time: an item stands once among candidates
        row_P1 = row_PK[:, k : k + 1]
        dot_P1 = dots(who.taste_UD[viewer_P], VECTORS, row_P1)
        candidates = Candidates(row_P1, np.zeros(row_P1.shape, np.uint8), dot_P1)
        theirs_PX = item_features(histories, candidates, NEIGHBOURS, ITEMS, lists=10).x_PKX[:, 0]
        same = [
            *range(int(Feature.cooc_last), int(Feature.dot) + 1),
            Feature.category_affinity,
            Feature.category_recent,
        ]
        same += list(range(int(Feature.history_length), int(Feature.context) + 1))
        assert x_PKX[:, k, same] == pytest.approx(theirs_PX[:, same], abs=1e-5)
    assert (x_PKX[..., AdFeature.landing] == 1).all()


def test_one_about_nothing_goes_with_nothing() -> None:
    creatives = about(np.array([3, -1], np.int32))
    x_PKX = features(viewers(), creatives, NEIGHBOURS, ITEMS, np.array([0]), np.array([[1, -1, 0]], np.int32))
    assert x_PKX[0, 0, : AdFeature.cooc_share] == pytest.approx(np.log(1e-3))
    assert (x_PKX[0, 0, [AdFeature.cooc_share, AdFeature.landing]] == 0).all()
    assert (x_PKX[0, 1] == 0).all()
    assert x_PKX[0, 2, AdFeature.landing] == 1


def test_the_scratch_of_one_call_is_clean_for_the_next() -> None:
    who, creatives, at = viewers(), about(ROWS), np.array([[0, 1, 2, 3, 4]], np.int32)
    first, again = (features(who, creatives, NEIGHBOURS, ITEMS, np.array([0]), at) for _ in range(2))
    assert np.array_equal(first, again)


def test_nobody_is_nobody() -> None:
    at = np.array([[0, 1, 2, 3, 4]] * 2, np.int32)
    x_PKX = features(viewers(personal=False), about(ROWS), NEIGHBOURS, ITEMS, np.array([0, 3]), at)
    assert np.array_equal(x_PKX[0], x_PKX[1])
    told = [AdFeature.category_affinity, AdFeature.personal, AdFeature.learned, AdFeature.history_length]
    assert (x_PKX[..., told] == 0).all()


def test_what_suits_is_measured_along_the_direction_of_the_taste() -> None:
    who, creatives, at = viewers(), about(ROWS), np.array([[0]], np.int32)
    longer = who._replace(taste_UD=3 * who.taste_UD)
    one, other = (features(each, creatives, NEIGHBOURS, ITEMS, np.array([0]), at) for each in (who, longer))
    assert one[..., AdFeature.learned] == pytest.approx(other[..., AdFeature.learned], rel=1e-5)
    unit_D = who.taste_UD[0] / np.linalg.norm(who.taste_UD[0])
    assert one[0, 0, AdFeature.learned] == pytest.approx(unit_D @ creatives.learned_ND[0], rel=1e-4)


def test_nearness_is_the_product_of_vectors() -> None:
    who, creatives = viewers(), about(ROWS)
    start_P1, viewer_P, creative_C = np.array([0, 2, 5]), np.array([2, 0]), np.array([0, 4, 1, 2, 3], np.int32)
    near_C = nearness(who, creatives, start_P1, viewer_P, creative_C)
    taste_CD = who.taste_UD[[2, 2, 0, 0, 0]]
    assert near_C == pytest.approx((taste_CD * creatives.vector_ND[creative_C]).sum(1), rel=1e-4)
