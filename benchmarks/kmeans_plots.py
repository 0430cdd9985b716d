"""Pictures of benchmarks/kmeans.py's JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

REFERENCE = "sklearn k-means++"


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """One SVG for each table that there is data for."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "shrinkflow"  # the same bytes for the same numbers
    made = []
    for table, title in (("intact", "Intact weights"), ("zeroed", "Weights with zeroed blocks")):
        rows = [r for r in results.get(table, []) if REFERENCE in r["methods"]]
        if rows:
            made.append(_bars(rows, title, folder / f"kmeans-{table}.svg"))
    return made


def _bars(rows: list[dict[str, Any]], title: str, file: Path) -> Path:
    """Distortion of each method relative to the reference; bars below 1 are better."""
    from matplotlib import pyplot

    names = [name for name in rows[0]["methods"] if name != REFERENCE]
    figure, axes = pyplot.subplots(figsize=(9, 0.42 * len(rows) + 1.6))
    height = 0.8 / len(names)
    for i, name in enumerate(names):
        value = [_ratio(row, name) for row in rows]
        where = [j + (i - len(names) / 2 + 0.5) * height for j in range(len(rows))]
        axes.barh(where, [v - 1 for v in value], height, left=1.0, label=name)
    axes.set_yticks(range(len(rows)), [row["cell"] for row in rows])
    axes.invert_yaxis()
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlim(0.93, 1.07)  # fairseq's rule leaves the picture on zeroed blocks
    axes.set_xlabel(f"distortion relative to {REFERENCE} (left is better)")
    axes.set_title(title)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    return file


def _ratio(row: dict[str, Any], name: str) -> float:
    if name not in row["methods"]:
        return 1.0
    return row["methods"][name]["distortion"] / row["methods"][REFERENCE]["distortion"]
