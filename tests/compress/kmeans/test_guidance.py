"""Partitioning-guided seeding and resolution: no cluster starts empty, none stays empty."""

import pytest
import torch

from compress.kmeans import fit
from compress.kmeans.baselines import TENTATIVES
from compress.kmeans.halving import halve, project


@pytest.mark.parametrize("seeding", ["partition", "partition-even"])
@pytest.mark.parametrize("zero", [0.0, 0.5, 0.9])
def test_no_cluster_is_ever_empty(gaussian, device, seeding, zero):
    result = fit(gaussian(n=8000, zero=zero).to(device), 200, seeding=seeding)
    assert sum(result.empty_trace) == 0 and result.dead == 0 and result.resolution_rounds == 0


@pytest.mark.parametrize("k", [1, 2, 3, 7, 31, 100])
def test_any_k(gaussian, k):
    assert fit(gaussian(n=500), k).codes.unique().numel() == k


def test_random_seeding_starts_with_its_duplicate_draws_empty(gaussian):
    x = gaussian(n=8000, zero=0.5)
    result = fit(x, 200, seeding="random", iterations=1)
    assert 70 <= result.empty_trace[0] <= 130  # half of the draws are the same zero block


def test_resolution_fills_every_empty_cluster_in_few_rounds(gaussian, device):
    x = gaussian(n=8000, zero=0.5).to(device)
    result = fit(x, 200, seeding="random", empties="partition")
    assert result.empty_trace[0] > 50 and result.dead == 0 and not result.failed
    assert result.resolution_rounds <= 4


def test_fairseqs_rule_cannot_divide_identical_points_and_says_so(gaussian):
    x = gaussian(n=8000, zero=0.5)
    result = fit(x, 200, seeding="random", empties="perturb", relaxation=1.0)
    assert result.failed and result.dead > 0 and result.iterations == 1
    assert result.resolution_rounds == TENTATIVES + 1


def test_fairseqs_rule_does_divide_distinct_points(gaussian):
    x = gaussian(n=8000, zero=0.01)
    result = fit(x, 200, seeding="random", empties="perturb", relaxation=1.0)
    assert result.empty_trace[0] > 0 and not result.failed and result.dead == 0


def test_guidance_meets_a_hundredth_of_the_baselines_empty_clusters(gaussian):
    x = gaussian(n=8000, zero=0.5)
    ours = sum(fit(x, 200).empty_trace)
    theirs = sum(fit(x, 200, seeding="random", empties="perturb", relaxation=1.0).empty_trace)
    assert theirs >= 50 and 100 * ours <= theirs


def test_points_are_projected_on_the_direction_of_the_greatest_variance():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 6, generator=generator, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    z = z * torch.tensor([5.0, 1, 1, 1, 1, 1]) @ axes.T
    group = torch.arange(4000) % 2
    along = project(z, torch.ones_like(z[:, :1]), group, 2)
    for g in range(2):
        pair = torch.stack([along[group == g], (z @ axes[:, 0])[group == g]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) > 0.99


@pytest.mark.parametrize("even", [False, True])
def test_halves_are_proper_unless_the_points_coincide(gaussian, even):
    z = torch.cat([gaussian(n=300), torch.ones(50, 8), torch.zeros(90, 8), gaussian(n=10)]).double()
    group = torch.tensor([0] * 300 + [1] * 50 + [2] * 100)
    cut = halve(z, None, group, 3, even)
    assert cut.proper.tolist() == [True, False, True]
    assert cut.count.view(3, 2).sum(dim=1).tolist() == [300, 50, 100]
    if even:
        assert cut.count[:2].tolist() == [150, 150]
    whole = torch.stack([((z - z[group == g].mean(0))[group == g] ** 2).sum() for g in range(3)])
    assert bool((cut.distortion.view(3, 2).sum(dim=1) <= whole + 1e-9).all())
