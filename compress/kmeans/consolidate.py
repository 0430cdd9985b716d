"""Dense-weights consolidation of PG k-means: points that coincide become one weighted point."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from compress.kmeans.points import Points
from compress.kmeans.sums import group_sum

_PROBE = 8192  # rows that decide whether consolidation pays
_PAYS = 1 / 16  # part of them that must be duplicates


@dataclass(frozen=True)
class Consolidated:
    """points: (1, u, d) with weights; member (n,): which of the u each point became;
    scatter: sum of w (x - representative)^2, which no codebook can remove."""

    points: Points
    member: torch.Tensor
    scatter: float


def consolidate(points: Points, k: int, tolerance: float) -> Consolidated | None:
    """Merge points that share a cell; all members of a point get its code.

    tolerance 0 merges exact duplicates only, which changes nothing but the cost. Otherwise the
    cells are cubes with a side of `tolerance` times the error a coordinate that k centroids are
    expected to leave (rms * k^(-1/d), the rate of a Gaussian source).
    None if nothing merges (or two cells share a hash: 1 in 10^9 fits).
    """
    cells = _cells(points, k, tolerance)
    first, member = _groups(_hash(cells))
    u, n = first.shape[0], member.shape[0]
    if u == n or not torch.equal(cells[first[member]], cells):
        return None
    values, weights = points.values[0], points.weights
    w = torch.ones_like(values[:, :1]) if weights is None else weights[0]
    if tolerance == 0.0:
        mass = group_sum(w.double(), member, u)
        merged = replace(points, values=values[first][None], weights=mass.float()[None])
        return Consolidated(merged, member, 0.0)
    row = torch.arange(n, device=values.device)
    z = points.normalized(torch.zeros_like(row), row)  # (n, d)
    d = z.shape[1]
    total = group_sum(torch.cat([w * z, w.double()], dim=1), member, u)
    mass = total[:, d:]  # (u, 1 | d)
    mean = torch.where(mass > 0, total[:, :d] / mass.clamp_min(1e-300), z[first])
    merged = replace(
        points, values=points.denormalize(mean[None]), weights=mass.float()[None].contiguous()
    )
    kept = merged.normalized(torch.zeros_like(first), torch.arange(u, device=first.device))
    error = (w * (z - kept[member]).square()).sum(dim=1, keepdim=True)
    scatter = group_sum(error, torch.zeros_like(member), 1)[0]  # (1,)
    return Consolidated(merged, member, float(points.unscale(scatter)))


def pays(points: Points) -> bool:
    """Are there enough exact duplicates, judged by an evenly spread sample?"""
    n = points.shape[1]
    index = torch.arange(0, n, max(1, n // _PROBE), device=points.device)
    probe = points.take(index[None])
    distinct = _groups(_hash(_cells(probe, 1, 0.0)))[0].shape[0]
    return distinct <= (1 - _PAYS) * index.shape[0]


def _cells(points: Points, k: int, tolerance: float) -> torch.Tensor:
    """(n, d) int32: the cell of each point, or its very bits."""
    x = points.values[0]
    if tolerance == 0.0:
        return (x + 0.0).view(torch.int32)  # + 0.0: minus zero is zero
    z = (x.double() - points.offset[0]) * points.scale[0]
    probe = z[:: max(1, z.shape[0] // _PROBE)].cpu().numpy()
    side = tolerance * float((probe**2).mean()) ** 0.5 * k ** (-1 / x.shape[1])
    return torch.round(z / max(side, 2.0**-30)).to(torch.int32)


def _hash(cells: torch.Tensor) -> torch.Tensor:
    """(n, d) int32 -> (n,) int64: multiply and xor-shift, a coordinate at a time."""
    name = torch.zeros(cells.shape[0], dtype=torch.int64, device=cells.device)
    for t in range(cells.shape[1]):
        name = (name ^ cells[:, t]) * -7046029254386353131  # 2^64 / golden ratio, odd
        name = name ^ ((name >> 29) & 0x7FFFFFFFF)
    return name


def _groups(name: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) -> first (u,): a row of each group, member (n,): the group of each row."""
    order = torch.argsort(name, stable=True)
    ranked = name[order]
    starts = torch.ones_like(ranked, dtype=torch.bool)
    starts[1:] = ranked[1:] != ranked[:-1]
    member = torch.empty_like(order)
    member[order] = starts.cumsum(0) - 1
    return order[starts], member
