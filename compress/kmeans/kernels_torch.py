"""The same pass in plain torch, for machines without numba: same codes, same sums, same bytes.

A matrix product finds the nearest centroid of almost every point. Where the two best scores are
closer than the rounding of either path could explain, the row is scored again in the exact order
of operations of the compiled kernel.
"""

from __future__ import annotations

import torch

from compress.kmeans.sums import group_sum

CHUNK_SCORES = 1 << 19  # rows x centroids held at once: 2 MB of scores stay in the cache


def nearest(x: torch.Tensor, c: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """(n, f) features, (k, f), (k,) float32 -> (n,) int64: lowest index of the least h - x . c."""
    n, f = x.shape
    rows = max(1, CHUNK_SCORES // c.shape[0])
    codes = torch.empty(n, dtype=torch.int64, device=x.device)
    top_c, top_h = c.abs().amax(dim=0), h.abs().amax()  # (f,), ()
    # |rounding| of one score <= (f + 2) eps (|h| + sum |x||c|); two scores, two ways to add them
    slack = (f + 2) * 4 * torch.finfo(torch.float32).eps
    for lo in range(0, n, rows):
        part = x[lo : lo + rows]  # (r, f)
        score = torch.addmm(h, part, c.T, alpha=-1.0)  # (r, k)
        best, code = score.min(dim=1)
        limit = best + slack * (part.abs() @ top_c + top_h)  # (r,)
        close = (score <= limit[:, None]).sum(dim=1) > 1
        if bool(close.any()):
            code[close] = nearest_in_order(part[close], c, h)
        codes[lo : lo + rows] = code
    return codes


def nearest_in_order(x: torch.Tensor, c: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """A multiplication and a subtraction a feature, in order, as the compiled kernel does."""
    score = h.expand(x.shape[0], -1).clone()  # (r, k)
    for t in range(x.shape[1]):
        score -= x[:, t : t + 1] * c[:, t]
    return score.argmin(dim=1)


def accumulate(
    z: torch.Tensor, w: torch.Tensor | None, group: torch.Tensor, centers: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """z (m, d) float32, w None | (m, 1 | d), group (m,) int64, centers (g, d) float64.

    Returns count (g,), sums (g, d), mass (g, 1 | d), distortion (g,), added in the kernel's order.
    """
    groups, d = centers.shape
    y = z.double()
    u = torch.ones_like(y[:, :1]) if w is None else w.double()  # (m, 1 | d)
    square = (y - centers[group]).square()  # (m, d)
    by_coordinate = u.shape[1] > 1
    if by_coordinate:
        square = u * square
    residual = torch.zeros_like(y[:, :1])
    for t in range(d):
        residual += square[:, t : t + 1]
    if not by_coordinate:
        residual = u * residual
    total = group_sum(torch.cat([u * y, u, residual], dim=1), group, groups)
    count = torch.bincount(group, minlength=groups)
    return count, total[:, :d], total[:, d:-1], total[:, -1]
