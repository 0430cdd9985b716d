"""One pass over the points: nearest centroid, and the sums that the update needs.

The points are cut into slabs that depend on the problem alone, never on the number of threads;
each slab is summed in order and the slabs are added in order, so the bytes are always the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from compress.errors import InputError
from compress.kmeans import kernels_torch
from compress.kmeans.points import Points, check_points, power_of_two

_SLAB_ROWS = 4096  # at least so many points a slab ...
_SLABS = 64  # ... at most so many slabs ...
_SLAB_BYTES = 16 << 20  # ... and at most so many bytes of partial sums in all


@dataclass(frozen=True)
class Sweep:
    """codes (n,) int32 | int64; sums (k, d), mass (k, 1 | d), distortion (k,) float64."""

    codes: torch.Tensor
    sums: torch.Tensor
    mass: torch.Tensor
    distortion: torch.Tensor

    @property
    def used(self) -> torch.Tensor:
        """(k,) int64: how many points each centroid has."""
        return torch.bincount(self.codes, minlength=self.sums.shape[0])

    @property
    def total(self) -> float:
        return float(self.distortion.sum())

    def means(self, fallback: torch.Tensor) -> torch.Tensor:
        """(k, d) weighted means; a coordinate without mass keeps the fallback's value."""
        empty = self.mass <= 0
        return torch.where(empty, fallback, self.sums / self.mass.masked_fill(empty, 1.0))


@lru_cache(maxsize=1)
def has_numba() -> bool:
    """SHRINKFLOW_KMEANS=torch forces the plain path."""
    if os.environ.get("SHRINKFLOW_KMEANS", "") == "torch":
        return False
    try:
        import numba  # noqa: F401
    except Exception:  # a broken numba (wrong numpy, no llvmlite) must not break the library
        return False
    return True


def sweep(points: Points, centroids: torch.Tensor, backend: str | None = None) -> Sweep:
    """Assign every point to its nearest centroid ((k, d) float64, normalized) and accumulate."""
    if backend is None:
        backend = "numba" if points.device.type == "cpu" and has_numba() else "torch"
    run = _sweep_numba if backend == "numba" else _sweep_torch
    return run(points, centroids)


