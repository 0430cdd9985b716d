"""Some blocks of a weight, to tell from them what product quantization does to all."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compress.blocks import block_weights, by_row, row_scales, to_blocks
from compress.kmeans.sampling import draw_by_chance
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
    errors = None
    if sensitivity is not None:
        errors = block_weights(by_row(sensitivity, weight.shape), weight.shape, settings.block_size)
        errors = errors[:, None] if errors.ndim == 1 else errors
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


def _by_energy(blocks: Tensor, errors: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """`count` indices, one of every stratum of the chances, and the blocks each stands for."""
    n, generator = len(blocks), torch.Generator().manual_seed(seed)
    energy = (blocks.double().square() * errors).sum(1)
    reach = (torch.arange(1, n + 1, dtype=torch.float64) / n + cumulative(energy[None])[0]) / 2
    index, masses = draw_by_chance(reach[None], count, [generator])
    order = torch.randperm(count, generator=generator)
    return index[0, order], masses[0, order]


def _evenly(n: int, count: int, seed: int) -> Tensor:
    """At most `count` of n indices."""
    generator = torch.Generator().manual_seed(seed)
    if n <= 1 << 20:
        return torch.randperm(n, generator=generator)[:count]
    return torch.randint(n, (count,), generator=generator)  # hardly one of them twice
