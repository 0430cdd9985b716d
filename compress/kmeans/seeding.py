"""The first centroids: PG k-means' pre-assignment."""

from __future__ import annotations

import torch

from compress.kmeans.distance import Sweep, sweep
from compress.kmeans.points import Points
from compress.kmeans.relaxation import RELAXATION, factor
from compress.kmeans.sampling import thin
from compress.kmeans.sharing import share

SAMPLE = 64  # points a centroid that each level looks at
GROWTH = 1.25  # more clusters a level: in small steps the worst partitions divide more often
DOUBLING = 16  # up to here every level doubles instead
LEVEL_STEPS = 3  # Lloyd steps after each level, on its sample ...
LAST_STEPS = 8  # ... and after the last, on the whole pool


def partition(points: Points, k: int, generator: torch.Generator) -> torch.Tensor:
    """Partitioning-based pre-assignment of PG k-means (Huang et al. 2023, arXiv 2306.14031).

    Grown by distortion rather than evenly: at each level the partitions of highest distortion are
    cut along their principal direction, then a few over-relaxed Lloyd steps on a bounded sample
    settle them. A partition whose points coincide is never cut, so no cluster starts empty; any k.
    Returns (b, k, d) float64 normalized.
    """
    centroids = points.offset.new_zeros(points.shape[0], 1, points.shape[2])
    while centroids.shape[1] < k:
        held = centroids.shape[1]
        target = min(k, max(held + 1, int(held * (2 if held < DOUBLING else GROWTH))))
        level = thin(points, SAMPLE * target, generator)
        centroids = pad(centroids, target)
        grown = _grow(level, sweep(level, centroids), centroids)
        if grown is None:
            break
        centroids = grown
        for step in range(LEVEL_STEPS):
            pace = factor(step, LEVEL_STEPS, RELAXATION)
            centroids = _step(level, centroids, pace)
    for _ in range(LAST_STEPS):
        centroids = _step(points, centroids, RELAXATION)
    return pad(centroids, k)


def _step(points: Points, centroids: torch.Tensor, pace: float) -> torch.Tensor:
    return centroids + pace * (sweep(points, centroids).means(centroids) - centroids)


def pad(centroids: torch.Tensor, k: int) -> torch.Tensor:
    """Vacant slots repeat row 0: on a tie the lower row wins, so they idle."""
    b, held, d = centroids.shape
    return torch.cat([centroids, centroids[:, :1].expand(b, k - held, d)], dim=1)


def _grow(points: Points, state: Sweep, centroids: torch.Tensor) -> torch.Tensor | None:
    """Fill the vacant slots with halves, one round; None if no partition can be cut."""
    barren = torch.zeros_like(state.count, dtype=torch.bool)
    shared = share(points, state, centroids, barren)
    return None if shared is None or not bool(shared.changed.any()) else shared.centroids
