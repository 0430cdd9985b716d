"""MESSI, projective clustering (Maalouf, Lang, Rus and Feldman 2020, "Deep Learning Meets
Projective Clustering", arXiv 2010.04290): every row lies near one of k subspaces of dimension j. A
single subspace is the SVD; several fit rows of different kinds, as an embedding has them."""

import time
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.blocks import row_size
from compress.codecs.factors import budget_ranks, sides, truncated_svd
from compress.codecs.packed import PackedCodec
from compress.codecs.registry import register
from compress.codecs.report import FitReport
from compress.config import CodecConfig, Positive


class SubspaceConfig(CodecConfig):
    """`subspaces` of `dimension`: a row is its subspace's number and `dimension` coefficients."""

    shown: ClassVar[tuple[str, ...]] = ("subspaces", "dimension")
    method: Literal["subspace"] = "subspace"
    subspaces: Annotated[int, Field(ge=1, le=256)] = 4
    dimension: Positive = 32
    iterations: Positive = 20
    restarts: Positive = 2


@register("subspace")
class SubspaceCodec(PackedCodec):
    """Packed codes (out,): the subspace of each row; coefficients (out, j); bases (k, j, in)."""

    Settings = SubspaceConfig
    settings: SubspaceConfig

    def __init__(self, shape: Sequence[int], settings: SubspaceConfig):
        k, j = settings.subspaces, settings.dimension
        super().__init__(shape, settings, count=shape[0], size=k)
        self.coefficients = nn.Parameter(torch.zeros(shape[0], j))
        self.bases = nn.Parameter(torch.zeros(k, j, row_size(shape)))

    @classmethod
    def problems(cls, shape: Sequence[int], settings: SubspaceConfig) -> list[str]:
        k, j, n = settings.subspaces, settings.dimension, row_size(shape)
        found = []
        if j > min(n, shape[0]):
            found.append(f"dimension {j} is more than the weight has; at most {min(n, shape[0])}")
        if k > shape[0]:
            found.append(f"{k} subspaces are more than the {shape[0]} rows; lower them")
        return found

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        weight: Tensor,
        settings: SubspaceConfig,
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
    ) -> tuple[Self, FitReport]:
        """Alternates between the nearest subspace of each row of `weight` (out, ...) and the best
        subspace of its rows (EM), from several starts; the one of least error counts.

        Errors are weighted by the product of the means of a sensitivity over rows and over columns.
        Raises InputError for NaN or Inf in the weight, values beyond fp16, and where `problems` has
        something.
        """
        started = time.perf_counter()
        weight = cls.checked(weight, settings)
        codec = cls(weight.shape, settings).to(weight.device)
        given = cls.checked_sensitivity(sensitivity, weight)
        outputs, inputs, _ = sides(given, weight)
        columns = (weight.flatten(1) * inputs).float()  # (out, in)
        rows = (columns * outputs[:, None]).float()
        generator = torch.Generator().manual_seed(seed)
        starts = settings.restarts if settings.subspaces > 1 else 1
        fits = [_cluster(rows, settings, generator) for _ in range(starts)]
        codes, bases, _ = min(fits, key=lambda fit: fit[2])
        codec.bases.copy_((bases / inputs).half())
        codec.put_codes(codes)
        for c, basis in enumerate(codec.bases):
            own = codes == c
            codec.coefficients[own] = (columns[own] @ (basis * inputs).float().T).half().float()
        codec.check()
        return codec, codec.measured(weight, started, given)

    @classmethod
    def candidates(cls, shape: Sequence[int], nominal: Any) -> list[SubspaceConfig]:
        """Only for groups of this method: few weights have a low rank."""
        if not isinstance(nominal, SubspaceConfig):
            return []
        return [
            nominal.model_copy(update={"dimension": dimension}) for dimension in budget_ranks(shape)
        ]

    @classmethod
    def expected_distortions(
        cls,
        weight: Tensor,
        settings: Sequence[SubspaceConfig],
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
        statistics: Tensor | None = None,
    ) -> list[float]:
        """After a few steps of EM, of the whole weight: a part of its rows has a lower rank."""
        light = [one.model_copy(update={"restarts": 1, "iterations": 4}) for one in settings]
        fits = (cls.fit(weight, one, seed=seed, sensitivity=sensitivity) for one in light)
        return [report.minimized for _, report in fits]

    def decode(self) -> Tensor:
        every = torch.arange(self.shape[0], device=self.codes.device)
        return self.decode_rows(every).view(self.shape)

    def decode_rows(self, rows: Tensor) -> Tensor:
        flat = rows.flatten()
        order = self._indices()[flat].argsort(stable=True)  # rows of one subspace lie together
        chosen = flat[order]
        counts = torch.bincount(self._indices()[chosen], minlength=self.size).tolist()
        parts = self.coefficients[chosen].split(counts)
        decoded = torch.cat([part @ basis for part, basis in zip(parts, self.bases, strict=True)])
        return decoded[order.argsort()].view(*rows.shape, -1)


def _cluster(
    rows: Tensor, settings: SubspaceConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """Codes (n,), orthonormal bases (k, j, d), squared error: EM from one random start."""
    k, j = settings.subspaces, settings.dimension
    picked = torch.randperm(len(rows), generator=generator)[:k].to(rows.device)
    lines = torch.nn.functional.normalize(rows[picked])
    codes = (rows @ lines.T).abs().argmax(dim=1)  # the line that a row is nearest to by angle
    energy = rows.double().square().sum(1)
    bases = rows.new_zeros(k, j, rows.shape[1])
    rest = energy  # of each row, outside its subspace
    for _ in range(settings.iterations):
        for c in range(k):
            own = (codes == c).nonzero()[:, 0]
            if not len(own):  # a subspace that lost its rows takes those that fit worst
                own = rest.argsort(descending=True, stable=True)[:j]
            bases[c] = _basis(rows[own], j)
        inside = torch.stack([(rows @ basis.T).double().square().sum(1) for basis in bases], 1)
        best, nearest = inside.max(dim=1)
        rest = energy - best
        if torch.equal(nearest, codes):
            break
        codes = nearest
    return codes, bases, float(rest.sum())


def _basis(rows: Tensor, rank: int) -> Tensor:
    """(rank, d) of the best subspace; zeros follow where there are fewer rows."""
    found = truncated_svd(rows, min(rank, *rows.shape))[1].float()
    return torch.nn.functional.pad(found, (0, 0, 0, rank - len(found)))
