"""Matplotlib figures as inline SVG whose colours are the page's: in light, dark and print.

Figures are drawn in marker colours that nothing else uses; `to_svg` turns each into a CSS variable.
Text stays text, so that it follows the page's font and can be searched and copied.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER, ALERT = "#0f0001", "#0f0002", "#0f0003", "#0f0004", "#0f0005"
SERIES = tuple(f"#0f01{i:02x}" for i in range(6))
REST = "#0f0006"
VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", ALERT: "alert", REST: "rest",
} | {color: f"series-{i}" for i, color in enumerate(SERIES)}  # fmt: skip

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "shrinkflow",
    "text.parse_math": False,  # names of layers are text, whatever they contain
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.5,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
CLEANING = (
    (r"<metadata>.*?</metadata>\s*", ""),
    (r"<defs>\s*<style.*?</style>\s*</defs>\s*", ""),  # it would reach the whole page
    (r' (width|height)="[\d.]+pt"', ""),  # the page decides
    (r' xmlns(:xlink)?="[^"]*"', ""),
    (r"xlink:href", "href"),
    (r'<g id="[^"]*"', "<g"),  # ids of one figure would collide with another's
    (r" ?font-family: [^;\"]*;", ""),
    (r' transform="rotate\(-0 [^"]*"', ""),
    (r"\n\s*", " "),
)
POINTS = 72  # of matplotlib in an inch; on the page a point is about a pixel


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib's settings for figures of the page; nothing of them stays behind."""
    settings: Any = {**mpl.rcParamsDefault, **STYLE}
    with mpl.rc_context(settings):
        yield


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **grid: Any) -> tuple:
    """(figure, axes array (rows, columns)) of width x height points, without pyplot's state."""
    figure = Figure(figsize=(width / POINTS, height / POINTS), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **grid)
    for axis in axes.flat:
        axis.tick_params(length=0)
    return figure, axes


def bare(axis: Axes) -> None:
    """An axis without frame and ticks: for bars that are labelled themselves."""
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)


def to_svg(figure: Figure, label: str) -> Markup:
    """The figure as one <svg> element, described by `label`; equal figures give equal bytes."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg ") :]
    for pattern, replacement in CLEANING:
        text = re.sub(pattern, replacement, text, flags=re.DOTALL)
    text = re.sub(r"\d+\.\d{4,}", lambda number: f"{float(number.group()):.2f}", text)
    text = re.sub("#0f0[0-9a-f]{3}", lambda color: f"var(--{VARIABLES[color.group()]})", text)
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1))
