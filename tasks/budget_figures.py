"""Pictures of size budgets: what is predicted, and what several of them gave."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from tasks.svg import ALERT, INK, MUTED, PAPER, SERIES, canvas, drawing, to_svg

if TYPE_CHECKING:
    from compress.allocation.allocate import Allocation

WIDTH, HEIGHT = 760, 340  # points
MB = 1e6


def damage_by_size(found: "Allocation") -> Markup:
    """Least predicted damage at every size, with the budget and what was chosen for it."""
    sizes, damages = zip(*found.frontier, strict=True)
    with drawing():
        figure, axes = canvas(WIDTH, HEIGHT)
        axis = axes[0, 0]
        axis.grid(axis="y")
        axis.plot([size / MB for size in sizes], damages, color=SERIES[0], linewidth=1.8)
        axis.axvline(found.limit / MB, color=ALERT, linewidth=1, linestyle=(0, (4, 3)))
        axis.scatter(
            [found.bytes / MB], [found.damage], s=60, color=SERIES[0], zorder=3,
            edgecolors=PAPER, linewidths=1.5,
        )  # fmt: skip
        label = f"{found.bytes / MB:.2f} of {found.limit / MB:.2f} MB"
        at = (found.bytes / MB, found.damage)
        axis.annotate(label, at, (10, 10), textcoords="offset points", color=INK)
        if min(damages) > 0:
            axis.set_yscale("log")
        axis.set_xlabel("size on disk, MB")
        axis.set_ylabel("predicted damage")
        return to_svg(figure, "Predicted damage by size, and the budget")


def score_by_size(
    points: Sequence[tuple[str, float, float]], baseline: float, metric: str
) -> Markup:
    """Measured scores: (label, bytes, score) for every budget; `baseline` is uncompressed."""
    points = sorted(points, key=lambda point: point[1])
    with drawing():
        figure, axes = canvas(WIDTH, HEIGHT)
        axis = axes[0, 0]
        axis.grid(axis="y")
        axis.axhline(baseline, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        across = axis.get_yaxis_transform()
        axis.text(0.01, baseline, "uncompressed", color=MUTED, va="bottom", transform=across)
        xs, ys = [size / MB for _, size, _ in points], [score for *_, score in points]
        axis.plot(xs, ys, color=SERIES[0], linewidth=1.5)
        axis.scatter(xs, ys, s=60, color=SERIES[0], zorder=3, edgecolors=PAPER, linewidths=1.5)
        for (label, *_), x, y in zip(points, xs, ys, strict=True):
            text = f"{label}: {y:.1f}"
            axis.annotate(
                text, (x, y), (0, -18), textcoords="offset points", ha="center", color=INK
            )
        axis.margins(x=0.12, y=0.25)
        axis.set_xlabel("size on disk, MB")
        axis.set_ylabel(metric)
        return to_svg(figure, f"{metric} by size of the compressed model")
