"""The fused CPU pass: centre, score, argmin and accumulate, with no distance matrix in memory.

Only `distance.py` imports this file, and only at the first fit: importing numba costs 0.3 s.
Scores are float32 multiplications and subtractions in the order of the coordinates, never
contracted to FMA, so that `kernels_torch.py` can reproduce them to the last bit.
One version is compiled for each unrolling that is met (at most four), about a second each, and
kept in numba's on-disk cache.
"""

# The kernels are plain numpy code to a type checker, which cannot see their types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit

from compress.kmeans.backend import compiled

TILE = 256  # points scored together: 16 AVX-512 lanes x 16, their features stay in the L1 cache
UNROLLED = 16  # up to here all features of a centroid are unrolled into registers
BLOCK = 8  # features unrolled at a time beyond that


def unrolling(features: int) -> tuple[int, tuple[int, ...]]:
    """Padded width (zero features change no rounding), and a tuple as long as the unrolled loop.

    The length of a tuple is part of its type: this is how numba is told a constant.
    """
    step = 4 if features <= UNROLLED else BLOCK
    width = -(-features // step) * step
    return width, (0,) * (width if width <= UNROLLED else BLOCK)


def padded(c, h):
    """(unroll, c, h) for c (..., k, f), h (..., k) float32: an even number of centroids, of which
    those that are added never win, as wide as the kernels want them."""
    k, f = c.shape[-2:]
    width, unroll = unrolling(f)
    even = k + k % 2
    c_pad = np.zeros((*c.shape[:-2], even, width), np.float32)
    h_pad = np.full((*h.shape[:-1], even), np.inf, np.float32)
    c_pad[..., :k, :f], h_pad[..., :k] = c, h
    return unroll, c_pad, h_pad


@njit(inline="always")
def score_narrow(unroll, feature, c, h, best, index):
    """Least h - feature . c for TILE points; ties go to the lowest row of c.

    feature (width, TILE), c (k2, width), h (k2,) float32, k2 even and width = len(unroll);
    best (TILE,) float32, index (TILE,) int32: written.
    """
    for p in range(TILE):
        best[p] = np.inf
        index[p] = 0
    for j in range(0, c.shape[0], 2):  # two at once: each feature is loaded once for both
        for p in range(TILE):
            a = h[j]
            b = h[j + 1]
            for t in range(len(unroll)):
                v = feature[t, p]
                a -= c[j, t] * v
                b -= c[j + 1, t] * v
            q = best[p]
            i = index[p]
            i = np.int32(j) if a < q else i
            q = a if a < q else q
            i = np.int32(j + 1) if b < q else i
            q = b if b < q else q
            best[p] = q
            index[p] = i


@njit(inline="always")
def score_wide(unroll, feature, c, h, best, index):
    """The same for any width that is a multiple of len(unroll)."""
    partial = np.empty(TILE, np.float32)
    for p in range(TILE):
        best[p] = np.inf
        index[p] = 0
    for j in range(c.shape[0]):
        partial[:] = h[j]
        for s in range(0, c.shape[1], len(unroll)):
            for p in range(TILE):
                a = partial[p]
                for t in range(len(unroll)):
                    a -= c[j, s + t] * feature[s + t, p]
                partial[p] = a
        for p in range(TILE):
            q = best[p]
            i = index[p]
            i = np.int32(j) if partial[p] < q else i
            q = partial[p] if partial[p] < q else q
            best[p] = q
            index[p] = i


@njit(inline="always")
def score(unroll, feature, c, h, best, index):
    """The one that fits the width of c."""
    if c.shape[1] == len(unroll):
        score_narrow(unroll, feature, c, h, best, index)
    else:
        score_wide(unroll, feature, c, h, best, index)


@compiled
def sweep(
    unroll, x, w, step, by_coordinate, offset, scale, c, h, centers,
    codes, count, sums, mass, distortion, slab, lo, hi,
):  # fmt: skip
    """Points lo ... hi - 1 of x (n, d) float32, which are one slab.

    w (n, 1 | d) float32, of which row i * step belongs to point i (step 0: one row for all);
    score = h - features . c with c (k2, width), h (k2,) float32; centers (k, d) float64.
    Written: codes (n,) int32, and of each slab count (slabs, k) int64, sums (slabs, k, d),
    mass (slabs, k, 1 | d) and distortion (slabs, k) float64.
    """
    d = x.shape[1]
    z = np.empty((TILE, d), np.float32)
    feature = np.zeros((c.shape[1], TILE), np.float32)
    best = np.empty(TILE, np.float32)
    index = np.empty(TILE, np.int32)
    for start in range(lo, hi, TILE):
        m = min(TILE, hi - start)
        for p in range(m):
            for t in range(d):
                z[p, t] = np.float32((np.float64(x[start + p, t]) - offset[t]) * scale)
        for t in range(d):
            for p in range(m):
                if by_coordinate:
                    feature[t, p] = w[(start + p) * step, t]
                    feature[d + t, p] = w[(start + p) * step, t] * z[p, t]
                else:
                    feature[t, p] = z[p, t]
        score(unroll, feature, c, h, best, index)
        if by_coordinate:
            for p in range(m):
                j = index[p]
                codes[start + p] = j
                count[slab, j] += 1
                r = 0.0
                for t in range(d):
                    y = np.float64(z[p, t])
                    u = np.float64(w[(start + p) * step, t])
                    e = y - centers[j, t]
                    sums[slab, j, t] += u * y
                    mass[slab, j, t] += u
                    r += u * (e * e)
                distortion[slab, j] += r
        else:
            for p in range(m):
                j = index[p]
                codes[start + p] = j
                count[slab, j] += 1
                u = np.float64(w[(start + p) * step, 0])
                r = 0.0
                for t in range(d):
                    y = np.float64(z[p, t])
                    e = y - centers[j, t]
                    sums[slab, j, t] += u * y
                    r += e * e
                mass[slab, j, 0] += u
                distortion[slab, j] += u * r


@compiled
def nearest(unroll, x, c, h, codes, lo, hi):
    """codes (n,) int32 of rows lo ... hi - 1 of the features x (n, f) float32; c (k2, width), h
    (k2,) from `padded`."""
    feature = np.zeros((c.shape[1], TILE), np.float32)
    best = np.empty(TILE, np.float32)
    index = np.empty(TILE, np.int32)
    for start in range(lo, hi, TILE):
        m = min(TILE, hi - start)
        for p in range(m):
            for t in range(x.shape[1]):
                feature[t, p] = x[start + p, t]
        score(unroll, feature, c, h, best, index)
        codes[start : start + m] = index[:m]
