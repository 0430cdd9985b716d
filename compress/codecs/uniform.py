"""Uniform quantization: every weight is a small integer times a step (Nagel et al. 2021, "A White
Paper on Neural Network Quantization", arXiv 2106.08295, sections 2.2, 3.1 and 4.1)."""

import time
from collections.abc import Sequence
from math import prod
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.blocks import row_size
from compress.codecs.grid import SMALLEST, Grid, best_grid, grid_codes, stored_step
from compress.codecs.packed import PackedCodec
from compress.codecs.registry import register
from compress.codecs.report import FitReport
from compress.config import CodecConfig, RecoveryConfig
from compress.straight_through import straight_through

BUDGET_BITS = (4, 6, 8)  # that are tried under a size budget; fewer lose to codebooks, and
FEWER_BITS = (2, 3)  # are tried where the settings of the group are of this method


class GridConfig(CodecConfig):
    """`bits` for each weight, and a step (with a zero point if not symmetric) for each channel."""

    shown: ClassVar[tuple[str, ...]] = ("bits", "per", "range")
    bits: Annotated[int, Field(ge=2, le=8)] = 8
    per: Literal["channel", "tensor"] = "channel"
    symmetric: bool = False
    range: Literal["mse", "minmax", "percentile"] = "mse"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.9


class UniformConfig(GridConfig):
    """qat: quantization-aware training; the weights learn through the rounding."""

    shown: ClassVar[tuple[str, ...]] = (*GridConfig.shown, "qat")
    method: Literal["uniform"] = "uniform"
    qat: bool = False


@register("uniform")
class UniformCodec(PackedCodec):
    """Packed codes, scale (channels,) and, unless symmetric, zero_point uint8 (channels,).

    The weight is scale * (code - zero_point). Finetuning learns the scale while the codes stay;
    with `qat` the weights behind the codes, too, by the straight-through estimator.
    """

    Settings: ClassVar[type[GridConfig]] = UniformConfig
    settings: GridConfig
    zero_point: Tensor | None
    unpacked = torch.uint8

    def __init__(self, shape: Sequence[int], settings: GridConfig):
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
        settings: GridConfig,
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
        if settings.range == "mse":
            weights = None if given is None else given.expand(weight.shape).reshape(rows.shape)
            grid = best_grid(
                rows, lambda part: _grid(part * low, part * high, settings), settings.bits, weights
            )
        else:
            grid = _grid(low, high, settings)
        codec.scale.copy_(grid[0])
        if codec.zero_point is not None:
            codec.zero_point.copy_(grid[1])
        codec.put_codes(grid_codes(rows, grid, settings.bits).flatten().to(torch.int32))
        codec.check()
        return codec, codec.measured(weight, started, given)

    @classmethod
    def candidates(cls, shape: Sequence[int], nominal: Any) -> list[UniformConfig]:
        own = isinstance(nominal, UniformConfig)
        base, fewer = (nominal, FEWER_BITS) if own else (UniformConfig(), ())
        return [base.model_copy(update={"bits": bits}) for bits in (*fewer, *BUDGET_BITS)]

    def decode(self) -> Tensor:
        codes = self._indices().view(len(self.scale), -1)
        return self._values(codes, slice(None)).view(self.shape)

    def decode_rows(self, rows: Tensor) -> Tensor:
        codes = self._indices().view(self.shape[0], -1)[rows]
        return self._values(codes, rows if self.settings.per == "channel" else slice(None))

    def _values(self, codes: Tensor, channels: Tensor | slice) -> Tensor:
        """The weights of `codes` (..., n), whose last dimension belongs to one of `channels`."""
        scale = self.scale[channels].unsqueeze(-1)
        return (codes.to(scale.dtype) - self._zero(channels)) * scale

    def _zero(self, channels: Tensor | slice) -> Tensor | int:
        """The code of 0, of each of `channels`: (..., 1)."""
        if self.zero_point is None:
            return self.size >> 1
        return self.zero_point[channels].unsqueeze(-1)

    def rate(self, name: str) -> float:
        """A step is far smaller than a weight: it learns in proportion to its size."""
        return float(self.scale.detach().abs().mean())

    def learns(self, recovery: RecoveryConfig) -> bool:
        return isinstance(self.settings, UniformConfig) and self.settings.qat

    @classmethod
    def learning_memory(cls, shape: Sequence[int], settings: Any) -> int:
        return 8 * prod(shape) if getattr(settings, "qat", False) else 0

    def learned(self) -> Tensor:
        assert self.latent is not None
        rows = self.latent.reshape(len(self.scale), -1)
        return self._rounded(rows, slice(None)).view(self.shape)

    def learned_rows(self, rows: Tensor) -> Tensor:
        channels = rows if self.settings.per == "channel" else slice(None)
        return self._rounded(self.latent_rows(rows), channels)

    def _rounded(self, latent: Tensor, channels: Tensor | slice) -> Tensor:
        """The latent weights (..., n) on the grid: what lies beyond it gets no gradient (section
        4.1), and the step that of LSQ (Esser et al. 2020, eq. 3)."""
        scale = self.scale[channels].unsqueeze(-1).clamp_min(SMALLEST)
        zero, ratio = self._zero(channels), latent / scale
        codes = straight_through(ratio.round().detach(), ratio) + zero
        return (codes.clamp(0, self.size - 1) - zero) * scale

    @torch.no_grad()
    def settle(self) -> None:
        """Steps as they are stored, and the codes of the latent weights on their grid."""
        assert self.latent is not None
        self.scale.copy_(stored_step(self.scale))
        rows = self.latent.reshape(len(self.scale), -1)
        zero = torch.zeros_like(self.scale)[:, None] + self._zero(slice(None))
        codes = grid_codes(rows, (self.scale, zero[:, 0]), self.settings.bits)
        self.put_codes(codes.flatten().to(torch.int32))
        super().settle()


def _range(rows: Tensor, settings: GridConfig) -> tuple[Tensor, Tensor]:
    """Least and greatest value (channels,) of `rows` (channels, n); zero is always inside."""
    if settings.range == "percentile":
        ordered, last = rows.sort(dim=1).values, rows.shape[1] - 1
        place = (1 - settings.percentile / 100) * last  # between two weights, mostly
        below, part = int(place), place - int(place)
        above = min(below + 1, last)
        low = ordered[:, below].lerp(ordered[:, above], part)
        high = ordered[:, last - below].lerp(ordered[:, last - above], part)
    else:
        low, high = rows.aminmax(dim=1)
    return low.clamp_max(0), high.clamp_min(0)


def _grid(low: Tensor, high: Tensor, settings: GridConfig) -> Grid:
    """Scale, as fp16 stores it, and zero point (channels,) of the grid from low to high."""
    top = (1 << settings.bits) - 1
    if settings.symmetric:
        scale = torch.maximum(-low, high) / (top // 2)
        zero = torch.full_like(low, top // 2 + 1)
    else:
        scale = (high - low) / top
        zero = torch.round(-low / stored_step(scale)).clamp(0, top)
    return stored_step(scale), zero
