"""The nearest centroid on CUDA, for a batch of equal problems at once: no distance matrix.

Only `distance.py` imports this file, and only for CUDA tensors. The scores are those of the CPU
kernel but contracted to FMA, so a point half-way between two centroids may get the other one.
Checked with Triton's interpreter; NOT yet measured, or run, on a GPU.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl

from compress.kmeans.points import Points

BLOCK = 128  # points a program
TILE = 32  # centroids scored together: 128 x 32 scores stay in registers


@triton.jit
def _nearest(
    x_ptr, w_ptr, offset_ptr, scale_ptr, c_ptr, h_ptr, codes_ptr, n, k,
    D: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK points of problem i against all its centroids.

    W: weights a point in w (0: none are read, D: one a coordinate).
    """
    i = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = row < n
    scale = tl.load(scale_ptr + i)
    best = tl.full((BLOCK, TILE), float("inf"), tl.float32)
    index = tl.zeros((BLOCK, TILE), tl.int32)
    for start in range(0, k, TILE):
        col = start + tl.arange(0, TILE)
        live = col < k
        h = tl.load(h_ptr + i * k + col, mask=live, other=float("inf"))
        score = tl.zeros((BLOCK, TILE), tl.float32) + h[None, :]
        for t in tl.static_range(D):
            x = tl.load(x_ptr + (i * n + row) * D + t, mask=here, other=0.0).to(tl.float64)
            z = ((x - tl.load(offset_ptr + i * D + t)) * scale).to(tl.float32)
            if W > 0:  # features [w, w z] against [-c^2 / 2, c]
                w = tl.load(w_ptr + (i * n + row) * W + t, mask=here, other=0.0)
                c = tl.load(c_ptr + (i * k + col) * (2 * D) + t, mask=live, other=0.0)
                score -= w[:, None] * c[None, :]
                c = tl.load(c_ptr + (i * k + col) * (2 * D) + D + t, mask=live, other=0.0)
                score -= (w * z)[:, None] * c[None, :]
            else:
                c = tl.load(c_ptr + (i * k + col) * D + t, mask=live, other=0.0)
                score -= z[:, None] * c[None, :]
        better = score < best
        index = tl.where(better, col[None, :], index)
        best = tl.where(better, score, best)
    least = tl.min(best, axis=1)
    # the lowest row among the lanes that tie
    code = tl.min(tl.where(best == least[:, None], index, k), axis=1)
    tl.store(codes_ptr + i * n + row, code.to(tl.int64), mask=here)


def nearest(points: Points, c: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """c (b, k, d | 2d), h (b, k) float32, as `distance.score_terms` makes them -> (b, n) int64."""
    b, n, d = points.shape
    codes = torch.empty(b, n, dtype=torch.int64, device=points.device)
    w = points.weights if points.weights is not None and points.by_coordinate else points.values
    _nearest[(triton.cdiv(n, BLOCK), b)](
        points.values, w, points.offset, points.scale, c.contiguous(), h.contiguous(), codes,
        n, c.shape[1], D=d, W=d if points.by_coordinate else 0, BLOCK=BLOCK, TILE=TILE,
    )  # fmt: skip
    return codes
