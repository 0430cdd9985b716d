"""Seedings and a resolution to compare with: iPQ's own, k-means++, and the papers' even halves."""

from __future__ import annotations

import math

import torch

from compress.kmeans.distance import Sweep, sweep
from compress.kmeans.halving import halve
from compress.kmeans.points import Points
from compress.kmeans.sampling import coreset
from compress.kmeans.sums import group_sum

SAMPLE = 256  # points a centroid that k-means++ and the even partition look at
EPSILON = 1e-6  # fairseq's noise, in the units of the input
TENTATIVES = 30  # fairseq's


def random_rows(points: Points, k: int, generator: torch.Generator) -> torch.Tensor:
    """k points drawn with replacement: iPQ's own seeding (Stock et al. 2019, arXiv 1907.05686).

    Every point drawn twice is an empty cluster at once.
    """
    row = torch.randint(points.shape[1], (k,), generator=generator).to(points.device)
    return points.normalized(torch.zeros_like(row), row)


def kmeans_plus_plus(points: Points, k: int, generator: torch.Generator) -> torch.Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007) with 2 + log k trials, on 256 k points.

    Stops early, with fewer than k rows, when every sampled point is a centroid.
    """
    z, w = _sampled(points, k, generator)
    w = torch.ones_like(z[:, 0]) if w is None else w.double().mean(dim=1)  # (m,)
    norm = z.square().sum(dim=1)
    chosen = [int(torch.randint(z.shape[0], (1,), generator=generator))]
    nearest = (z - z[chosen[0]]).square().sum(dim=1)  # (m,) squared distance to the nearest seed
    for _ in range(k - 1):
        reach = (nearest * w).cpu().cumsum(0)  # one thread, one order
        if float(reach[-1]) <= 0.0:
            break
        draw = torch.rand(2 + int(math.log(k)), generator=generator, dtype=torch.float64)
        tries = torch.searchsorted(reach, draw * reach[-1], right=True).clamp_max(z.shape[0] - 1)
        tries = tries.to(z.device)
        gap = norm - 2 * z[tries] @ z.T + norm[tries][:, None]  # (trials, m)
        left = torch.minimum(gap.clamp_min(0.0), nearest) * w
        best = int(tries[int(left.sum(dim=1).argmin())])
        chosen.append(best)
        nearest = torch.minimum(nearest, (z - z[best]).square().sum(dim=1))
    return z[torch.tensor(chosen, device=z.device)]


def partition_even(points: Points, k: int, generator: torch.Generator) -> torch.Tensor:
    """The balanced form of PG k-means' pre-assignment: halves of equal count, largest first."""
    z, w = _sampled(points, k, generator)
    group = torch.zeros(z.shape[0], dtype=torch.int64, device=z.device)
    held = 1
    while held < k:
        cut = halve(z, w, group, held, even=True)
        size = torch.bincount(group, minlength=held) * cut.proper
        chosen = torch.argsort(size, descending=True, stable=True)[: k - held]
        chosen = chosen[cut.proper[chosen]]
        if chosen.numel() == 0:
            break
        name = torch.full((held,), -1, dtype=torch.int64, device=z.device)
        name[chosen] = torch.arange(held, held + chosen.numel(), device=z.device)
        group = torch.where(cut.upper & (name[group] >= 0), name[group], group)
        held += chosen.numel()
    w = torch.ones_like(z[:, :1]) if w is None else w.double()
    total = group_sum(torch.cat([w * z, w], dim=1), group, held)
    return total[:, : z.shape[1]] / total[:, z.shape[1] :].clamp_min(1e-300)


def _sampled(
    points: Points, k: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """z (m, d) float64 and w None | (m, 1 | d) of a sample of the only problem."""
    points = coreset(points, SAMPLE * k, [generator])
    row = torch.arange(points.shape[1], device=points.device)
    w = None if points.weights is None else points.weights[0]
    return points.normalized(torch.zeros_like(row), row), w


def perturb(
    points: Points, state: Sweep, centroids: torch.Tensor, generator: torch.Generator
) -> tuple[Sweep, torch.Tensor, int, bool]:
    """fairseq's rule for empty clusters, for a batch of one: (state, centroids, sweeps, failed).

    One random empty centroid at a time becomes a copy of the most populated one, the pair is moved
    apart by noise of 1e-6, and all points are assigned again; after 30 tentatives it gives up.
    It cannot divide a cluster of identical points: the copies tie.
    """
    centroids = centroids.clone()
    sweeps = 0
    while bool(state.empty.any()):
        empty = (state.count[0] == 0).nonzero()[:, 0]
        pick = int(empty[int(torch.randint(empty.numel(), (1,), generator=generator))])
        largest = int(state.count[0].argmax())
        noise = torch.randn(centroids.shape[2], generator=generator, dtype=torch.float64)
        noise = noise.to(centroids.device) * (EPSILON * points.scale[0, 0])
        centroids[0, pick] = centroids[0, largest] + noise
        centroids[0, largest] -= noise
        state = sweep(points, centroids)
        sweeps += 1
        if sweeps > TENTATIVES:
            return state, centroids, sweeps, bool(state.empty.any())
    return state, centroids, sweeps, False
