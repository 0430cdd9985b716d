"""The knapsack against every choice there is, on instances small enough to list them."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.allocation import solver
from compress.allocation.solver import frontier, lower_bound, solve

OPTION = st.tuples(st.integers(0, 60), st.floats(0, 10, allow_nan=False, width=32))
TABLE = st.lists(st.lists(OPTION, min_size=1, max_size=5), min_size=1, max_size=5)


def split(table):
    return [[s for s, _ in row] for row in table], [[d for _, d in row] for row in table]


def cost(rows, picks):
    return sum(row[j] for row, j in zip(rows, picks, strict=True))


def brute_force(sizes, damages, capacity):
    """The least damage within the capacity, None where nothing fits."""
    picks = product(*(range(len(row)) for row in sizes))
    return min((cost(damages, p) for p in picks if cost(sizes, p) <= capacity), default=None)


@settings(max_examples=200, deadline=None)
@given(TABLE, st.integers(0, 250))
def test_it_is_the_best_of_all_choices(table, capacity):
    sizes, damages = split(table)
    picks, best = solve(sizes, damages, capacity), brute_force(sizes, damages, capacity)
    assert (picks is None) == (best is None)
    if picks is not None:
        assert cost(sizes, picks) <= capacity
        assert cost(damages, picks) == pytest.approx(best)
        assert lower_bound(sizes, damages, capacity) <= best + 1e-9 * (1 + best)


@settings(max_examples=50, deadline=None)
@given(TABLE, st.floats(0, 1))
def test_on_a_coarse_grid_it_still_fits_and_knows_how_far_it_is(table, share):
    sizes, damages = split(table)
    sizes = [[s * 1_000_003 for s in row] for row in sizes]
    low, high = sum(min(row) for row in sizes), sum(max(row) for row in sizes)
    capacity = low + share * (high - low)
    picks, best = solve(sizes, damages, capacity), brute_force(sizes, damages, capacity)
    assert cost(sizes, picks) <= capacity
    assert lower_bound(sizes, damages, capacity) - 1e-9 <= best <= cost(damages, picks) + 1e-9


def curves(layers=74, options=40, seed=0):
    """Convex curves of layers of very different size and weight, as real ones are."""
    draw = np.random.default_rng(seed)
    sizes, damages = [], []
    for _ in range(layers):
        weights = draw.choice([3e5, 6e5, 2.4e6, 4e7])
        bits = np.sort(draw.uniform(0.3, 4, options))
        sizes.append([float(int(weights * b / 8)) for b in bits])
        damages.append(list(draw.lognormal(sigma=2) * weights * 2 ** (-2 * bits)))
    return sizes, damages


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_many_layers_are_solved_close_to_the_bound_and_fill_the_budget(share):
    sizes, damages = curves()
    low, high = sum(row[0] for row in sizes), sum(row[-1] for row in sizes)
    capacity = low + share * (high - low)
    picks = solve(sizes, damages, capacity)
    assert picks == solve(sizes, damages, capacity)
    assert 0.999 * capacity < cost(sizes, picks) <= capacity
    assert cost(damages, picks) <= 1.01 * lower_bound(sizes, damages, capacity)


@settings(max_examples=100, deadline=None)
@given(TABLE)
def test_the_frontier_is_convex_and_nothing_lies_below_it(table):
    sizes, damages = split(table)
    points = frontier(sizes, damages)
    x, y = np.array(points).T
    assert x[0] == sum(min(row) for row in sizes)
    # A damage of 1e-20 beside one of 10 is lost in the sum.
    assert (np.diff(x) > 0).all() and (np.diff(y) <= 0).all()
    slopes = np.diff(y) / np.diff(x)
    assert (np.diff(slopes) >= -1e-6 * np.abs(slopes[:-1]) - 1e-9).all()
    for picks in product(*(range(len(row)) for row in sizes)):
        size, damage = cost(sizes, picks), cost(damages, picks)
        assert damage >= np.interp(size, x, y) - 1e-6


def test_nothing_fits_below_the_smallest():
    assert solve([[5.0, 9.0], [4.0]], [[1.0, 0.0], [0.0]], 8.0) is None
    assert solve([[5.0, 9.0], [4.0]], [[1.0, 0.0], [0.0]], 9.0) == [0, 0]
    assert solver.UNITS > 1000
