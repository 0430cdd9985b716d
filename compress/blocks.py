"""Weight <-> blocks: runs of d consecutive weights along the inputs of one output row."""

import math
from collections.abc import Sequence

from torch import Tensor

from compress.errors import InputError

CHUNK = 1 << 22  # elements of a tensor that are worked on at a time where it is not read whole


def row_size(shape: Sequence[int]) -> int:
    """Weights in one output row: in_features, embedding dim, or in/groups * kh * kw."""
    return math.prod(shape[1:])


def row_ranges(shape: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges of rows (first, one past the last), in order, that together are a whole tensor.

    Each has about CHUNK elements and (but for the last) a number of rows that 8 divides, so that
    the codes of its blocks fill whole bytes. A scalar is one row.
    """
    count, size = shape[0] if shape else 1, max(1, row_size(shape))
    step = max(8, CHUNK // size // 8 * 8)
    return [(low, min(low + step, count)) for low in range(0, count, step)]


def block_problem(shape: Sequence[int], block_size: int) -> str | None:
    """Why a weight of `shape` cannot be cut into blocks of `block_size`, with the remedy."""
    size = row_size(shape)
    if len(shape) < 2:
        return f"a weight of shape {tuple(shape)} has no rows to cut into blocks"
    if size % block_size == 0:
        return None
    fits = ", ".join(str(d) for d in range(2, min(size, 32) + 1) if size % d == 0) or "1"
    return f"block size {block_size} does not divide the {size} inputs of a row; {fits} would"


def codebook_problems(shape: Sequence[int], block_size: int, codebook_size: int) -> list[str]:
    """Why blocks of a weight of `shape` cannot have a codebook of that size, with the remedy."""
    if problem := block_problem(shape, block_size):
        return [problem]
    n = shape[0] * row_size(shape) // block_size
    if n >= codebook_size:
        return []
    remedy = f"at most codebook_size={1 << (n.bit_length() - 1)}" if n > 1 else "leave it out"
    return [f"{n} blocks are fewer than {codebook_size} centroids; {remedy}"]


def row_scales(weight: Tensor) -> Tensor:
    """The standard deviation of each row of `weight` (out, ...), as fp16 stores it; 1 for 0."""
    scale = weight.flatten(1).std(dim=1, correction=0).half().float()  # (out,)
    scale[scale == 0] = 1.0
    return scale


def to_blocks(weight: Tensor, block_size: int) -> Tensor:
    """Blocks (n, d) of a weight (out, ...), row by row; a view where the weight is contiguous.

    Raises InputError when `block_size` does not divide the size of a row.
    """
    if problem := block_problem(weight.shape, block_size):
        raise InputError(problem)
    return weight.reshape(-1, block_size)


def by_row(values: Tensor, shape: Sequence[int]) -> Tensor:
    """What broadcasts to a weight of `shape` (out, ...) as (out | 1, inputs | 1)."""
    if values[0].numel() > 1:
        values = values.expand(len(values), *shape[1:])
    return values.flatten(1)


def block_weights(values: Tensor, shape: Sequence[int], block_size: int) -> Tensor:
    """`by_row` of a weight of `shape` for its blocks: (n, d), or (n,) where each row has one."""
    rows, size = shape[0], row_size(shape)
    if values.shape[1] == 1:
        return values[:, 0].expand(rows).repeat_interleave(size // block_size)
    return to_blocks(values.expand(rows, -1), block_size)


def from_blocks(blocks: Tensor, shape: Sequence[int]) -> Tensor:
    """The weight of `shape` that `to_blocks` cut into `blocks` (n, d).

    Raises InputError when the blocks hold another number of weights.
    """
    if blocks.numel() != math.prod(shape):
        raise InputError(f"{blocks.numel()} weights in blocks do not fill shape {tuple(shape)}")
    return blocks.reshape(tuple(shape))
