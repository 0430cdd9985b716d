"""Low rank: a weight as the product of two thin matrices, by SVD or, for p < 2, of small l_p error
(Tukan, Maalouf, Weksler and Feldman 2020, "Compressed Deep Networks: Goodbye SVD, Hello Robust
Low-Rank Approximation", arXiv 2009.05647).

The paper solves for p with Lowner ellipsoids; here it is iteratively reweighted least squares from
the SVD on, which keeps the best factors it meets, so the l_p error is never above that of the SVD.
"""

import time
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.blocks import row_size
from compress.codecs.base import Codec
from compress.codecs.factors import (
    balanced,
    budget_ranks,
    sides,
    singular_values,
    truncated_svd,
)
from compress.codecs.registry import register
from compress.codecs.report import FitReport
from compress.config import CodecConfig, Positive

VALUES = 1 << 22  # of the equations that are set up at a time
RIDGE = 1e-9  # of the mean diagonal, so that the equations can always be solved


class LowRankConfig(CodecConfig):
    """Two factors of `rank` columns; p: the norm of the error, 2 is the SVD."""

    shown: ClassVar[tuple[str, ...]] = ("rank", "p")
    method: Literal["lowrank"] = "lowrank"
    rank: Positive = 32
    p: Annotated[float, Field(ge=1, le=2)] = 2.0
    iterations: Positive = 20


@register("lowrank")
class LowRankCodec(Codec):
    """left (out, rank) and right (rank, in): the weight is left @ right."""

    Settings = LowRankConfig
    settings: LowRankConfig

    def __init__(self, shape: Sequence[int], settings: LowRankConfig):
        super().__init__(shape, settings)
        self.left = nn.Parameter(torch.zeros(shape[0], settings.rank))
        self.right = nn.Parameter(torch.zeros(settings.rank, row_size(shape)))

    @classmethod
    def problems(cls, shape: Sequence[int], settings: LowRankConfig) -> list[str]:
        full = min(shape[0], row_size(shape))
        if settings.rank > full:
            return [f"rank {settings.rank} is more than the {full} of the whole weight; lower it"]
        return []

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        weight: Tensor,
        settings: LowRankConfig,
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
    ) -> tuple[Self, FitReport]:
        """Factors of `weight` (out, ...) of least sum s |w - left @ right|^p, s the sensitivity.

        With p = 2 it is the SVD, weighted where s is a product of outputs and inputs. Raises
        InputError for NaN or Inf in the weight, values beyond fp16, and where `problems` has
        something.
        """
        started = time.perf_counter()
        weight = cls.checked(weight, settings)
        codec = cls(weight.shape, settings).to(weight.device)
        matrix = weight.flatten(1).double()  # (out, in)
        given = cls.checked_sensitivity(sensitivity, weight)
        rows, columns, whole = sides(given, weight)
        factors = _stored(*_weighted_svd(matrix, settings.rank, rows, columns))
        if settings.p < 2 or not whole:
            wide = None if given is None else given.expand(weight.shape).flatten(1).double()
            factors = _reweighted(matrix, factors, settings, wide)
        codec.left.copy_(factors[0])
        codec.right.copy_(factors[1])
        codec.check()
        return codec, codec.measured(weight, started, given)

    @classmethod
    def candidates(cls, shape: Sequence[int], nominal: Any) -> list[LowRankConfig]:
        """Only for groups of this method: few weights have a low rank."""
        if not isinstance(nominal, LowRankConfig):
            return []
        return [nominal.model_copy(update={"rank": rank}) for rank in budget_ranks(shape)]

    @classmethod
    @torch.no_grad()
    def expected_distortions(
        cls,
        weight: Tensor,
        settings: Sequence[Any],
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
        statistics: Tensor | None = None,
    ) -> list[float]:
        """Those of the weighted SVD that `fit` begins with, of the whole weight: a part of its rows
        has a lower rank."""
        matrix = weight.flatten(1).double()
        rows, columns, _ = sides(cls.checked_sensitivity(sensitivity, weight), weight)
        squares = singular_values(rows[:, None] * matrix * columns).square()  # smallest first
        energy = squares.sum().clamp_min(1e-300)
        return [float(squares[: len(squares) - one.rank].sum() / energy) for one in settings]

    def decode(self) -> Tensor:
        return (self.left @ self.right).view(self.shape)

    def decode_rows(self, rows: Tensor) -> Tensor:
        return self.left[rows] @ self.right


Factors = tuple[Tensor, Tensor]


def _weighted_svd(matrix: Tensor, rank: int, rows: Tensor, columns: Tensor) -> Factors:
    """Of least error, weighted by a product of rows and columns (Srebro and Jaakkola 2003): the SVD
    of the matrix so multiplied, divided again."""
    left, right = truncated_svd(rows[:, None] * matrix * columns, rank)
    return left / rows[:, None], right / columns


def _stored(left: Tensor, right: Tensor) -> Factors:
    """Balanced, and rounded to fp16."""
    left, right = balanced(left, right)
    return left.half().double(), right.half().double()


def _reweighted(
    matrix: Tensor, start: Factors, settings: LowRankConfig, sensitivity: Tensor | None
) -> Factors:
    """Weighted least squares for one factor, then the other; small errors weigh most if p < 2."""
    importance = torch.ones_like(matrix) if sensitivity is None else sensitivity

    def error(factors: Factors) -> float:
        return float((importance * (matrix - factors[0] @ factors[1]).abs() ** settings.p).sum())

    left, right = start
    best, least = start, error(start)
    tiny = 1e-6 * float(matrix.abs().mean()) + 1e-30
    for _ in range(settings.iterations):
        rest = (matrix - left @ right).abs().clamp_min(tiny)
        weights = importance * rest ** (settings.p - 2)
        left = _solve(right, matrix, weights)
        right = _solve(left.T, matrix.T, weights.T).T
        stored = _stored(left, right)
        if (reached := error(stored)) < least:
            best, least = stored, reached
    return best


def _solve(right: Tensor, matrix: Tensor, weights: Tensor) -> Tensor:
    """left (n, r) of least sum w (m - left @ right)^2, each row by itself."""
    found, rows = [], max(1, VALUES // right.numel())
    for m, w in zip(matrix.split(rows), weights.split(rows), strict=True):
        normal = torch.einsum("rd,nd,sd->nrs", right, w, right)  # (rows, r, r)
        ridge = RIDGE * normal.diagonal(dim1=1, dim2=2).mean(1) + 1e-30
        normal = normal + ridge[:, None, None] * torch.eye(
            len(right), dtype=w.dtype, device=w.device
        )
        found.append(torch.linalg.solve(normal, ((w * m) @ right.T)[..., None])[..., 0])
    return torch.cat(found)
