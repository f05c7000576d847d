"""The demo's page: what was measured, drawn, and one person's history and slate in plain words."""

from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter
from numpy.typing import NDArray

from streams.contract.records import SlateItem
from streams.lab.baselines import NOT_SCORED, Quality
from streams.lab.demo import DemoRun
from streams.lab.drawing import INK, OURS, THEIRS, drawing
from streams.lab.report_ads import ads_page

_STAGES = {"decode": "#c9e4e2", "fold": "#8fc7c3", "retrieve": "#4da39e", "rank": "#0b7a75", "compose": "#075652"}
_REST = "#e9e4d8"
_CURVE_POINTS = 400
_TICKS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)


def render(run: DemoRun, folder: Path) -> Path:
    """Write `index.html`, self-contained, into `folder`; returns its path."""
    popularity_R = run.popularity()
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template("report.html")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    path.write_text(
        page.render(
            run=run,
            ours=run.quality,
            popularity=Quality.of(popularity_R),
            hit_rate=_hit_rate_plot(run, popularity_R),
            latency=_latency_plot(run),
            stages=_stages_plot(run),
            throughput=_throughput_plot(run),
            person=person(run),
            ads=ads_page(run.ads) if run.ads else None,
        ),
        encoding="utf-8",
    )
    return path


def _hit_rate_plot(run: DemoRun, popularity_R: NDArray[np.float64]) -> str:
    with drawing("recall at 10 as the log goes by", 3.4) as plot:
        for name, rank_R, colour in (("Marquee", run.rank_R, OURS), ("popularity", popularity_R, THEIRS)):
            scored = np.flatnonzero((rank_R != NOT_SCORED) & ~np.isnan(rank_R))
            hits = (rank_R[scored] < 10).astype(float)
            width = max(len(hits) // 25, 1)
            moving = np.convolve(hits, np.ones(width) / width, mode="valid")
            thin = np.linspace(0, len(moving) - 1, min(_CURVE_POINTS, len(moving))).astype(int)
            label = f"{name}, {hits.mean():.3f} over all"
            plot.axes.plot(scored[width - 1 :][thin], moving[thin], label=label, color=colour, linewidth=2)
        plot.axes.set(xlabel="event", ylabel=f"recall@10 of the last {width:,}", ylim=(0, None), xlim=(0, len(run.log)))
        plot.axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        plot.axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.16), ncols=2)
    return plot.svg


def _latency_plot(run: DemoRun) -> str:
    latency_ms = np.maximum(np.sort(run.latency_s_R[~np.isnan(run.latency_s_R)]) * 1000, 0.1)
    thin = np.linspace(0, len(latency_ms) - 1, min(_CURVE_POINTS, len(latency_ms))).astype(int)
    with drawing("share of slates that arrived within a time", 2.8, grid="both") as plot:
        plot.axes.plot(latency_ms[thin], (thin + 1) / len(latency_ms), color=OURS, linewidth=2)
        for percent in (50, 99):
            at = float(np.percentile(latency_ms, percent))
            plot.axes.plot([at], [percent / 100], "o", color=INK, markersize=5)
            place = {"xytext": (8, -12 if percent > 90 else -4), "textcoords": "offset points"}
            plot.axes.annotate(f"p{percent}  {at:,.0f} ms", (at, percent / 100), **place)  # type: ignore[arg-type]
        low, high = latency_ms[0] * 0.8, max(latency_ms[-1] * 1.25, latency_ms[0] * 2)
        plot.axes.set(xlabel="event → slate", ylabel="arrived within", xscale="log", xlim=(low, high), ylim=(0, 1.03))
        plot.axes.set_xticks([tick for tick in _TICKS_MS if low <= tick <= high])
        plot.axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _duration(x)))
        plot.axes.xaxis.set_minor_formatter(NullFormatter())
        plot.axes.yaxis.set_major_formatter(PercentFormatter(1))
    return plot.svg


