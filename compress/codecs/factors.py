"""Factors of a matrix: what the low-rank methods share. In double precision, so that they are the
same bytes in fp16 whatever the number of threads."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.blocks import row_size

BUDGET_PARTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)  # of what saves nothing


def budget_ranks(shape: Sequence[int]) -> list[int]:
    """Ranks that are tried under a size budget for a weight of `shape`, up to the one whose two
    factors have as many entries as the weight itself."""
    rows, columns = shape[0], row_size(shape)
    whole = rows * columns / (rows + columns)
    return sorted({max(1, int(part * whole)) for part in BUDGET_PARTS})


def sides(sensitivity: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor, bool]:
    """What rows (out,) and columns (in,) are to be multiplied with: the roots of the means of a
    sensitivity, and whether their product is all of it, as it is where it belongs to outputs, to
    inputs, or to both. No weight counts for nothing, else its row could be anything."""
    matrix = weight.flatten(1).double()
    if sensitivity is None:
        return torch.ones_like(matrix[:, 0]), torch.ones_like(matrix[0]), True
    given = sensitivity.expand(weight.shape).flatten(1).double().contiguous()
    given = given + 1e-6 * given.max() + 1e-30
    rows, columns = given.mean(1), given.mean(0) / given.mean()
    whole = (rows[:, None] * columns - given).abs().max() <= 1e-6 * given.max()
    return rows.sqrt(), columns.sqrt(), bool(whole)


def truncated_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """left (n, rank) and right (rank, d) of the best approximation of `matrix` (n, d), float64.

    The rows of `right` are orthonormal and the largest entry of each is positive. It comes from the
    eigenvectors of the smaller Gram matrix; where the rank of the matrix is less, zeros follow.
    """
    a = matrix.double()
    n, d = a.shape
    gram = a.T @ a if d <= n else a @ a.T
    vectors = torch.linalg.eigh(gram).eigenvectors[:, -rank:].flip(1)  # largest first
    right = vectors.T if d <= n else _unit(vectors.T @ a)
    largest = right.abs().argmax(dim=1, keepdim=True)
    right = right * right.gather(1, largest).sign()
    return a @ right.T, right


def singular_values(matrix: Tensor) -> Tensor:
    """Of `matrix` (n, d), float64, smallest first: (min(n, d),)."""
    a = matrix.double()
    gram = a.T @ a if a.shape[1] <= a.shape[0] else a @ a.T
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()


def balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product, each column of `left` as long as its row of `right`: fit for fp16."""
    lengths = left.norm(dim=0), right.norm(dim=1)  # (rank,) each
    ratio = torch.where(lengths[0] > 0, (lengths[1] / lengths[0]).sqrt(), 1.0)
    return left * ratio, torch.where(lengths[0] > 0, 1 / ratio, 0.0)[:, None] * right


def _unit(rows: Tensor) -> Tensor:
    """Orthogonal rows, each of length 1, but for those that are zero (to rounding)."""
    length = rows.norm(dim=1, keepdim=True)
    there = length > 1e-8 * length.max()
    return torch.where(there, rows / length.clamp_min(1e-300), 0.0)
