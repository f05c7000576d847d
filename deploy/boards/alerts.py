"""What somebody is told of, and how soon. Every alert has a page in docs/runbook, two cases in tests/deploy.

Alerts are of the whole service and of one cause each: what people feel (budgets, lag) pages; what will be felt
later, or by one part, is a ticket.
"""

from deploy.boards.ad_alerts import AD_ALERTS
from deploy.boards.alerting import Alert, Bound, above, outside, risen, share
from deploy.boards.objectives import BURNS, OBJECTIVES, Burn, Objective
from deploy.boards.store_alerts import STORE_ALERTS

_OF_OURS = "* on (*, instance) group_left () group by (*, instance) (marquee_build_info{*})"
_LATELY = "1d"
"""Who was not seen for so long was taken away on purpose."""
_NONE_OF_OURS = "0 * group by (*) (marquee_build_info{*})"
_HITS = 'sum by (*) (rate(marquee_takes_total{*, place=~"first_3|first_10"}[WINDOW]))'
_JUDGED = 'sum by (*) (rate(marquee_takes_total{*, place!="unknown"}[WINDOW]))'


def _swaps(result: str) -> str:
    return f'marquee_snapshot_swaps_total{{*, result="{result}"}}'


_OUT_OF_REACH = (
    f"{risen(_swaps('unreachable'), 0.5, '*, instance, result')}"
    f" * on (*, instance) group_left () ({risen(_swaps('swapped'), 0.5, '*, instance')} < bool 1)"
)
"""Snapshots that a worker could not fetch and took none since: at a roll-out the learner is away for moments too."""
_ANSWERED = (
    "group by (*, objective) (marquee_learner_calibration_ratio{*}) * on (*) group_left ()"
    ' sum by (*) (increase(marquee_learner_impressions_total{*, outcome!="none"}[1d]))'
)
"""Impressions of a day that people answered, for each objective."""


def _burning(objective: Objective, severity: str) -> tuple[tuple[Bound, ...], ...]:
    return tuple(_burns(objective, burn) for burn in BURNS if burn.severity == severity)


def _burns(objective: Objective, burn: Burn) -> tuple[Bound, ...]:
    too_many = burn.factor * objective.budget
    shares = [Bound(objective.recorded(window), ">", too_many) for window in (burn.long, burn.short)]
    since = [Bound(objective.since.replace("[*]", burn.short), ">", 0)] if objective.since else []
    return *shares, Bound(objective.bad_per_second(burn.long), ">", burn.fewest_per_second), *since


def _budget_alerts(objective: Objective) -> tuple[Alert, Alert]:
    name = objective.name.capitalize()
    look = "Look at the overview board's rows Errors and Duration for since when and where."
    return (
        Alert(
            name=f"Marquee{name}BudgetBurnsFast",
            severity="page",
            lasting="2m",
            any_of=_burning(objective, "page"),
            summary=f"The {objective.name} budget of {{{{ $labels.job }}}} will be gone in hours or a few days",
            description=f"Promised: {objective.says}. Of late {{{{ $value | humanizePercentage }}}} were not. {look}",
        ),
        Alert(
            name=f"Marquee{name}BudgetBurns",
            severity="ticket",
            lasting="1h",
            any_of=_burning(objective, "ticket"),
            summary=f"The {objective.name} budget of {{{{ $labels.job }}}} will not last the thirty days",
            description=f"Promised: {objective.says}. Of late {{{{ $value | humanizePercentage }}}} were not. {look}",
        ),
    )


def _running(role: str) -> str:
    now = f'marquee_build_info{{*, role="{role}"}}'
    return f"count by (*) ({now}) or 0 * group by (*) (max_over_time({now}[{_LATELY}]))"


def _hit_share(window: str) -> str:
    return f"{_HITS} / ({_JUDGED} > 0)".replace("WINDOW", window)


