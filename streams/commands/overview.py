"""An installation at a glance, from what its processes say on `/metrics`: any number of workers, and learners."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from streams.commands.readings import Interval, quantile, together

STAGE, LATENCY = "marquee_stage_seconds", "marquee_event_to_slate_seconds"


@dataclass(frozen=True, slots=True)
class ProcessView:
    """One process: what it does per second, how far it is behind, what it serves. NaN: it does not say so."""

    url: str
    away: str | None = None
    """Why there is nothing else."""
    role: str | None = None
    restarted: bool = False
    events_per_s: float = math.nan
    slates_per_s: float = math.nan
    ads_per_s: float = math.nan
    """Slots for ads that were filled."""
    rows_per_s: float = math.nan
    """Rows that a learner learned."""
    lag_s: float = math.nan
    p50_s: float = math.nan
    """From the publication of an event or request to the acknowledgement of its slate."""
    p99_s: float = math.nan
    snapshot_version: int | None = None
    """None before the first."""
    snapshot_age_s: float = math.nan
    ranker: str | None = None
    """`serves` once it is taught; else why it does not."""
    cpu: float = math.nan
    """Cores."""
    memory_bytes: float = math.nan


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage in all processes: batches per second and how long a batch takes."""

    lane: str
    """Empty where the process tells none."""
    stage: str
    per_s: float
    p50_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class Overview:
    """All processes, all stages, and everything together."""

    events_per_s: float
    slates_per_s: float
    degraded_per_s: float
    ads_per_s: float
    lag_s: float
    """Of the partition of events or requests that is furthest behind."""
    lag_records: float
    """Of all of these that somebody tells of."""
    learning_lag_s: float
    """Of what the learner has not read yet."""
    p50_s: float
    p99_s: float
    processes: Sequence[ProcessView]
    stages: Sequence[StageView]

    def plain(self) -> dict[str, Any]:
        """As JSON has it: what is not known is null."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def overview(found: Mapping[str, Interval | str]) -> Overview:
    """What processes did, by address; a text is why one did not answer, and leaves it out of all sums."""
    here = [interval for interval in found.values() if isinstance(interval, Interval)]
    latency = together(interval.buckets(LATENCY) for interval in here)
    lag = partial(_by_partition, here, "marquee_lag_seconds")
    records = _by_partition(here, "marquee_lag_records")
    return Overview(
        events_per_s=_sum(interval.rate("marquee_events_total") for interval in here),
        slates_per_s=_sum(interval.rate("marquee_slates_total") for interval in here),
        degraded_per_s=_sum(_degraded(interval) for interval in here),
        ads_per_s=_sum(_ads(interval) for interval in here),
        lag_s=max(lag().values(), default=math.nan),
        lag_records=sum(records.values()) if records else math.nan,
        learning_lag_s=max(lag(learning=True).values(), default=math.nan),
        p50_s=quantile(latency, 0.5),
        p99_s=quantile(latency, 0.99),
        processes=[_process(url, interval) for url, interval in found.items()],
        stages=_stages(here),
    )


def _process(url: str, of: Interval | str) -> ProcessView:
    if isinstance(of, str):
        return ProcessView(url, away=of)
    now, latency = of.after, of.buckets(LATENCY)
    return ProcessView(
        url,
        role=(role := now.label("marquee_build_info", "role")),
        restarted=of.restarted,
        events_per_s=of.rate("marquee_events_total"),
        slates_per_s=of.rate("marquee_slates_total"),
        ads_per_s=_ads(of),
        rows_per_s=of.rate("marquee_learner_rows_total"),
        lag_s=max(_by_partition([of], "marquee_lag_seconds", learning=role == "learner").values(), default=math.nan),
        p50_s=quantile(latency, 0.5),
        p99_s=quantile(latency, 0.99),
        snapshot_version=_version(now.value("marquee_snapshot_version")),
        snapshot_age_s=now.value("marquee_snapshot_age_seconds"),
        ranker=now.label("marquee_ranker_state", "state"),
        cpu=of.rate("process_cpu_seconds_total"),
        memory_bytes=now.value("process_resident_memory_bytes"),
    )


def _stages(here: Sequence[Interval]) -> list[StageView]:
    """In the order in which processes tell them, which is that of the work; without those that nothing went through."""
    kinds = [labels for interval in here for labels, _ in interval.after.each(f"{STAGE}_count")]
    views = []
    for lane, stage in dict.fromkeys((labels.get("lane", ""), labels["stage"]) for labels in kinds):
        only = {"stage": stage, **({"lane": lane} if lane else {})}
        per_s = _sum(interval.rate(f"{STAGE}_count", **only) for interval in here)
        if per_s > 0:
            took = together(interval.buckets(STAGE, **only) for interval in here)
            views.append(StageView(lane, stage, per_s, quantile(took, 0.5), quantile(took, 0.99)))
    return views


def _version(told: float) -> int | None:
    return int(told) if told > 0 else None


def _ads(of: Interval) -> float:
    return of.rate("marquee_ad_decisions_total", outcome="filled")


def _degraded(of: Interval) -> float:
    grown = [growth for labels, growth in of.increases("marquee_slates_degraded_total") if labels["mode"] != "none"]
    return sum(grown) / of.seconds if grown else math.nan


def _by_partition(here: Iterable[Interval], name: str, *, learning: bool = False) -> dict[tuple[str, str], float]:
    """The largest value that anybody tells of a partition, of observations or of all others: its owner may change."""
    found: dict[tuple[str, str], float] = {}
    for interval in here:
        for labels, value in interval.after.each(name):
            place = labels["topic"], labels["partition"]
            if not math.isnan(value) and (labels.get("lane") == "observations") == learning:
                found[place] = max(value, found.get(place, 0.0))
    return found


def _sum(values: Iterable[float]) -> float:
    """Of those that are known; NaN where none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) if known else math.nan


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value
