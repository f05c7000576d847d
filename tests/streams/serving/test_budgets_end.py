"""The end of a budget, and of a worker: the last of it is spent, and what was learned stays."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embeddings.errors import StoreUnavailable
from embeddings.keepsake import MemoryKeepsake
from embeddings.spend import Window
from ranking.ads.campaigns import BidType
from ranking.ads.market import Exchange
from ranking.ads.pacing import DAY_MS
from ranking.ads.traffic import HOUR_MS, Traffic
from streams.ad_settings import Ads
from streams.serving.budgets import Budgets
from tests.ranking.ads.houses import a_campaign, a_line, an_exchange
from tests.streams.serving.selling import START_MS, an_open_ledger
from tests.streams.serving.test_ads import a_campaign as a_record
from tests.streams.serving.test_ads import a_house, a_request

TODAY = ((START_MS, START_MS + DAY_MS),)


def budgets(exchange: Exchange, curve: Any = None) -> Budgets:
    return Budgets(an_open_ledger(), exchange, Ads(), worker="w", curve=curve)


def bidding(**line: Any) -> int:
    """What a line item bids once the first tick has looked at its budget."""
    exchange = an_exchange(a_campaign("c", a_line(campaign="c", flights=TODAY, **line)))
    mine = budgets(exchange)
    assert mine.bids(exchange.market).tolist() == exchange.market.bid_micros_L.tolist()
    mine.tick(START_MS)
    return int(mine.bids(exchange.market)[0])


def test_who_has_less_left_than_it_bids_bids_what_is_left() -> None:
    assert bidding(bid_micros=6_000_000, budget_micros=4_000, currency="EUR") == 4_000_000
    assert bidding(bid_micros=6_000_000, budget_micros=6_000, currency="EUR") == 6_000_000
    assert bidding(bid_micros=6_000_000, currency="EUR") == 6_000_000


def test_a_click_is_never_bid_more_for_than_there_is() -> None:
    assert bidding(bid_micros=500_000, bid_type=BidType.cpc, budget_micros=200_000, currency="EUR") == 200_000


def test_what_is_left_is_bid_in_the_currency_of_the_auction() -> None:
    """A dollar is 1/1.1 of a euro here."""
    assert bidding(bid_micros=6_000_000, budget_micros=1_100, currency="USD") == 1_000_000


def test_the_last_impression_of_a_small_budget_is_sold_cheaper_and_not_beyond_it() -> None:
    spring = a_record(bid=5_000_000, budget_micros=12_000)
    house = a_house(spring, a_record("rival", bid=4_900_000), a_record("last", bid=1_000_000))
    sold = []
    for n in range(4):
        ((decision,),) = house.decisions(a_request(f"u{n}"))
        sold.append((decision.campaign_id, decision.price_micros))
        if n == 1:
            house.publish(stop=["rival"])
        house.now_ms += 1_000
        house.tick()
    assert [name for name, _ in sold[:2]] == ["spring", "spring"]
    assert ("spring", 1_000) in [(name, price // 10 * 10) for name, price in sold[2:]]
    windows = house.workers[0].server.ledger.totals().windows
    assert windows[Window("spring/l")].reserved <= 12_000


def test_a_worker_takes_over_what_another_has_learned_of_traffic() -> None:
    curve, exchange = MemoryKeepsake(), an_exchange(a_campaign("c", a_line(campaign="c", flights=TODAY)))
    first = budgets(exchange, curve)
    first.saw(np.repeat(START_MS - DAY_MS + 20 * HOUR_MS, 500))
    first.tick(START_MS)
    second = budgets(exchange, curve)
    second.tick(START_MS + 60_000)
    assert second.traffic.hourly().tolist() == pytest.approx(first.traffic.hourly().tolist())
    assert second.traffic.chances_H.sum() == pytest.approx(500, rel=0.01)


class Away(MemoryKeepsake):
    """It cannot be reached at first."""

    reached = False

    @property
    def kept(self) -> bytes | None:
        """What is there."""
        return super().load()

    def load(self) -> bytes | None:
        if not self.reached:
            raise StoreUnavailable("away")
        return super().load()


def test_where_it_cannot_be_asked_at_first_a_worker_sells_and_asks_again() -> None:
    curve, exchange = Away(), an_exchange(a_campaign("c", a_line(campaign="c", flights=TODAY)))
    learned = Traffic().learn(np.repeat(START_MS - DAY_MS + 20 * HOUR_MS, 500), START_MS)
    curve.keep(learned.to_bytes())
    mine = budgets(exchange, curve)
    mine.tick(START_MS)
    assert mine.trouble is None
    assert mine.may_bid(exchange.market, np.zeros(99, np.int32), np.zeros(99, np.uint64), START_MS + 1).min() == 0
    assert curve.kept == learned.to_bytes()
    curve.reached = True
    mine.tick(START_MS + 1_000)
    assert mine.traffic.hourly().tolist() == pytest.approx(learned.hourly().tolist())


@pytest.mark.parametrize("broken", [b"", b"x" * 784, np.full(98, np.nan).tobytes(), (-np.ones(98)).tobytes()])
def test_bytes_that_are_no_curve_change_nothing(broken: bytes) -> None:
    mine = replace(Traffic(), waiting=7.0)
    assert mine.with_learned(broken).waiting == 7.0
