"""Points no benchmark has: empty, constant, far away, tiny, huge, half precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compress.kmeans import assign, fit

LARGE = 3.0 * 2.0**126  # nearly the largest float32
shapes = st.tuples(st.integers(1, 40), st.integers(1, 9))
anything = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-LARGE, max_value=LARGE),
    st.floats(width=32, allow_nan=False, min_value=-1.0, max_value=1.0),
    st.sampled_from([0.0, -0.0, 1.0, 1e-42, LARGE, -LARGE]),
)


@settings(max_examples=60, deadline=None)
@given(arrays("float32", shapes, elements=anything), st.integers(1, 12), st.integers(0, 4))
def test_any_finite_points(values, k, iterations):
    x = torch.from_numpy(values)
    result = fit(x, k, iterations=iterations)
    assert bool(torch.isfinite(result.codebook).all())
    assert torch.equal(result.codes, assign(x, result.codebook))
    assert result.dead == k - result.codes.unique().numel()
    assert 0.0 <= result.relative_distortion < 1.0 + 1e-6
    assert all(0.0 <= v < float("inf") for v in result.distortion_trace)


@settings(max_examples=40, deadline=None)
@given(
    arrays("int8", shapes, elements=st.integers(-3, 3)), st.integers(1, 12), st.integers(0, 2**31)
)
def test_no_centroid_is_dead_while_there_are_points_for_it(values, k, seed):
    x = torch.from_numpy(values).float()
    result = fit(x, k, seed=seed, iterations=5)
    distinct = x.unique(dim=0).shape[0]
    assert result.dead == max(0, k - distinct)
    if k >= distinct:
        assert torch.equal(result.codebook[result.codes], x)
        assert result.relative_distortion == 0.0


@settings(max_examples=15, deadline=None)
@given(st.integers(-140, 120))
def test_a_power_of_two_changes_nothing_but_the_scale(exponent):
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
    x = (x * 64).round() / 64  # few bits, so that denormals hold them
    x = x.clamp(-3, 3)
    scaled = (x.double() * 2.0**exponent).float()
    if not torch.equal(scaled.double() * 2.0**-exponent, x.double()):
        return  # not even the points survive this scale
    a, b = fit(x, 9), fit(scaled, 9)
    assert torch.equal(a.codes, b.codes)
    assert a.relative_distortion == pytest.approx(b.relative_distortion, rel=1e-6)


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6])
def test_a_huge_offset_costs_no_accuracy(offset):
    grid = torch.randint(-64, 64, (4000, 4), generator=torch.Generator().manual_seed(0)) / 8.0
    near, far = fit(grid, 32), fit(grid + offset, 32)  # on a grid, so that adding is exact
    error = [
        float((x.double() - r.codebook.double()[r.codes]).square().sum())
        for x, r in ((grid, near), (grid + offset, far))
    ]
    # the codebook itself is rounded to float32: 0.06 a coordinate at 1e6
    assert error[1] < 1.01 * error[0] + 4000 * 4 * (offset * 2**-24) ** 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_as_float32(gaussian, dtype):
    x = gaussian().to(dtype)
    a, b = fit(x, 20), fit(x.float(), 20)
    assert torch.equal(a.codebook, b.codebook) and torch.equal(a.codes, b.codes)
    assert torch.equal(assign(x, a.codebook), a.codes)


def test_no_points_and_one_point():
    none = fit(torch.zeros(0, 4), 8)
    assert none.dead == 8 and none.codes.shape == (0,) and none.codebook.shape == (8, 4)
    assert assign(torch.zeros(0, 4), none.codebook).shape == (0,)
    for x in (torch.full((50, 4), 3.5), torch.zeros(50, 4), torch.ones(1, 4)):
        result = fit(x, 8)
        assert result.dead == 7 and result.relative_distortion == 0.0
        assert torch.equal(result.codebook[result.codes], x)


def test_parameters_views_and_odd_strides(gaussian):
    weight = torch.nn.Parameter(gaussian(d=16))
    view = weight.T.reshape(-1, 8)[::3]
    assert torch.equal(fit(view, 5).codes, fit(view.detach().clone(), 5).codes)
