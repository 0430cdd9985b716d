"""`halving.project` and `halving.moments` compiled: the same operations in the same order.

Imported at the first fit only. A cut is made of many small steps; torch would start all its
threads for each of them, which costs more than the work, and stalls where cores are shared.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from compress.kmeans.backend import compiled
from compress.kmeans.halving import POWER_STEPS, TINY


@compiled
def moments(z, w, group, groups):
    """z (m, d), w (m, 1 | d) float64, group (m,) int64 -> count, sums, mass, distortion."""
    m, d = z.shape
    columns = w.shape[1]
    count = np.zeros(groups, np.int64)
    sums = np.zeros((groups, d))
    mass = np.zeros((groups, columns))
    distortion = np.zeros(groups)
    for i in range(m):
        g = group[i]
        count[g] += 1
        for t in range(d):
            sums[g, t] += w[i, t % columns] * z[i, t]
        for t in range(columns):
            mass[g, t] += w[i, t]
    mean = np.empty((groups, d))
    for g in range(groups):
        for t in range(d):
            mean[g, t] = sums[g, t] / max(mass[g, t % columns], TINY)
    for i in range(m):
        g = group[i]
        error = 0.0
        for t in range(d):
            e = z[i, t] - mean[g, t]
            error += w[i, t % columns] * (e * e)
        distortion[g] += error
    return count, sums, mass, distortion


@compiled
def project(z, w, group, groups):
    """z (m, d), w (m, 1 | d) float64, group (m,) int64 -> (m,) coordinates along each direction."""
    m, d = z.shape
    columns = w.shape[1]
    _, sums, mass, _ = moments(z, w, group, groups)
    mean = sums
    for g in range(groups):
        for t in range(d):
            mean[g, t] = sums[g, t] / max(mass[g, t % columns], TINY)
    direction = np.zeros((groups, d))
    moved = np.zeros((groups, d))
    for power in range(POWER_STEPS + 1):
        moved[:] = 0.0
        for i in range(m):
            g = group[i]
            importance = w[i, 0]
            for t in range(1, columns):
                importance += w[i, t]
            importance /= columns
            along = 0.0
            for t in range(d):
                along += (z[i, t] - mean[g, t]) * direction[g, t]
            for t in range(d):
                e = z[i, t] - mean[g, t]
                pull = importance * e
                moved[g, t] += pull * e if power == 0 else along * pull
        for g in range(groups):
            if power == 0:  # start from the axis of the greatest variance
                direction[g, np.argmax(moved[g])] = 1.0
                continue
            length = 0.0
            for t in range(d):
                length += moved[g, t] * moved[g, t]
            length = np.sqrt(length)
            if length > 0.0:
                for t in range(d):
                    direction[g, t] = moved[g, t] / max(length, TINY)
    coordinate = np.empty(m)
    for i in range(m):
        g = group[i]
        along = 0.0
        for t in range(d):
            along += (z[i, t] - mean[g, t]) * direction[g, t]
        coordinate[i] = along
    return coordinate
