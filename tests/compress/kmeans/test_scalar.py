import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.kmeans.scalar import fit_scalar, nearest


def error(points, centroids, codes, weights=1.0):
    return (weights * (points - centroids.gather(1, codes)).double().square()).sum(1)


def best_error(row, weights, k):
    """The least possible: all ways to cut a sorted row into k intervals."""
    order = row.argsort()
    row, weights = row[order].double(), weights[order].double()
    found = float("inf")
    for cuts in itertools.combinations(range(1, len(row)), k - 1):
        total = 0.0
        for low, high in itertools.pairwise((0, *cuts, len(row))):
            x, w = row[low:high], weights[low:high]
            total += float((w * (x - (w * x).sum() / w.sum()).square()).sum())
        found = min(found, total)
    return found


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), weighted=st.booleans())
def test_close_to_the_least_possible_error(seed, weighted):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(4, 12, generator=generator)
    weights = torch.rand(4, 12, generator=generator) + 0.1 if weighted else torch.ones(4, 12)
    centroids, codes = fit_scalar(points, 3, weights)
    reached = error(points, centroids, codes, weights).sum().item()
    least = sum(best_error(*rows, 3) for rows in zip(points, weights, strict=True))
    assert least - 1e-6 <= reached <= 1.6 * least + 1e-6


def test_separate_clusters_are_found_in_every_row():
    places = torch.tensor([-7.0, -1.0, 0.0, 3.0])
    points = places.repeat(50).expand(200, -1) + 0.01 * torch.randn(200, 200)
    centroids, codes = fit_scalar(points, 4)
    torch.testing.assert_close(centroids, places.expand(200, 4), atol=0.01, rtol=0)
    assert torch.equal(codes[:, :4], torch.arange(4).expand(200, 4))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_weight_of_three_is_three_points(seed):
    points = torch.randn(2, 30, generator=torch.Generator().manual_seed(seed))
    repeated = torch.cat([points, points[:, :10], points[:, :10]], dim=1)
    weights = torch.ones(2, 30)
    weights[:, :10] = 3
    once = fit_scalar(points, 4, weights)[0]
    torch.testing.assert_close(once, fit_scalar(repeated, 4)[0])


@pytest.mark.parametrize(
    "points", [torch.zeros(2, 5), torch.ones(1, 1), torch.tensor([[1.0, 2.0]])]
)
def test_fewer_distinct_points_than_centroids_leave_no_error(points):
    centroids, codes = fit_scalar(points, 8, torch.zeros_like(points))
    assert centroids.shape == (len(points), 8)
    assert error(points, centroids, codes).sum() == 0


def test_codes_are_the_nearest_and_ties_go_to_the_lower():
    centroids = torch.tensor([[0.0, 1.0, 4.0]])
    points = torch.tensor([[-9.0, 0.5, 0.6, 2.5, 2.6, 99.0]])
    assert nearest(points, centroids).tolist() == [[0, 0, 1, 1, 2, 2]]
