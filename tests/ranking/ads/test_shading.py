import numpy as np
import pytest

from ranking.ads.auction import NEVER
from ranking.ads.shading import FACTOR_K, Landscape

WORTH = 100_000


def seen(price_C: np.ndarray, lines: int = 1, half_life_rows: float = 1e9) -> Landscape:
    landscape = Landscape(lines=lines, half_life_rows=half_life_rows)
    landscape.learn(np.arange(len(price_C)) % lines, price_C, np.full(len(price_C), WORTH))
    return landscape


def prices(size: int = 20_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, WORTH, size)


@pytest.mark.parametrize("wanted", [500.0, 5_000.0, 30_000.0])
def test_the_factor_costs_what_may_be_spent_on_a_chance(wanted: float) -> None:
    price_C = prices()
    factor = seen(price_C).affordable(np.array([wanted]))[0]
    spent = price_C[price_C <= factor * WORTH].sum() / len(price_C)
    assert spent == pytest.approx(wanted, rel=0.1), "a bin is a tenth wide"


def test_more_money_never_lowers_a_factor() -> None:
    landscape = seen(prices())
    factors = [landscape.affordable(np.array([wanted]))[0] for wanted in np.geomspace(1, 1e6, 50)]
    assert (np.diff(factors) >= 0).all()
    assert factors[-1] == pytest.approx(FACTOR_K[-1]), "money for all there is"


def test_without_money_nothing_is_bid_and_without_knowledge_the_start() -> None:
    landscape = Landscape(lines=2)
    landscape.learn(np.array([0]), np.array([50]), np.array([WORTH]))
    assert landscape.affordable(np.array([0.0, 9.0]), start=0.2).tolist() == [0.0, 0.2]


def test_line_items_do_not_see_each_others_prices() -> None:
    price_C = np.where(np.arange(2_000) % 2 == 0, 1_000, 50_000)
    landscape = seen(price_C, lines=2)
    cheap, dear = landscape.affordable(np.array([900.0, 900.0]))
    assert cheap < 0.02
    assert dear > 0.4


def test_prices_of_long_ago_are_forgotten() -> None:
    landscape = seen(np.concatenate((np.full(5_000, 50_000), np.full(2_000, 1_000))), half_life_rows=100)
    assert landscape.affordable(np.array([900.0]))[0] < 0.02


def test_chances_that_no_bid_would_have_won_cost_nothing() -> None:
    price_C = prices()
    with_none = np.concatenate((price_C, np.full(len(price_C), NEVER)))
    whole, half = seen(price_C).affordable(np.array([4_000.0])), seen(with_none).affordable(np.array([2_000.0]))
    assert whole == pytest.approx(half, rel=1e-4)


def test_a_first_price_bid_is_half_its_worth_against_prices_that_are_all_alike() -> None:
    """Against a price drawn evenly between 0 and the worth, (1 - s) s is most at one half."""
    assert seen(prices(200_000)).first_price()[0] == pytest.approx(0.5, rel=0.1)


def test_a_first_price_bid_is_just_above_a_price_that_never_moves() -> None:
    assert 0.3 < seen(np.full(100, 30_000)).first_price()[0] < 0.34


def test_nobody_bids_above_worth_where_the_bid_is_paid() -> None:
    assert seen(np.full(100, 2 * WORTH)).first_price().tolist() == [1.0]
    assert Landscape(lines=1).first_price().tolist() == [1.0]
