"""The same pass in plain torch, for machines without numba: same codes, same sums, same bytes.

A matrix product finds the nearest centroid of almost every point. Where the two best scores are
closer than the rounding of either path could explain, the row is scored again in the exact order
of operations of the compiled kernel.
"""

from __future__ import annotations

import torch

CHUNK_SCORES = 1 << 19  # rows x centroids held at once: 2 MB of scores stay in the cache


def features(z: torch.Tensor, w: torch.Tensor | None, kind: int) -> torch.Tensor:
    """(n, d) float32 -> (n, d), or (n, 2d) with weighted coordinates: score = h - features . c."""
    if kind != 2:
        return z
    assert w is not None
    return torch.cat([w, w * z], dim=1)


def nearest(x: torch.Tensor, c: torch.Tensor, h: torch.Tensor, chunk: int = 0) -> torch.Tensor:
    """(n, f) features, (k, f), (k,) -> (n,) int64: lowest index of the least h - x . c."""
    n, f = x.shape
    k = c.shape[0]
    rows = chunk or max(1, CHUNK_SCORES // k)
    codes = torch.empty(n, dtype=torch.int64, device=x.device)
    top_c = c.abs().amax(dim=0)  # (f,)
    top_h = h.abs().amax()
    for lo in range(0, n, rows):
        part = x[lo : lo + rows]  # (r, f)
        score = torch.addmm(h, part, c.T, alpha=-1.0)  # (r, k)
        best, code = score.min(dim=1)
        # |rounding| of one score <= (f + 2) eps (|h| + sum |x||c|); two scores, two ways to add
        slack = (part.abs() @ top_c + top_h) * ((f + 2) * 4 * torch.finfo(torch.float32).eps)
        close = (score <= (best + slack)[:, None]).sum(dim=1) > 1
        if bool(close.any()):
            code[close] = nearest_in_order(part[close], c, h)
        codes[lo : lo + rows] = code
    return codes


def nearest_in_order(x: torch.Tensor, c: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """A multiplication and a subtraction a coordinate, in order, as the compiled kernel does."""
    score = h.expand(x.shape[0], -1).clone()  # (r, k)
    for t in range(x.shape[1]):
        score -= x[:, t : t + 1] * c[:, t]
    return score.argmin(dim=1)


def group_sum(values: torch.Tensor, codes: torch.Tensor, k: int) -> torch.Tensor:
    """(n, m) float64 -> (k, m) float64 sums by code, each in the order of the points."""
    if values.is_cuda:
        return torch.zeros(k, values.shape[1], dtype=values.dtype, device=values.device).index_add_(
            0, codes, values
        )
    columns = [torch.bincount(codes, weights=v, minlength=k) for v in values.T.contiguous()]
    return torch.stack(columns, dim=1)


def accumulate(
    z: torch.Tensor, w: torch.Tensor | None, kind: int, codes: torch.Tensor, centers: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums (k, d), mass (k, 1 | d) and distortion (k,) of one slab, in the kernel's order."""
    k, d = centers.shape
    z64 = z.double()
    square = (z64 - centers[codes]).square()  # (n, d)
    weighted = z64
    ones = torch.ones(z.shape[0], 1, dtype=torch.float64, device=z.device)
    if kind == 2:
        assert w is not None
        weighted, square, ones = w.double() * z64, w.double() * square, w.double()
    residual = torch.zeros(z.shape[0], dtype=torch.float64, device=z.device)
    for t in range(d):  # the order of the kernel
        residual += square[:, t]
    if kind == 1:
        assert w is not None
        ones = w.double()
        weighted, residual = ones * z64, ones[:, 0] * residual
    stacked = torch.cat([weighted, ones, residual[:, None]], dim=1)
    sums = group_sum(stacked, codes, k)
    return sums[:, :d], sums[:, d:-1], sums[:, -1]
