"""What product quantization offers under a size budget: settings to try, and their distortion."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from compress.blocks import row_scales, row_size, to_blocks
from compress.kmeans import assign, fit
from compress.packing import bits_for

BLOCK_SIZES = (2, 4, 8, 16)
CODEBOOK_SIZES = tuple(1 << bits for bits in range(4, 13))  # 16 to 4096
MAX_BITS = 4.0  # codes a weight; beyond it a scalar method is smaller and as good
CODEBOOK_SHARE = 0.25  # of the codes' bytes; a larger codebook loses to a smaller block

ITERATIONS = 2
POINTS = 8  # blocks of the sample for each centroid,
MIN_POINTS = 8192  # at least so many,
HELD_OUT = 4096  # and so many that the codebook has not seen


def sizes(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(block_size, codebook_size) that pay for a weight of `shape`, smallest blocks first."""
    row = row_size(shape)
    kernel = prod(shape[2:])  # of a convolution: blocks of one input channel
    blocks = sorted(d for d in {*BLOCK_SIZES, kernel} if 1 < d <= row and row % d == 0)
    for d in blocks or [d for d in range(3, 17) if row % d == 0][:2]:
        n = shape[0] * row // d
        for k in CODEBOOK_SIZES:
            codes = n * bits_for(k)  # bits
            small = k == CODEBOOK_SIZES[0] and n >= 2 * k  # the least that a tiny layer can get
            if bits_for(k) <= MAX_BITS * d and (small or 16 * k * d <= CODEBOOK_SHARE * codes):
                yield d, k


def product_candidates(shape: Sequence[int], nominal: Any) -> list[Any]:
    """All `sizes`, with and without row scales; seeding and the like as in `nominal`."""
    return [
        nominal.model_copy(update={"block_size": d, "codebook_size": k, "row_scale": scale})
        for d, k in sizes(shape)
        for scale in (False, True)
    ]


@torch.no_grad()
def sampled_distortion(weight: Tensor, settings: Any, seed: int) -> float:
    """Relative distortion of a whole fit of `weight` (out, ...), from a short fit of a sample.

    A codebook of a sample is too good on the sample and too bad on all else. With r = sample / all
    the fit of all blocks lies near held_out - (1 + 2r)/3 (held_out - sample): the thirds are
    measured (normal and trained weights, 2 to 16 weights a block, 16 to 4096 centroids; within
    about 5 %), r = 1 is the fit itself. Few iterations leave it 1 to 3 % too high.
    """
    d, k = settings.block_size, settings.codebook_size
    blocks = to_blocks(weight, d)  # (n, d)
    n, wanted = len(blocks), max(MIN_POINTS, POINTS * k)
    seen = wanted if n >= wanted + HELD_OUT else n
    some = _spread(n, wanted + HELD_OUT, seed)
    points, factor = blocks[some].float(), torch.ones(1)
    if settings.row_scale:
        scale = row_scales(weight)[some // (n // len(weight))]  # one a block
        points, factor = points / scale[:, None], scale.square()
    result = fit(
        points[:seen], k, seeding=settings.seeding, empties=settings.empties, seed=seed,
        iterations=min(ITERATIONS, settings.iterations), relaxation=settings.relaxation,
        consolidation="off",
    )  # fmt: skip
    codes = torch.cat([result.codes.long(), assign(points[seen:], result.codebook)])
    error = (points - result.codebook[codes]).double().square().sum(1) * factor
    energy = points.double().square().sum(1) * factor
    sample = _ratio(error[:seen], energy[:seen])
    if seen == n:
        return sample
    held_out = _ratio(error[seen:], energy[seen:])
    return held_out - (1 + 2 * seen / n) / 3 * max(0.0, held_out - sample)


def _spread(n: int, count: int, seed: int) -> Tensor:
    """At most `count` of n indices, drawn without order."""
    generator = torch.Generator().manual_seed(seed)
    if n <= 1 << 20:
        return torch.randperm(n, generator=generator)[:count]
    return torch.randint(n, (count,), generator=generator)  # hardly one of them twice


def _ratio(error: Tensor, energy: Tensor) -> float:
    total = float(energy.sum())
    return float(error.sum()) / total if total else 0.0
