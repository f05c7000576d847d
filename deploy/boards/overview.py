"""The board to open first: is it up, is it fast, does it fail, and how much of the budget is left."""

from deploy.boards.objectives import AVAILABILITY, DAYS, LATENCY, PAGE_FAST, PAGE_SLOW, Objective
from deploy.boards.panels import Board, Mark, Panel, Query, Row, lines
from deploy.boards.promql import share

_WINDOWS = "a burn rate is of the window that its alert looks at"
_BURN = (Mark(0, "green"), Mark(1, "yellow"), Mark(PAGE_SLOW.factor, "red"))


def _over(text: str, window: str) -> str:
    return text.replace("[*]", f"[{window}]")


def _burn(objective: Objective) -> Panel:
    windows = (PAGE_FAST.short, PAGE_FAST.long, PAGE_SLOW.long, "3d")
    share = f"({objective.share('')}) / {objective.budget:g}"
    return Panel(
        kind="lines",
        title=f"Burn of the {objective.name} budget",
        description=(
            f"Promised: {objective.says}, over {DAYS} days. At 1 the budget lasts exactly so long. "
            f"Somebody is paged above {PAGE_FAST.factor:g} over an hour or {PAGE_SLOW.factor:g} over six."
        ),
        unit="none",
        queries=tuple(Query(_over(share, window), f"over {window}") for window in windows),
        width=9,
        marks=_BURN,
        window=_WINDOWS,
    )


def _left(objective: Objective) -> Panel:
    left = f"clamp_min(1 - ({objective.share('')}) / {objective.budget:g}, 0)"
    return Panel(
        kind="number",
        title=f"{objective.name.capitalize()} budget left",
        description=f"Of what may be bad in {DAYS} days while {objective.says}. At 0 the objective is missed.",
        unit="percentunit",
        queries=(Query(_over(left, f"{DAYS}d"), "left"),),
        width=3,
        marks=(Mark(0, "red"), Mark(0.001, "yellow"), Mark(0.25, "green")),
        window=f"the budget is of {DAYS} days",
    )


def _number(title: str, description: str, text: str, unit: str) -> Panel:
    return Panel(
        kind="number", title=title, description=description, unit=unit, queries=(Query(text, title),), width=4, height=4
    )


