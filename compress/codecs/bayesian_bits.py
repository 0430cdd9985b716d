"""Bayesian Bits: how many bits a weight matrix needs is learned while the network is finetuned (van
Baalen et al. 2020, arXiv 2005.07093).

A grid of 2 bits and, where its gate is open, the rest on a grid of 4 bits, of 8, of 16: with all
gates open the sum is the plain grid of most bits. The gate of the first prunes.
"""

import math
import time
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.blocks import row_size
from compress.codecs.grid import Grid, best_grid, grid_codes, stored_step
from compress.codecs.hard_concrete import open_chance, opened
from compress.codecs.nested_grids import residuals
from compress.codecs.packed import PackedCodec
from compress.codecs.registry import register
from compress.codecs.report import FitReport
from compress.config import CodecConfig, RecoveryConfig

BUDGET_BITS = (2, 4, 8)  # tried under a size budget
OPEN = 3.0  # the logit to start from: open with a chance of 0.99
GATE_RATE = 400.0  # logits move by units, weights by hundredths: 4 units close a gate


class BayesianBitsConfig(CodecConfig):
    """bits: at most, before training; after it, those that were kept. prior: what a megabyte of
    codes costs in the loss. prune: single output rows, or nothing less than the tensor."""

    shown: ClassVar[tuple[str, ...]] = ("bits", "per", "prior", "prune")
    method: Literal["bayesian_bits"] = "bayesian_bits"
    bits: Literal[0, 2, 4, 8, 16] = 8
    per: Literal["channel", "tensor"] = "channel"
    prior: Annotated[float, Field(ge=0)] = 0.01
    prune: Literal["rows", "tensor"] = "rows"