_OF_EVENTS = "sum by (*) (rate(marquee_events_total{*}[15m]))"
_UP = (
    Alert(
        name="MarqueeDown",
        severity="ticket",
        lasting="10m",
        any_of=(
            (
                Bound(
                    "min by (*, instance) (up{*})"
                    f" and on (*) group by (*) (max_over_time(marquee_build_info{{*}}[{_LATELY}]))",
                    "<",
                    1,
                ),
            ),
        ),
        summary="{{ $labels.instance }} of {{ $labels.job }} cannot be scraped",
        description=(
            "It has ended, hangs, or cannot be reached. Others have its partitions; if none is left, other alerts page."
        ),
    ),
    Alert(
        name="MarqueeNoWorker",
        severity="page",
        lasting="2m",
        any_of=((Bound(_running("worker"), "<", 1),),),
        summary="No worker of {{ $labels.job }} is left",
        description="Nobody reads events or answers requests. What waits in Kafka is kept and answered later.",
    ),
    Alert(
        name="MarqueeNoLearner",
        severity="ticket",
        lasting="15m",
        any_of=((Bound(_running("learner"), "<", 1),),),
        summary="No learner of {{ $labels.job }} is left",
        description=(
            "Slates go on with the last snapshot; nothing new is learned. Observations wait within their retention."
        ),
    ),
    Alert(
        name="MarqueeRestarts",
        severity="ticket",
        lasting="1m",
        any_of=above(f"max by (*, instance) (changes(process_start_time_seconds{{*}}[30m]) {_OF_OURS})", 3),
        summary="{{ $labels.instance }} of {{ $labels.job }} started {{ $value }} times in half an hour",
        description=("It ends again and again. The last lines of its log say why, and what to do."),
    ),
)
_READING = (
    Alert(
        name="MarqueeLag",
        severity="page",
        lasting="5m",
        any_of=above('max by (*, topic) (marquee_lag_seconds{*, lane!="observations"})', 60),
        summary="{{ $labels.topic }} is {{ $value | humanizeDuration }} behind in {{ $labels.job }}",
        description=(
            "Slates come late. One partition: paused, held up, or a hot user. All: too few workers, or a slow store."
        ),
    ),
    Alert(
        name="MarqueePartitionUnowned",
        severity="page",
        lasting="3m",
        any_of=above('max by (*, topic) (marquee_partitions_unowned{*, topic!="observations"})', 0),
        summary="{{ $value }} partitions of {{ $labels.topic }} have no owner in {{ $labels.job }}",
        description="Nobody reads them: whose events are there gets no new slate.",
    ),
    Alert(
        name="MarqueeTopicsUnfit",
        severity="page",
        lasting="10m",
        any_of=((Bound('min by (*, instance) (marquee_check_ok{*, check="topics"})', "<", 1),),),
        summary="Topics are not what {{ $labels.instance }} of {{ $labels.job }} was started for",
        description="One is gone, was made anew, or has other partitions than topics.partitions: see its /readyz.",
    ),
    Alert(
        name="MarqueePartitionPaused",
        severity="page",
        lasting="1m",
        any_of=above(f"count by (*) (marquee_partition_paused{{*}}) or {_NONE_OF_OURS}", 0),
        summary="{{ $value }} partitions of {{ $labels.job }} are paused",
        description=(
            "Nearly all of their last records were unreadable: a producer sends nonsense, or a release here misreads."
        ),
    ),
    Alert(
        name="MarqueeDeadLetters",
        severity="ticket",
        lasting="10m",
        any_of=above(
            share("marquee_dead_letters_total{*}", "marquee_records_consumed_total{*}", "15m", "*, topic"), 0.01
        ),
        summary="{{ $value | humanizePercentage }} of {{ $labels.topic }} of {{ $labels.job }} could not be read",
        description="They are on the topics for dead letters, byte for byte, with a code each.",
    ),
    Alert(
        name="MarqueeClockSkew",
        severity="ticket",
        lasting="15m",
        any_of=above(
            '(sum by (*) (rate(marquee_events_total{*, fate="late"}[15m]))'
            " + sum by (*) (rate(marquee_events_misdated_total{*}[15m])))"
            f" / ({_OF_EVENTS} > 0) or 0 * {_OF_EVENTS}",
            0.05,
        ),
        summary="{{ $value | humanizePercentage }} of events of {{ $labels.job }} are late or misdated",
        description="The clock of a producer or a broker is wrong, or a producer sends now what it kept for long.",
    ),
    Alert(
        name="MarqueeRecordsExpired",
        severity="page",
        lasting="1m",
        any_of=above(risen("marquee_records_expired_total{*}", 1, "*, topic"), 0),
        summary=(
            "Retention removed {{ $value | humanize }} records of {{ $labels.topic }} before {{ $labels.job }} read "
            "them"
        ),
        description="They are lost. Lag has reached the topic's retention.",
    ),
    Alert(
        name="MarqueeWorkHeldUp",
        severity="page",
        lasting="2m",
        any_of=above("max by (*, instance) (marquee_work_held_up{*})", 0),
        summary="{{ $labels.instance }} of {{ $labels.job }} is held up",
        description="Its batches wait for something outside: its /readyz says what.",
    ),
)
_LEARNING = (
    Alert(
        name="MarqueeLearningBehind",
        severity="ticket",
        lasting="15m",
        any_of=above('max by (*) (marquee_lag_seconds{*, lane="observations"})', 600),
        summary="Learning is {{ $value | humanizeDuration }} behind in {{ $labels.job }}",
        description=(
            "Slates go on with what was learned before. What waits longer than the retention of observations is not "
            "learned."
        ),
    ),
    Alert(
        name="MarqueeSnapshotStale",
        severity="ticket",
        lasting="15m",
        any_of=(
            (
                Bound(
                    "max by (*) (marquee_snapshot_age_seconds{*}"
                    ' and on (*, instance) marquee_build_info{*, role="worker"})',
                    ">",
                    3600,
                ),
                Bound("sum by (*) (increase(marquee_learner_rows_total{*}[1h]))", ">", 2000),
            ),
        ),
        summary="A worker of {{ $labels.job }} serves a snapshot {{ $value | humanizeDuration }} old",
        description="The learner learns, yet no newer snapshot arrived there: none is announced, fetched or accepted.",
    ),
    Alert(
        name="MarqueeSnapshotRefused",
        severity="ticket",
        lasting="5m",
        any_of=(*above(risen(_swaps("refused"), 0.5, "*, result"), 0), *above(_OUT_OF_REACH, 0)),
        summary="Workers of {{ $labels.job }} did not take a snapshot: {{ $labels.result }}",
        description=(
            "Unreachable: it cannot be fetched, and is tried again. Refused: a checksum, a shape or a release does not"
            " fit. The one before serves on."
        ),
    ),
    Alert(
        name="MarqueeCheckpointStale",
        severity="ticket",
        lasting="10m",
        any_of=(
            (
                Bound("min by (*) (marquee_checkpoint_age_seconds{*})", ">", 600),
                Bound("sum by (*) (rate(marquee_learner_rows_total{*}[10m]))", ">", 0),
            ),
            (Bound("sum by (*) (increase(marquee_learner_failures_total{*}[30m]))", ">", 3),),
        ),
        summary="The learner of {{ $labels.job }} cannot write what it knows",
        description=(
            "A checkpoint, a snapshot or counters failed again and again. After a kill all since the last is learned "
            "anew."
        ),
    ),
    Alert(
        name="MarqueeUntaught",
        severity="ticket",
        lasting="2h",
        any_of=(
            (
                Bound(share("marquee_slates_untaught_total{*}", "marquee_slates_total{*}", "1h"), ">", 0.5),
                Bound(
                    'max by (*) (max_over_time(marquee_ranker_state{*, state=~"behind_retrieval|serves"}[1d]))', ">", 0
                ),
            ),
        ),
        summary="{{ $value | humanizePercentage }} of slates of {{ $labels.job }} are not ordered by the ranker",
        description=(
            "Retrieval's own order serves: the ranker has learned too little, or is worse. The decisions board says "
            "which."
        ),
    ),
    Alert(
        name="MarqueeHitRateFell",
        severity="ticket",
        lasting="1h",
        any_of=(
            (
                Bound(f"({_hit_share('6h')}) / ({_hit_share('3d')})", "<", 0.6),
                Bound(_JUDGED.replace("rate", "increase").replace("WINDOW", "6h"), ">", 200),
            ),
        ),
        summary="People of {{ $labels.job }} take what is offered {{ $value | humanizePercentage }} as often as before",
        description=(
            "Hits among the first ten in six hours, beside three days: a bad snapshot, a catalogue or a page that "
            "changed."
        ),
    ),
    Alert(
        name="MarqueeCalibrationOff",
        severity="ticket",
        lasting="3h",
        any_of=outside(
            "min by (*, objective) (marquee_learner_calibration_ratio{*})",
            0.5,
            "max by (*, objective) (marquee_learner_calibration_ratio{*})",
            2,
            Bound(_ANSWERED, ">", 100),
        ),
        summary=(
            "Predictions of {{ $labels.objective }} in {{ $labels.job }} are {{ $value | humanize }} times what comes"
        ),
        description="What is predicted does not come true: told outcomes are missing, or people changed.",
    ),
    Alert(
        name="MarqueeGpuMemory",
        severity="ticket",
        lasting="10m",
        any_of=above(
            'max by (*, instance, gpu) (marquee_gpu_memory_bytes{*, state="used"})'
            ' / max by (*, instance, gpu) (marquee_gpu_memory_bytes{*, state="total"})',
            0.95,
        ),
        summary="GPU {{ $labels.gpu }} of {{ $labels.instance }} is {{ $value | humanizePercentage }} full",
        description="The next snapshot may not fit: search falls back to the CPU, which is slower.",
        may_be_empty="there are no series where there is no NVIDIA driver",
    ),
)

ALERTS = (
    *(alert for objective in OBJECTIVES for alert in _budget_alerts(objective)),
    *_UP,
    *_READING,
    *STORE_ALERTS,
    *_LEARNING,
    *AD_ALERTS,
)
