"""For each alert a case in which it fires and one, close to its bounds, in which it stays quiet.

Series without `job`, in promtool's notation: `0+6x210` grows by six a minute for 210 minutes.
"""

from collections.abc import Mapping
from typing import NamedTuple

Series = Mapping[str, str]
LONG = 210
"""Minutes; `HitRateFell` counts in half hours instead."""


class Case(NamedTuple):
    """Series under which the alert fires, and others under which it does not; `also` are others that then fire."""

    fires: Series
    quiet: Series
    also: tuple[str, ...] = ()


def _is(value: float, minutes: int = LONG) -> str:
    return f"{value}x{minutes}"


def _grows(a_minute: float, minutes: int = LONG) -> str:
    return f"0+{a_minute}x{minutes}"


def _gauge(series: str, bad: float, good: float, beside: Series | None = None) -> Case:
    return Case({series: _is(bad), **(beside or {})}, {series: _is(good), **(beside or {})})


def _counter(series: str, bad: float, good: float, beside: Series | None = None) -> Case:
    return Case({series: _grows(bad), **(beside or {})}, {series: _grows(good), **(beside or {})})


def slow(share: float) -> Series:
    name = "marquee_event_to_slate_seconds"
    return {
        f'{name}_bucket{{le="0.2", trigger="event"}}': _grows(1000 * (1 - share)),
        f'{name}_bucket{{le="+Inf", trigger="event"}}': _grows(1000),
        f'{name}_count{{trigger="event"}}': _grows(1000),
    }


def _popular(share: float) -> Series:
    return {
        'marquee_slates_total{trigger="event"}': _grows(1000),
        'marquee_slates_degraded_total{mode="popular"}': _grows(1000 * share),
        'marquee_slates_degraded_total{mode="contextual"}': _grows(500),
        "marquee_snapshot_version": _is(7),
    }


def _stops(quick: float, every: float) -> Series:
    return {
        'marquee_ad_stop_seconds_bucket{le="1.0"}': _grows(quick),
        "marquee_ad_stop_seconds_count": _grows(every),
    }


def _lines(behind: int, on_plan: int) -> Series:
    name = "marquee_ad_line_items"
    return {
        f'{name}{{standing="behind", instance="w1"}}': _is(behind),
        f'{name}{{standing="on_plan", instance="w1"}}': _is(on_plan),
        f'{name}{{standing="ahead", instance="w1"}}': _is(0),
    }


_WORKER = 'marquee_build_info{role="worker", instance="w1", version="1"}'
_LEARNER = 'marquee_build_info{role="learner", instance="l1", version="1"}'
_W1: Series = {_WORKER: _is(1)}
_CONSUMED: Series = {'marquee_records_consumed_total{topic="events"}': _grows(6000)}
_EVENTS: Series = {'marquee_events_total{fate="applied"}': _grows(960)}
_SLATES: Series = {'marquee_slates_total{trigger="event"}': _grows(1000)}
_DECIDED: Series = {'marquee_ad_decisions_total{outcome="filled"}': _grows(1000)}
_ROWS: Series = {"marquee_learner_rows_total": _grows(600)}

_DAYS = 48 * 6 + 1
"""Ten minutes each."""


def _target(instance: str, up: str, role: str = "", known: str = "") -> Series:
    """A target that answered for an hour or always; `role` is empty where it never did."""
    told = {f'marquee_build_info{{role="{role}", instance="{instance}", version="1"}}': known} if role else {}
    return {f'up{{instance="{instance}"}}': up, **told}


_STAYS, _HOUR = f"1x{_DAYS}", "1x6"
_DIES = f"1x6 0x{_DAYS}"


def _here(instance: str, role: str) -> Series:
    return _target(instance, _STAYS, role, _STAYS)


def _dead(instance: str, role: str) -> Series:
    return _target(instance, _DIES, role, _HOUR)


def _gone(instance: str, role: str) -> Series:
    """No target any more."""
    return _target(instance, _HOUR, role, _HOUR)