def assign(points: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Nearest row of the codebook for every point; ties go to the lowest row.

    points (n, d) float16 | bfloat16 | float32, codebook (k, d) float -> (n,) int64.
    Raises InputError for NaN, Inf or shapes that do not fit.
    """
    x = check_points(points)
    book = check_points(codebook)
    if book.shape[0] < 1 or book.shape[1] != x.shape[1]:
        raise InputError(
            f"kmeans: a codebook of shape {tuple(book.shape)} does not fit points {tuple(x.shape)}"
        )
    if x.shape[0] == 0:
        return torch.empty(0, dtype=torch.int64, device=x.device)
    low = min(float(x.min()), float(book.min()))
    high = max(float(x.max()), float(book.max()))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("kmeans: points or codebook contain NaN or Inf; nothing can be assigned")
    return final_sweep(Points(x, torch.zeros(x.shape[1]), 1.0), book, low, high).codes.long()


def final_sweep(points: Points, codebook: torch.Tensor, low: float, high: float) -> Sweep:
    """Assignment to a float32 codebook in the units of the input: what `assign` and `fit` share."""
    offset = torch.from_numpy(codebook.cpu().numpy().astype("float64").mean(axis=0))
    scale = power_of_two(offset, low, high)
    points = Points(points.values, offset, scale, points.weights)
    return sweep(points, points.normalize(codebook))


def slab_rows(n: int, k: int, d: int) -> int:
    """Rows a slab: a function of the problem only."""
    slabs = max(1, min(_SLABS, _SLAB_BYTES // (8 * k * (2 * d + 1)), n // _SLAB_ROWS))
    return max(1, -(-n // slabs))


def _kind(points: Points) -> int:
    if points.weights is None:
        return 0
    return 2 if points.weights.shape[1] == points.d and points.d > 1 else 1


def score_terms(centroids: torch.Tensor, kind: int) -> tuple[torch.Tensor, torch.Tensor]:
    """c (k, f), h (k,) float32 such that the score of a point is h - features . c.

    Plain: ||c||^2 / 2 - z . c. Weighted coordinates: sum w c^2 / 2 - (w z) . c, which is the same
    product over twice the features, [w, w z] . [-c^2 / 2, c], with h = 0.
    """
    half = centroids.square() / 2  # (k, d) float64
    if kind != 2:
        return centroids.float(), half.sum(dim=1).float()
    c = torch.cat([-half, centroids], dim=1).float()
    return c, torch.zeros(c.shape[0], dtype=torch.float32, device=c.device)


def _sweep_numba(points: Points, centroids: torch.Tensor) -> Sweep:
    from compress.kmeans.kernels_numba import UNROLLED, sweep_kernel

    n, d, k, kind = points.n, points.d, centroids.shape[0], _kind(points)
    c, h = score_terms(centroids, kind)
    f = c.shape[1]
    width = -(-f // 4) * 4 if f <= UNROLLED else -(-f // 8) * 8
    # zero coordinates and centroids that never win: padding changes no rounding
    c_pad = np.zeros((k + k % 2, width), np.float32)
    c_pad[:k, :f] = c.numpy()
    h_pad = np.full(k + k % 2, np.inf, np.float32)
    h_pad[:k] = h.numpy()

    kernel = sweep_kernel(width, kind)
    x = points.values.numpy()
    w = np.ones((1, 1), np.float32) if points.weights is None else points.weights.numpy()
    offset, centers = points.offset.double().numpy(), centroids.contiguous().numpy()
    codes = np.empty(n, np.int32)
    rows = slab_rows(n, k, d)
    slabs = -(-n // rows)
    sums = np.zeros((slabs, k, d))
    mass = np.zeros((slabs, k, d if kind == 2 else 1))
    distortion = np.zeros((slabs, k))

    def work(s: int) -> None:
        kernel(
            x, w, offset, points.scale, c_pad, h_pad, centers,
            codes, sums[s], mass[s], distortion[s], s * rows, min(n, (s + 1) * rows),
        )  # fmt: skip

    _in_threads(work, slabs)
    return Sweep(
        torch.from_numpy(codes),
        torch.from_numpy(_in_order(sums)),
        torch.from_numpy(_in_order(mass)),
        torch.from_numpy(_in_order(distortion)),
    )


def _sweep_torch(points: Points, centroids: torch.Tensor) -> Sweep:
    n, d, k, kind = points.n, points.d, centroids.shape[0], _kind(points)
    c, h = score_terms(centroids, kind)
    offset = points.offset.to(points.device)
    rows = slab_rows(n, k, d)
    codes = torch.empty(n, dtype=torch.int64, device=points.device)
    total: tuple[torch.Tensor, ...] = ()
    for lo in range(0, n, rows):
        part = slice(lo, min(n, lo + rows))
        z = ((points.values[part].double() - offset) * points.scale).float()  # (rows, d)
        w = None if points.weights is None else points.weights[part]
        codes[part] = kernels_torch.nearest(kernels_torch.features(z, w, kind), c, h)
        sums = kernels_torch.accumulate(z, w, kind, codes[part], centroids)
        total = tuple(a + b for a, b in zip(total, sums, strict=True)) if total else sums
    return Sweep(codes, *total)


def _in_order(partial: np.ndarray) -> np.ndarray:
    """(slabs, ...) -> (...): added slab after slab."""
    total = partial[0].copy()
    for part in partial[1:]:
        total += part
    return total


def _in_threads(work: Callable[[int], None], count: int) -> None:
    """The kernels release the GIL; no pool is shared, so fits may run in several threads."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        for s in range(count):
            work(s)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(count)))
