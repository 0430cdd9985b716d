"""Weights: a point, or a coordinate of a point (diagonal Hessian or Fisher information)."""

import pytest
import torch

from compress.errors import InputError
from compress.kmeans import assign, fit, fit_batched
from compress.kmeans.distance import sweep
from compress.kmeans.points import prepare


def weighted_error(x, w, result):
    return float((w * (x - result.codebook[result.codes]).square()).double().sum())


@pytest.mark.parametrize("kind", ["point", "coordinate"])
@pytest.mark.parametrize("using", [None, "torch"])
def test_a_pass_is_the_brute_force_weighted_one(gaussian, device, kind, using):
    x = gaussian(n=700, d=5).to(device)
    generator = torch.Generator().manual_seed(4)
    w = torch.rand(700, 5 if kind == "coordinate" else 1, generator=generator).to(device)
    points = prepare(x[None], w[None])
    row = torch.arange(9, device=device)
    centroids = points.normalized(torch.zeros_like(row), row)[None]
    found = sweep(points, centroids, using)

    z = points.normalized(torch.zeros(700, dtype=torch.int64), torch.arange(700))
    cost = (points.weights[0].double()[:, None] * (z[:, None] - centroids[0]).square()).sum(2)
    assert torch.equal(found.codes[0].long(), cost.argmin(dim=1))
    assert float(found.total) == pytest.approx(float(cost.amin(dim=1).sum()))
    for j in range(9):
        own = found.codes[0].long() == j
        v = points.weights[0].double()[own]
        mean = (v * z[own]).sum(0) / v.sum(0)
        assert torch.allclose(found.means(centroids)[0, j], mean)


def test_integer_weights_are_copies(gaussian):
    x = gaussian(n=400, d=4)
    times = torch.arange(400) % 4
    a = fit(x, 30, weights=times.float(), iterations=60)
    b = fit(x.repeat_interleave(times, dim=0), 30, iterations=60, consolidation="off")
    error = weighted_error(x, times[:, None], a), b.relative_distortion
    energy = float((times[:, None] * x.square()).sum())
    assert error[0] / energy == pytest.approx(error[1], rel=0.1)
    assert a.relative_distortion == pytest.approx(error[0] / energy, rel=1e-5)


@pytest.mark.parametrize("shape", [(2000,), (2000, 1), (1, 8), (2000, 8)])
def test_weighting_lowers_the_weighted_distortion(gaussian, device, shape):
    x = gaussian(n=2000).to(device)
    w = torch.rand(shape, generator=torch.Generator().manual_seed(6)).to(device) ** 4
    wide = (w[:, None] if w.ndim == 1 else w).expand(2000, 8)
    weighted, plain = fit(x, 32, weights=w), fit(x, 32)
    assert weighted_error(x, wide, weighted) < 0.98 * weighted_error(x, wide, plain)
    expected = weighted_error(x, wide, weighted) / float((wide * x.square()).double().sum())
    assert weighted.relative_distortion == pytest.approx(expected, rel=1e-4)


def test_the_scale_of_the_weights_does_not_matter(gaussian):
    x, w = gaussian(n=500), torch.rand(500, 8, generator=torch.Generator().manual_seed(1))
    a, b = fit(x, 9, weights=w), fit(x, 9, weights=w * 2.0**-40)
    assert torch.equal(a.codebook, b.codebook) and torch.equal(a.codes, b.codes)


def test_points_without_weight_are_assigned_but_pull_nothing(gaussian):
    x = gaussian(n=500)
    w = torch.ones(500)
    w[250:] = 0.0
    x[250:] += 100.0
    result = fit(x, 8, weights=w)
    assert float(result.codebook.abs().max()) < 10.0
    nothing = fit(x, 8, weights=torch.zeros(500))
    assert nothing.relative_distortion == 0.0 and bool(torch.isfinite(nothing.codebook).all())


@pytest.mark.parametrize("shape", [(700,), (700, 1), (1, 5), (700, 5)])
def test_assignment_goes_by_the_weighted_distance(gaussian, device, shape):
    x = gaussian(n=700, d=5).to(device)
    w = torch.rand(shape, generator=torch.Generator().manual_seed(2)).to(device) ** 4
    codebook = x[:20].clone()
    wide = (w[:, None] if w.ndim == 1 else w).double()
    cost = (wide[:, None] * (x[:, None] - codebook).double().square()).sum(2)  # (n, k)
    assert torch.equal(assign(x, codebook, w), cost.argmin(dim=1))
    if wide.shape[1] == 1:
        assert torch.equal(assign(x, codebook, w), assign(x, codebook))
    result = fit(x, 9, weights=w)
    assert torch.equal(assign(x, result.codebook, w), result.codes)


def test_assignment_refuses_weights_that_do_not_fit(gaussian):
    x = gaussian(n=50)
    for bad in (torch.ones(50, 7), -torch.ones(50), torch.full((1, 8), float("nan"))):
        with pytest.raises(InputError, match="weights"):
            assign(x, x[:4], bad)


def test_a_batch_with_weights_equals_single_fits_whatever_their_scales(gaussian, device):
    x = torch.stack([gaussian(n=600, seed=1), gaussian(n=600, seed=2)]).to(device)
    w = torch.rand(x.shape, generator=torch.Generator().manual_seed(3)).to(device)
    w[1] *= 1e-30
    for i, result in enumerate(fit_batched(x, 16, weights=w, seed=[5, 6])):
        alone = fit(x[i], 16, weights=w[i], seed=[5, 6][i], consolidation="off")
        assert torch.equal(result.codebook, alone.codebook)
        assert torch.equal(result.codes, alone.codes)
