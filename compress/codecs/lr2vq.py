"""LR2VQ: codewords of few dimensions, which a learned projection expands to blocks of more weights
(Zhu, Zhou and Zhong 2022, "Learning Low-Rank Representations for Model Compression", arXiv
2211.11397).

The size follows the block size m, the error the dimension d of the codewords: few dimensions are
clustered well, and leave more of the blocks out. The codebook takes k d numbers in place of k m.
"""

import time
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.blocks import codebook_problems, from_blocks, row_size, to_blocks
from compress.codecs.factors import truncated_svd
from compress.codecs.gather import gather
from compress.codecs.packed import PackedCodec
from compress.codecs.registry import register
from compress.codecs.report import FitReport
from compress.config import CodecConfig, Positive, RecoveryConfig
from compress.kmeans import assign
from compress.kmeans import fit as fit_codebook
from compress.straight_through import straight_through

# Block sizes, codebooks and dimensions that are tried under a size budget: all dimensions, too, as
# few weights have blocks of a low rank.
BUDGET = (
    *((16, 16, 4), (16, 256, 6), (16, 256, 12), (8, 16, 3), (8, 256, 4), (8, 256, 6), (8, 256, 8)),
    *((8, 1024, 6), (8, 1024, 8), (8, 4096, 8), (4, 16, 2), (4, 64, 3), (4, 64, 4), (4, 256, 3)),
    *((4, 256, 4), (4, 1024, 4), (2, 16, 2), (2, 64, 2), (2, 256, 2)),
)

CHUNK = 1 << 16  # blocks whose representations are solved for at once
RIDGE = 1e-9  # of the mean of a diagonal: where the blocks have fewer dimensions


class LR2VQConfig(CodecConfig):
    """`block_size` weights share a code of log2(codebook_size) bits; codewords have `dimension`."""

    shown: ClassVar[tuple[str, ...]] = ("block_size", "codebook_size", "dimension")
    method: Literal["lr2vq"] = "lr2vq"
    block_size: Positive = 8
    codebook_size: Annotated[int, Field(ge=2, le=65536)] = 256
    dimension: Positive = 4
    iterations: Positive = 15


