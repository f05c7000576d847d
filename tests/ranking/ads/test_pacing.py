"""Budgets are spent, on time, and never overspent: on days as foreseen and on days that are not."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.ads.campaigns import FOREVER_MS
from ranking.ads.pacing import (
    DAY_MS,
    FRONT_LOADED,
    SYSTEMS,
    Limit,
    Pace,
    PacingSettings,
    Plans,
    Tick,
    indicator,
    overspend_bound,
    pace,
)
from ranking.ads.traffic import HOUR_MS, Traffic
from tests.fuzzing import thorough
from tests.ranking.ads.market import EVENING, MINUTE_MS, START_MS, Market, Run, edited, learned, plans

MICROS, DAY, COUNT, DAY_COUNT = Limit
BUDGET = 100_000_000


def never_over(run: Run) -> None:
    target_LG = run.plan.targets()
    assert (run.spent_LG <= np.where(target_LG >= 0, target_LG, 1 << 60)).all()


def a_tick(plan: Plans, at_ms: int, spent: int = 0, **said: object) -> Tick:
    lines = len(plan.start_ms_L)
    nothing_L = np.zeros(lines)
    tick = Tick(
        now_ms=at_ms,
        before_ms=at_ms - MINUTE_MS,
        chances_L=nothing_L,
        passed_L=nothing_L,
        gained_LU=np.zeros((lines, 2)),
        spent_LG=np.full((lines, 4), spent),
    )
    return replace(tick, **said)


DEAD = np.where((np.arange(24) >= 12) & (np.arange(24) < 15), 0, EVENING)


@pytest.mark.parametrize("scale", [1, 3, 1 / 3])
@pytest.mark.parametrize("shape_H", [EVENING, DEAD], ids=["foreseen", "dead hours"])
def test_a_budget_is_spent_within_a_percent_when_the_forecast_is_wrong_by_three(
    scale: float, shape_H: np.ndarray
) -> None:
    run = Market(per_day=400_000 * scale, shape_H=shape_H).run(plans(2, micros=BUDGET))
    never_over(run)
    assert run.error(MICROS) < 0.01


@pytest.mark.parametrize("scale", [1, 3])
def test_a_budget_is_spent_within_a_percent_when_the_curve_is_eight_hours_off(scale: float) -> None:
    """There is six times as much to buy as the budget; of twice as much, a twelfth is missed."""
    run = Market(per_day=400_000 * scale, shape_H=np.roll(EVENING, 8)).run(plans(2, micros=BUDGET))
    never_over(run)
    assert run.error(MICROS) < 0.01


def test_after_hours_without_traffic_nobody_is_more_than_an_hour_ahead() -> None:
    run, curve = Market(shape_H=DEAD).run(plans(2, micros=BUDGET)), learned()
    at_T = START_MS + np.arange(1, len(run.history_TLG) + 1) * Market.tick_ms
    due_T = curve.share(START_MS, START_MS + DAY_MS, at_T + HOUR_MS) * BUDGET
    assert (run.history_TLG[:, :, MICROS] <= due_T[:, None] + 2 * Market.price).all()


@pytest.mark.parametrize("per_day", [400_000, 1_200_000])
def test_spending_follows_the_traffic_and_not_the_clock(per_day: float) -> None:
    run, curve = Market(per_day=per_day).run(plans(3, micros=BUDGET)), learned()
    for part in (0.25, 0.5, 0.75):
        due = curve.share(START_MS, START_MS + DAY_MS, START_MS + int(part * DAY_MS))
        assert run.by(part, MICROS) == pytest.approx(float(due), abs=0.03)


@pytest.mark.parametrize("system", SYSTEMS)
def test_no_system_overspends(system: str) -> None:
    run = Market(system=system).run(plans(2, micros=BUDGET))
    never_over(run)
    assert run.error(MICROS) < 0.01, "there is four times as much to buy as the budget"


def off_plan(system: str) -> float:
    """How far spending is from the traffic's share, on average over the day."""
    run = Market(system=system).run(plans(2, micros=BUDGET))
    at_T = START_MS + np.arange(1, len(run.history_TLG) + 1) * Market.tick_ms
    due_T = learned().share(START_MS, START_MS + DAY_MS, at_T)
    return float(np.abs(run.history_TLG[:, 0, MICROS] / BUDGET - due_T).mean())