GONE: Mapping[str, tuple[Series, tuple[str, ...]]] = {
    "one worker of two": (
        {**_here("w1", "worker"), **_dead("w2", "worker"), **_here("l1", "learner")},
        ("MarqueeDown",),
    ),
    "a new worker that never answered": (
        {**_here("w1", "worker"), **_target("w2", f"0x{_DAYS}"), **_here("l1", "learner")},
        ("MarqueeDown",),
    ),
    "one learner of two": (
        {**_here("w1", "worker"), **_here("l1", "learner"), **_dead("l2", "learner")},
        ("MarqueeDown",),
    ),
    "all workers": (
        {**_dead("w1", "worker"), **_dead("w2", "worker"), **_here("l1", "learner")},
        ("MarqueeDown", "MarqueeNoWorker"),
    ),
    "all workers, no target left": (
        {**_gone("w1", "worker"), **_gone("w2", "worker"), **_here("l1", "learner")},
        ("MarqueeNoWorker",),
    ),
    "the learner": ({**_here("w1", "worker"), **_dead("l1", "learner")}, ("MarqueeDown", "MarqueeNoLearner")),
    "the learner, no target left": ({**_here("w1", "worker"), **_gone("l1", "learner")}, ("MarqueeNoLearner",)),
    "everybody, no target left": (
        {**_gone("w1", "worker"), **_gone("l1", "learner")},
        ("MarqueeNoLearner", "MarqueeNoWorker"),
    ),
    "a worker that was taken away": (
        {**_here("w1", "worker"), **_gone("w2", "worker"), **_here("l1", "learner")},
        (),
    ),
}
"""Who is gone from 1 h on, and the alerts that tell; a role without a process for a day is taken for taken away."""

