"""Sums whose bytes do not depend on the order."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.kmeans import consolidate, distance, fit, halving, kernels_torch
from compress.kmeans.sums import cumulative, group_sum, group_sum_fixed, two_to


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3000), st.integers(-60, 60), st.integers(0, 99))
def test_integer_sums_are_exact_enough_and_free_of_order(m, exponent, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(m, 3, generator=generator, dtype=torch.float64) * 2.0**exponent
    group = torch.randint(7, (m,), generator=generator)
    order = torch.randperm(m, generator=generator)
    fixed = group_sum_fixed(values, group, 7)
    assert torch.equal(fixed, group_sum_fixed(values[order], group[order], 7))
    assert torch.allclose(fixed, group_sum(values, group, 7), rtol=0, atol=1e-9 * 2.0**exponent)


def test_powers_of_two_are_exact():
    exponent = torch.arange(-1000, 1001)
    assert two_to(exponent).tolist() == [2.0**e for e in range(-1000, 1001)]


def test_cumulative_ends_at_one_and_never_falls():
    values = torch.rand(3, 1000, dtype=torch.float64) ** 8
    values[1] = 0.0
    share = cumulative(values)
    assert bool((share[:, -1] == 1.0).all()) and bool((share.diff(dim=1) >= 0).all())
    expected = values[0].cumsum(0) / values[0].sum()
    assert torch.allclose(share[0], expected)
    assert torch.allclose(share[1], torch.arange(1, 1001).double() / 1000, atol=1e-6, rtol=0)


def test_a_fit_with_the_sums_of_a_gpu(gaussian, monkeypatch):
    x = gaussian(zero=0.2)
    expected = fit(x, 40)
    for module in (distance, halving):
        monkeypatch.setattr(module, "backend", lambda device: "torch")
    for module in (kernels_torch, halving, consolidate):
        monkeypatch.setattr(module, "group_sum", group_sum_fixed)
    found = fit(x, 40)
    assert abs(found.relative_distortion / expected.relative_distortion - 1) < 1e-3
    assert found.dead == 0 and sum(found.empty_trace) == 0
