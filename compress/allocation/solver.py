"""Multiple-choice knapsack: of every layer one option, least damage in all, within a capacity.

The dynamic programme over bytes is exact where the capacity has no more than `UNITS` bytes above
the smallest choice; else sizes are rounded up to a grid of as many units, so that the result always
fits, and what the rounding left is spent afterwards. How far it can be from the best is known from
the Lagrangian dual (Everett 1963; for bit allocation Shoham and Gersho 1988).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

UNITS = 1 << 16
STEPS = 200  # of the bisection for the dual

Table = Sequence[Sequence[float]]


def solve(sizes: Table, damages: Table, capacity: float) -> list[int] | None:
    """The option of each layer, as an index; None where even the smallest do not fit.

    sizes[i][j] >= 0 and damages[i][j] >= 0 are those of option j of layer i. Of equal damages the
    first is taken.
    """
    small = [min(row) for row in sizes]
    spare = capacity - sum(small)
    if spare < 0:
        return None
    unit = max(1.0, spare / UNITS)
    steps = [
        np.ceil((np.array(row) - low) / unit).astype(int)
        for row, low in zip(sizes, small, strict=True)
    ]
    chosen = _programme(steps, damages, int(spare // unit))
    return _spend(sizes, damages, capacity, chosen)


def _programme(steps: Sequence[np.ndarray], damages: Table, capacity: int) -> list[int]:
    """best[c]: least damage of the layers so far within c units; taken[i][c]: what layer i does."""
    best = np.zeros(capacity + 1)
    taken = []
    for sizes, harms in zip(steps, damages, strict=True):
        least = np.full(capacity + 1, np.inf)
        option = np.zeros(capacity + 1, dtype=np.int16)
        for j, (size, harm) in enumerate(zip(sizes, harms, strict=True)):
            if size <= capacity:
                total = best[: capacity + 1 - size] + harm
                better = total < least[size:]
                least[size:][better] = total[better]
                option[size:][better] = j
        best = least
        taken.append(option)
    chosen = []
    for sizes, option in zip(reversed(steps), reversed(taken), strict=True):
        chosen.append(int(option[capacity]))
        capacity -= int(sizes[chosen[-1]])
    return chosen[::-1]


def _spend(sizes: Table, damages: Table, capacity: float, chosen: list[int]) -> list[int]:
    """Uses up what rounding left: the change of one layer that helps most and still fits, again."""
    chosen = list(chosen)
    while True:
        spare = capacity - sum(row[j] for row, j in zip(sizes, chosen, strict=True))
        gains = [
            (damages[i][j] - damages[i][new], -i, -new)
            for i, j in enumerate(chosen)
            for new in range(len(sizes[i]))
            if sizes[i][new] - sizes[i][j] <= spare and damages[i][new] < damages[i][j]
        ]
        if not gains:
            return chosen
        _, i, new = max(gains)
        chosen[-i] = -new


def lower_bound(sizes: Table, damages: Table, capacity: float) -> float:
    """No choice within the capacity does less damage: the best value of the Lagrangian dual."""
    return max((value for value, _ in _duals(sizes, damages, capacity)), default=0.0)


def _duals(sizes: Table, damages: Table, capacity: float) -> list[tuple[float, float]]:
    """(dual value, size) on the way of a bisection to the price a byte at which the size fits."""
    width = max(len(row) for row in sizes)
    size = np.array([[*row, *[0.0] * (width - len(row))] for row in sizes])
    harm = np.array([[*row, *[np.inf] * (width - len(row))] for row in damages])
    rows = np.arange(len(sizes))

    def at(price: float) -> tuple[float, float]:
        options = (harm + price * size).argmin(1)
        used = float(size[rows, options].sum())
        return float(harm[rows, options].sum()) + price * (used - capacity), used

    found = [at(0.0)]
    low, high = 0.0, 1e-12
    while at(high)[1] > capacity and high < 1e30:
        low, high = high, high * 10
    for _ in range(STEPS):
        middle = (low + high) / 2
        found.append(at(middle))
        low, high = (middle, high) if found[-1][1] > capacity else (low, middle)
    return found


def frontier(sizes: Table, damages: Table) -> list[tuple[float, float]]:
    """(size, damage) of the best choices at every price a byte: the lower convex hull of all."""
    slopes = []  # price, size and damage of each step along the hulls of the layers
    start = np.zeros(2)
    for row, harms in zip(sizes, damages, strict=True):
        hull = _hull(sorted(zip(row, harms, strict=True)))
        start += hull[0]
        for (a, x), (b, y) in pairwise(hull):
            slopes.append(((x - y) / (b - a), b - a, x - y))
    points = [(float(start[0]), float(start[1]))]
    for _, more, less in sorted(slopes, key=lambda step: -step[0]):
        points.append((points[-1][0] + more, points[-1][1] - less))
    return points


def _hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The lower left convex hull of (size, damage), sizes ascending, damages descending."""
    hull: list[tuple[float, float]] = []
    for x, y in points:
        if hull and y >= hull[-1][1]:
            continue
        while len(hull) > 1:
            (a, b), (c, d) = hull[-2:]
            if (b - d) * (x - c) > (d - y) * (c - a):
                break
            hull.pop()
        if hull and hull[-1][0] == x:
            hull.pop()
        hull.append((x, y))
    return hull
