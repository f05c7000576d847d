"""Plots of the demo's page: axes to draw on, one look, inline SVG."""

import html
import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

INK, OURS, THEIRS = "#222831", "#0b7a75", "#a9a9a9"


class Drawing:
    """Axes to draw on, and the drawing as inline SVG once the `with` block ended."""

    def __init__(self, axes: Axes) -> None:
        """Nothing is drawn yet."""
        self.axes, self.svg = axes, ""


@contextmanager
def drawing(label: str, height: float, *, grid: str = "y") -> Iterator[Drawing]:
    """Axes of the page's width and some height, in inches; `label` is what who cannot see it is told."""
    with plt.rc_context({"svg.fonttype": "none", "font.size": 10, "axes.edgecolor": "#9a9a9a", "text.color": INK}):
        figure, axes = plt.subplots(figsize=(9, height))
        plot = Drawing(axes)
        yield plot
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=0)
        axes.grid(axis=grid, color="#ececec", linewidth=0.8)  # type: ignore[arg-type]
        axes.set_axisbelow(True)
        text = io.StringIO()
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
    plot.svg = f'<svg role="img" aria-label="{html.escape(label)}"' + text.getvalue().partition("<svg")[2]
