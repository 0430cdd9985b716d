"""Product quantization of a weight that is never in memory as a whole: a few rows at a time."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compress.blocks import row_ranges
from compress.codecs.base import sum_of_squares
from compress.kmeans import KMeansResult, assign
from compress.kmeans import fit as fit_codebook
from compress.kmeans.sampling import sample_parts
from compress.packing import pack

if TYPE_CHECKING:
    from compress.codecs.product import ProductCodec

Rows = Callable[[int, int], Tensor]  # (first, one past the last) -> these rows of the weight


def cluster_parts(codec: "ProductCodec", rows: Rows, weights: int, seed: int) -> KMeansResult:
    """Clusters a coreset of about `weights` weights; sets the codec's row scales.

    The codes of the result are those of the sample. InputError for NaN or Inf.
    """
    settings = codec.settings
    parts = (codec.points(rows(low, high).float(), low) for low, high in row_ranges(codec.shape))
    points, masses = sample_parts(parts, codec.n_blocks, weights // settings.block_size, seed)
    return fit_codebook(
        points,
        settings.codebook_size,
        seeding=settings.seeding,
        empties=settings.empties,
        iterations=settings.iterations,
        seed=seed,
        weights=masses,
    )


def encode_parts(codec: "ProductCodec", rows: Rows) -> tuple[float, float, Tensor]:
    """Gives every block the nearest centroid of the codec's codebook, as it is stored.

    Returns the squared error, the energy of the weight and the number of blocks by centroid (k,).
    """
    error, energy = 0.0, 0.0
    usage = torch.zeros(codec.settings.codebook_size, dtype=torch.int64)
    for low, high in row_ranges(codec.shape):
        weight = rows(low, high).float()
        codes = assign(codec.points(weight, low), codec.codebook)  # (blocks of these rows,)
        packed = pack(codes, codec.bits)
        start = low * codec.blocks_per_row * codec.bits // 8  # whole bytes: see row_ranges
        codec.codes[start : start + len(packed)] = packed
        decoded = codec.codebook[codes].view(len(weight), -1)
        if codec.row_scale is not None:
            decoded *= codec.row_scale[low:high, None]
        error += sum_of_squares(weight.flatten(1) - decoded)
        energy += sum_of_squares(weight)
        usage += torch.bincount(codes, minlength=len(usage))
    return error, energy, usage
