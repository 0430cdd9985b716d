"""Dense-weights consolidation: points that coincide are one weighted point with one code."""

import pytest
import torch

from compress.kmeans import assign, fit
from compress.kmeans.consolidate import consolidate, pays
from compress.kmeans.points import prepare


def test_it_is_off_where_it_changes_nothing(gaussian):
    x = gaussian()
    assert not pays(prepare(x[None])) and consolidate(prepare(x[None]), 8, 0.0) is None
    auto, off = fit(x, 20), fit(x, 20, consolidation="off")
    assert torch.equal(auto.codebook, off.codebook)


@pytest.mark.parametrize("zero", [0.5, 0.9])
def test_pruned_points_shrink_and_lose_nothing(gaussian, device, zero):
    x = gaussian(n=8000, zero=zero).to(device)
    points = prepare(x[None])
    merged = consolidate(points, 100, 0.0)
    assert pays(points) and merged is not None and merged.scatter == 0.0
    assert merged.points.shape[1] == x.unique(dim=0).shape[0]
    assert torch.equal(merged.points.values[0][merged.member], x)
    assert float(merged.points.weights.sum()) == 8000
    result = fit(x, 100)
    assert torch.equal(result.codes, assign(x, result.codebook))
    assert result.dead == 0
    off = fit(x, 100, consolidation="off")
    assert result.relative_distortion < 1.04 * off.relative_distortion


def test_already_quantized_weights(gaussian):
    x = (gaussian(n=20000, d=4) * 1.5).round().clamp(-2, 2)  # at most 625 distinct blocks
    merged = consolidate(prepare(x[None]), 64, 0.0)
    assert merged.points.shape[1] <= 625
    assert fit(x, 625).relative_distortion == 0.0


def test_minus_zero_is_zero():
    x = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [2.0, 3.0]])
    assert consolidate(prepare(x[None]), 2, 0.0).points.shape[1] == 2


def test_near_duplicates_share_a_code(gaussian, device):
    base = gaussian(n=500)
    jitter = 1e-4 * gaussian(n=20000, seed=1)
    x = (base.repeat(40, 1) + jitter).to(device)
    merged = consolidate(prepare(x[None]), 64, 0.1)
    assert merged.points.shape[1] < 1000 and merged.scatter > 0.0
    result = fit(x, 64, consolidation=0.1)
    for cell in range(0, merged.points.shape[1], 50):
        assert result.codes[merged.member == cell].unique().numel() == 1
    error = (x - result.codebook[result.codes]).double().square().sum()
    expected = float(error / x.double().square().sum())
    assert result.relative_distortion == pytest.approx(expected, rel=1e-4)
    assert result.relative_distortion < 1.05 * fit(x, 64).relative_distortion


def test_weights_of_merged_points_add_up():
    x = torch.tensor([[1.0], [1.0], [5.0]])
    result = fit(x, 1, weights=torch.tensor([3.0, 1.0, 4.0]), consolidation=0.0)
    assert result.codebook.item() == pytest.approx(3.0)
