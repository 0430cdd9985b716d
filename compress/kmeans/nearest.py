"""The nearest centroid of every point, where nothing is summed: features in, codes out."""

from __future__ import annotations

import numpy as np
import torch

from compress.kmeans import kernels_torch
from compress.kmeans.backend import backend
from compress.kmeans.threads import in_threads

_ROWS = 2048  # of a job


def nearest(x: torch.Tensor, c: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """(n,) int64: the lowest index of the least h - x . c, for features x (n, f), c (k, f) and
    h (k,), float32. The same for any number of threads and, on CPU, with numba or without."""
    if backend(x.device.type) != "numba":
        return kernels_torch.nearest(x, c, h)
    from compress.kmeans.kernels_numba import nearest as kernel
    from compress.kmeans.kernels_numba import padded

    n = len(x)
    unroll, c_pad, h_pad = padded(c.numpy(), h.numpy())
    codes = np.empty(n, np.int32)
    points = x.contiguous().numpy()
    in_threads(
        lambda i: kernel(unroll, points, c_pad, h_pad, codes, i * _ROWS, min(n, (i + 1) * _ROWS)),
        -(-n // _ROWS),
    )
    return torch.from_numpy(codes).long()
