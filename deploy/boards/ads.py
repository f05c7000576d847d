"""Ads: how far line items come, what is filled, what is spent beside its plan, and whether the ledger is sound."""

from deploy.boards.panels import Board, Mark, Panel, Query, Row, lines
from deploy.boards.promql import share

_GOT_ON = "targeted|bid|won|served"


def _reason(reason: str) -> str:
    return f'marquee_ad_funnel_total{{*, reason="{reason}"}}'


_SOLD = 'marquee_ad_decisions_total{*, outcome=~"filled|unfilled"}'
_FUNNEL = Row(
    "Funnel",
    (
        Panel(
            kind="bars",
            title="Funnel by reason",
            description=(
                "Line items per second at each step of decisions, and why others got no further. Of one: marquee ads "
                "why-not LINE_ITEM."
            ),
            unit="cps",
            queries=(Query("sum by (reason) (rate(marquee_ad_funnel_total{*}[*]))", "{{reason}}"),),
            height=10,
        ),
        lines(
            "Why line items did not show",
            "The reasons over time. A step in one: a campaign, a budget, a cap or consent changed.",
            "cps",
            Query(f'sum by (reason) (rate(marquee_ad_funnel_total{{*, reason!~"{_GOT_ON}"}}[*]))', "{{reason}}"),
            area=True,
        ),
        lines(
            "Fill",
            "Slots with an ad, of those that could have one. House campaigns fill what nobody pays for.",
            "percentunit",
            Query(share('marquee_ad_decisions_total{*, outcome="filled"}', _SOLD), "filled"),
        ),
    ),
)
_SLOTS = Row(
    "Slots and events",
    (
        lines(
            "Slots by what became of them",
            "Again: the same request, the stored answer. Failed: the ledger did not answer, and the slot stayed empty.",
            "cps",
            Query("sum by (outcome) (rate(marquee_ad_decisions_total{*}[*]))", "{{outcome}}"),
            area=True,
        ),
        lines(
            "Win rate",
            "Line items that won, of those that bid.",
            "percentunit",
            Query(share(_reason("won"), _reason("bid")), "won"),
        ),
        lines(
            "Events of ads",
            "Confirmed impressions, clicks, conversions and what was watched.",
            "cps",
            Query("sum by (kind) (rate(marquee_ad_events_total{*}[*]))", "{{kind}}"),
        ),
    ),
)
_MONEY = Row(
    "Money",
    (
        lines(
            "Sold and spent",
            "Prices of filled slots, and what was billed, in units of the ledger's currencies, per second.",
            "none",
            Query("sum(rate(marquee_ad_sold_total{*}[*]))", "sold"),
            Query("sum(rate(marquee_ad_spend_total{*}[*]))", "spent"),
        ),
        lines(
            "Spend against plan",
            (
                "Delivered over expected by now, mean of line items with a plan. Below .9 or above 1.1 somebody "
                "should know: marquee ads report."
            ),
            "percentunit",
            Query("max(marquee_ad_delivery_ratio{*})", "delivered / expected"),
            marks=(Mark(0, "red"), Mark(0.9, "green"), Mark(1.1, "yellow")),
        ),
        lines(
            "Line items by standing",
            "Line items with a plan that are behind, on plan, or ahead.",
            "none",
            Query("max by (standing) (marquee_ad_line_items{*})", "{{standing}}"),
            area=True,
        ),
        lines(
            "Due and delivered",
            "Money that the plans of line items with a goal in money want by now, and what these delivered.",
            "none",
            Query("max by (state) (marquee_ad_plan_units{*})", "{{state}}"),
            width=6,
        ),
        lines(
            "eCPM",
            "Spent per thousand impressions.",
            "none",
            Query(
                "1000 * sum(rate(marquee_ad_spend_total{*}[*]))"
                ' / (sum(rate(marquee_ad_events_total{*, kind="impression"}[*])) > 0)'
                ' or 0 * sum(rate(marquee_ad_events_total{*, kind="impression"}[*]))',
                "eCPM",
            ),
            width=6,
        ),
        lines(
            "Budgets",
            "Line items in decisions, and those whose budget of the day or of life is spent.",
            "none",
            Query("max(marquee_ad_competing{*})", "competing"),
            Query("max(marquee_ad_exhausted{*})", "exhausted"),
            width=6,
        ),
        lines(
            "Overspend",
            "The most that was spent beyond a budget, of that budget. How far that can go: docs/ads.md.",
            "percentunit",
            Query("max(marquee_ad_overspend_ratio{*})", "beyond"),
            marks=(Mark(0, "green"), Mark(0.01, "red")),
            width=6,
        ),
    ),
)
_RULES = Row(
    "Pacing, caps and the kill switch",
    (
        lines(
            "Throttled by pacing",
            "Line items that pacing held back, of those it let bid or held back.",
            "percentunit",
            Query(
                share(_reason("paced"), 'marquee_ad_funnel_total{*, reason=~"paced|bid"}'),
                "paced",
            ),
        ),
        lines(
            "Caps",
            "Line items held back because the person had seen them often enough.",
            "cps",
            Query(f"sum(rate({_reason('capped')}[*]))", "capped"),
        ),
        lines(
            "Kill switch, 99 %",
            "From the null record of a campaign to its being out of every decision. Promised: a second.",
            "s",
            Query("histogram_quantile(0.99, sum by (le) (rate(marquee_ad_stop_seconds_bucket{*}[*])))", "stopped"),
            marks=(Mark(0, "green"), Mark(1, "red")),
        ),
    ),
)
_TRUE = Row(
    "Calibration",
    (
        lines(
            "Calibration of chances",
            (
                "Sum of the chances that were told over the sum of what came; 1 is true. Too high: advertisers pay "
                "for nothing."
            ),
            "none",
            Query("max by (objective) (marquee_ad_calibration_ratio{*})", "{{objective}}"),
            marks=(Mark(0, "yellow"), Mark(0.67, "green"), Mark(1.5, "red")),
        ),
        lines(
            "Calibration error and entropy",
            (
                "Expected calibration error (15 bins of equal mass), and log loss over that of always saying the "
                "mean: below 1 is better."
            ),
            "none",
            Query("max by (objective) (marquee_ad_calibration_error{*})", "error: {{objective}}"),
            Query("max by (objective) (marquee_ad_normalised_entropy{*})", "entropy: {{objective}}"),
        ),
        lines(
            "Drifted advertisers",
            "Advertisers whose chances are wrong beyond what chance explains; their bids are dampened.",
            "none",
            Query("max by (objective) (marquee_ad_drifted_advertisers{*})", "{{objective}}"),
        ),
    ),
)
_LEDGER = Row(
    "Ledger",
    (
        lines(
            "Closed",
            "1 while the spend ledger is closed: nothing is sold until it was rebuilt from ads and billable events.",
            "none",
            Query("max(marquee_ad_ledger_closed{*})", "closed"),
            Query("sum by (result) (rate(marquee_ad_rebuilds_total{*}[*]))", "rebuild {{result}}, per second"),
            marks=(Mark(0, "green"), Mark(1, "red")),
            width=6,
        ),
        lines(
            "Age of totals and figures",
            "Since the leader read the ledger's totals, and published figures of line items.",
            "s",
            Query("max(marquee_ad_ledger_age_seconds{*})", "totals"),
            Query("max(marquee_ad_stats_age_seconds{*})", "figures"),
            width=6,
        ),
        lines(
            "What the ledger made of events",
            (
                "Billed once each. Late and too late: the event came after its reservation. Unknown: of no decision "
                "of ours."
            ),
            "cps",
            Query("sum by (billing) (rate(marquee_ad_billings_total{*}[*]))", "{{billing}}"),
            Query("sum(rate(marquee_ad_swept_total{*}[*]))", "released at its end"),
            area=True,
            width=6,
        ),
        lines(
            "Money in the ledger",
            "Of line items with a limit for life: budgets, what is spent, held by ads under way, leased to workers.",
            "none",
            Query("max by (state) (marquee_ad_ledger_units{*})", "{{state}}"),
            width=6,
        ),
    ),
)

BOARD = Board(
    "ads",
    "Marquee: ads",
    "How far line items come and why, what is filled, spent and billed, and whether chances and ledger are true.",
    (_FUNNEL, _SLOTS, _MONEY, _RULES, _TRUE, _LEDGER),
)
