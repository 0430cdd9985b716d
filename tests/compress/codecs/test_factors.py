import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.codecs.factors import balanced, budget_ranks, truncated_svd


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (9, 9)])
def test_the_error_is_that_of_the_svd(shape):
    matrix = torch.randn(shape, dtype=torch.float64)
    values = torch.linalg.svdvals(matrix)
    for rank in (1, 4, 9):
        left, right = truncated_svd(matrix, rank)
        error = (matrix - left @ right).square().sum()
        torch.testing.assert_close(error, values[rank:].square().sum(), atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(right @ right.T, torch.eye(rank, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_a_matrix_of_less_rank_is_exact(shape):
    matrix = torch.randn(shape[0], 3, dtype=torch.float64) @ torch.randn(3, shape[1]).double()
    left, right = balanced(*truncated_svd(matrix, 6))
    torch.testing.assert_close(left @ right, matrix)
    assert bool(torch.isfinite(left).all() & torch.isfinite(right).all())


def test_balanced_factors_are_equally_long():
    left, right = balanced(*truncated_svd(torch.randn(30, 20) * 1e-3, 5))
    torch.testing.assert_close(left.norm(dim=0), right.norm(dim=1))


@given(st.integers(2, 300), st.integers(2, 300))
def test_ranks_under_a_budget_end_where_the_factors_are_as_large_as_the_weight(rows, columns):
    ranks = budget_ranks((rows, columns))
    assert ranks == sorted(set(ranks))
    assert ranks[-1] * (rows + columns) <= rows * columns < (ranks[-1] + 1) * (rows + columns)


def test_ranks_under_a_budget_count_the_taps_of_a_convolution():
    assert budget_ranks((128, 3, 4, 4)) == budget_ranks((128, 48))
