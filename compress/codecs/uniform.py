"""Uniform quantization: every weight is a small integer times a step (Nagel et al. 2021, "A White
Paper on Neural Network Quantization", arXiv 2106.08295, sections 2.2 and 3.1)."""

import time
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.blocks import row_size
from compress.codecs.base import FitReport, register
from compress.codecs.packed import PackedCodec
from compress.config import CodecConfig

SHRINK = torch.arange(100, 19, -2) / 100  # parts of the whole range that the grid search tries
BUDGET_BITS = (4, 6, 8)  # that are tried under a size budget; fewer lose to codebooks
PIECE = 1 << 17  # weights
SMALLEST = 2.0**-24  # a step that fp16 can hold


class UniformConfig(CodecConfig):
    """`bits` for each weight, and a step (with a zero point if not symmetric) for each channel."""

    shown: ClassVar[tuple[str, ...]] = ("bits", "per", "range")
    method: Literal["uniform"] = "uniform"
    bits: Annotated[int, Field(ge=2, le=8)] = 8
    per: Literal["channel", "tensor"] = "channel"
    symmetric: bool = False
    range: Literal["mse", "minmax", "percentile"] = "mse"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.9


@register("uniform")
class UniformCodec(PackedCodec):
    """Packed codes, scale (channels,) and, unless symmetric, zero_point uint8 (channels,).

    The weight is scale * (code - zero_point). Finetuning learns the scale (as LSQ does) while the
    codes stay.
    """

    Settings = UniformConfig
    settings: UniformConfig
    zero_point: Tensor | None
    unpacked = torch.uint8

    def __init__(self, shape: Sequence[int], settings: UniformConfig):
        count = shape[0] * row_size(shape)
        super().__init__(shape, settings, count=count, size=1 << settings.bits)
        channels = shape[0] if settings.per == "channel" else 1
        self.scale = nn.Parameter(torch.ones(channels))
        zero = None if settings.symmetric else torch.zeros(channels, dtype=torch.uint8)
        self.register_buffer("zero_point", zero)

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        weight: Tensor,
        settings: UniformConfig,
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
    ) -> tuple[Self, FitReport]:
        """Rounds `weight` (out, ...) to the nearest grid point, on the grid that `range` chooses.

        mse takes the range of least squared error, weighted by a sensitivity, of a grid search from
        the whole range down to a fifth of it. Raises InputError for NaN, Inf, steps beyond fp16.
        """
        started = time.perf_counter()
        weight = cls.checked(weight, settings)
        codec = cls(weight.shape, settings).to(weight.device)
        rows = weight.reshape(len(codec.scale), -1)  # (channels, n)
        given = cls.checked_sensitivity(sensitivity, weight)
        low, high = _range(rows, settings)
        scale, zero = _grid(low, high, settings)
        if settings.range == "mse":
            weights = None if given is None else given.expand(weight.shape).reshape(rows.shape)
            best = _error(rows, scale, zero, settings.bits, weights)
            for part in SHRINK[1:].tolist():
                tried = _grid(part * low, part * high, settings)
                error = _error(rows, *tried, settings.bits, weights)
                better = error < best
                best = torch.where(better, error, best)
                scale = torch.where(better, tried[0], scale)
                zero = torch.where(better, tried[1], zero)
        codec.scale.copy_(scale)
        if codec.zero_point is not None:
            codec.zero_point.copy_(zero)
        codec.put_codes(_codes(rows, scale, zero, settings.bits).flatten().to(torch.int32))
        codec.check()
        return codec, codec.measured(weight, started, given)

    @classmethod
    def candidates(cls, shape: Sequence[int], nominal: Any) -> list[UniformConfig]:
        base = nominal if isinstance(nominal, UniformConfig) else UniformConfig()
        return [base.model_copy(update={"bits": bits}) for bits in BUDGET_BITS]

    def decode(self) -> Tensor:
        codes = self._indices().view(len(self.scale), -1)
        return self._values(codes, slice(None)).view(self.shape)

    def decode_rows(self, rows: Tensor) -> Tensor:
        codes = self._indices().view(self.shape[0], -1)[rows]
        return self._values(codes, rows if self.settings.per == "channel" else slice(None))

    def _values(self, codes: Tensor, channels: Tensor | slice) -> Tensor:
        """The weights of `codes` (..., n), whose last dimension belongs to one of `channels`."""
        scale = self.scale[channels].unsqueeze(-1)
        if self.zero_point is None:
            return (codes.to(scale.dtype) - (self.size >> 1)) * scale
        return (codes.to(scale.dtype) - self.zero_point[channels].unsqueeze(-1)) * scale


def _range(rows: Tensor, settings: UniformConfig) -> tuple[Tensor, Tensor]:
    """Least and greatest value (channels,) of `rows` (channels, n); zero is always inside."""
    if settings.range == "percentile":
        ordered = rows.sort(dim=1).values
        last = rows.shape[1] - 1
        cut = round((1 - settings.percentile / 100) * last)
        low, high = ordered[:, cut], ordered[:, last - cut]
    else:
        low, high = rows.aminmax(dim=1)
    return low.clamp_max(0), high.clamp_min(0)


def _grid(low: Tensor, high: Tensor, settings: UniformConfig) -> tuple[Tensor, Tensor]:
    """Scale, as fp16 stores it, and zero point (channels,) of the grid from low to high."""
    top = (1 << settings.bits) - 1
    if settings.symmetric:
        scale = torch.maximum(-low, high) / (top // 2)
        zero = torch.full_like(low, top // 2 + 1)
    else:
        scale = (high - low) / top
        zero = torch.round(-low / _stored(scale)).clamp(0, top)
    return _stored(scale), zero


def _stored(scale: Tensor) -> Tensor:
    return scale.half().float().clamp_min(SMALLEST)


def _codes(rows: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """Grid points (channels, n) as floats in [0, 2^bits); halves are rounded to even."""
    return (torch.round(rows / scale[:, None]) + zero[:, None]).clamp(0, (1 << bits) - 1)


def _error(rows: Tensor, scale: Tensor, zero: Tensor, bits: int, weights: Tensor | None) -> Tensor:
    """Sum of (weighted) squared errors of each channel; pieces that fit into a cache, in turn."""
    total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    height, width = max(1, PIECE // rows.shape[1]), min(PIECE, rows.shape[1])
    for top in range(0, len(rows), height):
        own = slice(top, top + height)
        step, shift = scale[own], zero[own]
        for left in range(0, rows.shape[1], width):
            x = rows[own, left : left + width]
            codes = _codes(x, step, shift, bits).sub_(shift[:, None])
            squares = codes.mul_(step[:, None]).sub_(x).square_()
            if weights is not None:
                squares *= weights[own, left : left + width]
            total[own] += squares.sum(dim=1, dtype=torch.float64)
    return total
