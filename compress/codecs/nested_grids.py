"""A grid of many bits as the sum of coarser ones (van Baalen et al. 2020, arXiv 2005.07093)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.codecs.grid import SMALLEST
from compress.straight_through import straight_through


def residuals(x: Tensor, reach: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """x (..., n) on the grid of 2 bits, and what each of `widths` adds to it. What
    lies beyond the reach (..., 1) is moved to it. Gradients pass the rounding straight through."""
    reach = reach.clamp_min(SMALLEST)
    x, step = torch.clamp(x, -reach, reach), reach * 2 / 3
    parts = [_rounded(x / step, 1) * step]
    total = parts[0]
    for width in widths:
        ratio = (1 << width // 2) + 1  # of the steps: that of b bits is 2 reach / (2^b - 1)
        step = step / ratio
        parts.append(_rounded((x - total) / step, ratio // 2) * step)
        total = total + parts[-1]
    return parts


def _rounded(x: Tensor, most: int) -> Tensor:
    return straight_through(x.detach().round().clamp(-most, most), x)
