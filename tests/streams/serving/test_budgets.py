"""What a worker may spend: on plan whoever and however many sell, never beyond a budget by more than the bound."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embeddings.errors import StoreUnavailable
from embeddings.spend import ONE, Totals, Verdict
from embeddings.spend_memory import MemorySpendLedger
from ranking.ads.campaigns import Campaign, Delivery, Goal, GoalKind, Status, Type
from ranking.ads.losses import Loss
from ranking.ads.pacing import DAY_MS, overspend_bound
from ranking.ads.predicates import DayPart
from ranking.ads.traffic import HOUR_MS
from streams.ad_settings import Ads
from streams.serving.budgets import Budgets
from tests.ranking.ads.houses import a_campaign, a_line, an_exchange
from tests.streams.serving.selling import MINUTE_MS, START_MS, Sellers, an_open_ledger

TODAY = ((START_MS, START_MS + DAY_MS),)


def one(name: str = "c", **fields: Any) -> Campaign:
    return a_campaign(name, a_line(campaign=name, **({"flights": TODAY} | fields)))


def an_hour(minutes: int = 60) -> tuple[tuple[int, int], ...]:
    return ((START_MS, START_MS + minutes * MINUTE_MS),)


def impressions(quantity: int, **fields: Any) -> dict[str, Any]:
    goal = Goal(kind=GoalKind.impressions, quantity=quantity, daily=fields.pop("daily", False))
    return {"type": Type.standard, "priority": 8, "goal": goal} | fields


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_a_day_is_spent_as_planned_whoever_sells(workers: int) -> None:
    exchange = an_exchange(
        one("money", budget_micros=4_000_000),
        one("number", **impressions(1_000)),
        one("ten", **impressions(10)),
        a_campaign("both", *(a_line(n, "both", flights=TODAY) for n in "ab"), budget_micros=2_000_000),
        one("daily", daily_budget_micros=1_000_000),
    )
    sellers = Sellers(exchange, workers=workers)
    sellers.run(24)
    assert set(sellers.verdicts) == {Verdict.reserved}
    assert sellers.spent("money/l") == pytest.approx(4_000_000, rel=0.01)
    assert sellers.spent("daily/l") == pytest.approx(1_000_000, rel=0.01)
    assert sellers.spent("both") == pytest.approx(2_000_000, rel=0.02)
    assert max(sellers.spent("money/l") - 4_000_000, sellers.spent("both") - 2_000_000) <= 0
    assert 990 <= sellers.delivered("number/l") <= 1_000 + workers
    assert 9 <= sellers.delivered("ten/l") <= 10 + workers
    by_hour = np.bincount((np.array(sellers.sold["ten/l"]) - START_MS) // HOUR_MS, minlength=24)
    assert by_hour.max() <= 3


@pytest.mark.parametrize("workers", [1, 3])
def test_an_hour_of_ten_impressions_is_delivered_and_not_exceeded(workers: int) -> None:
    flights = an_hour()
    exchange = an_exchange(
        one("n", **impressions(10, flights=flights)), one("m", budget_micros=50_000, flights=flights)
    )
    sellers = Sellers(exchange, workers=workers, per_day=200_000)
    sellers.run(1)
    assert 9 <= sellers.delivered("n/l") <= 10 + overspend_bound(workers=workers, chunk=1, outstanding=0)
    assert 50_000 - 4 * 7_500 <= sellers.spent("m/l") <= 50_000


def test_a_flight_booked_for_the_rest_of_today_delivers() -> None:
    evening = ((START_MS + 21 * HOUR_MS, START_MS + DAY_MS),)
    exchange = an_exchange(one(flights=evening, daily_budget_micros=600_000, budget_micros=600_000))
    sellers = Sellers(exchange, per_day=100_000)
    sellers.run(3, START_MS + 21 * HOUR_MS)
    assert sellers.spent("c/l") == pytest.approx(600_000, rel=0.02)


def test_what_is_not_shown_is_sold_again() -> None:
    exchange = an_exchange(one(**impressions(300, flights=an_hour(180))))
    sellers = Sellers(exchange, per_day=200_000, show=0.6)
    sellers.run(3)
    assert 285 <= sellers.delivered("c/l") <= 301


def test_an_ended_line_item_weighs_nothing_and_gives_its_money_back() -> None:
    """A campaign's budget is spent by the one that still runs."""
    lines = a_line("old", flights=an_hour(30)), a_line("new", flights=an_hour(120))
    exchange = an_exchange(a_campaign("c", *lines, budget_micros=400_000))
    sellers = Sellers(exchange, per_day=100_000)
    sellers.run(2)
    assert sellers.spent("c") == pytest.approx(400_000, rel=0.02)
    assert not [key for (_, key), lease in sellers.book.leases.items() if key == "c/old" and lease.micros]


