"""Product quantization of a weight that is never in memory as a whole: a few rows at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from compress.blocks import row_ranges
from compress.codecs.product_fit import cluster
from compress.codecs.product_stored import StoredProduct
from compress.codecs.report import Errors
from compress.kmeans import KMeansResult, assign
from compress.kmeans.sampling import sample_parts
from compress.packing import pack

Rows = Callable[[int, int], Tensor]  # (first, one past the last) -> these rows of the weight


def cluster_parts(
    codec: StoredProduct, rows: Rows, sensitivity: Tensor | None, weights: int, seed: int
) -> KMeansResult:
    """Clusters a coreset of about `weights` weights; sets the codec's row scales.

    The codes of the result are those of the sample. InputError for NaN or Inf.
    """
    settings = codec.settings
    parts = (
        (codec.points(rows(low, high).float(), low), _masses(codec, sensitivity, low, high))
        for low, high in row_ranges(codec.shape)
    )
    points, masses = sample_parts(parts, codec.n_blocks, weights // settings.block_size, seed)
    return cluster(points, settings, masses, seed)


def encode_parts(
    codec: StoredProduct, rows: Rows, sensitivity: Tensor | None
) -> tuple[Errors, Tensor]:
    """Gives every block the nearest centroid of the codec's codebook, as it is stored.

    Returns the errors and the number of blocks by centroid (k,).
    """
    errors = Errors()
    usage = torch.zeros(codec.settings.codebook_size, dtype=torch.int64)
    for low, high in row_ranges(codec.shape):
        weight = rows(low, high).float()
        masses = _masses(codec, sensitivity, low, high)
        codes = assign(codec.points(weight, low), codec.codebook, masses)  # (blocks of these rows,)
        packed = pack(codes, codec.bits)
        start = low * codec.blocks_per_row * codec.bits // 8  # whole bytes: see row_ranges
        codec.codes[start : start + len(packed)] = packed
        decoded = codec.codebook[codes].view(len(weight), -1)
        if codec.row_scale is not None:
            decoded *= codec.row_scale[low:high, None]
        own = sensitivity if sensitivity is None or len(sensitivity) == 1 else sensitivity[low:high]
        errors.add(weight, decoded.view(weight.shape), own)
        usage += torch.bincount(codes, minlength=len(usage))
    return errors, usage


def _masses(codec: StoredProduct, sensitivity: Tensor | None, low: int, high: int) -> Tensor | None:
    return None if sensitivity is None else codec.point_weights(sensitivity, low, high)
