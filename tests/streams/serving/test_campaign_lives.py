"""Versions of campaigns over the lives of their topic, as several workers tell them."""

import pytest

from embeddings.errors import StoreUnavailable
from embeddings.keepsake import MemoryKeepsake
from embeddings.spend import Window
from streams.serving.campaign_lives import CampaignLives
from streams.serving.ledger_windows import BudgetTeller
from tests.ranking.ads.houses import a_campaign, a_line, an_exchange
from tests.streams.serving.selling import an_open_ledger

HOUR_S = 3_600
DAY = Window("c/l")


def a_worker(kept: MemoryKeepsake, log: str, now_s: int = 500_000 * HOUR_S) -> CampaignLives:
    lives = CampaignLives(kept, now_s=lambda: now_s)
    lives.begin(log)
    return lives


def test_a_lower_offset_of_a_new_topic_is_the_later_version_in_every_worker() -> None:
    kept = MemoryKeepsake()
    old, new, other = a_worker(kept, "one"), a_worker(kept, "two"), a_worker(kept, "two", 600_000 * HOUR_S)
    first = old.told(old.version(900))
    assert first < new.told(new.version(0)) == other.told(other.version(0))
    old.begin("two")
    assert old.told(old.version(0)) == new.told(new.version(0))
    assert old.told(900) == first, "what was read before is of its own life"


def test_a_topic_that_is_made_anew_twice_within_the_hour_is_later_still_and_fits_what_redis_counts() -> None:
    kept = MemoryKeepsake()
    told = [one.told(one.version(9)) for one in (a_worker(kept, log) for log in ("one", "two", "three"))]
    assert told == sorted(set(told))
    assert max(told) < 2**53


def test_lives_that_were_forgotten_are_earlier_than_what_begins_now() -> None:
    told = [one.told(one.version(9)) for one in (a_worker(MemoryKeepsake(), "one", h * HOUR_S) for h in (10, 11))]
    assert told == sorted(set(told))


def test_the_budget_of_a_campaign_on_a_topic_made_anew_holds() -> None:
    """The first topic had reached offset 700 when it was deleted; campaigns are published again from offset 0 on."""
    kept, ledger = MemoryKeepsake(), an_open_ledger()
    for log, offset, budget in (("one", 700, 5_000_000), ("two", 0, 3_000_000)):
        lives = a_worker(kept, log)
        exchange = an_exchange()
        exchange.put(a_campaign("c", a_line(budget_micros=budget)), lives.version(offset))
        teller = BudgetTeller(lives.told)
        teller.changed(exchange.market, [0], 0)
        teller.tell(ledger)
    assert ledger.totals().windows[DAY].budget == 3_000_000


def test_what_cannot_be_asked_is_told_later() -> None:
    class Away(MemoryKeepsake):
        def load(self) -> bytes | None:
            raise StoreUnavailable("away")

    lives, ledger, exchange = a_worker(Away(), "one"), an_open_ledger(), an_exchange()
    exchange.put(a_campaign("c", a_line(budget_micros=5)), lives.version(1))
    teller = BudgetTeller(lives.told)
    teller.changed(exchange.market, [0], 0)
    with pytest.raises(StoreUnavailable):
        teller.tell(ledger)
    lives.kept = MemoryKeepsake()
    teller.tell(ledger)
    assert ledger.totals().windows[DAY].budget == 5
