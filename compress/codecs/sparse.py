"""SqueezeLLM (Kim et al. 2023, arXiv 2306.07629): dense and sparse quantization. A few outliers are
kept as they are; all else is one of 2^bits values of its output channel, found by k-means weighted
by sensitivity (sections 4.1 and 4.2)."""

import time
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.blocks import row_size
from compress.codecs.packed import PackedCodec
from compress.codecs.registry import register
from compress.codecs.report import FitReport
from compress.config import CodecConfig
from compress.errors import InputError
from compress.kmeans.scalar import fit_scalar, nearest

# Part of the outliers that are the most sensitive weights, 0.05 of 0.45 %; the others are large.
SENSITIVE = 1 / 9
BUDGET_BITS = (2, 3, 4, 5, 6)  # tried under a size budget


class SparseConfig(CodecConfig):
    """`bits` for each weight, but for the part `outliers` of them that stays in fp16."""

    shown: ClassVar[tuple[str, ...]] = ("bits", "outliers")
    method: Literal["sparse"] = "sparse"
    bits: Annotated[int, Field(ge=2, le=8)] = 4
    outliers: Annotated[float, Field(ge=0, le=0.5)] = 0.0045


@register("sparse")
class SparseCodec(PackedCodec):
    """Packed codes, table (out, 2^bits): the values of each channel; the outliers in CSR form:
    values (m,), columns int16 | int32 (m,), row_starts int32 (out + 1,)."""

    Settings = SparseConfig
    settings: SparseConfig
    columns: Tensor
    row_starts: Tensor
    unpacked = torch.uint8

    def __init__(self, shape: Sequence[int], settings: SparseConfig):
        out, n = shape[0], row_size(shape)
        super().__init__(shape, settings, count=out * n, size=1 << settings.bits)
        m = int(settings.outliers * out * n)
        self.table = nn.Parameter(torch.zeros(out, 1 << settings.bits))
        self.values = nn.Parameter(torch.zeros(m))
        kind = torch.int16 if n <= 1 << 15 else torch.int32
        self.register_buffer("columns", torch.zeros(m, dtype=kind))
        self.register_buffer("row_starts", torch.zeros(out + 1, dtype=torch.int32))

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        weight: Tensor,
        settings: SparseConfig,
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
    ) -> tuple[Self, FitReport]:
        """Sets the outliers of `weight` (out, ...) apart and clusters the rest of each row.

        Outliers are the largest weights and, where a sensitivity is given, those that would do the
        most harm as zeros (all weights of a sensitive input are equally sensitive).
        Raises InputError for NaN or Inf in the weight and values beyond fp16.
        """
        started = time.perf_counter()
        weight = cls.checked(weight, settings)
        codec = cls(weight.shape, settings).to(weight.device)
        rows = weight.flatten(1)  # (out, n)
        given = cls.checked_sensitivity(sensitivity, weight)
        wide = None if given is None else given.expand(weight.shape).flatten(1)
        harm = None if wide is None else wide * rows.square()  # of a zero in its place
        outlier = _outliers(rows, len(codec.values), harm)  # (out, n) bool
        weights = (torch.ones_like(rows) if wide is None else wide).masked_fill(outlier, 0.0)
        table = fit_scalar(rows, codec.size, weights)[0].half().float()
        codec.table.copy_(table)
        codec.put_codes(nearest(rows, table).flatten())
        codec.values.copy_(rows[outlier].half().float())
        codec.columns.copy_(outlier.nonzero()[:, 1])
        codec.row_starts[1:] = outlier.sum(1).cumsum(0)
        codec.check()
        return codec, codec.measured(weight, started, given)

    @classmethod
    def candidates(cls, shape: Sequence[int], nominal: Any) -> list[SparseConfig]:
        """Only for groups of this method: where it is not asked for, `uniform` is faster."""
        if not isinstance(nominal, SparseConfig):
            return []
        return [nominal.model_copy(update={"bits": bits}) for bits in BUDGET_BITS]

    def decode(self) -> Tensor:
        every = torch.arange(self.shape[0], device=self.row_starts.device)
        return self.decode_rows(every).view(self.shape)

    def decode_rows(self, rows: Tensor) -> Tensor:
        flat = rows.flatten()
        codes = self._indices().view(self.shape[0], -1)[flat]  # (rows, n)
        weight = self.table[flat].gather(1, codes.long())
        row, at = self._outliers_of(flat)
        weight = weight.index_put((row, self.columns[at].long()), self.values[at])
        return weight.view(*rows.shape, -1)

    def _outliers_of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Which of `rows` (r,) each of their outliers is in, and its place among all outliers."""
        starts = self.row_starts[rows].long()
        counts = self.row_starts[rows + 1].long() - starts  # (r,)
        row = torch.arange(len(rows), device=rows.device).repeat_interleave(counts)
        before = (counts.cumsum(0) - counts)[row]
        return row, starts[row] + torch.arange(len(row), device=rows.device) - before

    def check(self) -> None:
        super().check()
        starts, m = self.row_starts.long(), len(self.values)
        if int(starts[0]) != 0 or int(starts[-1]) != m or bool((starts.diff() < 0).any()):
            raise InputError(f"row_starts do not divide {m} outliers among {self.shape[0]} rows")
        if m and not 0 <= int(self.columns.min()) <= int(self.columns.max()) < row_size(self.shape):
            raise InputError(f"columns of outliers lie beyond the {row_size(self.shape)} of a row")


def _outliers(rows: Tensor, count: int, harm: Tensor | None) -> Tensor:
    """Which `count` weights of `rows` (out, n) are kept; ties go to the first."""
    chosen = torch.zeros(rows.numel(), dtype=torch.bool, device=rows.device)
    sensitive = 0 if harm is None else round(SENSITIVE * count)
    if harm is not None:
        order = harm.flatten().argsort(descending=True, stable=True)
        chosen[order[:sensitive]] = True
    size = rows.abs().flatten().masked_fill(chosen, -1.0)
    chosen[size.argsort(descending=True, stable=True)[: count - sensitive]] = True
    return chosen.view(rows.shape)
