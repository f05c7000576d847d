"""The demo's page: what was measured, drawn, and one person's history and slate in plain words."""

import io
from dataclasses import dataclass
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
from numpy.typing import NDArray

from streams.baselines import NOT_SCORED, Quality
from streams.demo import DemoRun

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

_INK, _OURS, _THEIRS = "#222831", "#0b7a75", "#b8b8b8"
_CURVE_POINTS = 400


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
            throughput=_throughput_plot(run),
            person=person(run),
        ),
        encoding="utf-8",
    )
    return path


def _hit_rate_plot(run: DemoRun, popularity_R: NDArray[np.float64]) -> str:
    figure, axes = plt.subplots(figsize=(9, 3.4))
    for name, rank_R, colour in (("Marquee", run.rank_R, _OURS), ("popularity", popularity_R, _THEIRS)):
        scored = np.flatnonzero((rank_R != NOT_SCORED) & ~np.isnan(rank_R))
        hits = (rank_R[scored] < 10).astype(float)
        width = max(len(hits) // 50, 1)
        moving = np.convolve(hits, np.ones(width) / width, mode="valid")
        thin = np.linspace(0, len(moving) - 1, min(_CURVE_POINTS, len(moving))).astype(int)
        axes.plot(scored[width - 1 :][thin], moving[thin], label=name, color=colour, linewidth=2)
        axes.axhline(hits.mean(), color=colour, linewidth=0.8, linestyle=":")
    axes.set(xlabel="event", ylabel="recall@10, moving", ylim=(0, None))
    axes.legend(frameon=False, loc="upper left")
    return _svg(figure)


def _latency_plot(run: DemoRun) -> str:
    figure, axes = plt.subplots(figsize=(9, 3.0))
    latency_ms = run.latency_s_R[~np.isnan(run.latency_s_R)] * 1000
    shares = np.linspace(0, 99.9, 500)
    axes.plot(shares, np.percentile(latency_ms, shares), color=_OURS, linewidth=2)
    for share in (50, 99):
        value = np.percentile(latency_ms, share)
        axes.annotate(
            f"p{share} {value:.0f} ms", (share, value), xytext=(-64, 8), textcoords="offset points", color=_INK
        )
        axes.plot([share], [value], "o", color=_INK, markersize=4)
    axes.set(xlabel="share of slates, %", ylabel="event → slate, ms", yscale="log")
    return _svg(figure)


def _throughput_plot(run: DemoRun) -> str:
    figure, axes = plt.subplots(figsize=(9, 2.6))
    answered = np.sort(run.answered_s_R[~np.isnan(run.answered_s_R)])
    count, edges = np.histogram(answered, bins=np.arange(0, run.seconds + 1, 1.0))
    axes.fill_between(edges[:-1], count, step="post", color=_OURS, alpha=0.35)
    axes.step(edges[:-1], count, where="post", color=_OURS)
    axes.set(xlabel="seconds since the first event", ylabel="slates per second", ylim=(0, None))
    return _svg(figure)


def _svg(figure: Figure) -> str:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue().partition("<svg")[2].join(("<svg", ""))


@dataclass(frozen=True, slots=True)
class Offered:
    """One place of a slate in plain words."""

    title: str
    score: float | None
    source: str
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
    user, facts = run.log.user_R[latest], run.log.items
    taken = [item for who, item in zip(run.log.user_R, run.log.item_R, strict=True) if who == user]

    def title(item: str) -> str:
        return f"{facts[item].title} ({facts[item].year or '?'})" if item in facts else item

    def words(reason: str) -> str:
        code, _, item = reason.partition(":")
        return f"{code.replace('_', ' ')} {title(item)}" if item else code.replace("_", " ")

    slate = run.last[user]
    return Person(
        user,
        len(taken),
        [title(item) for item in taken[-10:][::-1]],
        [
            Offered(title(i.item_id), i.score, i.source, ", ".join(words(r) for r in i.reasons))
            for i in slate.items[:10]
        ],
    )
