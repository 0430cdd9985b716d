"""One pass over the points: nearest centroid, and the sums that the update needs.

The points are cut into slabs that depend on the problem alone, never on the number of threads;
each slab is summed in order and the slabs are added in order, so the bytes are always the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from compress.kmeans import kernels_torch
from compress.kmeans.backend import backend
from compress.kmeans.points import Points
from compress.kmeans.threads import in_threads

_SLAB_ROWS = 8192  # at least so many points a slab ...
_SLABS = 32  # ... at most so many slabs ...
_GPU_ROWS = 1 << 21
_SLAB_BYTES = 16 << 20  # ... and at most so many bytes of partial sums in all


@dataclass(frozen=True)
class Sweep:
    """What a pass over a batch of b problems finds, with k centroids each.

    codes (b, n) int32 | int64; count (b, k) int64; sums (b, k, d), mass (b, k, 1 | d),
    distortion (b, k) float64, all in normalized coordinates.
    """

    codes: torch.Tensor
    count: torch.Tensor
    sums: torch.Tensor
    mass: torch.Tensor
    distortion: torch.Tensor

    @property
    def empty(self) -> torch.Tensor:
        """(b,) int64: centroids without a point."""
        return (self.count == 0).sum(dim=1)

    @property
    def total(self) -> torch.Tensor:
        """(b,) float64: distortion, added in numpy's single thread."""
        return torch.from_numpy(self.distortion.cpu().numpy().sum(axis=1))

    def energy(self, points: Points, centroids: torch.Tensor) -> torch.Tensor:
        """(b,) float64: sum of w x^2 in the units of the input, about the origin."""
        # sum w z^2 from sum w (z - c)^2; then z = (x - offset) * scale
        cross = (2 * self.sums - centroids * self.mass) * centroids
        square = cross.sum(dim=2) + self.distortion  # (b, k)
        offset = points.offset * points.scale
        square = square + (offset * (2 * self.sums + offset * self.mass)).sum(dim=2)
        return (
            torch.from_numpy(square.cpu().numpy().sum(axis=1)) / points.scale.flatten().cpu() ** 2
        )

    def means(self, fallback: torch.Tensor) -> torch.Tensor:
        """(b, k, d) weighted means; a coordinate without mass keeps the fallback's value."""
        bare = self.mass <= 0
        return torch.where(bare, fallback, self.sums / self.mass.masked_fill(bare, 1.0))


def sweep(points: Points, centroids: torch.Tensor, using: str | None = None) -> Sweep:
    """Assign every point to its nearest centroid ((b, k, d) float64, normalized) and accumulate."""
    using = using or backend(points.device.type)
    c, h = score_terms(centroids, points.by_coordinate)
    if using == "numba":
        return _sweep_numba(points, centroids, c, h)
    return _sweep_torch(points, centroids, c, h, using)


def score_terms(centroids: torch.Tensor, by_coordinate: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """c (b, k, f), h (b, k) float32 such that the score of a point is h - features . c.

    Plain: ||c||^2 / 2 - z . c. Weighted coordinates: sum w c^2 / 2 - (w z) . c, which is the same
    product over twice the features, [w, w z] . [-c^2 / 2, c], with h = 0.
    """
    half = centroids.square() / 2
    if by_coordinate:
        c = torch.cat([-half, centroids], dim=2).float()
        return c, torch.zeros_like(c[:, :, 0])
    return centroids.float(), half.sum(dim=2).float()


def slab_rows(n: int, k: int, d: int) -> int:
    """Rows a slab: a function of the problem only."""
    slabs = max(1, min(_SLABS, _SLAB_BYTES // (8 * k * (2 * d + 2)), n // _SLAB_ROWS))
    return -(-n // slabs)


def _sweep_numba(
    points: Points, centroids: torch.Tensor, c: torch.Tensor, h: torch.Tensor
) -> Sweep:
    from compress.kmeans.kernels_numba import padded
    from compress.kmeans.kernels_numba import sweep as kernel

    (b, n, d), k = points.shape, c.shape[1]
    unroll, c_pad, h_pad = padded(c.numpy(), h.numpy())
    x, centers = points.values.numpy(), centroids.contiguous().numpy()
    offset, scale = points.offset.numpy(), points.scale.numpy()
    weighted = points.weights is not None
    w = points.weights.numpy() if points.weights is not None else np.ones((b, 1, 1), np.float32)
    rows = slab_rows(n, k, d)
    slabs = -(-n // rows)
    codes = np.empty((b, n), np.int32)
    count = np.zeros((b, slabs, k), np.int64)
    sums = np.zeros((b, slabs, k, d))
    mass = np.zeros((b, slabs, k, d if points.by_coordinate else 1))
    distortion = np.zeros((b, slabs, k))

    # a problem at a time; numba takes each array of a job as an argument, so slices are kept few
    def problem(i: int) -> Callable[[int], None]:
        inputs = (unroll, x[i], w[i], int(weighted), points.by_coordinate, offset[i, 0],
                  scale[i, 0, 0], c_pad[i], h_pad[i], centers[i])  # fmt: skip
        outputs = (codes[i], count[i], sums[i], mass[i], distortion[i])
        return lambda s: kernel(*inputs, *outputs, s, s * rows, min(n, (s + 1) * rows))

    problems = [problem(i) for i in range(b)]
    in_threads(lambda job: problems[job // slabs](job % slabs), b * slabs)
    parts = (count, sums, mass, distortion)
    return Sweep(torch.from_numpy(codes), *(torch.from_numpy(_in_order(part)) for part in parts))


def _in_order(partial: np.ndarray) -> np.ndarray:
    """(b, slabs, ...) -> (b, ...): added slab after slab."""
    total = partial[:, 0].copy()
    for s in range(1, partial.shape[1]):
        total += partial[:, s]
    return total


def _sweep_torch(
    points: Points, centroids: torch.Tensor, c: torch.Tensor, h: torch.Tensor, using: str
) -> Sweep:
    (b, n, d), k = points.shape, c.shape[1]
    # integer sums need no slabs: on a GPU they are only there to bound the memory
    rows = max(1, _GPU_ROWS // b) if points.device.type == "cuda" else slab_rows(n, k, d)
    base = k * torch.arange(b, device=points.device)[:, None]
    codes = torch.empty(b, n, dtype=torch.int64, device=points.device)
    if using == "triton":
        from compress.kmeans.kernels_triton import nearest as nearest_triton

        codes = nearest_triton(points, c, h)
    total: tuple[torch.Tensor, ...] = ()
    for lo in range(0, n, rows):
        part = slice(lo, min(n, lo + rows))
        z = ((points.values[:, part].double() - points.offset) * points.scale).float()
        w = None if points.weights is None else points.weights[:, part]
        if using != "triton":
            features = z if w is None or not points.by_coordinate else torch.cat([w, w * z], 2)
            for i in range(b):
                codes[i, part] = kernels_torch.nearest(features[i], c[i], h[i])
        group = (codes[:, part] + base).flatten()
        w = None if w is None else w.flatten(0, 1)
        slab = kernels_torch.accumulate(z.flatten(0, 1), w, group, centroids.flatten(0, 1))
        total = tuple(a + b for a, b in zip(total, slab, strict=True)) if total else slab
    return Sweep(codes, *(part.unflatten(0, (b, k)) for part in total))
