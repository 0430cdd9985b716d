"""Pictures of quality against size: a panel for each task, a curve for each method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PANEL = 4.2, 5.2  # inches
MARKS = "oDsv^<>Pphd*X"
TICKS = (0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2, 3, 4, 5, 6, 8, 12, 16, 24)  # megabytes


@dataclass(frozen=True)
class Point:
    """bytes on disk; the mean of `values`, one a seed, from their lowest to their highest."""

    bytes: float
    values: Sequence[float]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)


@dataclass(frozen=True)
class Curve:
    """joined: points are sizes of one thing. aside: of less interest, in grey."""

    label: str
    points: Sequence[Point]
    joined: bool = True
    aside: bool = False


@dataclass(frozen=True)
class Panel:
    """dense: the label and the value of what was not compressed, a dashed line."""

    title: str
    curves: Sequence[Curve]
    dense: tuple[str, float] | None = None


def draw(panels: Sequence[Panel], quantity: str, file: Path, *, log: bool = False) -> Path:
    """An SVG; a curve has one color in all panels. `quantity` names the vertical axis, `log` makes
    it logarithmic."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "shrinkflow"  # the same bytes for the same numbers
    from matplotlib import pyplot

    size = PANEL[0] * max(len(panels), 1.5), PANEL[1]
    figure, row = pyplot.subplots(1, len(panels), squeeze=False, figsize=size, layout="constrained")
    labels = list(dict.fromkeys(c.label for p in panels for c in p.curves if not c.aside))
    legend: dict[str, Any] = {}
    for axes, panel in zip(row[0], panels, strict=True):
        axes.set_yscale("log" if log else "linear")
        _fill(axes, panel, labels)
        for mark, label in zip(*axes.get_legend_handles_labels(), strict=True):
            legend.setdefault(label, mark)
    row[0][0].set_ylabel(quantity)
    figure.legend(
        legend.values(), legend.keys(), loc="outside lower center", fontsize=8,
        ncols=max(2, len(panels)),
    )  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    return file


def _fill(axes: Any, panel: Panel, labels: Sequence[str]) -> None:
    axes.set_title(panel.title)
    if panel.dense is not None:
        label, value = panel.dense
        axes.axhline(value, linestyle="--", color="black", linewidth=0.9, label=label)
    for curve in panel.curves:
        style: dict[str, Any] = {"fmt": ".", "color": "0.65"}
        if not curve.aside:
            i = labels.index(curve.label)
            line = "-" if curve.joined else ""
            style = {"fmt": f"{line}{MARKS[i % len(MARKS)]}", "color": _color(i)}
        means = [point.mean for point in curve.points]
        spread = [
            [mean - min(p.values) for mean, p in zip(means, curve.points, strict=True)],
            [max(p.values) - mean for mean, p in zip(means, curve.points, strict=True)],
        ]
        axes.errorbar(
            [p.bytes / 1e6 for p in curve.points], means, spread,
            markersize=5, linewidth=1, capsize=2, label=curve.label, **style,
        )  # fmt: skip
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xticks(ticks := [x for x in TICKS if low <= x <= high], [f"{x:g}" for x in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("megabytes on disk")


def _color(i: int) -> Any:
    """The ten of matplotlib's cycle, then a light shade of each."""
    from matplotlib import colormaps

    return colormaps["tab20"](2 * i % 20 + i // 10 % 2)