_NOW = Row(
    "Now",
    (
        _number(
            "Workers",
            "Workers that are scraped. Fewer than were started: the runbook's page MarqueeDown.",
            'count(marquee_build_info{*, role="worker"})',
            "none",
        ),
        _number(
            "Learners",
            "Learners that are scraped: one leads, others stand by.",
            'count(marquee_build_info{*, role="learner"})',
            "none",
        ),
        _number(
            "Events",
            "Events that met their fate, per second.",
            "sum(rate(marquee_events_total{*}[*]))",
            "cps",
        ),
        _number(
            "Slates",
            "Slates that the broker acknowledged, per second.",
            "sum(rate(marquee_slates_total{*}[*]))",
            "cps",
        ),
        _number(
            "Ad slots",
            "Places for ads that were decided, per second; sold or not.",
            "sum(rate(marquee_ad_decisions_total{*}[*]))",
            "cps",
        ),
        _number(
            "Furthest behind",
            "Age of the first unread event or request of the slowest partition; 0 where nothing waits.",
            'max(marquee_lag_seconds{*, lane!="observations"})',
            "s",
        ),
    ),
)
_RATE = Row(
    "Rate",
    (
        lines(
            "Events by fate",
            "Every record has one fate. Late, duplicate and misrouted ones are the producers' to mend.",
            "cps",
            Query("sum by (fate) (rate(marquee_events_total{*}[*]))", "{{fate}}"),
            area=True,
        ),
        lines(
            "Slates by trigger",
            "What asked for a slate: an event that earns one, or a request.",
            "cps",
            Query("sum by (trigger) (rate(marquee_slates_total{*}[*]))", "{{trigger}}"),
            area=True,
        ),
        lines(
            "Batches of a stage",
            "How often a stage ran, each time for a whole batch. Stages of one lane run equally often.",
            "ops",
            Query("sum by (lane, stage) (rate(marquee_stage_seconds_count{*}[*]))", "{{lane}} {{stage}}"),
        ),
    ),
)
_ERRORS = Row(
    "Errors",
    (
        lines(
            "Dead letters",
            "Records nobody could read, by topic. What they are: marquee dlq list, by code.",
            "cps",
            Query("sum by (topic) (rate(marquee_dead_letters_total{*}[*]))", "{{topic}}"),
            width=6,
        ),
        lines(
            "Slates made of less",
            "Of all slates: cached and popular count against the objective; contextual is what consent left.",
            "percentunit",
            Query(share("marquee_slates_degraded_total{*}", "marquee_slates_total{*}", "mode"), "{{mode}}"),
            width=6,
        ),
        lines(
            "Members nobody reads",
            "Share of records that say something nobody reads, of a sample: misspelt, or of a later release.",
            "percentunit",
            Query(
                "sum by (topic) (rate(marquee_records_sampled_unread_total{*}[*]))"
                " / (sum by (topic) (rate(marquee_records_sampled_total{*}[*])) > 0)"
                " or 0 * sum by (topic) (rate(marquee_records_sampled_total{*}[*]))",
                "{{topic}}",
            ),
            width=6,
        ),
        lines(
            "Stages that failed",
            "A stage raised; its batch is tried again. The log says why, once.",
            "ops",
            Query("sum by (lane, stage) (rate(marquee_stage_errors_total{*}[*]))", "{{lane}} {{stage}}"),
            width=6,
        ),
    ),
)
_DURATION = Row(
    "Duration",
    (
        lines(
            "From event to slate",
            "From the publish time of an event or request to the acknowledgement of its slate; waiting included.",
            "s",
            *(
                Query(
                    f"histogram_quantile({q}, sum by (le) (rate(marquee_event_to_slate_seconds_bucket{{*}}[*])))",
                    legend,
                )
                for q, legend in ((0.5, "half of them"), (0.95, "95 %"), (0.99, "99 %"))
            ),
            marks=(Mark(0, "green"), Mark(0.2, "red")),
        ),
        lines(
            "Time of a stage, 99 % of batches",
            "Which stage is slow. Batches grow with lag, and a stage's time with its batch.",
            "s",
            Query(
                "histogram_quantile(0.99, sum by (le, lane, stage) (rate(marquee_stage_seconds_bucket{*}[*])))",
                "{{lane}} {{stage}}",
            ),
        ),
        lines(
            "Seconds per second in each stage",
            "How busy processes are with what: where a lane's sum comes near the number of workers, add some.",
            "percentunit",
            Query("sum by (lane, stage) (rate(marquee_stage_seconds_sum{*}[*]))", "{{lane}} {{stage}}"),
            area=True,
        ),
    ),
)
_HTTP = Row(
    "Over HTTP",
    (
        lines(
            "Requests by route",
            "What is asked over HTTP; probes and whatever is not there are other.",
            "reqps",
            Query("sum by (route) (rate(marquee_http_requests_total{*}[*]))", "{{route}}"),
        ),
        lines(
            "Refused and failed",
            "4xx are the askers' to mend; 5xx say that something is away, and /readyz says what. Probes are left out.",
            "reqps",
            Query(
                'sum by (code) (rate(marquee_http_requests_total{*, route!="other", code=~"4xx|5xx"}[*]))', "{{code}}"
            ),
        ),
        lines(
            "Time of a request, 99 %",
            "From the head of a request to its answer, by route.",
            "s",
            Query(
                "histogram_quantile(0.99, sum by (le, route) (rate(marquee_http_request_seconds_bucket{*}[*])))",
                "{{route}}",
            ),
        ),
    ),
)
_PROCESSES = Row(
    "Processes",
    (
        lines(
            "CPU",
            "Cores that each process uses.",
            "none",
            Query("sum by (instance) (rate(process_cpu_seconds_total{*}[*]))", "{{instance}}"),
        ),
        lines(
            "Memory",
            "Resident memory of each process.",
            "bytes",
            Query("max by (instance) (process_resident_memory_bytes{*})", "{{instance}}"),
        ),
        lines(
            "Up since",
            "Time since each process started. A saw is a process that is restarted again and again.",
            "s",
            Query("time() - max by (instance) (process_start_time_seconds{*})", "{{instance}}"),
        ),
    ),
)

BOARD = Board(
    "overview",
    "Marquee: overview",
    "Is it up, is it fast, does it fail, and how much of the error budget is left.",
    (
        _NOW,
        Row("Objectives", (_burn(AVAILABILITY), _left(AVAILABILITY), _burn(LATENCY), _left(LATENCY))),
        _RATE,
        _ERRORS,
        _DURATION,
        _HTTP,
        _PROCESSES,
    ),
)
