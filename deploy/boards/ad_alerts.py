"""What somebody is told of ads: money, promises to advertisers, and the ledger that keeps both."""

from deploy.boards.alerting import Alert, Bound, above, outside

_DECIDED = 'sum by (*) (rate(marquee_ad_decisions_total{*, outcome=~"filled|unfilled|failed"}[5m]))'
_FAILED = 'sum by (*) (rate(marquee_ad_decisions_total{*, outcome="failed"}[5m]))'
_FILLED = 'sum by (*) (increase(marquee_ad_decisions_total{*, outcome="filled"}[2h]))'
_SEEN = 'sum by (*) (increase(marquee_ad_events_total{*, kind="impression"}[2h]))'
_CAME = (
    'sum by (*, objective) (label_replace(increase(marquee_ad_events_total{*, kind=~"click|complete|conversion"}[1d]),'
    ' "objective", "$1", "kind", "(.+)"))'
)
"""Outcomes of a day, by what calibration calls them."""
_STOPS = "sum by (*) (increase(marquee_ad_stop_seconds_count{*}[1h]))"
_QUICK = 'sum by (*) (increase(marquee_ad_stop_seconds_bucket{*, le="1.0"}[1h]))'

AD_ALERTS = (
    Alert(
        name="MarqueeAdLedgerClosed",
        severity="page",
        lasting="2m",
        any_of=above("max by (*) (marquee_ad_ledger_closed{*})", 0),
        summary="The spend ledger of {{ $labels.job }} is closed: no ad is sold",
        description=(
            "Redis lost it, or part of it. The leader rebuilds it from ads and billable events; the log says how far "
            "it is."
        ),
    ),
    Alert(
        name="MarqueeAdDecisionsFail",
        severity="page",
        lasting="5m",
        any_of=above(f"{_FAILED} / ({_DECIDED} > 0) or 0 * {_DECIDED}", 0.05),
        summary=(
            "{{ $value | humanizePercentage }} of ad slots of {{ $labels.job }} stay empty because the ledger does "
            "not answer"
        ),
        description="Nothing is spent without the ledger. Slates go out without these ads.",
    ),
    Alert(
        name="MarqueeAdImpressionsMissing",
        severity="ticket",
        lasting="30m",
        any_of=((Bound(f"{_SEEN} / ({_FILLED} > 0) or 1 + 0 * {_FILLED}", "<", 0.05), Bound(_FILLED, ">", 100)),),
        summary="Of the ads that {{ $labels.job }} filled {{ $value | humanizePercentage }} were reported as seen",
        description="Pages do not report impressions, or without decision_id. What is not reported is not billed.",
    ),
    Alert(
        name="MarqueeAdStatsStale",
        severity="ticket",
        lasting="5m",
        any_of=above("max by (*) (marquee_ad_stats_age_seconds{*})", 30),
        summary="Figures of line items of {{ $labels.job }} are {{ $value | humanizeDuration }} old",
        description="They should be a second old. Pacing goes by them: spending slows down while they are old.",
    ),
    Alert(
        name="MarqueeAdOverspend",
        severity="ticket",
        lasting="5m",
        any_of=above("max by (*) (marquee_ad_overspend_ratio{*})", 0.01),
        summary="A budget of {{ $labels.job }} is overspent by {{ $value | humanizePercentage }}",
        description=(
            "More than can come of ads under way when a budget ended. docs/ads.md says how far it may go, and why."
        ),
    ),
    Alert(
        name="MarqueeAdsBehindPlan",
        severity="ticket",
        lasting="1h",
        any_of=above(
            'max by (*) (marquee_ad_line_items{*, standing="behind"})'
            " / (sum by (*) (max by (*, standing) (marquee_ad_line_items{*})) > 0)"
            ' or 0 * max by (*) (marquee_ad_line_items{*, standing="behind"})',
            0.25,
        ),
        summary="{{ $value | humanizePercentage }} of line items of {{ $labels.job }} are behind their plan",
        description=(
            "They deliver less than nine tenths of what is due: booked beyond what there is, or held back by a reason."
        ),
    ),
    Alert(
        name="MarqueeAdCalibrationOff",
        severity="ticket",
        lasting="3h",
        any_of=outside(
            "min by (*, objective) (marquee_ad_calibration_ratio{*})",
            0.67,
            "max by (*, objective) (marquee_ad_calibration_ratio{*})",
            1.5,
            Bound(_CAME, ">", 50),
        ),
        summary=(
            "Chances of a {{ $labels.objective }} in {{ $labels.job }} are {{ $value | humanize }} times what comes"
        ),
        description=(
            "Bids are chance times price: too high, and advertisers pay for nothing; too low, and they do not show."
        ),
    ),
    Alert(
        name="MarqueeAdStopSlow",
        severity="ticket",
        lasting="1m",
        any_of=((Bound(f"{_STOPS} - {_QUICK}", ">", 0.5),),),
        summary="A stopped campaign of {{ $labels.job }} was sold for longer than a second",
        description="From its null record to its being out of every decision took longer than promised.",
    ),
)
