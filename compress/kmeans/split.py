"""Cut partitions in two along their principal direction: what seeding and resolution share."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from compress.kmeans.kernels_torch import group_sum

_POWER_STEPS = 6  # any direction of high variance will do; the eigenvector itself is not needed
_DIRECTION_POINTS = 64  # points a group that decide the direction


@dataclass(frozen=True)
class Halves:
    """The halves of g groups; row 2i is the lower half of group i, row 2i + 1 the upper.

    upper (m,) bool by point; count (2g,), sums (2g, d), mass (2g, 1 | d), distortion (2g,) float64.
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
    z: torch.Tensor, w: torch.Tensor | None, group: torch.Tensor, g: int, even: bool = False
) -> Halves:
    """Cut each group at its mean (or, `even`, at its median) along its principal direction.

    z (m, d) float64, w None | (m, 1) | (m, d), group (m,) int64 in [0, g). Points that coincide
    always fall in the same half.
    """
    w = torch.ones(z.shape[0], 1, dtype=z.dtype, device=z.device) if w is None else w.double()
    sums, mass, _ = _moments(z, w, group, g)
    diff = z - (sums / mass.clamp_min(1e-300))[group]  # (m, d)
    importance = w.mean(dim=1)  # (m,)
    step = max(1, z.shape[0] // (_DIRECTION_POINTS * g))
    few = slice(None, None, step)
    direction = principal_direction(diff[few], importance[few], group[few], g)
    along = (diff * direction[group]).sum(dim=1)  # (m,)
    upper = along > (_medians(along, group, g)[group] if even else 0.0)
    child = 2 * group + upper
    sums, mass, distortion = _moments(z, w, child, 2 * g)
    return Halves(upper, torch.bincount(child, minlength=2 * g), sums, mass, distortion)


def principal_direction(
    diff: torch.Tensor, mass: torch.Tensor, group: torch.Tensor, g: int
) -> torch.Tensor:
    """(m, d) differences from the mean, (m,) mass, (m,) group -> (g, d) unit directions.

    Power iteration on the group covariances without forming them: O(m d) a step, and no eigh that
    fails on a covariance near zero. It starts from the axis of the greatest variance.
    """
    axis = group_sum(mass[:, None] * diff.square(), group, g).argmax(dim=1)  # (g,)
    direction = torch.zeros(g, diff.shape[1], dtype=diff.dtype, device=diff.device)
    direction[torch.arange(g, device=diff.device), axis] = 1.0
    for _ in range(_POWER_STEPS):
        along = mass * (diff * direction[group]).sum(dim=1)  # (m,)
        step = group_sum(along[:, None] * diff, group, g)  # (g, d)
        length = step.square().sum(dim=1, keepdim=True).sqrt()
        direction = torch.where(length > 0, step / length.clamp_min(1e-300), direction)
    return direction


def _moments(
    z: torch.Tensor, w: torch.Tensor, group: torch.Tensor, g: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums (g, d), mass (g, 1 | d) and distortion about the mean (g,)."""
    d = z.shape[1]
    total = group_sum(torch.cat([w * z, w], dim=1), group, g)
    sums, mass = total[:, :d], total[:, d:]
    diff = z - (sums / mass.clamp_min(1e-300))[group]
    distortion = group_sum((w * diff.square()).sum(dim=1, keepdim=True), group, g)[:, 0]
    return sums, mass, distortion


def _medians(along: torch.Tensor, group: torch.Tensor, g: int) -> torch.Tensor:
    """(g,) a cut that halves each group by count, moved so that neither half is empty."""
    order = torch.argsort(along, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    count = torch.bincount(group, minlength=g)
    start = count.cumsum(0) - count
    ranked = along[order]
    last = along.shape[0] - 1
    cut = ranked[(start + (count - 1).clamp_min(0) // 2).clamp_max(last)]
    top = ranked[(start + (count - 1).clamp_min(0)).clamp_max(last)]
    # more than half of the points at the top value: cut at the mean, which lies below it
    return torch.where(cut < top, cut, torch.zeros_like(cut))