CASES: Mapping[str, Case] = {
    "MarqueeAvailabilityBudgetBurnsFast": Case(_popular(0.02), _popular(0.005), ("MarqueeAvailabilityBudgetBurns",)),
    "MarqueeAvailabilityBudgetBurns": Case(_popular(0.004), _popular(0.0009)),
    "MarqueeLatencyBudgetBurnsFast": Case(slow(0.2), slow(0.05), ("MarqueeLatencyBudgetBurns",)),
    "MarqueeLatencyBudgetBurns": Case(slow(0.04), slow(0.009)),
    "MarqueeDown": _gauge('up{instance="w1"}', 0, 1, _W1),
    "MarqueeNoWorker": Case({_WORKER: _is(1, 100)}, _W1),
    "MarqueeNoLearner": Case({_LEARNER: _is(1, 100)}, {_LEARNER: _is(1)}),
    "MarqueeRestarts": Case(
        {'process_start_time_seconds{instance="w1"}': f"0+240x{LONG}", **_W1},
        {'process_start_time_seconds{instance="w1"}': "1000x190 2000x8 3000x8 4000x8", **_W1},
    ),
    "MarqueeLag": _gauge(
        'marquee_lag_seconds{lane="events", topic="klicks", partition="3"}',
        70,
        50,
        {'marquee_lag_seconds{lane="observations", topic="gelernt", partition="all"}': _is(500)},
    ),
    "MarqueePartitionUnowned": _gauge(
        'marquee_partitions_unowned{topic="events"}', 1, 0, {'marquee_partitions_unowned{topic="observations"}': _is(8)}
    ),
    "MarqueeTopicsUnfit": _gauge(
        'marquee_check_ok{instance="w1", probe="ready", check="topics"}',
        0,
        1,
        {'marquee_check_ok{instance="w1", probe="ready", check="partitions"}': _is(0)},
    ),
    "MarqueePartitionPaused": Case(
        {'marquee_partition_paused{topic="events", partition="3", code="malformed"}': _is(0.97), **_W1}, _W1
    ),
    "MarqueeDeadLetters": _counter('marquee_dead_letters_total{topic="events", code="malformed"}', 120, 30, _CONSUMED),
    "MarqueeClockSkew": Case(
        {'marquee_events_total{fate="late"}': _grows(40), "marquee_events_misdated_total": _grows(20), **_EVENTS},
        {'marquee_events_total{fate="late"}': _grows(20), "marquee_events_misdated_total": _grows(20), **_EVENTS},
    ),
    "MarqueeRecordsExpired": Case(
        {'marquee_records_expired_total{topic="events"}': _grows(5)},
        {
            'marquee_records_expired_total{topic="events", instance="w1"}': _is(9),  # weeks ago, in the same life
            'process_start_time_seconds{instance="w1"}': _is(0),
        },
    ),
    "MarqueeWorkHeldUp": _gauge('marquee_work_held_up{instance="w1"}', 1, 0),
    "MarqueeHttpErrors": _counter(
        'marquee_http_requests_total{route="POST /v1/events", code="5xx"}',
        100,
        40,
        {
            'marquee_http_requests_total{route="POST /v1/events", code="2xx"}': _grows(1000),
            'marquee_http_requests_total{route="other", code="5xx"}': _grows(600),  # a learner that stands by: /readyz
        },
    ),
    "MarqueeRedisErrors": Case(
        {'marquee_redis_errors_total{kind="timeout"}': _grows(30)},
        {
            'marquee_redis_errors_total{kind="timeout"}': _grows(6),
            'marquee_redis_errors_total{kind="fenced"}': _grows(600),
        },
    ),
    "MarqueeRedisMemory": _gauge(
        'marquee_redis_memory_bytes{state="used"}', 0.9e9, 0.8e9, {'marquee_redis_memory_bytes{state="max"}': _is(1e9)}
    ),
    "MarqueeBrokersSilent": _gauge('marquee_brokers_silent_seconds{instance="w1"}', 45, 3),
    "MarqueePublishErrors": Case(
        {'marquee_publish_errors_total{publisher="events", kind="unknown_topic"}': _grows(1)},  # timeouts of a minute
        {'marquee_publish_errors_total{publisher="events", kind="away"}': f"0x{LONG - 3} 2x5"},  # a broker restarts
    ),
    "MarqueeControlBehind": _gauge(
        'marquee_control_unread_records{topic="catalog"}',
        1500,
        900,
        {
            'marquee_control_age_seconds{topic="catalog"}': _is(9),
            'marquee_control_read{topic="catalog"}': _is(1),
        },
    ),
    "MarqueeLearningBehind": _gauge(
        'marquee_lag_seconds{lane="observations", topic="gelernt", partition="0"}',
        700,
        500,
        {'marquee_lag_seconds{lane="events", topic="observations-of-sensors", partition="0"}': _is(50)},
    ),
    "MarqueeSnapshotStale": Case(
        {'marquee_snapshot_age_seconds{instance="w1"}': _is(4000), **_W1, **_ROWS},
        {'marquee_snapshot_age_seconds{instance="w1"}': _is(4000), **_W1, "marquee_learner_rows_total": _grows(15)},
    ),
    "MarqueeSnapshotRefused": Case(
        {
            'marquee_snapshot_swaps_total{result="unreachable", instance="w1"}': _grows(1),
            'marquee_snapshot_swaps_total{result="swapped", instance="w1"}': _is(9),
        },
        {
            'marquee_snapshot_swaps_total{result="refused", instance="w1"}': _is(1),
            'marquee_snapshot_swaps_total{result="unreachable", instance="w1"}': f"0x{LONG - 20} 1x20",
            'marquee_snapshot_swaps_total{result="swapped", instance="w1"}': f"8x{LONG - 18} 9x18",
        },
    ),
    "MarqueeCheckpointStale": Case(
        {'marquee_checkpoint_age_seconds{instance="l1"}': _is(700), **_ROWS},
        {
            'marquee_checkpoint_age_seconds{instance="l1"}': _is(5),  # leads
            'marquee_checkpoint_age_seconds{instance="l2"}': _is(9000),  # led
            **_ROWS,
        },
    ),
    "MarqueeUntaught": _counter(
        "marquee_slates_untaught_total", 600, 400, {'marquee_ranker_state{state="behind_retrieval"}': _is(1), **_SLATES}
    ),
    "MarqueeHitRateFell": Case({}, {}),
    "MarqueeCalibrationOff": _gauge(
        'marquee_learner_calibration_ratio{objective="engage", surface="home"}',
        2.4,
        1.8,
        {'marquee_learner_impressions_total{outcome="engaged"}': _grows(10)},
    ),
    "MarqueeGpuMemory": _gauge(
        'marquee_gpu_memory_bytes{instance="w1", gpu="0", state="used"}',
        78e9,
        70e9,
        {'marquee_gpu_memory_bytes{instance="w1", gpu="0", state="total"}': _is(80e9)},
    ),
    "MarqueeAdLedgerClosed": _gauge("marquee_ad_ledger_closed", 1, 0),
    "MarqueeAdDecisionsFail": _counter('marquee_ad_decisions_total{outcome="failed"}', 100, 40, _DECIDED),
    "MarqueeAdStatsStale": _gauge("marquee_ad_stats_age_seconds", 40, 2),
    "MarqueeAdOverspend": _gauge("marquee_ad_overspend_ratio", 0.02, 0.005),
    "MarqueeAdsBehindPlan": Case(_lines(3, 5), _lines(2, 8)),
    "MarqueeAdImpressionsMissing": _counter('marquee_ad_events_total{kind="impression"}', 20, 100, _DECIDED),
    "MarqueeAdCalibrationOff": Case(
        {
            'marquee_ad_calibration_ratio{objective="click"}': _is(0.5),
            'marquee_ad_events_total{kind="click"}': _grows(3),
        },
        {
            'marquee_ad_calibration_ratio{objective="click"}': _is(0.8),
            'marquee_ad_events_total{kind="click"}': _grows(3),
            'marquee_ad_calibration_ratio{objective="conversion"}': _is(0.3),  # of a handful
            'marquee_ad_events_total{kind="conversion"}': f"0x{LONG - 90} 1x30 2x30 3x30",
        },
    ),
    "MarqueeAdStopSlow": Case(_stops(1, 2), _stops(2, 2)),
}
ALSO: Mapping[str, Series] = {
    "MarqueeDeadLetters": {
        'marquee_dead_letters_total{topic="campaigns", code="invalid"}': f"0x{LONG - 12} 1x11",  # one of one
        'marquee_records_consumed_total{topic="campaigns"}': f"0x{LONG - 12} 1x11",
        **_CONSUMED,
    },
    "MarqueeControlBehind": {'marquee_control_read{topic="campaigns"}': _is(0), **_W1},
    "MarqueeCheckpointStale": {'marquee_learner_failures_total{what="checkpoint"}': _grows(6)},
    "MarqueeRecordsExpired": {
        'marquee_records_expired_total{topic="events", instance="w1"}': f"_x{LONG - 3} 7x3",  # at its first scrape
        'process_start_time_seconds{instance="w1"}': f"_x{LONG - 3} {60 * LONG - 200}x3",
    },
    "MarqueeSnapshotRefused": {
        'marquee_snapshot_swaps_total{result="refused", instance="w1"}': f"_x{LONG - 7} 1x7",
        'process_start_time_seconds{instance="w1"}': f"_x{LONG - 7} {60 * LONG - 440}x7",
    },
}
"""Other ways in which an alert fires."""