@register("bayesian_bits")
class BayesianBitsCodec(PackedCodec):
    """Packed codes from 1 to 2^bits - 1, and reach (channels,), the end of the grid on both sides.
    At 0 bits both are empty. While it learns, gates (of 4, 8, 16 bits) and keep (rows | 1), logits.
    """

    Settings = BayesianBitsConfig
    settings: BayesianBitsConfig
    gates: nn.Parameter | None
    keep: nn.Parameter | None

    def __init__(self, shape: Sequence[int], settings: BayesianBitsConfig):
        count = shape[0] * row_size(shape) if settings.bits else 0
        super().__init__(shape, settings, count=count, size=1 << settings.bits)
        channels = shape[0] if settings.per == "channel" else 1
        self.reach = nn.Parameter(torch.zeros(channels if settings.bits else 0))
        self.register_parameter("gates", None)
        self.register_parameter("keep", None)

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        weight: Tensor,
        settings: BayesianBitsConfig,
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
    ) -> tuple[Self, FitReport]:
        """The plain grid of most bits, of least (weighted) squared error among those of a search.

        Raises InputError for NaN, Inf, and weights beyond fp16.
        """
        started = time.perf_counter()
        weight = cls.checked(weight, settings)
        codec = cls(weight.shape, settings).to(weight.device)
        given = cls.checked_sensitivity(sensitivity, weight)
        if settings.bits:
            rows = weight.reshape(len(codec.reach), -1)  # (channels, n)
            weights = None if given is None else given.expand(weight.shape).reshape(rows.shape)
            top = rows.abs().amax(1)
            step, _ = best_grid(
                rows, lambda part: codec._grid(stored_step(part * top)), settings.bits, weights, 1
            )
            codec.reach.copy_(step * (codec.size - 1) / 2)
            codec._take(rows)
        codec.check()
        return codec, codec.measured(weight, started, given)

    @classmethod
    def candidates(cls, shape: Sequence[int], nominal: Any) -> list[BayesianBitsConfig]:
        """Only for groups of this method; their bytes are what training may not exceed."""
        if not isinstance(nominal, BayesianBitsConfig):
            return []
        return [nominal.model_copy(update={"bits": bits}) for bits in BUDGET_BITS]

    def _grid(self, reach: Tensor) -> Grid:
        return reach * 2 / (self.size - 1), torch.full_like(reach, self.size >> 1)

    def _take(self, rows: Tensor, kept: Tensor | None = None) -> None:
        """Codes of `rows` (channels, n) on the grid of the present reach, as it is stored; rows of
        the weight that are not `kept` (rows | 1, 1) are 0."""
        self.reach.copy_(stored_step(self.reach))
        codes = grid_codes(rows, self._grid(self.reach), self.settings.bits, 1)
        if kept is not None:
            codes = torch.where(kept > 0, codes.view(self.shape[0], -1), self.size >> 1)
        self.put_codes(codes.flatten().to(torch.int32))

    def decode(self) -> Tensor:
        return self._values(slice(None)).view(self.shape)

    def decode_rows(self, rows: Tensor) -> Tensor:
        return self._values(rows)

    def _values(self, rows: Tensor | slice) -> Tensor:
        """The weights (..., n) of some rows of the matrix."""
        if not self.settings.bits:
            return self.reach.new_zeros(self.shape[0], row_size(self.shape))[rows]
        codes = self._indices().view(self.shape[0], -1)[rows]
        step = self._reach_of(rows) * 2 / (self.size - 1)
        return (codes.to(step.dtype) - (self.size >> 1)) * step

    def _reach_of(self, rows: Tensor | slice) -> Tensor:
        """(..., 1), of some rows."""
        return (self.reach[rows] if self.settings.per == "channel" else self.reach).unsqueeze(-1)

    def rate(self, name: str) -> float:
        return 1.0 if name == "reach" else GATE_RATE

    def learns(self, recovery: RecoveryConfig) -> bool:
        return self.settings.bits > 0

    @classmethod
    def learning_memory(cls, shape: Sequence[int], settings: Any) -> int:
        """Three numbers a weight for each grid: of 2 bits, 4, 8 and 16."""
        return 12 * (settings.bits.bit_length() - 1) * math.prod(shape)

    def learn(self, weight: Tensor) -> None:
        super().learn(weight)
        rows = self.shape[0] if self.settings.prune == "rows" else 1
        self.keep = nn.Parameter(torch.full((rows,), OPEN, device=weight.device))
        if widths := self._widths():
            self.gates = nn.Parameter(torch.full((len(widths),), OPEN, device=weight.device))

    def _widths(self) -> list[int]:
        """Bit widths that have a gate beside that of 2 bits."""
        return [width for width in (4, 8, 16) if width <= self.settings.bits]

    def _opened(self) -> tuple[list[Tensor], Tensor]:
        """The gates of `_widths` and those of rows (rows | 1, 1)."""
        assert self.keep is not None
        gates = [] if self.gates is None else list(opened(self.gates))
        return gates, opened(self.keep)[:, None]

    def learned(self) -> Tensor:
        assert self.latent is not None
        return self._gated(self.latent.flatten(1), slice(None)).view(self.shape)

    def learned_rows(self, rows: Tensor) -> Tensor:
        return self._gated(self.latent_rows(rows), rows)

    def _gated(self, latent: Tensor, rows: Tensor | slice) -> Tensor:
        """The latent weights (..., n) of some rows on the grids whose gates are open."""
        gates, kept = self._opened()
        first, *others = residuals(latent, self._reach_of(rows), self._widths())
        rest = torch.zeros_like(first)
        for grid, gate in zip(reversed(others), reversed(gates), strict=True):
            rest = gate * (grid + rest)
        return (kept[rows] if self.settings.prune == "rows" else kept) * (first + rest)

    def penalty(self) -> Tensor:
        """prior times the expected megabytes of the codes."""
        assert self.keep is not None
        bits = torch.zeros_like(self.keep[0])
        gates = [] if self.gates is None else list(open_chance(self.gates))
        for width, gate in zip(reversed(self._widths()), reversed(gates), strict=True):
            bits = gate * (width / 2 + bits)
        bits = (2 + bits) * open_chance(self.keep).mean()
        return self.settings.prior * math.prod(self.shape) * bits / 8e6

    @torch.no_grad()
    def settle(self) -> None:
        """The settings get the bits that are left, and the tensors the size that goes with them."""
        assert self.latent is not None
        gates, kept = self._opened()
        bits = 2 if bool(kept.any()) else 0
        for width, gate in zip(self._widths(), gates, strict=True):
            bits = width if bits == width // 2 and bool(gate) else bits
        self.settings = self.settings.model_copy(update={"bits": bits})
        self.make_room(self.latent.numel() if bits else 0, 1 << bits)
        if bits:
            self._take(self.latent.reshape(len(self.reach), -1), kept)
        else:
            self.reach = nn.Parameter(self.reach.new_zeros(0))
        self.gates = self.keep = None
        super().settle()
