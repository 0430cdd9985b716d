"""The first centroids: PG k-means' pre-assignment."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from compress.kmeans.distance import Sweep, sweep
from compress.kmeans.points import Points
from compress.kmeans.relaxation import RELAXATION, factor
from compress.kmeans.sampling import thin
from compress.kmeans.sharing import share

SAMPLE = 64  # points a centroid that each level looks at
ENOUGH = 3  # points a centroid
GROWTH = 1.25  # more clusters a level: in small steps the worst partitions divide more often
DOUBLING = 16  # up to here every level doubles instead
LEVEL_STEPS = 3  # Lloyd steps after each level, on its sample ...
LAST_STEPS = 8  # ... and after the last, on the whole pool


def partition(points: Points, k: int, generators: Sequence[torch.Generator]) -> torch.Tensor:
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
        level = thin(points, _level_size(points.shape[1], target), generators)
        centroids = pad(centroids, target)
        centroids, grown = _grow(level, sweep(level, centroids), centroids)
        if not grown:
            break
        for step in range(LEVEL_STEPS):
            pace = factor(step, LEVEL_STEPS, RELAXATION)
            centroids = _step(level, centroids, pace)
    for _ in range(LAST_STEPS):
        centroids = _step(points, centroids, RELAXATION)
    return pad(centroids, k)


def _level_size(n: int, k: int) -> int:
    """At most half of the points while that is enough: fresh samples shake centroids loose."""
    return min(SAMPLE * k, n // 2 if n // 2 >= ENOUGH * k else n)


def _step(points: Points, centroids: torch.Tensor, pace: float) -> torch.Tensor:
    """One over-relaxed step; a centroid that lost its points takes half of another's first."""
    state = sweep(points, centroids)
    if bool(state.empty.any()):
        centroids = _grow(points, state, centroids)[0]
        state = sweep(points, centroids)
    return centroids + pace * (state.means(centroids) - centroids)


def pad(centroids: torch.Tensor, k: int) -> torch.Tensor:
    """Vacant slots repeat row 0: on a tie the lower row wins, so they idle."""
    b, held, d = centroids.shape
    return torch.cat([centroids, centroids[:, :1].expand(b, k - held, d)], dim=1)


def _grow(points: Points, state: Sweep, centroids: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Fill the vacant slots with halves, one round; False if no partition can be cut."""
    barren = torch.zeros_like(state.count, dtype=torch.bool)
    shared = share(points, state, centroids, barren)
    if shared is None or not bool(shared.changed.any()):
        return centroids, False
    return shared.centroids, True
