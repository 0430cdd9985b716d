"""The picture of benchmarks/glue.py: score against size, a panel for each task."""

from __future__ import annotations

from pathlib import Path

from benchmarks import pictures
from benchmarks.glue_cells import Row, Spec
from benchmarks.glue_report import Lines
from benchmarks.pictures import Curve, Panel, Point

ASIDE = "parts on and off"


def draw(spec: Spec, found: Lines, file: Path) -> Path:
    """Mean over the seeds, bars from the lowest to the highest; the uncompressed score dashed.
    Sizes of one method are joined by a line."""
    panels = []
    for task in spec.tasks:
        if any(name == task.name for name, _ in found):
            whole = found.get((task.name, spec.rows[0].name))
            first = spec.rows[0].label or spec.rows[0].name
            dense = None if whole is None else (first, whole.score)
            curves = _curves(spec.rows[1:], found, task.name)
            panels.append(Panel(task.label or task.name, curves, dense))
    return pictures.draw(panels, "score", file)


def _curves(rows: list[Row], found: Lines, task: str) -> list[Curve]:
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        if (task, row.name) in found:
            label = ASIDE if row.ablation else row.curve or row.label or row.name
            by_label.setdefault(label, []).append(row)
    return [
        Curve(
            label,
            [Point(x.bytes, list(x.scores.values())) for x in (found[task, r.name] for r in own)],
            joined=any(row.curve for row in own),
            aside=label == ASIDE,
        )
        for label, own in by_label.items()
    ]
