"""What may come in, and the one message for what may not."""

from __future__ import annotations

import numpy as np
import torch

from compress.errors import InputError
from compress.kmeans.sums import two_to


def check_points(points: torch.Tensor, ndim: int = 2, what: str = "points") -> torch.Tensor:
    """Any float tensor of shape (n, d) or (b, n, d) -> float32, contiguous, detached."""
    if not isinstance(points, torch.Tensor) or points.ndim != ndim or points.shape[-1] < 1:
        shape = tuple(points.shape) if isinstance(points, torch.Tensor) else type(points).__name__
        expected = "(n, d >= 1)" if ndim == 2 else "(b, n, d >= 1)"
        raise InputError(f"kmeans: {what} must be a tensor of shape {expected}, got {shape}")
    if not points.is_floating_point():
        raise InputError(
            f"kmeans: {what} must be floating point, got {points.dtype}; call .float()"
        )
    # detach: codebooks are fitted to weights, which usually are parameters
    return points.detach().to(torch.float32).contiguous()


def value_range(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(b, n, d) -> least and greatest value (b,) float64; InputError where one is not finite."""
    flat = x.flatten(1)
    if x.device.type == "cpu":  # numpy is five times faster at this; both pass NaN on
        low, high = (torch.from_numpy(f(flat.numpy(), axis=1)) for f in (np.min, np.max))
    else:
        low, high = torch.aminmax(flat, dim=1)
    if not bool((torch.isfinite(low) & torch.isfinite(high)).all()):
        row = int((~torch.isfinite(x)).any(dim=2).nonzero()[0, 1])
        raise InputError(
            f"kmeans: points contain NaN or Inf (first in row {row} of {x.shape[1]}); "
            "check the weight for a diverged training or an overflow in half precision"
        )
    return low.double(), high.double()


def check_weights(weights: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor | None:
    """Weights (1 | b, n, 1), (1 | b, 1, d) or (1 | b, n, d) for points (b, n, d).

    Returns (b, n, 1) or (b, n, d) float32, scaled by a power of two to at most 1 in each problem.
    """
    if weights is None:
        return None
    b, n, d = x.shape
    w = weights.detach().to(device=x.device, dtype=torch.float64)
    if w.ndim != 3 or w.shape[0] not in (1, b) or w.shape[1:] not in {(n, 1), (1, d), (n, d)}:
        raise InputError(
            f"kmeans: weights of shape {tuple(weights.shape)} do not fit points {(n, d)}; "
            "give (n,) for points, (1, d) or (n, d) for coordinates"
        )
    if w.numel() and (not bool(torch.isfinite(w).all()) or float(w.min()) < 0.0):
        raise InputError("kmeans: weights must be finite and not negative")
    if w.numel():
        top = w.flatten(1).amax(dim=1)
        w = w * torch.where(top > 0, two_to(-torch.frexp(top).exponent), 1.0)[:, None, None]
    return w.expand(b, n, w.shape[-1]).float().contiguous()
