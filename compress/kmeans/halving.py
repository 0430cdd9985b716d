"""Cut groups of points in two along their principal direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from compress.kmeans.backend import backend
from compress.kmeans.sums import group_sum

POWER_STEPS = 6  # any direction of high variance will do; the eigenvector itself is not needed
TINY = 1e-300


@dataclass(frozen=True)
class Halves:
    """The halves of g groups; row 2i is the lower half of group i, row 2i + 1 the upper.

    upper (m,) bool by point; count (2g,), sums (2g, d), mass (2g, 1 | d), distortion (2g,).
    """

    upper: torch.Tensor
    count: torch.Tensor
    sums: torch.Tensor
    mass: torch.Tensor
    distortion: torch.Tensor

    @property
    def proper(self) -> torch.Tensor:
        """(g,) bool: both halves have points with weight; not so where all points coincide."""
        held = (self.count > 0) & (self.mass > 0).any(dim=1)
        return held.view(-1, 2).all(dim=1)


def halve(
    z: torch.Tensor, w: torch.Tensor | None, group: torch.Tensor, groups: int, even: bool = False
) -> Halves:
    """Cut each group at its mean (or, `even`, at its median) along its principal direction.

    z (m, d) float64, w None | (m, 1) | (m, d), group (m,) int64. Points that coincide always fall
    in the same half.
    """
    w = torch.ones_like(z[:, :1]) if w is None else w.double()
    if backend(z.device.type) == "numba":
        from compress.kmeans import kernels_halving

        arrays = z.contiguous().numpy(), w.contiguous().numpy()
        along = torch.from_numpy(kernels_halving.project(*arrays, group.numpy(), groups))
    else:
        along = project(z, w, group, groups)
    upper = along > (_cuts(along, group, groups)[group] if even else 0.0)
    child = 2 * group + upper
    if backend(z.device.type) == "numba":
        parts = kernels_halving.moments(*arrays, child.numpy(), 2 * groups)
        return Halves(upper, *(torch.from_numpy(part) for part in parts))
    return Halves(upper, *moments(z, w, child, 2 * groups))


def project(z: torch.Tensor, w: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """(m,) each point's coordinate along the principal direction of its group, from its mean.

    Power iteration on the group covariances without forming them: O(m d) a step, and no eigh that
    fails on a covariance near zero. It starts from the axis of the greatest variance. Sums run
    over the coordinates in order, as in the compiled kernel.
    """
    _, sums, mass, _ = moments(z, w, group, groups)
    diff = z - (sums / mass.clamp_min(TINY))[group]  # (m, d)
    pull = (_in_order(w) / w.shape[1])[:, None] * diff
    axis = group_sum(pull * diff, group, groups).argmax(dim=1)  # (g,)
    direction = torch.nn.functional.one_hot(axis, z.shape[1]).to(z.dtype)
    for _ in range(POWER_STEPS):
        along = _in_order(diff * direction[group])
        moved = group_sum(along[:, None] * pull, group, groups)  # (g, d)
        length = _in_order(moved * moved).sqrt()[:, None]
        direction = torch.where(length > 0, moved / length.clamp_min(TINY), direction)
    return _in_order(diff * direction[group])


def moments(
    z: torch.Tensor, w: torch.Tensor, group: torch.Tensor, groups: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Count (g,), sums (g, d), mass (g, 1 | d) and distortion about the mean (g,)."""
    d = z.shape[1]
    total = group_sum(torch.cat([w * z, w], dim=1), group, groups)
    sums, mass = total[:, :d], total[:, d:]
    diff = z - (sums / mass.clamp_min(TINY))[group]
    error = _in_order(w * (diff * diff))[:, None]
    distortion = group_sum(error, group, groups)[:, 0]
    return torch.bincount(group, minlength=groups), sums, mass, distortion


def _in_order(x: torch.Tensor) -> torch.Tensor:
    """(m, c) -> (m,): the sum of each row, from the first column to the last."""
    total = x[:, 0].clone()
    for t in range(1, x.shape[1]):
        total += x[:, t]
    return total


def _cuts(along: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """(g,) where to cut: halves as equal in count as ties allow, and neither empty."""
    order = torch.argsort(along, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    count = torch.bincount(group, minlength=groups)
    first = count.cumsum(0) - count
    top = (count - 1).clamp_min(0)
    ranked = along[order]
    middle, highest = (ranked[(first + at).clamp_max(ranked.numel() - 1)] for at in (top // 2, top))
    # more than half of the points at the highest value: cut at the mean, which lies below it
    return torch.where(middle < highest, middle, 0.0)