@pytest.mark.slow
def test_ours_is_nearest_to_plan_of_all_systems() -> None:
    distance = {system: off_plan(system) for system in SYSTEMS}
    assert min(distance, key=distance.__getitem__) == "marquee"
    assert distance["marquee"] < 0.005
    assert distance["none"] > 0.3
    assert distance["linear-soft"] > 0.1


@pytest.mark.parametrize("limit", ["micros", "count"])
@pytest.mark.parametrize("per_day", [400_000, 4_000_000])
def test_a_flight_of_an_hour_delivers(limit: str, per_day: float) -> None:
    plan = plans(3, hours=1, start_ms=START_MS + 20 * HOUR_MS, **{limit: 5_000_000 if limit == "micros" else 1_000})
    run = Market(per_day=per_day, tick_ms=MINUTE_MS).run(plan)
    never_over(run)
    which = MICROS if limit == "micros" else COUNT
    assert run.error(which) < 0.01
    assert run.by(0.5, which) == pytest.approx(0.5, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("hours", [1, 24])
def test_ten_impressions_are_ten_impressions_and_spread(hours: int) -> None:
    plan = plans(40, hours=hours, start_ms=START_MS + (20 if hours == 1 else 0) * HOUR_MS, count=10)
    run = Market(tick_ms=MINUTE_MS if hours == 1 else Market.tick_ms).run(plan)
    assert (run.spent_LG[:, COUNT] == 10).all()
    assert run.history_TLG[len(run.history_TLG) // 4, :, COUNT].max() <= 5


def test_a_same_day_flight_delivers() -> None:
    """Booked at noon for the rest of the day, with a daily budget: the whole of it is due in what is left."""
    run = Market().run(plans(3, hours=12, start_ms=START_MS + 12 * HOUR_MS, day_micros=BUDGET))
    never_over(run)
    assert run.error(DAY) < 0.01


def test_each_day_has_its_own_budget_and_the_flight_has_one_too() -> None:
    run = Market(per_day=600_000).run(plans(2, hours=72, day_micros=BUDGET, micros=5 * BUDGET // 2))
    never_over(run)
    assert run.error(MICROS) < 0.01
    daily = run.history_TLG[287::288, :, DAY]
    assert (daily <= BUDGET).all()
    assert (daily > 0.7 * BUDGET).all()


def test_a_budget_cut_below_what_was_spent_stops_at_once() -> None:
    noon = START_MS + 12 * HOUR_MS

    def cut(now_ms: int, plan: Plans) -> Plans:
        return edited(plan, limit_LG=np.where(plan.limit_LG > 0, BUDGET // 10, -1)) if now_ms == noon else plan

    run = Market().run(plans(2, micros=BUDGET), cut)
    assert (run.spent_LG == run.history_TLG[143]).all(), "not a micro after the cut"
    assert (run.spent_LG[:, MICROS] > BUDGET // 10).all()


def test_a_budget_raised_at_noon_is_spent_by_the_evening() -> None:
    noon = START_MS + 12 * HOUR_MS

    def raise_it(now_ms: int, plan: Plans) -> Plans:
        return edited(plan, limit_LG=np.where(plan.limit_LG > 0, 3 * BUDGET, -1)) if now_ms == noon else plan

    run = Market(per_day=800_000).run(plans(2, micros=BUDGET), raise_it)
    never_over(run)
    assert run.error(MICROS) < 0.01
    due = learned().share(START_MS, START_MS + DAY_MS, START_MS + 15 * HOUR_MS)
    assert run.by(15 / 24, MICROS) == pytest.approx(float(due), abs=0.03), "what is lacking is made good within hours"


def test_clicks_never_exceed_a_booked_number_and_intended_over_delivery_is_intended() -> None:
    run = Market(price=2).run(plans(2, count=1_000, over_percent=5))
    assert (run.spent_LG[:, COUNT] == 1_050).all()
    assert plans(micros=1_000, over_percent=5).targets()[0, MICROS] == 1_000, "money is never meant to be exceeded"


def test_a_front_loaded_flight_is_a_quarter_ahead_at_half_time() -> None:
    flat = Market(shape_H=np.ones(24), traffic=Traffic())
    assert flat.run(plans(2, micros=BUDGET, curve=FRONT_LOADED)).by(0.5, MICROS) == pytest.approx(0.625, abs=0.02)
    assert flat.run(plans(2, micros=BUDGET)).by(0.5, MICROS) == pytest.approx(0.5, abs=0.02)


def test_a_day_part_has_its_budget_spread_over_its_own_hours() -> None:
    """From 6 to 10 and from 22 to 24: nothing is due at other times, and nobody waits for noon to begin."""
    hours = np.arange(168) % 24
    open_CH = np.stack([np.ones(168), ((hours >= 6) & (hours < 10)) | (hours >= 22)])
    curve = replace(learned(), open_CH=open_CH)
    run = Market(traffic=curve).run(edited(plans(2, micros=BUDGET // 4), hours_L=np.array([1, 1])))
    never_over(run)
    assert run.error(MICROS) < 0.01
    whole = float(EVENING[6:10].sum() + EVENING[22:].sum())
    assert run.by(8 / 24, MICROS) == pytest.approx(EVENING[6:8].sum() / whole, abs=0.04)
    assert run.by(12 / 24, MICROS) == pytest.approx(EVENING[6:10].sum() / whole, abs=0.04)


def test_a_custom_curve_is_followed_part_by_part() -> None:
    plan = plans(micros=1_000, curve=(0.5, 0.1, 0.4))
    at = START_MS + (np.arange(7) * 4 * HOUR_MS)
    due = [plan.due(Traffic(), START_MS, np.full((1, 4), moment))[0, MICROS] for moment in at]
    assert due == pytest.approx([0, 250, 500, 550, 600, 800, 1_000])


def test_a_flight_without_an_end_owes_its_daily_budget_only() -> None:
    plan = plans(micros=10 * BUDGET, day_micros=BUDGET, curve=FRONT_LOADED)
    endless = edited(plan, end_ms_L=np.array([FOREVER_MS]))
    noon = START_MS + 5 * DAY_MS + 12 * HOUR_MS
    due_G = endless.due(Traffic(), noon, np.full((1, 4), noon))[0]
    assert due_G.tolist() == [10 * BUDGET, BUDGET / 2, 0, 0]


def test_as_fast_as_possible_takes_whatever_comes() -> None:
    run = Market().run(plans(2, micros=BUDGET, asap=True))
    never_over(run)
    assert run.by(0.5, MICROS) > 0.99


def test_a_ledger_that_cannot_be_reached_stops_everything() -> None:
    plan, curve = plans(3, micros=BUDGET, asap=True), learned()
    tick = a_tick(plan, START_MS + HOUR_MS, spent=500)
    going = pace(plan, curve, tick, Pace.fresh(3))
    assert (going.pass_L == 1).all()
    limit = PacingSettings().dead_man_ms
    assert (pace(plan, curve, replace(tick, ledger_age_ms=limit), going).pass_L == 1).all()
    stopped = pace(plan, curve, replace(tick, ledger_age_ms=limit + 1), going)
    assert (stopped.pass_L == 0).all()
    assert (stopped.allowed_LG <= 500).all()
    assert (pace(plan, curve, tick, stopped).pass_L == 1).all(), "it goes on when the ledger is back"


@pytest.mark.parametrize("at_h", [-1, 24, 30])
@pytest.mark.parametrize("system", SYSTEMS)
def test_outside_its_flight_a_line_item_weighs_nothing(at_h: int, system: str) -> None:
    plan = plans(2, micros=BUDGET, asap=True)
    still = pace(plan, learned(), a_tick(plan, START_MS + at_h * HOUR_MS), Pace.fresh(2), system=SYSTEMS[system])
    assert (still.pass_L == 0).all()
    assert (still.allowed_LG == 0).all()


def test_a_start_is_slow_and_grows_by_a_factor_a_tick_at_most() -> None:
    plan, curve, said = plans(micros=BUDGET), learned(), PacingSettings()
    state = pace(plan, curve, a_tick(plan, START_MS), Pace.fresh(1))
    rates = [float(state.pass_L[0])]
    for minute in range(1, 30):
        won = a_tick(
            plan,
            START_MS + minute * MINUTE_MS,
            spent=90 * minute,
            chances_L=np.array([5.0]),
            passed_L=np.array([3.0]),
            gained_LU=np.array([[90.0, 1.0]]),
        )
        state = pace(plan, curve, won, state)
        rates.append(float(state.pass_L[0]))
    assert rates[0] == said.slow_start
    assert rates[-1] == 1, "such prices will never spend the budget"
    assert all(after <= said.growth * before for before, after in pairwise(rates))


def test_the_delivery_indicator_is_delivered_over_due() -> None:
    plan = plans(2, micros=1_000, count=100)
    noon = START_MS + 12 * HOUR_MS
    spent_LG = np.array([[500, 0, 60, 0], [400, 0, 50, 0]])
    assert indicator(plan, Traffic(), noon, spent_LG) == pytest.approx([1.0, 0.8])
    assert np.isnan(indicator(plan, Traffic(), START_MS, spent_LG)).all(), "nothing is due yet"


def test_the_overspend_bound_is_its_formula() -> None:
    assert overspend_bound(workers=3, chunk=1_000, outstanding=250, lag_ms=1_500, per_s=101) == 3_000 + 250 + 152
    assert overspend_bound(workers=1, chunk=0, outstanding=0) == 0


@thorough(50)
@given(st.data())
def test_whatever_happens_nobody_passes_above_one_or_is_allowed_above_the_target(data: st.DataObject) -> None:
    number = st.integers(0, 10**6)
    plan = plans(
        hours=data.draw(st.sampled_from([0.5, 1, 7, 48])),
        micros=data.draw(st.just(-1) | number),
        day_count=data.draw(st.just(-1) | number),
        asap=data.draw(st.booleans()),
    )
    state = Pace.fresh(1)
    for minute in sorted(data.draw(st.lists(st.integers(-10, 3_000), max_size=8))):
        draw = [data.draw(number) for _ in range(4)]
        tick = a_tick(
            plan,
            START_MS + minute * MINUTE_MS,
            spent=draw[0],
            chances_L=np.array([float(draw[1] + draw[2])]),
            passed_L=np.array([float(draw[2])]),
            gained_LU=np.array([[float(draw[3]), float(min(draw[2], draw[3]))]]),
        )
        state = pace(plan, learned(), tick, state)
        assert 0 <= state.pass_L[0] <= 1
        bound_G = plan.targets()[0] >= 0
        flying = 0 <= minute * MINUTE_MS < int(plan.end_ms_L[0]) - START_MS
        most_G = plan.targets()[0] if flying else tick.spent_LG[0]
        assert (state.allowed_LG[0][bound_G] <= most_G[bound_G]).all()
        if (tick.spent_LG[0][bound_G] >= plan.targets()[0][bound_G]).any():
            assert state.pass_L[0] == 0
