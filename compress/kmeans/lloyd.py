"""Lloyd's iterations over a batch of equal problems."""

from __future__ import annotations

import torch

from compress.kmeans.distance import Sweep, sweep
from compress.kmeans.empties import resolve
from compress.kmeans.options import Options
from compress.kmeans.points import Points
from compress.kmeans.relaxation import factor
from compress.kmeans.trace import Trace, count_rounds, record


def iterate(
    points: Points,
    centroids: torch.Tensor,
    options: Options,
    steps: range,
    generator: torch.Generator,
    traces: list[Trace],
) -> torch.Tensor:
    """Over-relaxed iterations (b, k, d) -> (b, k, d): `steps` out of range(options.iterations).

    A problem that converges while its updates are still over-relaxed goes on with plain ones;
    one that converges with plain ones stops.
    """
    active = torch.tensor([not trace.failed for trace in traces])
    settled = torch.zeros_like(active)
    for step in steps:
        state = sweep(points, centroids)
        record(traces, active, state.empty, points.unscale(state.total))
        state, moved, changed = resolved(
            points, state, centroids, options, active, generator, traces
        )
        failed = torch.tensor([trace.failed for trace in traces])
        rate = torch.where(settled, 1.0, factor(step, options.iterations, options.relaxation))
        means = state.means(moved)
        updated = moved + _each(rate, means) * (means - moved)
        updated = torch.where(changed[:, :, None], means, updated)
        # fairseq's baseline ends with the centroids that its failed resolution left behind
        updated = torch.where(_each(failed, means), moved, updated)
        centroids = torch.where(_each(active, means), updated, centroids)
        still = torch.tensor([trace.still(options.tolerance) for trace in traces])
        still &= step > steps.start  # distortions of different points do not compare
        active &= ~(failed | (still & (rate == 1.0)))
        settled |= still
        if not bool(active.any()):
            break
    return centroids


def resolved(
    points: Points,
    state: Sweep,
    centroids: torch.Tensor,
    options: Options,
    active: torch.Tensor,
    generator: torch.Generator,
    traces: list[Trace],
) -> tuple[Sweep, torch.Tensor, torch.Tensor]:
    """State, centroids and which of them changed, after resolution where any is empty."""
    need = active & (state.empty > 0).cpu()
    if not bool(need.any()):
        return state, centroids, torch.zeros_like(state.count, dtype=torch.bool)
    done = resolve(options.empties, points, state, centroids, need.to(centroids.device), generator)
    count_rounds(traces, done.rounds, done.failed)
    return done.state, done.centroids, done.changed


def _each(flag: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return flag.to(like.device)[:, None, None]
