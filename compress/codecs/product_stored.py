"""What product quantization stores of a weight, and how the weight is read from it."""

from collections.abc import Sequence
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
from compress.codecs.gather import Bags, gather, make_bags
from compress.codecs.packed import PackedCodec
from compress.codecs.product_rate import code_bits_problems, most_code_bytes
from compress.codecs.product_settings import CodebookConfig
from compress.config import RecoveryConfig
from compress.kmeans import assign


class StoredProduct(PackedCodec):
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
