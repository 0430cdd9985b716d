"""What every fit promises, whatever its settings."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from compress.errors import InputError
from compress.kmeans import assign, fit, fit_batched
from compress.kmeans.options import RESOLUTIONS, SEEDINGS


def relative(x, result):
    error = (x.double() - result.codebook.double()[result.codes]).square().sum()
    return float(error / x.double().square().sum())


@pytest.mark.parametrize("seeding", SEEDINGS)
@pytest.mark.parametrize("empties", RESOLUTIONS)
def test_codes_are_the_nearest_and_the_distortion_is_theirs(gaussian, device, seeding, empties):
    x = gaussian().to(device)
    result = fit(x, 37, seeding=seeding, empties=empties, iterations=6)
    assert result.codebook.shape == (37, 8) and result.codebook.dtype == torch.float32
    assert result.codes.shape == (3000,) and result.codes.dtype == torch.int64
    assert torch.equal(result.codes, assign(x, result.codebook))
    assert result.relative_distortion == pytest.approx(relative(x, result), rel=1e-5)
    assert result.dead == 37 - result.codes.unique().numel() == 0
    assert len(result.distortion_trace) == len(result.empty_trace) == result.iterations == 6
    assert result.relative_distortion < result.distortion_trace[0]


def test_distortion_never_rises_under_over_relaxation(gaussian):
    trace = fit(gaussian(), 64, relaxation=1.9, sample=None, iterations=25).distortion_trace
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(trace))


def test_a_converged_fit_stops_and_is_a_fixed_point(gaussian):
    x = gaussian(n=400)
    result = fit(x, 8, iterations=500)
    assert result.iterations < 500
    means = torch.stack([x[result.codes == j].mean(dim=0) for j in range(8)])
    assert torch.allclose(result.codebook, means, atol=1e-5)


def test_the_default_beats_the_baselines_and_annealing_beats_the_default(gaussian):
    x = gaussian(n=6000)
    plain = {"relaxation": 1.0, "empties": "partition"}
    ours = fit(x, 64).relative_distortion
    for seeding in ("random", "kmeans++", "partition-even"):
        assert ours < 0.995 * fit(x, 64, seeding=seeding, **plain).relative_distortion
    assert fit(x, 64, anneal=40).relative_distortion < 0.998 * ours


def test_sampling_costs_little_distortion_and_keeps_outliers(gaussian):
    x = gaussian(n=20000)
    x[7777] = 500.0  # one point with more energy than all others
    full, sampled = fit(x, 16, sample=None), fit(x, 16, sample=64)
    assert sampled.relative_distortion < 1.05 * full.relative_distortion
    assert torch.allclose(sampled.codebook[sampled.codes[7777]], x[7777])


def test_batched_equals_one_by_one(gaussian, device):
    x = torch.stack([gaussian(seed=s, zero=s / 4) * (s + 1) for s in range(4)]).to(device)
    weights = torch.rand(4, 3000, generator=torch.Generator().manual_seed(5)).to(device)
    for w in (None, weights):
        batch = fit_batched(x, 48, iterations=5, weights=w)
        for i, result in enumerate(batch):
            alone = fit(
                x[i], 48, iterations=5, weights=None if w is None else w[i], consolidation="off"
            )
            assert torch.equal(result.codebook, alone.codebook)
            assert torch.equal(result.codes, alone.codes)
            assert result.distortion_trace == alone.distortion_trace
            assert result.relative_distortion == alone.relative_distortion


def test_batched_with_seeds_equals_one_by_one_also_where_consolidation_pays(gaussian, device):
    x = torch.stack([gaussian(seed=s) for s in range(3)]).to(device)
    x[1, 1500:] = x[1, :1500]  # half of it are duplicates
    batch = fit_batched(x, 48, iterations=4, seed=[7, 8, 9], anneal=2, consolidation="auto")
    for i, result in enumerate(batch):
        alone = fit(x[i], 48, iterations=4, seed=7 + i, anneal=2)
        assert torch.equal(result.codebook, alone.codebook)
        assert torch.equal(result.codes, alone.codes)
        assert result.distortion_trace == alone.distortion_trace
    other = fit_batched(x, 48, iterations=4, seed=[7, 8, 7], anneal=2)
    assert not torch.equal(other[2].codebook, batch[2].codebook)
    with pytest.raises(InputError, match="2 seeds"):
        fit_batched(x, 48, seed=[1, 2])


@pytest.mark.parametrize(
    "points, k, options, says",
    [
        (torch.tensor([[1.0], [float("nan")]]), 2, {}, "row 1"),
        (torch.tensor([[1.0], [float("inf")]]), 2, {}, "NaN or Inf"),
        (torch.ones(4, 2), 0, {}, "k must be"),
        (torch.ones(4), 2, {}, "shape"),
        (torch.ones(4, 2, dtype=torch.int32), 2, {}, "floating"),
        (torch.ones(4, 2), 2, {"weights": torch.ones(3)}, "weights"),
        (torch.ones(4, 2), 2, {"weights": -torch.ones(4)}, "negative"),
        (torch.ones(4, 2), 2, {"seeding": "best"}, "choose from"),
        (torch.ones(4, 2), 2, {"relaxation": 2.0}, "relaxation"),
        (torch.ones(4, 2), 2, {"sample": 0}, "sample"),
        (torch.ones(4, 2), 2, {"consolidation": "maybe"}, "consolidation"),
    ],
)
def test_bad_input_is_named(points, k, options, says):
    with pytest.raises(InputError, match=says):
        fit(points, k, **options)


def test_a_codebook_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="does not fit"):
        assign(torch.ones(4, 2), torch.ones(3, 5))


def test_importing_costs_no_numba():
    code = "import sys, compress.kmeans; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_callers_random_state_is_left_alone(gaussian):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    fit(gaussian(), 8, anneal=2)
    assert torch.equal(torch.rand(1), expected)
