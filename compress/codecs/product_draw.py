"""Some blocks of a weight, to tell from them what product quantization does to all."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compress.blocks import row_scales, to_blocks
from compress.kmeans.sums import cumulative


@dataclass(frozen=True)
class Drawn:
    """points (m, d) without order, out of n blocks; masses (m,): how many each stands for.

    errors: None, (m, 1) or (m, d), what their squared errors count; fitted: the same where the fit
    looks at it, which takes a scaled row as it is.
    """

    points: Tensor
    masses: Tensor
    errors: Tensor | None
    fitted: Tensor | None
    n: int

    def squares(self, x: Tensor) -> Tensor:
        """Of rows x (m, d), sums of squares (m,) float64 as they count, times the masses."""
        total = x.double().square()
        if self.errors is not None:
            total = total * self.errors
        return total.sum(1) * self.masses

    def part(self, which: slice) -> "Drawn":
        """Some of the points."""
        errors = None if self.errors is None else self.errors[which]
        fitted = None if self.fitted is None else self.fitted[which]
        return Drawn(self.points[which], self.masses[which], errors, fitted, self.n)


def draw(weight: Tensor, settings: Any, count: int, seed: int, sensitivity: Tensor | None) -> Drawn:
    """At most `count` blocks of `weight` (out, ...), drawn evenly.

    With a sensitivity, that broadcasts to the weight, half of the chance goes with what a block
    adds to the weighted energy: a few rows of an embedding may hold most of it.
    """
    blocks = to_blocks(weight, settings.block_size)  # (n, d)
    n = len(blocks)
    errors = None if sensitivity is None else _by_block(sensitivity, weight, settings.block_size)
    if errors is None or n <= count:
        some = _evenly(n, count, seed)
        masses = torch.ones(len(some), dtype=torch.float64)
    else:
        some, masses = _by_energy(blocks, errors, count, seed)
    points = blocks[some].float()
    errors = None if errors is None else errors[some].double()
    fitted = None if errors is None else errors.float()
    if settings.row_scale:
        scale = row_scales(weight)[some // (n // len(weight)), None]  # one a block
        points, square = points / scale, scale.double().square()
        errors = square if errors is None else errors * square
        fitted = None if fitted is None else errors.float()
    return Drawn(points, masses, errors, fitted, n)


def _by_block(sensitivity: Tensor, weight: Tensor, d: int) -> Tensor:
    """(n, d), or (n, 1) where all of a row have one."""
    if sensitivity[0].numel() == 1:
        rows = sensitivity.flatten().expand(len(weight))
        return rows.repeat_interleave(weight[0].numel() // d)[:, None]
    return to_blocks(sensitivity.expand(weight.shape).contiguous(), d)


def _by_energy(blocks: Tensor, errors: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """`count` indices, one of every stratum of the chances, and the blocks each stands for."""
    n, generator = len(blocks), torch.Generator().manual_seed(seed)
    energy = (blocks.double().square() * errors).sum(1)
    reach = (torch.arange(1, n + 1, dtype=torch.float64) / n + cumulative(energy[None])[0]) / 2
    jitter = torch.rand(count, generator=generator, dtype=torch.float64)
    some = torch.searchsorted(reach, (torch.arange(count) + jitter) / count).clamp_max(n - 1)
    some = some[torch.randperm(count, generator=generator)]
    chance = reach[some] - torch.where(some > 0, reach[(some - 1).clamp_min(0)], 0.0)
    return some, 1.0 / (count * chance.clamp_min(1e-300))


def _evenly(n: int, count: int, seed: int) -> Tensor:
    """At most `count` of n indices."""
    generator = torch.Generator().manual_seed(seed)
    if n <= 1 << 20:
        return torch.randperm(n, generator=generator)[:count]
    return torch.randint(n, (count,), generator=generator)  # hardly one of them twice
