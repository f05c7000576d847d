"""Series of ads are there from the start, and none is of a campaign."""

import math

from prometheus_client import CollectorRegistry

from embeddings.spend import KINDS, TOLD, Billing
from streams.process.ad_metrics import AdMetrics, Money


def test_no_label_holds_a_campaign_and_all_series_are_there_from_the_start() -> None:
    metrics = AdMetrics(CollectorRegistry())
    labels = {name for family in metrics.registry.collect() for one in family.samples for name in one.labels}
    assert labels == {"outcome", "reason", "kind", "billing", "standing", "result", "state", "le"}
    before = {(one.name, *one.labels.values()) for family in metrics.registry.collect() for one in family.samples}
    metrics.decided("filled", 3, price_micros=2_000_000)
    metrics.funnel(dict.fromkeys(TOLD, 2))
    metrics.money(Money(budget=5))
    metrics.stopped(5)
    for kind in KINDS:
        for billing in Billing:
            metrics.heard(kind, billing, 5)
    metrics.rebuilt("failed")
    metrics.standing([0.5, 1.0, 1.0, 2.0])
    after = {(one.name, *one.labels.values()) for family in metrics.registry.collect() for one in family.samples}
    assert after == before


def test_line_items_stand_behind_on_or_ahead_of_their_plan() -> None:
    metrics = AdMetrics(CollectorRegistry())
    metrics.standing([0.89, 0.9, 1.1, 1.11, 5.0])
    found = [
        metrics.registry.get_sample_value("marquee_ad_line_items", {"standing": s})
        for s in ("behind", "on_plan", "ahead")
    ]
    assert found == [1, 2, 2]
    assert metrics.registry.get_sample_value("marquee_ad_delivery_ratio") == (0.89 + 0.9 + 1.1 + 1.11 + 5.0) / 5


def test_money_is_in_units_and_whoever_resigns_tells_nothing() -> None:
    metrics = AdMetrics(CollectorRegistry(), clock=lambda: 100.0)
    value = metrics.registry.get_sample_value
    metrics.decided("filled", price_micros=1_500_000)
    metrics.decided("again", price_micros=1_500_000)
    assert value("marquee_ad_sold_total") == 1.5
    metrics.money(Money(budget=9_000_000, spent=2_000_000, due=500_000, exhausted=3, overspend=0.25))
    assert value("marquee_ad_ledger_units", {"state": "budget"}) == 9
    assert value("marquee_ad_plan_units", {"state": "due"}) == 0.5
    assert (value("marquee_ad_exhausted"), value("marquee_ad_overspend_ratio")) == (3, 0.25)
    metrics.stopped(99_700)
    assert value("marquee_ad_stop_seconds_bucket", {"le": "0.25"}) == 0
    assert value("marquee_ad_stop_seconds_bucket", {"le": "0.5"}) == 1
    metrics.resigned()
    assert math.isnan(value("marquee_ad_ledger_units", {"state": "budget"}) or 0)
    assert math.isnan(value("marquee_ad_overspend_ratio") or 0)
