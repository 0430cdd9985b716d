"""Empty centroids take half of a large cluster: PG k-means' one move, early and late."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from compress.kmeans.distance import Sweep
from compress.kmeans.halving import halve
from compress.kmeans.points import Points, pick

_SCATTER = 1e-9  # below this part of its distortion, scatter is rounding: the points coincide


@dataclass(frozen=True)
class Shared:
    """state and centroids (b, k, d) after the move; changed, barren (b, k) bool.

    changed: donors and the centroids they filled; barren: donors that turned out not to divide.
    """

    state: Sweep
    centroids: torch.Tensor
    changed: torch.Tensor
    barren: torch.Tensor


def share(
    points: Points, state: Sweep, centroids: torch.Tensor, barren: torch.Tensor
) -> Shared | None:
    """Fill empty centroids from the clusters of highest distortion; None if nothing can be done.

    Only the points of the donors are touched, and no pass over the data is needed. A cluster whose
    points coincide never divides.
    """
    b, k, _ = centroids.shape
    donors, heirs = _pairs(state, centroids, barren)  # (g,) each, as batch * k + centroid
    if donors.numel() == 0:
        return None
    base = k * torch.arange(b, device=centroids.device)
    lookup = torch.full((b * k,), -1, dtype=torch.int64, device=centroids.device)
    lookup[donors] = torch.arange(donors.numel(), device=centroids.device)
    group = lookup[state.codes + base[:, None]]  # (b, n)
    batch, row = (group >= 0).nonzero(as_tuple=True)  # (m,) each
    group = group[batch, row]
    w = None if points.weights is None else pick(points.weights, batch, row)
    cut = halve(points.normalized(batch, row), w, group, donors.numel())

    divided = cut.proper  # (g,)
    moved = cut.upper & divided[group]
    codes = state.codes.clone()
    target = heirs[group[moved]] - base[batch[moved]]
    codes[batch[moved], row[moved]] = target.to(codes.dtype)

    halves = torch.stack([donors, heirs], dim=1)[divided].flatten()  # lower, upper, lower, ...
    kept = divided.repeat_interleave(2)
    parts = {}
    for name in ("count", "sums", "mass", "distortion"):
        part = getattr(state, name).clone()
        part.view(b * k, *part.shape[2:])[halves] = getattr(cut, name)[kept]
        parts[name] = part
    state = replace(state, codes=codes, **parts)
    changed = torch.zeros_like(barren)
    changed.view(-1)[halves] = True
    barren = barren.clone()
    barren.view(-1)[donors[~divided]] = True
    centroids = torch.where(changed[:, :, None], state.means(centroids), centroids)
    return Shared(state, centroids, changed, barren)


def _pairs(
    state: Sweep, centroids: torch.Tensor, barren: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The j-th worst cluster of each problem gives to its j-th empty centroid."""
    k = centroids.shape[1]
    shift = (state.mass * (state.means(centroids) - centroids).square()).sum(dim=2)
    scatter = state.distortion - shift  # about the mean rather than the centroid
    able = (state.count > 1) & ~barren & (scatter > _SCATTER * state.distortion)
    empty = state.count == 0
    donor = torch.argsort(torch.where(able, scatter, -1.0), dim=1, descending=True, stable=True)
    heir = torch.argsort(empty.to(torch.int8), dim=1, descending=True, stable=True)
    pairs = torch.minimum(able.sum(dim=1), empty.sum(dim=1))  # (b,)
    batch, rank = (torch.arange(k, device=pairs.device) < pairs[:, None]).nonzero(as_tuple=True)
    return batch * k + donor[batch, rank], batch * k + heir[batch, rank]
