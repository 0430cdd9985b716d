"""k-means of numbers: in one dimension clusters are intervals, so sorted points and running sums
replace every search, and thousands of problems are solved in a few operations."""

from __future__ import annotations

import torch
from torch import Tensor

ITERATIONS = 50


def fit_scalar(points: Tensor, k: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weighted k-means for each row of `points` (b, n): minimizes sum w (x - c)^2.

    weights (b, n) >= 0, none: all 1; a row whose weights are all 0 is fitted as if they were 1.
    Lloyd's iterations from two starts, quantiles of the mass and an even grid; the better counts.
    Returns centroids (b, k) float32 in ascending order, codes (b, n) int64.
    """
    x, order = points.double().sort(dim=1, stable=True)  # (b, n)
    w = torch.ones_like(x) if weights is None else weights.double().gather(1, order)
    w = torch.where(w.sum(1, keepdim=True) > 0, w, 1.0)
    sums = [_running(w), _running(w * x), _running(w * x * x)]  # (b, n + 1) each
    even = (torch.arange(k, dtype=torch.float64, device=x.device) + 0.5) / k
    mass = sums[0][:, -1:]
    at = torch.searchsorted(sums[0][:, 1:].contiguous(), (even * mass).contiguous())
    low, high = x[:, :1], x[:, -1:]
    starts = x.gather(1, at.clamp_max(x.shape[1] - 1)), low + even * (high - low)
    (one, first), (two, second) = (_lloyd(x, sums, start) for start in starts)
    centroids = torch.where((first <= second)[:, None], one, two).float()
    return centroids, nearest(points, centroids)


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """Codes (b, n) int64: the nearest of the ascending `centroids` (b, k), ties to the lower."""
    middles = (centroids[:, 1:] + centroids[:, :-1]) / 2
    return torch.searchsorted(middles.contiguous(), points.to(middles.dtype).contiguous())


def _running(values: Tensor) -> Tensor:
    """(b, n) -> (b, n + 1): the sum of everything before each place."""
    return torch.nn.functional.pad(values.cumsum(1), (1, 0))


def _lloyd(x: Tensor, sums: list[Tensor], centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Centroids (b, k) and their error (b,)."""
    for _ in range(ITERATIONS):
        mass, total, _ = _parts(x, sums, centroids)
        moved = torch.where(mass > 0, total / mass.clamp_min(1e-300), centroids)
        moved = moved.sort(dim=1).values
        if torch.equal(moved, centroids):
            break
        centroids = moved
    mass, total, squares = _parts(x, sums, centroids)
    return centroids, (squares - 2 * centroids * total + centroids.square() * mass).sum(1)


def _parts(x: Tensor, sums: list[Tensor], centroids: Tensor) -> list[Tensor]:
    """Sums of w, w x and w x^2 over the interval of each centroid, (b, k) each."""
    middles = (centroids[:, 1:] + centroids[:, :-1]) / 2
    cuts = torch.searchsorted(x, middles.contiguous(), right=True)  # (b, k - 1)
    cuts = torch.nn.functional.pad(cuts, (1, 0))
    cuts = torch.nn.functional.pad(cuts, (0, 1), value=x.shape[1])
    return [running.gather(1, cuts).diff(dim=1) for running in sums]
