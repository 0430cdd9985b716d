"""The first centroids: PG k-means' pre-assignment, and the baselines it is measured against."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from compress.kmeans.distance import sweep
from compress.kmeans.points import Points
from compress.kmeans.split import halve

SAMPLE = 256  # points a centroid that seeding looks at
LEVEL_STEPS = 3  # Lloyd steps after each level of `partition`

Seeding = Callable[[Points, int, torch.Generator], torch.Tensor]


def random(points: Points, k: int, generator: torch.Generator) -> torch.Tensor:
    """k points drawn with replacement: iPQ's own seeding (Stock et al. 2019, arXiv 1907.05686).

    Every point drawn twice is an empty cluster at once; this is the baseline.
    """
    index = torch.randint(points.n, (k,), generator=generator)
    return points.normalized(index.to(points.device))


def kmeans_plus_plus(points: Points, k: int, generator: torch.Generator) -> torch.Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007) with 2 + log k trials, on 256 k points.

    Stops early, with fewer than k rows, when every sampled point is a centroid.
    """
    points = sample(points, SAMPLE * k, generator)
    z = points.normalized()  # (m, d)
    w = 1.0 if points.weights is None else points.weights.double().mean(dim=1)
    trials = 2 + int(math.log(k))
    first = int(torch.randint(points.n, (1,), generator=generator))
    chosen = [first]
    nearest = (z - z[first]).square().sum(dim=1)  # (m,) squared distance to the nearest seed
    for _ in range(k - 1):
        reach = (nearest * w).cumsum(0)
        if float(reach[-1]) <= 0.0:
            break
        draw = torch.rand(trials, generator=generator, dtype=torch.float64).to(z.device)
        tries = torch.searchsorted(reach, draw * reach[-1], right=True).clamp_max(points.n - 1)
        gap = z.square().sum(dim=1)[:, None] - 2 * z @ z[tries].T + z[tries].square().sum(dim=1)
        left = torch.minimum(gap.clamp_min(0.0), nearest[:, None])  # (m, trials)
        best = int((left * (w if isinstance(w, float) else w[:, None])).sum(dim=0).argmin())
        chosen.append(int(tries[best]))
        nearest = torch.minimum(nearest, (z - z[tries[best]]).square().sum(dim=1))
    return z[torch.tensor(chosen, device=z.device)]


def partition(points: Points, k: int, generator: torch.Generator) -> torch.Tensor:
    """Partitioning-based pre-assignment of PG k-means (Huang et al. 2023, arXiv 2306.14031).

    Grown by distortion rather than evenly: at each level the partitions of highest distortion are
    cut along their principal direction, then a few Lloyd steps on a bounded sample settle them.
    A partition whose points coincide is never cut, so no cluster starts empty; any k. Returns
    fewer than k rows where fewer than k distinct points were met.
    """
    centroids = torch.zeros(1, points.d, dtype=torch.float64, device=points.device)
    while centroids.shape[0] < k:
        held = centroids.shape[0]
        level = sample(points, SAMPLE * min(k, 2 * held), generator)
        grown = _grow(level, centroids, min(k, 2 * held), even=False)
        if grown.shape[0] == held:
            break
        centroids = grown
        for _ in range(LEVEL_STEPS):
            centroids = sweep(level, centroids).means(centroids)
    return centroids


def partition_even(points: Points, k: int, generator: torch.Generator) -> torch.Tensor:
    """The balanced form of PG k-means' pre-assignment: halves of equal count, no Lloyd steps."""
    points = sample(points, SAMPLE * k, generator)
    z = points.normalized()
    group = torch.zeros(points.n, dtype=torch.int64, device=points.device)
    held = 1
    while held < k:
        cut = halve(z, points.weights, group, held, even=True)
        size = torch.bincount(group, minlength=held)
        chosen = _largest(torch.where(cut.proper, size, -1).double(), k - held)
        chosen = chosen[cut.proper[chosen]]
        if chosen.numel() == 0:
            break
        renamed = torch.full((held,), -1, dtype=torch.int64, device=points.device)
        renamed[chosen] = torch.arange(held, held + chosen.numel(), device=points.device)
        moved = cut.upper & (renamed[group] >= 0)
        group = torch.where(moved, renamed[group], group)
        held += chosen.numel()
    codes = Points(points.values, points.offset, points.scale, points.weights)
    return _group_means(codes, z, group, held)


def sample(points: Points, size: int, generator: torch.Generator) -> Points:
    """One point from each of `size` equal strata: distinct, evenly spread, O(size)."""
    if size >= points.n:
        return points
    edges = torch.arange(size + 1, dtype=torch.int64) * points.n // size
    width = (edges[1:] - edges[:-1]).double()
    jitter = torch.rand(size, generator=generator, dtype=torch.float64)
    index = torch.minimum(edges[:-1] + (jitter * width).long(), edges[1:] - 1)
    return points.take(index.to(points.device))


def _grow(points: Points, centroids: torch.Tensor, target: int, even: bool) -> torch.Tensor:
    """Replace the partitions of highest distortion by their two halves, up to `target` rows."""
    state = sweep(points, centroids)
    group = state.codes.long()
    cut = halve(points.normalized(), points.weights, group, centroids.shape[0], even)
    means = cut.sums / cut.mass.clamp_min(1e-300)  # (2 held, d)
    spread = cut.distortion.view(-1, 2).sum(dim=1)
    # what a cut can gain is bounded by the distortion there is
    rank = torch.where(cut.proper, state.distortion.clamp_min(1e-300), -spread.new_ones(()))
    kept = state.used > 0
    chosen = _largest(rank, target - int(kept.sum()))
    chosen = chosen[cut.proper[chosen]]
    split = torch.zeros_like(kept)
    split[chosen] = True
    whole = state.means(centroids)[kept & ~split]
    return torch.cat([whole, means.view(-1, 2, points.d)[chosen].reshape(-1, points.d)])


def _group_means(points: Points, z: torch.Tensor, group: torch.Tensor, held: int) -> torch.Tensor:
    from compress.kmeans.kernels_torch import group_sum

    w = torch.ones_like(z[:, :1]) if points.weights is None else points.weights.double()
    total = group_sum(torch.cat([w * z, w], dim=1), group, held)
    return total[:, : points.d] / total[:, points.d :].clamp_min(1e-300)


def _largest(value: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of the `count` largest values, ties by lowest index."""
    return torch.argsort(value, descending=True, stable=True)[: max(0, count)]


SEEDINGS: dict[str, Seeding] = {
    "random": random,
    "kmeans++": kmeans_plus_plus,
    "partition": partition,
    "partition-even": partition_even,
}
