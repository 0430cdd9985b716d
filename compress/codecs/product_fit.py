"""How the codes and centroids of product quantization are found, and what is said of them."""

import time
from collections.abc import Sequence
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor

from compress.codecs.moments import checked_moments
from compress.codecs.product_feedback import Rows, with_feedback
from compress.codecs.product_price import Clustered
from compress.codecs.product_rate import shrink
from compress.codecs.product_settings import CodebookConfig, ProductReport
from compress.codecs.product_stored import StoredProduct
from compress.codecs.report import Errors, FitReport
from compress.kmeans import KMeansResult, fit_batched
from compress.kmeans import fit as fit_codebook

T = TypeVar("T", bound=StoredProduct)


def cluster(
    points: Tensor, settings: CodebookConfig, weights: Tensor | None, seed: int
) -> KMeansResult:
    """The k-means of the settings on points (n, d)."""
    return fit_codebook(
        points,
        settings.codebook_size,
        seeding=settings.seeding,
        empties=settings.empties,
        iterations=settings.iterations,
        relaxation=settings.relaxation,
        consolidation=settings.consolidation,
        seed=seed,
        weights=weights,
    )


def fit_together(
    cls: type[T],
    weights: Sequence[Tensor],
    settings: CodebookConfig,
    seeds: Sequence[int],
    sensitivities: Sequence[Tensor | None],
) -> list[tuple[T, FitReport]]:
    """Weights of one shape in one batch of kernels; each report's seconds are its share."""
    started = time.perf_counter()
    fits = []
    for weight, sensitivity in zip(weights, sensitivities, strict=True):
        codec, weight = cls.prepared(weight, settings)
        fits.append((codec, weight, cls.checked_sensitivity(sensitivity, weight)))
    points = torch.stack([codec.points(weight) for codec, weight, _ in fits])
    masses = [codec.point_weights(s) for codec, _, s in fits if s is not None]
    results = fit_batched(
        points,
        settings.codebook_size,
        iterations=settings.iterations,
        relaxation=settings.relaxation,
        seed=seeds,
        weights=torch.stack(masses) if masses else None,
        consolidation=settings.consolidation,
    )
    for i, ((codec, *_), result) in enumerate(zip(fits, results, strict=True)):
        take(codec, result, points[i], masses[i] if masses else None)
    seconds = (time.perf_counter() - started) / len(weights)
    return [
        (codec, report(codec, weight, sensitivity, result, seconds))
        for (codec, weight, sensitivity), result in zip(fits, results, strict=True)
    ]


def take(
    codec: StoredProduct, result: KMeansResult, points: Tensor, weights: Tensor | None
) -> None:
    """Codes and codebook of a fit to points, as they are stored: within `code_bits`."""
    found = Clustered(result.codebook, result.codes)
    if codec.settings.code_bits is not None:
        found = shrink(points, found, weights, codec.shape[0], codec.settings.code_bits)
    codec.codebook.copy_(found.codebook)
    codec.put_codes(found.codes)
    codec.round_stored()
    codec.check()


def feed_back(
    codec: StoredProduct, weight: Tensor, moments: Tensor | None, sensitivity: Tensor | None
) -> dict[str, float]:
    """Gives it the codes and centroids that the layer's output wants; the report's fields of it.
    A row counts by the mean of its sensitivities, where it has some of its own."""
    rows, settings = weight.flatten(1), codec.settings
    if moments is None or len(found := checked_moments(moments, rows)) > 1:
        return {}
    mass = None
    if sensitivity is not None and len(sensitivity) == len(rows):
        mass = sensitivity.flatten(1).mean(1)
    before, after = with_feedback(
        given := Rows(rows, found[0], settings.block_size, codec.row_scale, mass),
        codec.codebook.detach(),
        codec._indices().view(len(rows), -1),
        codec.most_bytes if settings.code_bits else None,
    )
    codec.codebook.copy_(after.codebook)
    codec.put_codes(after.codes.flatten())
    codec.check()
    whole = max(given.total(rows), 1e-300)
    return {
        "output_distortion": after.error / whole,
        "output_distortion_nearest": before.error / whole,
    }


def report(
    codec: StoredProduct,
    weight: Tensor,
    sensitivity: Tensor | None,
    result: KMeansResult,
    seconds: float,
    **fed: float,
) -> ProductReport:
    """Of the codec as it will be read back; `fed` is what `feed_back` says."""
    errors = Errors()
    errors.add(weight, codec.decode(), sensitivity)
    usage = torch.bincount(codec._indices(), minlength=codec.settings.codebook_size)
    return summary(codec, errors, usage, result, seconds, **fed)


def summary(
    codec: StoredProduct,
    errors: Errors,
    usage: Tensor,
    result: KMeansResult,
    seconds: float,
    **fed: Any,
) -> ProductReport:
    """usage (k,): blocks by centroid."""
    size = codec.tensor_bytes(codec.shape, codec.settings)
    return ProductReport(
        relative_distortion=errors.relative,
        weighted_distortion=errors.weighted,
        bits_per_weight=size * 8 / prod(codec.shape),
        bytes=size,
        seconds=seconds,
        empty_initial=result.empty_trace[0] if result.empty_trace else 0,
        empty_total=sum(result.empty_trace),
        resolution_rounds=result.resolution_rounds,
        dead=result.dead if codec.settings.code_bits else int((usage == 0).sum()),
        distortion_trace=list(result.distortion_trace),
        empty_trace=list(result.empty_trace),
        usage=usage.tolist(),
        **fed,
    )
