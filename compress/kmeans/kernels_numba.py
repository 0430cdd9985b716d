"""The fused CPU pass: centre, score, argmin and accumulate, with no distance matrix in memory.

Only `distance.py` imports this file, and only at the first fit: importing numba costs 0.3 s.
Scores are float32 multiplications and subtractions in the order of the coordinates, never
contracted to FMA, so that `kernels_torch.py` can reproduce them to the last bit.
One kernel is compiled for each (features rounded up to 4, kind of weights) that is met, 1-2 s
each, and kept in numba's on-disk cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit

TILE = 256  # points scored together: 16 AVX-512 lanes x 16, their features stay in the L1 cache
UNROLLED = 16  # up to here all features of a centroid are unrolled into registers


def compiled(function: Callable[..., Any]) -> Any:
    """njit with the disk cache where there is a writable place for it, without it elsewhere."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except (RuntimeError, OSError):
        return njit(nogil=True, error_model="numpy")(function)


@cache
def sweep_kernel(width: int, kind: int) -> Any:
    """Kernel for points of `width` padded features; kind 0: no weights, 1: point, 2: coordinate.

    sweep(x, w, offset, scale, c, h, centers, codes, sums, mass, distortion, start, stop)
      x (n, d) float32; w (n, 1 | d) float32; offset (d,) float64
      c (k2, features) float32, h (k2,) float32: score = h - features . c, k2 = k rounded up to even
      centers (k, d) float64, for the residual
      codes (n,) int32, sums (k, d), mass (k, 1 | d), distortion (k,) float64: written
    """
    block = width if width <= UNROLLED else 8
    blocks = width // block

    def sweep(x, w, offset, scale, c, h, centers, codes, sums, mass, distortion, start, stop):  # type: ignore[no-untyped-def]
        d = x.shape[1]
        k2 = c.shape[0]
        feature = np.zeros((blocks * block, TILE), np.float32)
        best = np.empty(TILE, np.float32)
        first = np.empty(TILE, np.float32)
        second = np.empty(TILE, np.float32)
        index = np.empty(TILE, np.int32)
        for lo in range(start, stop, TILE):
            m = min(TILE, stop - lo)
            for p in range(m):
                for t in range(d):
                    z = np.float32((np.float64(x[lo + p, t]) - offset[t]) * scale)
                    if kind == 2:
                        feature[t, p] = w[lo + p, t]
                        feature[d + t, p] = w[lo + p, t] * z
                    else:
                        feature[t, p] = z
            for p in range(TILE):
                best[p] = np.inf
                index[p] = 0
            for j in range(0, k2, 2):  # two centroids at once: each feature is loaded once for both
                if blocks > 1:
                    for p in range(TILE):
                        first[p] = h[j]
                        second[p] = h[j + 1]
                    for s in range(0, (blocks - 1) * block, block):
                        for p in range(TILE):
                            a = first[p]
                            b = second[p]
                            for t in range(block):
                                v = feature[s + t, p]
                                a -= c[j, s + t] * v
                                b -= c[j + 1, s + t] * v
                            first[p] = a
                            second[p] = b
                last = (blocks - 1) * block
                for p in range(TILE):
                    a = first[p] if blocks > 1 else h[j]
                    b = second[p] if blocks > 1 else h[j + 1]
                    for t in range(block):
                        v = feature[last + t, p]
                        a -= c[j, last + t] * v
                        b -= c[j + 1, last + t] * v
                    q = best[p]
                    i = index[p]
                    i = np.int32(j) if a < q else i
                    q = a if a < q else q
                    i = np.int32(j + 1) if b < q else i
                    q = b if b < q else q
                    best[p] = q
                    index[p] = i
            for p in range(m):
                j = index[p]
                codes[lo + p] = j
                r = 0.0
                for t in range(d):
                    v = np.float32((np.float64(x[lo + p, t]) - offset[t]) * scale)
                    y = np.float64(v)
                    e = y - centers[j, t]
                    if kind == 2:
                        u = np.float64(w[lo + p, t])
                        sums[j, t] += u * y
                        mass[j, t] += u
                        r += u * (e * e)
                    elif kind == 1:
                        sums[j, t] += np.float64(w[lo + p, 0]) * y
                        r += e * e
                    else:
                        sums[j, t] += y
                        r += e * e
                if kind == 0:
                    mass[j, 0] += 1.0
                    distortion[j] += r
                elif kind == 1:
                    mass[j, 0] += np.float64(w[lo + p, 0])
                    distortion[j] += np.float64(w[lo + p, 0]) * r
                else:
                    distortion[j] += r

    return compiled(sweep)
