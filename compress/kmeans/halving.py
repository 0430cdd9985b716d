"""Cut groups of points in two along their principal direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from compress.kmeans.sums import group_sum

_POWER_STEPS = 6  # any direction of high variance will do; the eigenvector itself is not needed
_DIRECTION_POINTS = 64  # points a group that decide the direction, on average
_TINY = 1e-300


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
    sums, mass = _moments(z, w, group, groups)
    diff = z - _means(sums, mass)[group]  # (m, d)
    few = slice(None, None, max(1, z.shape[0] // (_DIRECTION_POINTS * groups)))
    direction = principal_direction(diff[few], w[few].mean(dim=1), group[few], groups)
    along = (diff * direction[group]).sum(dim=1)  # (m,)
    upper = along > (_cuts(along, group, groups)[group] if even else 0.0)
    child = 2 * group + upper
    sums, mass = _moments(z, w, child, 2 * groups)
    error = w * (z - _means(sums, mass)[child]).square()
    distortion = group_sum(error.sum(dim=1, keepdim=True), child, 2 * groups)[:, 0]
    return Halves(upper, torch.bincount(child, minlength=2 * groups), sums, mass, distortion)


def principal_direction(
    diff: torch.Tensor, mass: torch.Tensor, group: torch.Tensor, groups: int
) -> torch.Tensor:
    """(m, d) differences from the mean, (m,) mass, (m,) group -> (g, d) unit directions.

    Power iteration on the group covariances without forming them: O(m d) a step, and no eigh that
    fails on a covariance near zero. It starts from the axis of the greatest variance.
    """
    pull = mass[:, None] * diff  # (m, d)
    axis = group_sum(pull * diff, group, groups).argmax(dim=1)  # (g,)
    direction = torch.nn.functional.one_hot(axis, diff.shape[1]).to(diff.dtype)
    for _ in range(_POWER_STEPS):
        along = (diff * direction[group]).sum(dim=1, keepdim=True)  # (m, 1)
        step = group_sum(along * pull, group, groups)  # (g, d)
        length = step.square().sum(dim=1, keepdim=True).sqrt()
        direction = torch.where(length > 0, step / length.clamp_min(_TINY), direction)
    return direction


def _moments(
    z: torch.Tensor, w: torch.Tensor, group: torch.Tensor, groups: int
) -> tuple[torch.Tensor, torch.Tensor]:
    total = group_sum(torch.cat([w * z, w], dim=1), group, groups)
    return total[:, : z.shape[1]], total[:, z.shape[1] :]


def _means(sums: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    return sums / mass.clamp_min(_TINY)


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