_NIGHT: Series = {
    _WORKER: _is(1),
    _LEARNER: _is(1),
    'up{instance="w1"}': _is(1),
    'marquee_slates_total{trigger="request"}': _grows(1),
    "marquee_snapshot_version": _is(7),
}
CALM: Mapping[str, Series] = {
    "a first start": {
        **_NIGHT,
        'marquee_slates_total{trigger="event"}': _grows(10),
        'marquee_slates_degraded_total{mode="popular"}': _grows(10),
        "marquee_slates_untaught_total": _grows(10),
        "marquee_snapshot_version": _is(0),
        'marquee_ranker_state{state="no_snapshot"}': _is(1),
    },
    "a first snapshot": {
        **_NIGHT,
        'marquee_slates_total{trigger="event"}': _grows(10),
        'marquee_slates_degraded_total{mode="popular"}': f"0+10x{LONG - 4} {10 * (LONG - 4)}x4",
        "marquee_snapshot_version": f"0x{LONG - 4} 1764311304x4",
    },
    "a popular slate at night": {
        **_NIGHT,
        'marquee_slates_degraded_total{mode="popular"}': f"0x{LONG - 4} 1x4",
    },
    "a slow slate at night": {
        **_NIGHT,
        'marquee_event_to_slate_seconds_count{trigger="event"}': f"0x{LONG - 60} 1x20 2x20 3x16 4x4",
        'marquee_event_to_slate_seconds_bucket{le="0.2", trigger="event"}': f"0x{LONG - 60} 1x20 2x20 3x20",
    },
    "a worker that is replaced": {
        **_NIGHT,
        _WORKER: f"1x{LONG - 4} stale",
        'up{instance="w1"}': f"1x{LONG - 4} stale",
        'marquee_build_info{role="worker", instance="w2", version="2"}': f"_x{LONG - 3} 1x3",
        'up{instance="w2"}': f"_x{LONG - 3} 1x3",
        'process_start_time_seconds{instance="w2"}': f"_x{LONG - 3} 12000x3",
        'marquee_lag_seconds{topic="marquee.events.v1", partition="3"}': f"0x{LONG - 4} 12 0 0 0",
        'marquee_partitions_unowned{topic="events"}': f"0x{LONG - 4} 4 0 0 0",
    },
}
"""Days and nights in which nobody is told anything."""

_HIT, _MISS = 'marquee_takes_total{place="first_10"}', 'marquee_takes_total{place="not_shown"}'
HALF_HOURS = Case(
    {_HIT: "0+300x48 14700+100x16", _MISS: "0+700x48 34500+900x16"},
    {_HIT: "0+300x48 14650+250x16", _MISS: "0+700x48 34350+750x16"},
)
"""A day in which three takes of ten were hits, and eight hours after it."""
FEW: Series = {_HIT: "0+300x48 14700x16", _MISS: "0+700x48 34500+5x16"}
"""The same day, and a night in which hardly anybody takes anything, and nobody a hit."""
