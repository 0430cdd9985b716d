"""What to do with centroids that no point is nearest to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from compress.kmeans.distance import Sweep, sweep
from compress.kmeans.points import Points
from compress.kmeans.split import halve

MAX_ROUNDS = 8  # each round can double the clusters in use
MAX_TENTATIVES = 30  # fairseq's
EPSILON = 1e-6  # fairseq's, in the units of the input


@dataclass(frozen=True)
class Resolution:
    """state: the sweep after resolution; fresh (k,) bool: clusters whose points were moved."""

    state: Sweep
    centroids: torch.Tensor
    fresh: torch.Tensor
    rounds: int = 0
    failed: bool = False


Resolver = Callable[[Points, Sweep, torch.Tensor, torch.Generator], Resolution]


def partition(
    points: Points, state: Sweep, centroids: torch.Tensor, generator: torch.Generator
) -> Resolution:
    """Partitioning-based empty-cluster resolution of PG k-means (arXiv 2306.14031).

    Each empty centroid takes half of a cluster of high distortion, cut along its principal
    direction; only the donors' points are touched, and no pass over the data is needed. A cluster
    whose points coincide is never a donor; without donors the centroid stays unused.
    """
    fresh = torch.zeros(centroids.shape[0], dtype=torch.bool, device=centroids.device)
    barren = torch.zeros_like(fresh)  # clusters found not to split
    for rounds in range(MAX_ROUNDS + 1):
        used = state.used
        empty = (used == 0).nonzero()[:, 0]
        donors = _donors(state, centroids, used, barren | fresh if rounds == 0 else barren)
        donors = donors[: empty.numel()]
        if empty.numel() == 0 or donors.numel() == 0 or rounds == MAX_ROUNDS:
            break
        state, centroids, taken = _share(points, state, centroids, donors, empty)
        barren[donors[~taken]] = True
        fresh[donors[taken]] = True
        fresh[empty[: int(taken.sum())]] = True
    return Resolution(state, centroids, fresh, rounds)


def _donors(
    state: Sweep, centroids: torch.Tensor, used: torch.Tensor, barred: torch.Tensor
) -> torch.Tensor:
    """Clusters that can be cut, highest distortion first."""
    means = state.means(centroids)
    offset = (state.mass * (means - centroids).square()).sum(dim=1)
    scatter = state.distortion - offset  # about the mean: identical points have none
    able = (used > 1) & ~barred & (scatter > 1e-9 * state.distortion)
    order = torch.argsort(torch.where(able, scatter, -1.0), descending=True, stable=True)
    return order[: int(able.sum())]


def _share(
    points: Points,
    state: Sweep,
    centroids: torch.Tensor,
    donors: torch.Tensor,
    empty: torch.Tensor,
) -> tuple[Sweep, torch.Tensor, torch.Tensor]:
    """Give the upper half of each donor to an empty centroid; also (g,) bool: could be cut."""
    g = donors.numel()
    lookup = torch.full((centroids.shape[0],), -1, dtype=torch.int64, device=centroids.device)
    lookup[donors] = torch.arange(g, device=centroids.device)
    index = (lookup >= 0)[state.codes.long()].nonzero()[:, 0]
    group = lookup[state.codes[index].long()]
    w = None if points.weights is None else points.weights[index]
    cut = halve(points.normalized(index), w, group, g)
    taken = cut.proper
    heirs = torch.full_like(donors, -1)
    heirs[taken] = empty[: int(taken.sum())]

    codes = state.codes.clone()
    moved = cut.upper & taken[group]
    codes[index[moved]] = heirs[group[moved]].to(codes.dtype)
    sums, mass, distortion = state.sums.clone(), state.mass.clone(), state.distortion.clone()
    for half, rows in ((0, donors[taken]), (1, heirs[taken])):
        sums[rows] = cut.sums[half::2][taken]
        mass[rows] = cut.mass[half::2][taken]
        distortion[rows] = cut.distortion[half::2][taken]
    state = replace(state, codes=codes, sums=sums, mass=mass, distortion=distortion)
    centroids = centroids.clone()
    changed = torch.cat([donors[taken], heirs[taken]])
    centroids[changed] = state.means(centroids)[changed]
    return state, centroids, taken


def perturb(
    points: Points, state: Sweep, centroids: torch.Tensor, generator: torch.Generator
) -> Resolution:
    """The rule of fairseq's iPQ (Stock et al. 2019), as the baseline.

    One random empty centroid at a time becomes a copy of the most populated one, the pair is moved
    apart by noise of 1e-6, and all points are assigned again; after 30 tentatives it gives up,
    and the fit ends with the centroids it had.
    """
    centroids = centroids.clone()
    fresh = torch.zeros(centroids.shape[0], dtype=torch.bool, device=centroids.device)
    tentatives = 0
    while True:
        used = state.used
        empty = (used == 0).nonzero()[:, 0]
        if empty.numel() == 0:
            return Resolution(state, centroids, fresh, tentatives)
        pick = int(empty[int(torch.randint(empty.numel(), (1,), generator=generator))])
        largest = int(used.argmax())
        noise = torch.randn(points.d, generator=generator, dtype=torch.float64)
        noise = noise.to(centroids.device) * (EPSILON * points.scale)
        centroids[pick] = centroids[largest] + noise
        centroids[largest] -= noise
        state = sweep(points, centroids)
        if tentatives == MAX_TENTATIVES:
            failed = bool((state.used == 0).any())
            return Resolution(state, centroids, fresh, tentatives + 1, failed)
        tentatives += 1


RESOLVERS: dict[str, Resolver] = {"partition": partition, "perturb": perturb}
