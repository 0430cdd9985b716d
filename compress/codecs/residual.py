"""Residual product quantization: every block is the sum of one centroid from each of several
codebooks (Chen, Guan and Wang 2010), codes and codebooks then refined in turns, with a
beam search as in additive quantization (Babenko and Lempitsky 2014)."""

import itertools
import time
from collections.abc import Sequence
from math import prod
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.blocks import codebook_problems, from_blocks, row_size, to_blocks
from compress.codecs.gather import gather
from compress.codecs.packed import PackedCodec
from compress.codecs.product_curve import budget_blocks
from compress.codecs.registry import register
from compress.codecs.report import FitReport
from compress.config import CodecConfig, Positive
from compress.kmeans import fit as fit_codebook

CHUNK = 1 << 12  # blocks whose codes are searched at a time
BUDGET_CODEBOOKS = (2, 3, 4)  # tried under a size budget
SMALL, SMALL_CODEBOOKS = 1 << 16, (16, 64)  # also tried for a layer of fewer weights


class ResidualConfig(CodecConfig):
    """`codebooks` codes of log2(codebook_size) bits for every `block_size` weights."""

    shown: ClassVar[tuple[str, ...]] = ("block_size", "codebook_size", "codebooks")
    method: Literal["residual"] = "residual"
    block_size: Positive = 8
    codebook_size: Annotated[int, Field(ge=2, le=65536)] = 256
    codebooks: Annotated[int, Field(ge=2, le=8)] = 2
    iterations: Positive = 15
    rounds: Annotated[int, Field(ge=0, le=1000)] = 4
    beam: Annotated[int, Field(ge=1, le=64)] = 4


@register("residual")
class ResidualCodec(PackedCodec):
    """Packed codes of the first codebook, then of the second, ...; codebook (codebooks, k, d)."""

    Settings = ResidualConfig
    settings: ResidualConfig

    def __init__(self, shape: Sequence[int], settings: ResidualConfig):
        m, k, d = settings.codebooks, settings.codebook_size, settings.block_size
        self.blocks_per_row = row_size(shape) // d
        super().__init__(shape, settings, count=m * shape[0] * self.blocks_per_row, size=k)
        self.codebook = nn.Parameter(torch.zeros(m, k, d))

    @classmethod
    def problems(cls, shape: Sequence[int], settings: ResidualConfig) -> list[str]:
        return codebook_problems(shape, settings.block_size, settings.codebook_size)

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        weight: Tensor,
        settings: ResidualConfig,
        *,
        seed: int = 0,
        sensitivity: Tensor | None = None,
    ) -> tuple[Self, FitReport]:
        """Clusters the blocks of `weight` (out, ...), then what is left of them, and so on.

        Then, `rounds` times, a beam search finds better codes, and each codebook becomes the mean
        of what the others leave; the round of least (weighted) error counts. Raises InputError for
        NaN or Inf in the weight, values beyond fp16, and where `problems` has something.
        """
        started = time.perf_counter()
        weight = cls.checked(weight, settings)
        points = to_blocks(weight, settings.block_size)  # (n, d)
        weights, given = None, cls.checked_sensitivity(sensitivity, weight)
        if given is not None:
            weights = to_blocks(given.expand(weight.shape), settings.block_size)
        books, codes, rest = [], [], points
        for m in range(settings.codebooks):
            result = fit_codebook(
                rest,
                settings.codebook_size,
                iterations=settings.iterations,
                seed=seed + m,
                weights=weights,
            )
            books.append(result.codebook.half().float())
            codes.append(result.codes)
            rest = rest - books[m][codes[m]]
        best = _Fit(torch.stack(books), torch.stack(codes), _error(rest, weights))
        last = best
        for _ in range(settings.rounds):
            last = _refined(points, last, weights, settings.beam)
            best = min(best, last, key=lambda fit: fit.error)
        codec = cls(weight.shape, settings).to(weight.device)
        codec.codebook.copy_(best.books)
        codec.put_codes(best.codes.flatten())
        codec.check()
        return codec, codec.measured(weight, started, given)

    @classmethod
    def candidates(cls, shape: Sequence[int], nominal: Any) -> list[ResidualConfig]:
        """Only for groups of this method: it costs more time than others."""
        if not isinstance(nominal, ResidualConfig):
            return []
        sizes = {nominal.codebook_size, *(SMALL_CODEBOOKS if prod(shape) < SMALL else ())}
        blocks = [d for d in budget_blocks(shape) if d > 2]
        return [
            nominal.model_copy(update={"block_size": d, "codebooks": m, "codebook_size": k})
            for d, m, k in itertools.product(blocks, BUDGET_CODEBOOKS, sorted(sizes))
        ]

    def decode(self) -> Tensor:
        return from_blocks(self._sum(self._indices().view(len(self.codebook), -1)), self.shape)

    def decode_rows(self, rows: Tensor) -> Tensor:
        table = self._indices().view(len(self.codebook), self.shape[0], self.blocks_per_row)
        blocks = self._sum(table[:, rows].flatten(1))  # (rows * blocks_per_row, d)
        return blocks.view(*rows.shape, row_size(self.shape))

    def _sum(self, indices: Tensor) -> Tensor:
        """(codebooks, n) -> (n, d)."""
        parts = [gather(book, codes) for book, codes in zip(self.codebook, indices, strict=True)]
        return torch.stack(parts).sum(0)


