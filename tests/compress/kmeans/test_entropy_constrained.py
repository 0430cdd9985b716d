"""What a bit costs: objective, rates, weights and the independence of threads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.kmeans import assign, fit
from compress.kmeans.entropy_constrained import (
    assign_cheapest,
    code_masses,
    constrain,
    entropy,
)


def points(n=2048, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def objective(x, codebook, codes, price, weights=None):
    error = (x - codebook[codes]).double().square()
    if weights is not None:
        error = error * (weights[:, None] if weights.ndim == 1 else weights)
    return float(error.sum()) + price * len(x) * entropy(code_masses(codes, len(codebook)))


@settings(max_examples=25, deadline=None)
@given(
    price=st.floats(0.001, 3.0),
    seed=st.integers(0, 100),
    weighting=st.sampled_from(["none", "points", "column", "coordinates"]),
)
def test_every_round_lowers_error_and_bits_together(price, seed, weighting):
    x = points(400, 2, seed)
    generator = torch.Generator().manual_seed(seed)
    shape = {"none": None, "points": (400,), "column": (1, 2), "coordinates": (400, 2)}[weighting]
    weights = None if shape is None else torch.rand(shape, generator=generator) * 50
    start = fit(x, 16, weights=weights)
    codebook, codes = start.codebook, start.codes.long()
    last = objective(x, codebook, codes, price, weights)
    for _ in range(4):
        codebook, codes = constrain(x, codebook, codes, price, weights=weights, rounds=1)
        value = objective(x, codebook, codes, price, weights)
        assert value <= last * (1 + 1e-5)
        last = value


def test_without_a_price_it_is_a_step_of_lloyd():
    x = points()
    start = fit(x, 32, iterations=2, relaxation=1.0)
    codebook, codes = constrain(x, start.codebook, start.codes, 0.0, rounds=1)
    assert torch.equal(codes, assign(x, start.codebook))
    for c in (0, 7, 31):
        assert torch.allclose(codebook[c], x[codes == c].mean(0), atol=1e-6)


def test_dearer_bits_are_fewer_and_light_points_share_the_cheap_codes():
    x, weights = points(4096, 2), torch.ones(4096)
    weights[2048:] = 0.01
    start = fit(x, 64, weights=weights)
    bits = []
    for price in (0.0, 0.02, 0.1, 0.5):
        _, codes = constrain(x, start.codebook, start.codes, price, weights=weights, rounds=6)
        bits.append(entropy(code_masses(codes, 64)))
    assert bits == sorted(bits, reverse=True) and bits[-1] < 0.7 * bits[0]
    heavy, light = (entropy(code_masses(part, 64)) for part in (codes[:2048], codes[2048:]))
    assert light < heavy / 2


def test_a_mass_counts_a_point_so_many_times():
    """In the codes' frequencies, that is; in the error weights do."""
    x, masses = points(300), torch.arange(300) % 3 + 1.0
    start = fit(x, 8)
    every = torch.arange(300).repeat_interleave(masses.long())
    one = constrain(x, start.codebook, start.codes, 0.3, weights=masses, masses=masses, rounds=1)[1]
    usage = code_masses(start.codes, 8, masses)
    assert torch.equal(usage, code_masses(start.codes[every], 8))
    chosen = assign_cheapest(x, start.codebook, usage, 0.3, weights=masses)
    assert torch.equal(one, chosen)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_number_of_threads_makes_no_difference(weighted):
    x = points(30000, 4)
    weights = torch.rand(30000, 1, generator=torch.Generator().manual_seed(1)) if weighted else None
    start, threads, found = fit(x, 64), torch.get_num_threads(), []
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            found.append(constrain(x, start.codebook, start.codes, 0.2, weights=weights))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_an_unused_code_stays_unused_and_points_without_error_are_fine():
    x = torch.zeros(64, 2)
    codebook, codes = constrain(x, torch.eye(2), torch.zeros(64, dtype=torch.long), 1.0)
    assert torch.equal(codes, torch.zeros(64, dtype=torch.long))
    assert torch.equal(codebook, torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
