"""Empty-cluster resolution: what to do with centroids that no point is nearest to."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from compress.kmeans.baselines import perturb
from compress.kmeans.distance import Sweep
from compress.kmeans.points import Points
from compress.kmeans.sharing import share

MAX_ROUNDS = 8  # each round can double the clusters in use


@dataclass(frozen=True)
class Resolution:
    """state, centroids (b, k, d) after it; changed (b, k) bool; rounds, failed (b,) by problem."""

    state: Sweep
    centroids: torch.Tensor
    changed: torch.Tensor
    rounds: torch.Tensor
    failed: torch.Tensor


def resolve(
    method: str,
    points: Points,
    state: Sweep,
    centroids: torch.Tensor,
    active: torch.Tensor,
    generator: torch.Generator,
) -> Resolution:
    """Resolve the empty clusters of the problems that are `active` (b,) bool; never raises."""
    if method == "partition":
        return partition(points, state, centroids, active)
    nothing = torch.zeros_like(state.count, dtype=torch.bool)
    state, centroids, sweeps, failed = perturb(points, state, centroids, generator)
    return Resolution(state, centroids, nothing, torch.tensor([sweeps]), torch.tensor([failed]))


def partition(
    points: Points, state: Sweep, centroids: torch.Tensor, active: torch.Tensor
) -> Resolution:
    """Partitioning-based empty-cluster resolution of PG k-means (arXiv 2306.14031).

    Each empty centroid takes half of a cluster of high distortion; rounds follow while there are
    more empty centroids than clusters that divide. Without any the centroids stay unused.
    """
    changed = torch.zeros_like(state.count, dtype=torch.bool)
    barren = (~active)[:, None].expand_as(changed).clone()
    rounds = torch.zeros(active.shape[0], dtype=torch.int64)
    for _ in range(MAX_ROUNDS):
        shared = share(points, state, centroids, barren)
        if shared is None:
            break
        tried = shared.changed | (shared.barren != barren)
        rounds += tried.any(dim=1).cpu()
        changed |= shared.changed
        state, centroids, barren = shared.state, shared.centroids, shared.barren
    return Resolution(
        state, centroids, changed, rounds, torch.zeros(rounds.shape[0], dtype=torch.bool)
    )