def test_an_edited_campaign_keeps_its_spend_and_a_raised_budget_is_spent() -> None:
    exchange = an_exchange(one(budget_micros=200_000, flights=an_hour(120)))
    sellers = Sellers(exchange, per_day=100_000)

    def edit(now_ms: int) -> None:
        if now_ms == START_MS + HOUR_MS:
            assert sellers.spent("c/l") == pytest.approx(100_000, rel=0.15)
            exchange.put(one(budget_micros=500_000, flights=an_hour(120), bid_micros=3_000_000), 7)

    sellers.run(2, edit=edit)
    assert sellers.spent("c/l") == pytest.approx(500_000, rel=0.02)


def test_a_budget_cut_below_what_was_spent_sells_nothing_more() -> None:
    exchange = an_exchange(one(budget_micros=400_000, flights=an_hour(120)))
    sellers = Sellers(exchange, per_day=100_000)
    spent = dict[int, int]()

    def edit(now_ms: int) -> None:
        spent[now_ms] = sellers.spent("c/l")
        if now_ms == START_MS + HOUR_MS:
            exchange.put(one(budget_micros=50_000, flights=an_hour(120)), 2)

    sellers.run(2, edit=edit)
    assert sellers.spent("c/l") == spent[START_MS + HOUR_MS]
    row_1, draw_1 = np.zeros(1, np.int32), np.zeros(1, np.uint64)
    code_1 = sellers.budgets[0].may_bid(exchange.market, row_1, draw_1, START_MS + 2 * HOUR_MS)
    assert code_1.tolist() == [Loss.budget_exhausted]


def test_midnight_of_the_campaigns_clock_begins_a_new_budget() -> None:
    """Tokyo's day begins at 15:00 UTC."""
    flights = ((START_MS, START_MS + 5 * DAY_MS),)
    exchange = an_exchange(one(daily_budget_micros=100_000, flights=flights, time_zone="Asia/Tokyo"))
    sellers = Sellers(exchange, per_day=100_000)
    sellers.run(4, START_MS + 13 * HOUR_MS)
    first, second = (sellers.spent("c/l", f"1970-01-{day}") for day in (29, 30))
    assert first == pytest.approx(100_000, abs=10_000)
    assert 0 < second < 50_000


def test_a_share_is_of_all_that_match() -> None:
    goal = Goal(kind=GoalKind.share, quantity=30)
    exchange = an_exchange(one(type=Type.sponsorship, priority=4, goal=goal, bid_micros=0))
    budgets = Budgets(an_open_ledger(), exchange, Ads(), worker="w")
    for second in range(10):
        budgets.tick(START_MS + 1_000 * second)
    draw_M = np.random.default_rng(0).integers(0, 2**64, 10_000, dtype=np.uint64)
    code_M = budgets.may_bid(exchange.market, np.zeros(10_000, np.int32), draw_M, START_MS + 9_500)
    assert (code_M == 0).mean() == pytest.approx(0.3, abs=0.02)


