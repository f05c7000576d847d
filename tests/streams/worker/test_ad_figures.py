"""Totals and campaigns become records, and records the same totals again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.events import Source
from embeddings.spend import LOST_TO, OWN, TOLD, UNLIMITED, Spent, Totals, Window
from streams.contract.ad_records import AdStats
from streams.contract.records import decode_ad_stats, encode
from streams.serving.ad_delivery import Promise
from streams.worker.ad_figures import POSITION, Figures, money_of
from tests.streams.adverts import LINE, a_line

NOW = 1_764_244_800_000  # 2025-11-27, noon in UTC
HOUR = 3_600_000
LINES = {LINE: a_line(type="standard", goal={"kind": "impressions", "quantity": 100}, flight_until=2 * NOW)}
EVENTS = Source("events", 0)


def totals(number: int = 1, spent: int = 0, **counts: int) -> Totals:
    windows = {Window(LINE): Spent(1_000, 1, spent, 5, 0), Window("c"): Spent(UNLIMITED, 1, spent, 5, 0)}
    return Totals(epoch="e", number=number, windows=windows, counts={LINE: counts}, offsets={EVENTS: number})


def publish(figures: Figures, newer: Totals, now_ms: int = NOW, *promises: Promise) -> dict[str, AdStats]:
    """What goes out, in its order; taken as published."""
    changed = figures.changed(newer, LINES, {LINE: promises}, now_ms)
    figures.take(changed)
    return changed.records


def test_a_record_says_how_a_line_item_stands() -> None:
    counts = {"served": 9, "impressions": 8, "complete": 2, "capped": 3, LOST_TO + "c/m": 4}
    record = publish(Figures(), totals(1, 300, **counts))[LINE]
    assert (record.campaign_id, record.line_item_id, record.advertiser, record.type) == ("c", "l", "a", "standard")
    assert (record.served, record.impressions, record.completes, record.funnel) == (9, 8, 2, {"capped": 3})
    assert (record.spent_micros, record.reserved_micros, record.budget_micros) == (300, 5, 1_000)
    assert (record.daily_budget_micros, record.lost_to, record.day) == (None, {"c/m": 4}, "2025-11-27")


def test_a_campaign_has_a_record_of_its_money_and_the_position_comes_last() -> None:
    records = publish(Figures(), totals(3, 300))
    assert list(records)[-1] == POSITION
    assert (records["c"].spent_micros, records["c"].budget_micros, records["c"].line_item_id) == (300, None, "")
    assert (records[POSITION].offsets, records[POSITION].number) == ({"events/0": 3}, 3)


def test_only_what_changed_is_written_but_for_promises_that_grew_old() -> None:
    figures, promise = Figures(), Promise("impressions", "lifetime", 100, 10.0)
    publish(figures, totals(1, served=1), NOW, promise)
    nothing = replace(totals(2), windows={}, counts={})
    assert list(publish(figures, nothing, NOW + 1_000, promise)) == [POSITION]
    later = Promise("impressions", "lifetime", 100, 20.0)
    assert list(publish(figures, nothing, NOW + 61_000, later)) == [LINE, POSITION]
    assert figures.records[LINE].expected == 20.0


def test_the_promise_that_is_furthest_behind_is_told() -> None:
    ahead, behind = Promise("impressions", "lifetime", 100, 5.0), Promise("money", "lifetime", 1_000, 500.0)
    record = publish(Figures(), totals(1, 300, impressions=8), NOW, ahead, behind, Promise("money", "day", 9, 0.0))[
        LINE
    ]
    assert (record.goal, record.goal_per, record.target, record.expected) == ("money", "lifetime", 1_000, 500.0)
    assert (record.delivered, record.indicator) == (300, pytest.approx(0.6))


def test_where_nothing_is_due_there_is_no_indicator() -> None:
    record = publish(Figures(), totals(1), NOW, Promise("impressions", "lifetime", 100, 0.0))[LINE]
    assert (record.goal, record.target, record.indicator) == ("impressions", 100, None)


def test_today_begins_at_midnight_of_the_campaign_also_for_the_next_leader() -> None:
    figures = Figures()
    publish(figures, totals(1, impressions=5), NOW)
    publish(figures, totals(2, impressions=8), NOW + 11 * HOUR)
    assert figures.records[LINE].today == {"impressions": 8}
    heir = Figures.of([*figures.records.values(), AdStats(number=2, epoch="e")])
    for later in (figures, heir):
        publish(later, totals(3, impressions=10), NOW + 13 * HOUR)
        assert (later.records[LINE].day, later.records[LINE].today) == ("2025-11-28", {"impressions": 2})
        publish(later, totals(4, impressions=11), NOW + 14 * HOUR)
        assert later.records[LINE].today == {"impressions": 3}


def test_days_are_those_of_the_campaigns_zone() -> None:
    line = replace(LINES[LINE], time_zone="Pacific/Auckland")
    newer = replace(totals(1), windows={Window(LINE, "2025-11-28"): Spent(50, 1, 7, 0, 0)})
    record = Figures().changed(newer, {LINE: line}, {}, NOW).records[LINE]
    assert (record.day, record.spent_today_micros, record.daily_budget_micros) == ("2025-11-28", 7, 50)


def test_spending_of_the_latest_hours_is_kept() -> None:
    figures = Figures()
    for hour in range(30):
        publish(figures, totals(hour + 1, spent=10 * hour), NOW + hour * HOUR)
    hours = figures.records[LINE].hours
    assert (len(hours), list(hours.values())[-2:]) == (25, [280, 290])


counts = st.dictionaries(st.sampled_from((*TOLD, *OWN, LOST_TO + "c/m")), st.integers(1, 10**9), max_size=6)
windows = st.builds(Spent, *[st.integers(0, 2**61)] * 2, *[st.integers(0, 10**12)] * 3)


@given(
    st.dictionaries(st.sampled_from(["c/l", "c/m", "d/x", ""]), counts, max_size=4),
    st.dictionaries(st.sampled_from([Window("c/l"), Window("c/l", "2025-11-27"), Window("c")]), windows),
    st.dictionaries(st.sampled_from([EVENTS, Source("a.b/c", 3)]), st.integers(-1, 10**12)),
)
def test_what_was_published_is_read_back_as_the_same_totals(
    counts: dict[str, dict[str, int]], windows: dict[Window, Spent], offsets: dict[Source, int]
) -> None:
    told = Totals(epoch="e", number=7, windows=windows, counts=counts, offsets=offsets)
    published = Figures().changed(told, LINES, {}, NOW)
    back = Figures.of([decode_ad_stats(encode(one)) for one in published.records.values()])
    assert back.totals == replace(told, counts={key: of for key, of in counts.items() if of})
    assert back.time_ms == NOW


def test_a_publication_that_did_not_end_counts_only_for_what_is_new_in_it() -> None:
    """Its money would be spent again by events behind the offsets of the one before."""
    whole, torn = Figures(), Figures()
    first = list(publish(whole, totals(1, 100)).values())
    second = list(publish(torn, totals(2, 150)).values())[:-1]
    unheard = AdStats(key="n/w", number=2, spent_micros=4)
    read = Figures.of([*first, *second, unheard])
    assert read.totals.windows[Window(LINE)].spent == 100
    assert (read.totals.number, read.totals.offsets) == (1, {EVENTS: 1})
    assert read.records["n/w"] == unheard


def test_money_is_that_of_line_items_with_a_limit_and_of_plans_in_money() -> None:
    lines = [
        AdStats(key="c/a", line_item_id="a", spent_micros=300, reserved_micros=5, budget_micros=1_000),
        AdStats(
            key="c/b", line_item_id="b", spent_micros=130, budget_micros=100, goal="money", expected=50.5, delivered=130
        ),
        AdStats(key="c/d", line_item_id="d", spent_micros=900, spent_today_micros=90, daily_budget_micros=90),
        AdStats(key="c/e", line_item_id="e", spent_micros=7, goal="clicks", expected=3.0, delivered=2),
    ]
    money = money_of([*lines, AdStats(key="c", spent_micros=1_337, budget_micros=5_000), AdStats()])
    assert (money.budget, money.spent, money.reserved) == (1_100, 430, 5)
    assert (money.due, money.delivered) == (50, 130)
    assert (money.exhausted, money.overspend) == (2, 0.3), "b is beyond its budget, d has spent today's"
    assert money_of([]).overspend == money_of(lines[:1]).overspend == 0


def test_what_is_leased_is_that_of_the_window_for_life() -> None:
    windows = {Window(LINE): Spent(1_000, 1, 100, 0, 40), Window(LINE, "2025-11-27"): Spent(500, 1, 100, 0, 30)}
    figures = Figures()
    publish(figures, Totals(epoch="e", number=1, windows=windows, counts={}, offsets={}))
    assert money_of(figures.records.values()).leased == 40
