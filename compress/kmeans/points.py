"""Points in the coordinates the kernels work in: validated, centred, scaled by a power of two.

Centring comes before any quadratic expansion (||c||^2 / 2 - x.c loses every digit when the data
sit far from the origin); the power of two keeps denormals and huge values inside float32 without
changing a single rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from compress.errors import InputError

_MEAN_ROWS = 16384  # rows that decide the offset: it only has to be near the mean
_ENERGY_VALUES = 1 << 14  # values per chunk: small enough that torch never sums it in parallel


@dataclass(frozen=True)
class Points:
    """values (n, d) float32 as given; z = (values - offset) * scale is formed inside the kernels.

    weights: None, (n, 1) or (n, d) float32, non-negative, largest value in [0.5, 1).
    """

    values: torch.Tensor
    offset: torch.Tensor  # (d,) float64, on the CPU
    scale: float
    weights: torch.Tensor | None = None

    @property
    def n(self) -> int:
        return self.values.shape[0]

    @property
    def d(self) -> int:
        return self.values.shape[1]

    @property
    def device(self) -> torch.device:
        return self.values.device

    def take(self, index: torch.Tensor) -> Points:
        weights = None if self.weights is None else self.weights[index]
        return replace(self, values=self.values[index], weights=weights)

    def normalized(self, index: torch.Tensor | None = None) -> torch.Tensor:
        """(m, d) float64 with the float32 rounding the kernels see."""
        x = self.values if index is None else self.values[index]
        z = (x.double() - self.offset.to(x.device)) * self.scale
        return z.float().double()

    def denormalize(self, centroids: torch.Tensor) -> torch.Tensor:
        """(k, d) float64 normalized -> (k, d) float32 in the units of the input."""
        return (centroids / self.scale + self.offset.to(centroids.device)).float()

    def normalize(self, codebook: torch.Tensor) -> torch.Tensor:
        """(k, d) in the units of the input -> (k, d) float64 normalized."""
        return (codebook.double() - self.offset.to(codebook.device)) * self.scale


def check_points(points: torch.Tensor) -> torch.Tensor:
    """(n, d) float32, contiguous; InputError for anything that is not an (n, d) float tensor."""
    if not isinstance(points, torch.Tensor) or points.ndim != 2 or points.shape[1] < 1:
        shape = tuple(points.shape) if isinstance(points, torch.Tensor) else type(points).__name__
        raise InputError(f"kmeans: points must be a tensor of shape (n, d >= 1), got {shape}")
    if not points.is_floating_point():
        raise InputError(
            f"kmeans: points must be floating point, got {points.dtype}; call .float()"
        )
    # detach: codebooks are fitted to weights, which usually are parameters
    return points.detach().to(torch.float32).contiguous()


def prepare(points: torch.Tensor, weights: torch.Tensor | None = None) -> Points:
    """Validate, and choose offset (a mean over evenly spread rows) and scale (a power of two)."""
    x = check_points(points)
    n, d = x.shape
    if n == 0:
        return Points(x, torch.zeros(d, dtype=torch.float64), 1.0, check_weights(weights, x))
    low, high = (float(v) for v in torch.aminmax(x))
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = int((~torch.isfinite(x)).any(dim=1).nonzero()[0])
        raise InputError(
            f"kmeans: points contain NaN or Inf (first in row {bad} of {n}); "
            "check the weight for a diverged training or an overflow in half precision"
        )
    # numpy sums in one thread and in one order: the same offset for any thread count
    rows = x[:: max(1, n // _MEAN_ROWS)].cpu().numpy().astype("float64")
    offset = torch.from_numpy(rows.mean(axis=0))
    return Points(x, offset, power_of_two(offset, low, high), check_weights(weights, x))


def power_of_two(offset: torch.Tensor, low: float, high: float) -> float:
    """The power of two that brings every |value - offset| below 1."""
    reach = max(high - float(offset.min()), float(offset.max()) - low)
    if reach <= 0.0:
        return 1.0
    return math.ldexp(1.0, -math.frexp(reach)[1])


def check_weights(weights: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor | None:
    """(n,), (n, 1), (1, d) or (n, d), finite and >= 0  ->  (n, 1) or (n, d) float32, at most 1."""
    if weights is None:
        return None
    n, d = x.shape
    w = weights.detach()
    if w.ndim == 1 and w.shape[0] == n:
        w = w[:, None]
    if w.ndim != 2 or w.shape not in {(n, 1), (1, d), (n, d)}:
        raise InputError(
            f"kmeans: weights of shape {tuple(weights.shape)} do not fit points {(n, d)}; "
            "give (n,) for points, (1, d) or (n, d) for coordinates"
        )
    w = w.to(device=x.device, dtype=torch.float64)
    if w.numel() and (not bool(torch.isfinite(w).all()) or float(w.min()) < 0.0):
        raise InputError("kmeans: weights must be finite and not negative")
    top = float(w.max()) if w.numel() else 0.0
    if top > 0.0:
        w = w * math.ldexp(1.0, -math.frexp(top)[1])
    if w.shape[0] == 1 and n != 1:
        w = w.expand(n, d)
    return w.float().contiguous()


def energy(points: Points, about: torch.Tensor | None = None) -> float:
    """sum w x^2 in float64, in fixed chunks: the same for any thread count."""
    step = max(1, _ENERGY_VALUES // points.d)
    total = 0.0
    for lo in range(0, points.n, step):
        square = points.values[lo : lo + step].double().square()
        if points.weights is not None:
            square = square * points.weights[lo : lo + step]
        total += float(square.sum())
    return total
