"""Series of ads are there from the start, and none is of a campaign."""

from prometheus_client import CollectorRegistry

from embeddings.spend import KINDS, OWN, TOLD, Billing
from streams.process.ad_metrics import AdMetrics


def test_no_label_holds_a_campaign_and_all_series_are_there_from_the_start() -> None:
    metrics = AdMetrics(CollectorRegistry())
    labels = {name for family in metrics.registry.collect() for one in family.samples for name in one.labels}
    assert labels == {"outcome", "reason", "kind", "billing", "standing", "result"}
    before = {(one.name, *one.labels.values()) for family in metrics.registry.collect() for one in family.samples}
    metrics.decided("filled", 3)
    metrics.funnel(dict.fromkeys((*TOLD, *OWN), 2))
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