@register("lr2vq")
class LR2VQCodec(PackedCodec):
    """Packed codes, codebook (k, d) and projection (d, m): a block is codebook[code] @ projection.

    While it learns, `latent` (out, blocks a row * d) are low-rank representations of the blocks.
    """

    Settings = LR2VQConfig
    settings: LR2VQConfig

    def __init__(self, shape: Sequence[int], settings: LR2VQConfig):
        k, d, m = settings.codebook_size, settings.dimension, settings.block_size
        self.blocks_per_row = row_size(shape) // m
        super().__init__(shape, settings, count=shape[0] * self.blocks_per_row, size=k)
        self.codebook = nn.Parameter(torch.zeros(k, d))
        self.projection = nn.Parameter(torch.zeros(d, m))

    @classmethod
    def problems(cls, shape: Sequence[int], settings: LR2VQConfig) -> list[str]:
        d, m = settings.dimension, settings.block_size
        if d > m:
            return [f"dimension {d} is more than the block size {m}; lower it"]
        return codebook_problems(shape, m, settings.codebook_size)

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        weight: Tensor,
        settings: LR2VQConfig,
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
    ) -> tuple[Self, FitReport]:
        """The SVD of the blocks of `weight` (out, ...) gives the projection, and k-means of their
        representations the codewords; then each block takes the nearest of these, expanded. With a
        sensitivity each of its weights counts on its own in representations and codes, by their
        mean in the projection and the codewords.

        Raises InputError for NaN or Inf in the weight, values beyond fp16, and where `problems` has
        something.
        """
        started = time.perf_counter()
        weight = cls.checked(weight, settings)
        codec = cls(weight.shape, settings).to(weight.device)
        points = to_blocks(weight, settings.block_size)  # (n, m)
        weights, given = None, cls.checked_sensitivity(sensitivity, weight)
        if given is not None:
            weights = to_blocks(given.expand(weight.shape), settings.block_size)
        masses = None if weights is None else weights.mean(1)  # (n,)
        heavy = points if masses is None else points * masses.sqrt()[:, None]
        _, right = truncated_svd(heavy, settings.dimension)
        codec.projection.copy_(right.half())
        result = fit_codebook(
            codec._represented(points, weights),
            settings.codebook_size,
            iterations=settings.iterations,
            seed=seed,
            weights=masses,
        )
        codec.codebook.copy_(result.codebook.half())
        codec.put_codes(assign(points, codec._centroids(), weights))
        codec.check()
        return codec, codec.measured(weight, started, given)

    @classmethod
    def candidates(cls, shape: Sequence[int], nominal: Any) -> list[LR2VQConfig]:
        """Only for groups of this method."""
        if not isinstance(nominal, LR2VQConfig):
            return []
        names = ("block_size", "codebook_size", "dimension")
        return [nominal.model_copy(update=dict(zip(names, one, strict=True))) for one in BUDGET]

    def _represented(self, points: Tensor, weights: Tensor | None = None) -> Tensor:
        """Representations (n, d) that the projection expands to the nearest of points (n, m), by
        squared errors that `weights` (n, m) weight."""
        projection = self.projection.detach().double()
        if weights is None:
            return (points.double() @ torch.linalg.pinv(projection)).float()
        found, least = [], 1e-6 * weights.double().max() + 1e-30  # 0 would leave it open
        for x, w in zip(points.split(CHUNK), weights.split(CHUNK), strict=True):
            own = w.double() + least
            normal = torch.einsum("dm,nm,em->nde", projection, own, projection)
            ridge = RIDGE * normal.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
            right = (own * x.double()) @ projection.T  # (n, d)
            eye = torch.eye(len(projection), dtype=own.dtype, device=own.device)
            found.append(torch.linalg.solve(normal + ridge * eye, right[..., None])[..., 0])
        return torch.cat(found).float()

    def _centroids(self) -> Tensor:
        """The codewords, expanded: (k, m). No matrix product: that would be rounded to bfloat16
        under autocast."""
        return (self.codebook[:, :, None] * self.projection).sum(1)

    def decode(self) -> Tensor:
        return from_blocks(gather(self._centroids(), self._indices()), self.shape)

    def decode_rows(self, rows: Tensor) -> Tensor:
        blocks = gather(self._centroids(), self._codes_of(rows))
        return blocks.view(*rows.shape, row_size(self.shape))

    def _codes_of(self, rows: Tensor) -> Tensor:
        return self._indices().view(self.shape[0], -1)[rows].flatten()

    def learns(self, recovery: RecoveryConfig) -> bool:
        return recovery.reassign_steps > 0

    def learn(self, weight: Tensor) -> None:
        points = to_blocks(weight.detach().float(), self.settings.block_size)
        self.latent = nn.Parameter(self._represented(points).reshape(self.shape[0], -1))

    def learned(self) -> Tensor:
        assert self.latent is not None
        return self._expanded(self._indices(), self.latent).view(self.shape)

    def learned_rows(self, rows: Tensor) -> Tensor:
        blocks = self._expanded(self._codes_of(rows), self.latent_rows(rows))
        return blocks.view(*rows.shape, row_size(self.shape))

    def _expanded(self, codes: Tensor, latent: Tensor) -> Tensor:
        """Blocks (n, m) of codes (n,), whose gradient the representations `latent` get, too."""
        words = gather(self.codebook, codes)  # (n, d)
        words = straight_through(words, latent.reshape(words.shape))
        with torch.autocast(words.device.type, enabled=False):
            return words @ self.projection

    @torch.no_grad()
    def refresh(self) -> int:
        """Each block takes the codeword that is nearest to its representation, both expanded."""
        assert self.latent is not None
        represented = self.latent.view(-1, self.settings.dimension)
        codes = assign(represented @ self.projection, self._centroids())
        changed = int((codes != self._indices()).sum())
        if changed:
            self.put_codes(codes)
        return changed
