"""What product quantization offers under a size budget: the settings to try."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from compress.blocks import row_size
from compress.packing import bits_for

BLOCK_SIZES = (2, 4, 8, 16)
CODEBOOK_SIZES = tuple(1 << bits for bits in range(4, 13))  # 16 to 4096
MAX_BITS = 4.0  # codes a weight; beyond it a scalar method is smaller and as good
CODEBOOK_SHARE = 0.25  # of the codes' bytes; a larger codebook loses to a smaller block
FINEST_BITS = 8.0  # a weight, codebook and codes, where no block is smaller
# Where a code is to take fewer bits than it has: few codebooks cover all sizes, as the bits vary.
CODED = ((2, 64), (2, 256), (4, 256), (4, 1024), (8, 256), (8, 1024))
CODED_SHARES = tuple(share / 20 for share in range(4, 19))  # of log2(codebook_size)


def sizes(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(block_size, codebook_size) that pay for a weight of `shape`, smallest blocks first."""
    row = row_size(shape)
    blocks = budget_blocks(shape)
    for d in blocks:
        n = shape[0] * row // d
        for k in CODEBOOK_SIZES:
            codes = n * bits_for(k)  # bits
            book = 16 * k * d
            pays = book <= CODEBOOK_SHARE * codes
            least = k == CODEBOOK_SIZES[0]  # that a tiny layer can get
            finest = d == blocks[0] and codes + book <= FINEST_BITS * n * d
            if bits_for(k) <= MAX_BITS * d and (pays or (n >= 2 * k and (least or finest))):
                yield d, k


def budget_blocks(shape: Sequence[int]) -> list[int]:
    """Block sizes that divide a row, smallest first: of an odd one the first two that do."""
    row = row_size(shape)
    found = {*BLOCK_SIZES, prod(shape[2:])}  # of a convolution: blocks of one input channel
    if row % 2:
        found.update([d for d in range(3, 17) if row % d == 0][:2])
    return sorted(d for d in found if 1 < d <= row and row % d == 0)


def product_candidates(shape: Sequence[int], nominal: Any) -> list[Any]:
    """All `sizes`, with and without row scales, and CODED_SHARES of the bits of those in CODED;
    seeding and the like as in `nominal`."""
    found = []
    for d, k in sizes(shape):
        base = nominal.model_copy(
            update={"block_size": d, "codebook_size": k, "row_scale": False, "code_bits": None}
        )
        found += [base, base.model_copy(update={"row_scale": True})]
        if (d, k) in CODED:
            bits = (round(share * bits_for(k), 3) for share in CODED_SHARES)
            found += [base.model_copy(update={"code_bits": b}) for b in bits]
    return found
