"""Product quantization: every block of a weight is one of k centroids (Jegou et al. 2011, iPQ)."""

import time
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Self

import torch
from torch import Tensor

from compress.codecs.base import Codec
from compress.codecs.product_curve import product_candidates
from compress.codecs.product_fit import cluster, feed_back, fit_together, report, summary, take
from compress.codecs.product_gain import gains
from compress.codecs.product_parts import cluster_parts, encode_parts
from compress.codecs.product_sample import sampled_distortions
from compress.codecs.product_settings import CodebookConfig, ProductReport
from compress.codecs.product_stored import StoredProduct
from compress.codecs.registry import register
from compress.codecs.report import FitReport
from compress.errors import InputError

WHOLE = 1 << 23  # weights that are clustered together; a larger weight, read in parts, is sampled


@register("product")
class ProductCodec(StoredProduct):
    """Codes and centroids by k-means over the blocks of the weight."""

    @classmethod
    def needed(cls, settings: CodebookConfig) -> str | None:
        return "moments" if settings.error_feedback else None

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        weight: Tensor,
        settings: CodebookConfig,
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
        statistics: Tensor | None = None,
    ) -> tuple[Self, ProductReport]:
        """Clusters the blocks of `weight` (out, ...), any float dtype and device.

        statistics: the moments E[x x'] of the layer's inputs, or of the gradients at its output
        where rows belong to inputs, float (groups, n, n), for `error_feedback`; without them, and
        where there are several groups, there is none.
        A sensitivity weights every coordinate of every block, in assignment and update; one of
        shape (out, 1, ...) weights whole blocks, which costs half the time.
        The codebook is rounded to the fp16 values that are stored, and the reported distortion is
        that of the weight as it will be read back. Raises InputError for NaN or Inf in the weight,
        values beyond fp16, and where `problems` has something.
        """
        started = time.perf_counter()
        codec, weight = cls.prepared(weight, settings)
        sensitivity = cls.checked_sensitivity(sensitivity, weight)
        points = codec.points(weight)
        weights = None if sensitivity is None else codec.point_weights(sensitivity)
        result = cluster(points, settings, weights, seed)
        take(codec, result, points, weights)
        fed = feed_back(codec, weight, statistics, sensitivity) if settings.error_feedback else {}
        seconds = time.perf_counter() - started
        return codec, report(codec, weight, sensitivity, result, seconds, **fed)

    @classmethod
    @torch.no_grad()
    def fit_batch(
        cls,
        weights: Sequence[Tensor],
        settings: CodebookConfig,
        *,
        seeds: Sequence[int],
        sensitivities: Sequence[Tensor | None] | None = None,
    ) -> list[tuple[Self, FitReport]]:
        """One batch of kernels for all weights; the baselines are fitted one by one, and so are
        weights whose sensitivities are not of one shape.

        Each report's seconds are its share of the whole.
        """
        guided = settings.seeding == "partition" and settings.empties == "partition"
        given = list(sensitivities or [None] * len(weights))
        alike = len({None if s is None else s.shape for s in given}) == 1
        if len(weights) == 1 or not guided or not alike:
            return super().fit_batch(weights, settings, seeds=seeds, sensitivities=sensitivities)
        found: list[tuple[Self, FitReport]] = fit_together(cls, weights, settings, seeds, given)
        return found

    @classmethod
    @torch.no_grad()
    def fit_rows(
        cls,
        rows: Callable[[int, int], Tensor],
        shape: Sequence[int],
        settings: CodebookConfig,
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
    ) -> tuple[Self, ProductReport]:
        """`fit` for a weight of which `rows(low, high)` gives a part: with the same result up to
        WHOLE weights, or with `code_bits`. Of a larger one a weighted sample of about that many
        weights is clustered; then every block gets its code, a part at a time. Raises InputError
        as `fit` does.
        """
        if prod(shape) <= WHOLE or settings.code_bits is not None:
            return cls.fit(rows(0, shape[0]), settings, seed=seed, sensitivity=sensitivity)
        started = time.perf_counter()
        if problems := cls.problems(shape, settings):
            raise InputError("; ".join(problems))
        codec = cls(shape, settings)
        sensitivity = cls.checked_sensitivity(sensitivity, torch.empty(1).expand(tuple(shape)))
        result = cluster_parts(codec, rows, sensitivity, WHOLE, seed)
        codec.codebook.copy_(result.codebook)
        codec.round_stored()
        Codec.check(codec)  # the codes are still to come
        errors, usage = encode_parts(codec, rows, sensitivity)
        return codec, summary(codec, errors, usage, result, time.perf_counter() - started)

    @classmethod
    def candidates(cls, shape: Sequence[int], nominal: Any) -> list[CodebookConfig]:
        base = nominal if isinstance(nominal, CodebookConfig) else CodebookConfig()
        return product_candidates(shape, base)

    @classmethod
    def expected_distortions(
        cls,
        weight: Tensor,
        settings: Sequence[CodebookConfig],
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
        statistics: Tensor | None = None,
    ) -> list[float]:
        found = sampled_distortions(weight, settings, seed, sensitivity)
        if statistics is None or len(statistics) > 1:
            return found
        left = gains(statistics[0], found)
        return [
            distortion * part if one.error_feedback else distortion
            for one, distortion, part in zip(settings, found, left, strict=True)
        ]