def _duration(milliseconds: float) -> str:
    return f"{milliseconds / 1000:g} s" if milliseconds >= 1000 else f"{milliseconds:g} ms"


def _stages_plot(run: DemoRun) -> str:
    parts = [(name, run.stage_ms.get(name, 0.0), colour) for name, colour in _STAGES.items()]
    mean_ms = float(np.nanmean(run.latency_s_R)) * 1000
    parts.append(("broker, queue, delivery", max(mean_ms - sum(ms for _, ms, _ in parts), 0.0), _REST))
    with drawing("where the time from event to slate went, on average", 1.0, grid="x") as plot:
        left = 0.0
        for name, ms, colour in parts:
            plot.axes.barh(0, ms, left=left, color=colour, label=f"{name} {ms:,.1f}", height=0.6)
            left += ms
        plot.axes.set(xlabel="milliseconds, mean over all slates", yticks=[], xlim=(0, max(left, 1e-3)))
        plot.axes.spines["left"].set_visible(False)
        plot.axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=9)
    return plot.svg


def _throughput_plot(run: DemoRun) -> str:
    answered = run.answered_s_R[~np.isnan(run.answered_s_R)]
    whole_s = max(int(run.seconds), 1)
    count, edges = np.histogram(answered, bins=np.arange(0, whole_s + 1, max(1, whole_s // 200)))
    rate = count / np.diff(edges)
    with drawing("slates per second over the run", 2.4) as plot:
        plot.axes.stairs(rate, edges, fill=True, color=OURS, alpha=0.3)
        plot.axes.stairs(rate, edges, color=OURS, baseline=None)
        plot.axes.set(xlabel="seconds since the first event", ylabel="slates per second", ylim=(0, None))
        plot.axes.set_xlim(0, max(whole_s, 1))
    return plot.svg


@dataclass(frozen=True, slots=True)
class Offered:
    """One place of a slate in plain words."""

    title: str
    score: float | None
    found: str
    why: str


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody: the last items taken, latest first, out of `taken`, and what is offered now."""

    user: str
    taken: int
    history: list[str]
    slate: list[Offered]


def person(run: DemoRun) -> Person:
    """The person of the last event that was answered."""
    latest = int(np.flatnonzero(~np.isnan(run.answered_s_R))[-1])
    user = run.log.user_R[latest]
    taken = [item for who, item in zip(run.log.user_R, run.log.item_R, strict=True) if who == user]
    offered = [
        Offered(title(run, i.item_id), i.score, _found(i.source), "; ".join(_words(run, i, r) for r in i.reasons))
        for i in run.last[user].items[:10]
    ]
    return Person(user, len(taken), [title(run, item) for item in taken[-10:][::-1]], offered)


def title(run: DemoRun, item: str) -> str:
    """What people call an item; its id where the catalogue says nothing."""
    facts = run.log.items.get(item)
    if facts is None or not facts.title:
        return item
    name, comma, article = facts.title.rpartition(", ")
    said = f"{article} {name}" if comma and article in ("The", "A", "An") else facts.title
    return f"{said} ({facts.year})" if facts.year else said


_WHY = {
    "taste": "close to their taste",
    "popular": "popular",
    "trending": "trending now",
    "fresh": "new",
    "category": "the kind they take",
}
_FOUND = {"vector": "vector search", "neighbours": "neighbours of recent items", "trending": "trending", "fresh": "new"}


def _words(run: DemoRun, item: SlateItem, reason: str) -> str:
    code, _, held = reason.partition(":")
    if held:
        return f"because they watched {title(run, held)}"
    if code == "category" and item.category:
        return f"they often watch {item.category}"
    where = f" in {item.country}" if item.country else ""
    return _WHY.get(code, code.replace("_", " ")) + where


def _found(source: str) -> str:
    return ", ".join(_FOUND.get(part, part) for part in source.split("+"))
