"""The part of the demo's page that is about ads."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import StrMethodFormatter

from streams.contract.ad_records import AdStats
from streams.lab.ad_figures import Won, capped_words, explained, plan_words
from streams.lab.ad_showing import AdRun, PlanPoint
from streams.lab.drawing import INK, OURS, drawing

_SHOWN_LINES = 12
_TYPES = ("sponsorship", "standard", "price_priority", "house")
_COLOURS = ("#075652", "#0b7a75", "#8fc7c3", "#d8d2c2")


@dataclass(frozen=True, slots=True)
class AdsPage:
    """What the page shows of ads; `lines` are those that spent most, `fills` and `plan` are drawings."""

    run: AdRun
    lines: Sequence[AdStats]
    fills: str
    plan: str
    plan_words: str
    capped: str
    won: Won | None


def ads_page(run: AdRun) -> AdsPage:
    """Everything about the ads of a run, ready to be shown."""
    return AdsPage(
        run=run,
        lines=run.lines()[:_SHOWN_LINES],
        fills=_fills_plot(run) if run.slots else "",
        plan=_plan_plot(run.plan) if run.plan else "",
        plan_words=plan_words(run),
        capped=capped_words(run),
        won=explained(run),
    )


def _fills_plot(run: AdRun) -> str:
    with drawing("what filled the slots", 0.9, grid="x") as plot:
        left = 0
        rest = ("unfilled", run.slots - run.filled, "#f3f1ea")
        parts = [(name, run.filled_by[name], colour) for name, colour in zip(_TYPES, _COLOURS, strict=True)]
        for name, many, colour in (*parts, rest):
            label = f"{name.replace('_', ' ')} {many:,}"
            plot.axes.barh(0, many, left=left, color=colour, label=label, height=0.6, edgecolor="white")
            left += many
        plot.axes.set(xlabel="slots", yticks=[], xlim=(0, max(left, 1)))
        plot.axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        plot.axes.spines["left"].set_visible(False)
        plot.axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, fontsize=9)
    return plot.svg


def _plan_plot(points: Sequence[PlanPoint]) -> str:
    with drawing("a budget's spend beside its plan", 2.6) as plot:
        time_N = [point.at_s for point in points]
        plot.axes.plot(time_N, [p.spent / 1e6 for p in points], color=OURS, linewidth=3, label="spent")
        plot.axes.plot(time_N, [p.due / 1e6 for p in points], color=INK, linewidth=1, linestyle="--", label="plan")
        last = points[-1]
        place = {"xytext": (6, -3), "textcoords": "offset points"}
        plot.axes.annotate(f"{last.spent / 1e6:.2f}", (last.at_s, last.spent / 1e6), color=INK, **place)  # type: ignore[arg-type]
        plot.axes.set(xlabel="seconds since the first event", ylabel="dollars", ylim=(0, None), xlim=(0, None))
        plot.axes.legend(frameon=False, loc="upper left", ncols=2)
    return plot.svg