class _Fit:
    """books (m, k, d) as fp16 stores them, codes (m, n), the (weighted) squared error."""

    def __init__(self, books: Tensor, codes: Tensor, error: float):
        self.books, self.codes, self.error = books, codes, error


def _refined(points: Tensor, fit: _Fit, weights: Tensor | None, beam: int) -> _Fit:
    """One round: new codes where they are better, then each codebook in turn the mean of its points
    less what the others give."""
    books = fit.books.clone()
    mass = torch.ones_like(points) if weights is None else weights
    parts = zip(points.split(CHUNK), fit.codes.split(CHUNK, dim=1), mass.split(CHUNK), strict=True)
    codes = torch.cat([_beam_search(x, books, old, w, beam) for x, old, w in parts], dim=1)
    rest = points - _sum_of(books, codes)
    for m in range(len(books)):
        target = rest + books[m][codes[m]]  # (n, d): what the other codebooks leave
        books[m] = _means(target, codes[m], books[m], mass).half().float()
        rest = target - books[m][codes[m]]
    return _Fit(books, codes, _error(rest, weights))


def _beam_search(x: Tensor, books: Tensor, old: Tensor, w: Tensor, beam: int) -> Tensor:
    """Codes (m, n) of points (n, d): the best of `beam` sums that are kept from book to book,
    or the `old` codes where these are better."""
    rest = x[:, None]  # (n, kept, d)
    codes = x.new_empty(len(x), 1, 0, dtype=torch.int64)  # (n, kept, codebooks so far)
    for book in books:
        error = (w[:, None] * rest.square()).sum(-1, keepdim=True)  # (n, kept, 1)
        error = error - 2 * (w[:, None] * rest) @ book.T + (w @ book.square().T)[:, None]
        top = error.flatten(1).topk(min(beam, error[0].numel()), largest=False).indices
        kept, code = (top // len(book))[..., None], top % len(book)
        codes = codes.gather(1, kept.expand(-1, -1, codes.shape[2]))
        codes = torch.cat([codes, code[..., None]], dim=2)
        rest = rest.gather(1, kept.expand(-1, -1, rest.shape[2])) - book[code]
    new = codes[:, 0].T  # (m, n)
    errors = [(w * (x - _sum_of(books, c)).square()).sum(1) for c in (new, old)]
    return torch.where(errors[0] < errors[1], new, old)


def _sum_of(books: Tensor, codes: Tensor) -> Tensor:
    """books (m, k, d), codes (m, n) -> (n, d)."""
    return torch.stack([book[code] for book, code in zip(books, codes, strict=True)]).sum(0)


def _means(points: Tensor, codes: Tensor, book: Tensor, mass: Tensor) -> Tensor:
    """The weighted mean of the points of each code; a code without points keeps its centroid."""
    total = torch.zeros_like(book, dtype=torch.float64)
    share = torch.zeros_like(total).index_add_(0, codes, mass.double())
    total.index_add_(0, codes, (mass * points).double())
    return torch.where(share > 0, total / share, book.double()).float()


def _error(rest: Tensor, weights: Tensor | None) -> float:
    squares = rest.double().square()
    return float((squares if weights is None else squares * weights).sum())
