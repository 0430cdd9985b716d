"""The picture of benchmarks/glue.py: score against size, a panel for each task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.glue_cells import Row, Spec
from benchmarks.glue_report import Lines

PANEL = 4.2, 5.2  # inches
MARKS = "oDsv^<>Pphd*X"


def draw(spec: Spec, found: Lines, file: Path) -> Path:
    """Mean over the seeds, bars from the lowest to the highest; the uncompressed score dashed.
    Sizes of one method are joined by a line."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "shrinkflow"  # the same bytes for the same numbers
    from matplotlib import pyplot

    tasks = [task for task in spec.tasks if any(name == task.name for name, _ in found)]
    size = PANEL[0] * max(len(tasks), 1.5), PANEL[1]
    figure, panels = pyplot.subplots(
        1, len(tasks), squeeze=False, figsize=size, layout="constrained"
    )
    for axes, task in zip(panels[0], tasks, strict=True):
        _panel(axes, spec, found, task.name)
        axes.set_title(task.label or task.name)
    panels[0][0].set_ylabel("score")
    labels: dict[str, Any] = {}
    for axes in panels[0]:
        for mark, label in zip(*axes.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, mark)
    figure.legend(
        labels.values(),
        labels.keys(),
        loc="outside lower center",
        fontsize=8,
        ncols=max(2, len(tasks)),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    return file


def _panel(axes: Any, spec: Spec, found: Lines, task: str) -> None:
    first, *others = spec.rows
    if (task, first.name) in found:
        line = found[task, first.name]
        axes.axhline(
            line.score,
            linestyle="--",
            color="black",
            linewidth=0.9,
            label=first.label or first.name,
        )
    curves: dict[str, list[Row]] = {}
    for row in others:
        label = "parts on and off" if row.ablation else row.curve or row.label or row.name
        curves.setdefault(label, []).append(row)
    methods = [label for label in curves if label != "parts on and off"]
    for label, rows in curves.items():
        points = [found[task, row.name] for row in rows if (task, row.name) in found]
        if not points:
            continue
        style: dict[str, Any] = {"fmt": ".", "color": "0.65"}
        if label in methods:
            i = methods.index(label)
            joined = "-" if any(row.curve for row in rows) else ""
            style = {"fmt": f"{joined}{MARKS[i % len(MARKS)]}", "color": _color(i)}
        spread = [
            [x.score - min(x.scores.values()) for x in points],
            [max(x.scores.values()) - x.score for x in points],
        ]
        axes.errorbar(
            [x.bytes / 1e6 for x in points], [x.score for x in points], spread,
            markersize=5, linewidth=1, capsize=2, label=label, **style,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(ticks := [2, 3, 4, 5, 6, 8, 12, 16, 24], [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("megabytes on disk")


def _color(i: int) -> Any:
    """The ten of matplotlib's cycle, then a light shade of each."""
    from matplotlib import colormaps

    return colormaps["tab20"](2 * i % 20 + i // 10 % 2)
