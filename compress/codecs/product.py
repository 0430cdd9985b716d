"""Product quantization: every block of a weight is one of k centroids (Jegou et al. 2011, iPQ)."""

import time
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from compress.blocks import (
    block_weights,
    by_row,
    codebook_problems,
    from_blocks,
    row_scales,
    row_size,
    to_blocks,
)
from compress.codecs.base import Codec
from compress.codecs.gather import Bags, gather, make_bags
from compress.codecs.packed import PackedCodec
from compress.codecs.product_curve import product_candidates
from compress.codecs.product_feedback import gain
from compress.codecs.product_fit import cluster, feed_back, fit_together, report, summary, take
from compress.codecs.product_parts import cluster_parts, encode_parts
from compress.codecs.product_rate import code_bits_problems, most_code_bytes
from compress.codecs.product_sample import sampled_distortions
from compress.codecs.product_settings import CodebookConfig, ProductReport
from compress.codecs.registry import register
from compress.codecs.report import FitReport
from compress.config import RecoveryConfig
from compress.errors import InputError
from compress.kmeans import assign

WHOLE = 1 << 23  # weights that are clustered together; a larger weight, read in parts, is sampled


@register("product")
class ProductCodec(PackedCodec):
    """Packed codes uint8 (ceil(n * bits / 8),), codebook (k, d), and, where the settings say so,
    row_scale (out,): the standard deviation of each output row, divided out before clustering."""

    Settings: ClassVar[type[CodebookConfig]] = CodebookConfig
    settings: CodebookConfig

    def __init__(self, shape: Sequence[int], settings: CodebookConfig):
        self.blocks_per_row = row_size(shape) // settings.block_size
        self.n_blocks = shape[0] * self.blocks_per_row
        k, d = settings.codebook_size, settings.block_size
        super().__init__(shape, settings, count=self.n_blocks, size=k)
        self.most_bytes = most_code_bytes(self.n_blocks, k, settings.code_bits)
        self.codebook = nn.Parameter(torch.zeros(k, d))
        self.row_scale = nn.Parameter(torch.ones(shape[0])) if settings.row_scale else None
        self._bags: Bags | None = None

    @classmethod
    def problems(cls, shape: Sequence[int], settings: CodebookConfig) -> list[str]:
        d, k = settings.block_size, settings.codebook_size
        return codebook_problems(shape, d, k) or code_bits_problems(
            prod(shape) // d, k, settings.code_bits
        )

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
    def prepared(cls, weight: Tensor, settings: CodebookConfig) -> tuple[Self, Tensor]:
        """An empty codec on the weight's device, and the weight in float32."""
        weight = cls.checked(weight, settings)
        return cls(weight.shape, settings).to(weight.device), weight

    def points(self, weight: Tensor, low: int = 0) -> Tensor:
        """The blocks to cluster of rows from `low` on, (n, d); sets their row scales."""
        if self.row_scale is not None:
            scale = row_scales(weight)
            self.row_scale[low : low + len(scale)] = scale
            weight = weight.flatten(1) / scale[:, None]
        return to_blocks(weight, self.settings.block_size)

    def learns(self, recovery: RecoveryConfig) -> bool:
        return recovery.reassign_steps > 0

    @torch.no_grad()
    def refresh(self) -> int:
        """Each block takes the centroid that is nearest to its latent weights."""
        codes = assign(self.latent_blocks(), self.codebook)
        changed = int((codes != self._indices()).sum())
        if changed:
            self.put_codes(codes)
            self._bags = None
        return changed

    def latent_blocks(self) -> Tensor:
        """The blocks (n, d) of the latent weight, over the row scales."""
        assert self.latent is not None
        weight: Tensor = self.latent
        if self.row_scale is not None:
            weight = weight.flatten(1) / self.row_scale[:, None]
        return to_blocks(weight, self.settings.block_size)

    def point_weights(self, sensitivity: Tensor, low: int = 0, high: int | None = None) -> Tensor:
        """Of the points of rows low to high: (n, d), or (n,) where each row has one sensitivity.

        An error counts by its square in the weight itself, not in the scaled row.
        """
        high = self.shape[0] if high is None else high
        part = by_row(sensitivity if len(sensitivity) == 1 else sensitivity[low:high], self.shape)
        if self.row_scale is not None:
            part = part * self.row_scale[low:high, None].square()
        return block_weights(part, (high - low, *self.shape[1:]), self.settings.block_size)

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
        left = gain(statistics)
        return [
            distortion * left if one.error_feedback else distortion
            for one, distortion in zip(settings, found, strict=True)
        ]

    def decode(self) -> Tensor:
        indices = self._indices()
        weight = from_blocks(gather(self.codebook, indices, self._bags_for(indices)), self.shape)
        if self.row_scale is None:
            return weight
        return weight * self.row_scale.view(-1, *[1] * (len(self.shape) - 1))

    def decode_rows(self, rows: Tensor) -> Tensor:
        table = self._indices().view(self.shape[0], self.blocks_per_row)
        indices = table[rows].reshape(-1)  # (rows * blocks_per_row,)
        weight = gather(self.codebook, indices).view(*rows.shape, row_size(self.shape))
        return weight if self.row_scale is None else weight * self.row_scale[rows].unsqueeze(-1)

    def _bags_for(self, indices: Tensor) -> Bags | None:
        """Blocks by centroid for the backward pass; None where no gradient will be asked for."""
        if not (torch.is_grad_enabled() and self.codebook.requires_grad):
            return None
        if self._bags is None or self._bags.order.device != indices.device:
            self._bags = make_bags(indices, self.settings.codebook_size)
        return self._bags

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._bags = None  # they belong to the codes of before