def test_a_day_part_that_loses_an_hour_in_spring_is_spent_in_the_others() -> None:
    """Berlin, 29 March 2026, 02:00 to 06:00: the first of four hours never comes."""
    midnight_ms = 1_774_738_800_000
    part = DayPart(sum(1 << 144 + hour for hour in (2, 3, 4, 5)), "Europe/Berlin", fixed=True)
    flights = ((midnight_ms, midnight_ms + 23 * HOUR_MS),)
    line = a_line(flights=flights, targeting=part, daily_budget_micros=300_000, time_zone="Europe/Berlin")
    exchange = an_exchange(a_campaign("c", line))
    sellers = Sellers(exchange, per_day=100_000, shape_H=np.ones(24))

    def only_in_the_part(now_ms: int) -> None:
        sellers.per_day = 100_000 if midnight_ms + HOUR_MS * 2 <= now_ms < midnight_ms + HOUR_MS * 5 else 0

    sellers.run(5, midnight_ms, only_in_the_part)
    assert sellers.spent("c/l", "2026-03-29") == pytest.approx(300_000, rel=0.02)
    by_hour = np.bincount((np.array(sellers.sold["c/l"]) - midnight_ms) // HOUR_MS, minlength=5)
    assert by_hour[2:].min() > 10


def test_nothing_is_asked_without_campaigns() -> None:
    class Silent(MemorySpendLedger):
        def totals(self, since: Totals | None = None) -> Totals:
            raise AssertionError

    budgets = Budgets(Silent(), an_exchange(), Ads(), worker="w")
    budgets.tick(START_MS)
    assert budgets.trouble is None


def candidates(sellers: Sellers, now_ms: int) -> list[int]:
    """What a thousand candidates of the first line item are told."""
    draw_M = np.random.default_rng(1).integers(0, 2**64, 1_000, dtype=np.uint64)
    row_M = np.zeros(1_000, np.int32)
    return sorted(set(sellers.budgets[0].may_bid(sellers.exchange.market, row_M, draw_M, now_ms).tolist()))


def test_a_closed_ledger_sells_nothing_and_a_rebuilt_one_knows_the_budgets() -> None:
    sellers = Sellers(an_exchange(one(budget_micros=400_000, flights=an_hour(60))), per_day=100_000)
    sellers.run(0.5)
    published = sellers.ledger.totals()
    sellers.book.why = "lost"
    now_ms = START_MS + HOUR_MS // 2
    sellers.budgets[0].tick(now_ms)
    assert "lost" in (sellers.budgets[0].trouble or "")
    assert candidates(sellers, now_ms) == [Loss.paced]
    spent = {window: one for window, one in published.windows.items() if one.spent}
    sellers.unbilled.clear()
    sellers.ledger.rebuild(replace(published, windows=spent))
    sellers.ledger.reopen()
    before = sellers.spent("c/l")
    sellers.run(0.5, now_ms)
    assert sellers.budgets[0].trouble is None
    assert before < sellers.spent("c/l") <= 400_000


def test_sums_that_are_too_old_stop_selling(monkeypatch: pytest.MonkeyPatch) -> None:
    sellers = Sellers(an_exchange(one(budget_micros=4_000_000)), per_day=100_000)
    sellers.run(0.5)
    now_ms = START_MS + HOUR_MS // 2

    def away(*_: object, **__: object) -> Any:
        raise StoreUnavailable("no answer")

    ledger = sellers.budgets[0]._ledger
    for call in ("totals", "lease", "set_budgets", "sweep"):
        monkeypatch.setattr(ledger, call, away)
    sellers.budgets[0].tick(now_ms)
    assert candidates(sellers, now_ms) == [0, Loss.paced]
    sellers.budgets[0].tick(now_ms + 12 * MINUTE_MS)
    assert candidates(sellers, now_ms + 12 * MINUTE_MS) == [Loss.paced]


def test_a_row_that_another_line_item_has_now_begins_anew() -> None:
    exchange = an_exchange(one("a", budget_micros=4_000_000))
    sellers = Sellers(exchange, per_day=100_000)
    sellers.run(0.5)
    old = exchange.market
    exchange.change([(one("b", budget_micros=4_000_000), 5)], ["a"])
    assert exchange.market.rows == 1
    now_ms, row_1 = START_MS + HOUR_MS // 2, np.zeros(1, np.int32)
    sellers.budgets[0].tick(now_ms)
    assert not sellers.budgets[0].take(old, row_1, np.array([1]), now_ms)[0]
    assert sellers.budgets[0].windows(old, 0) == ()
    assert sellers.budgets[0].take(exchange.market, row_1, np.array([1]), now_ms)[0]
    assert {key for _, key in sellers.book.leases} == {"b/l"}


def test_leases_go_back_at_the_end() -> None:
    sellers = Sellers(an_exchange(one(budget_micros=4_000_000), one("d")), per_day=100_000)
    sellers.run(0.25)
    assert sellers.book.leases
    sellers.budgets[0].give_back(START_MS + HOUR_MS // 4)
    assert not sellers.book.leases


def test_as_soon_as_possible_is_not_held_back() -> None:
    sellers = Sellers(
        an_exchange(one(**impressions(200, delivery=Delivery.asap, flights=TODAY))),
        per_day=400_000,
        shape_H=np.ones(24),
    )
    sellers.run(0.5)
    assert sellers.delivered("c/l") == 200


def test_a_paused_line_item_holds_no_money() -> None:
    exchange = an_exchange(one(budget_micros=4_000_000, status=Status.paused))
    sellers = Sellers(exchange)
    sellers.run(0.2)
    assert not sellers.book.leases


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_booked_clicks_are_delivered_and_hardly_exceeded(workers: int) -> None:
    """A click comes up to a minute after the impression; what is out and what was just shown count as they will."""
    goal = Goal(kind=GoalKind.clicks, quantity=20)
    flights = an_hour(180)
    exchange = an_exchange(one(type=Type.standard, priority=8, goal=goal, flights=flights))
    sellers = Sellers(exchange, workers=workers, per_day=400_000, click_rate=0.02)
    sellers.run(3)
    for minute in range(3):
        sellers.bill(START_MS + 3 * HOUR_MS + minute * MINUTE_MS)
    assert 17 <= sellers.clicks <= 20 + workers


@pytest.mark.slow
def test_a_booked_number_a_day_is_known_to_a_worker_that_starts_in_the_evening() -> None:
    flights = ((START_MS, START_MS + 5 * DAY_MS),)
    exchange = an_exchange(one(**impressions(40, daily=True, flights=flights)))
    sellers = Sellers(exchange, per_day=50_000, show=0.8)
    sellers.run(3, START_MS + 18 * HOUR_MS)
    sellers.budgets = [sellers.worker(0)]
    sellers.run(5, START_MS + 21 * HOUR_MS)
    sold = np.array(sellers.sold["c/l"])
    assert 36 <= (sold < START_MS + DAY_MS).sum() - len(sellers.unbilled) <= 52
    windows = sellers.ledger.totals().windows
    first, second = (windows["c/l", f"1970-01-{day}", True].spent / ONE for day in (29, 30))
    assert 36 <= first <= 40
    assert 0 < second <= 10


def test_a_booked_number_is_named_with_the_kind_that_counts_it() -> None:
    goals = {kind.name: Goal(kind=kind, quantity=5) for kind in (GoalKind.impressions, GoalKind.clicks, GoalKind.money)}
    exchange = an_exchange(a_campaign("c", *(a_line(name, goal=goal, flights=TODAY) for name, goal in goals.items())))
    budgets = Budgets(an_open_ledger(), exchange, Ads(), worker="w")
    assert budgets.booked(exchange.market, 0) == ((), "impression", ONE)
    for second in range(3):
        budgets.tick(START_MS + 1_000 * second)
    shown, clicked, paid = (budgets.booked(exchange.market, row, 0.02) for row in range(3))
    assert (shown.kind, shown.holds, clicked.kind, clicked.holds, paid.windows) == (
        "impression",
        ONE,
        "click",
        ONE // 50,
        (),
    )
    assert clicked.windows == (("c/clicks", "", True), ("c/clicks", "1970-01-29", True))
