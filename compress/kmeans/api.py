"""The calls that users make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from compress.errors import InputError
from compress.kmeans.distance import sweep
from compress.kmeans.inputs import check_points
from compress.kmeans.options import SAMPLE, Options
from compress.kmeans.points import prepare
from compress.kmeans.relaxation import RELAXATION
from compress.kmeans.result import KMeansResult
from compress.kmeans.solve import consolidated, nothing, solve, solve_batch


def fit(
    points: torch.Tensor,
    k: int,
    *,
    seeding: str = "partition",
    empties: str = "partition",
    iterations: int = 15,
    seed: int = 0,
    weights: torch.Tensor | None = None,
    relaxation: float = RELAXATION,
    sample: int | None = SAMPLE,
    tolerance: float = 1e-6,
    anneal: int = 0,
    consolidation: float | Literal["auto", "off"] = "auto",
) -> KMeansResult:
    """Fit a codebook of k centroids to n points: Partitioning-Guided k-means.

    points         (n, d) float16 | bfloat16 | float32 (float64 is rounded to float32). n = 0,
                   n < k and constant points are fine and leave centroids unused (`dead`).
    seeding        "partition" (PG pre-assignment grown by distortion), "partition-even" (the
                   paper's balanced form), "kmeans++", or "random" (iPQ's, with replacement).
    empties        "partition" (PG resolution) or "perturb" (fairseq's rule).
    iterations     assignments and updates after seeding; a last assignment follows.
    weights        (n,) a point, (1, d) or (n, d) a coordinate (diagonal Hessian or Fisher
                   information), >= 0: minimizes sum w (x - c)^2.
    relaxation     factor of the over-relaxed update, below 2; 1.0 is plain Lloyd.
    sample         points a centroid that seeding, annealing and the iterations before the
                   relaxation decays look at, drawn as a coreset that keeps outliers; the others,
                   and the last assignment, look at all. None: all do (as the baselines always do).
    tolerance      stop when the distortion changes by less than this part of itself.
    anneal         iterations with decaying noise before the others, when minutes are cheap: 60.
    consolidation  PG's dense-weights consolidation: "auto" merges exact duplicates where a sample
                   shows that it pays; a number also merges near duplicates, within that part of
                   the expected error, and gives them one code; 0.0 is exact always; or "off".

    The result is the same to the last byte for any number of threads, with and without numba.
    Raises InputError for NaN or Inf, k < 1, shapes that do not fit and unknown names.

    Sources: Huang, Agostinelli, Chen 2023, arXiv 2306.14031 (PG k-means); Stock et al. 2019, arXiv
    1907.05686 and Fan et al. 2020, arXiv 2004.07320 (iPQ and Quant-Noise, the baselines).
    """
    options = Options(k, seeding, empties, iterations, seed, relaxation, sample, tolerance, anneal)
    x = check_points(points)[None]  # (1, n, d)
    if x.shape[1] == 0:
        return nothing(x, k)
    data = prepare(x, _of_one(weights))
    return solve(data, options, consolidated(data, options, consolidation))[0]


def fit_batched(
    points: torch.Tensor,
    k: int,
    *,
    iterations: int = 15,
    seed: int | Sequence[int] = 0,
    weights: torch.Tensor | None = None,
    relaxation: float = RELAXATION,
    sample: int | None = SAMPLE,
    tolerance: float = 1e-6,
    anneal: int = 0,
    consolidation: Literal["auto", "off"] = "off",
) -> list[KMeansResult]:
    """`fit` for b sets of points (b, n, d) of one shape, in one batch of kernels a pass.

    seed: one for all sets, or b of them. weights: (b, n), or (1 | b, 1 | n, 1 | d). Each result
    equals that of `fit` on its set with its seed and this consolidation; sets for which "auto"
    finds that it pays are fitted one by one. Worth it on a GPU, where small layers cannot fill the
    machine one by one. Raises InputError as `fit` does, and where seeds are missing.
    """
    x = check_points(points, ndim=3)
    b = x.shape[0]
    seeds = (seed,) if isinstance(seed, int) else tuple(seed)
    if len(seeds) not in (1, b):
        raise InputError(f"kmeans: {len(seeds)} seeds do not fit a batch of {b}")
    options = Options(
        k, "partition", "partition", iterations, seeds, relaxation, sample, tolerance, anneal
    )
    if x.shape[1] == 0:
        return [nothing(x, k) for _ in range(b)]
    if weights is not None and weights.ndim == 2:
        weights = weights[:, :, None]
    return solve_batch(prepare(x, weights), options, consolidation)


def assign(
    points: torch.Tensor, codebook: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Nearest row of the codebook for every point; ties go to the lowest row.

    points (n, d) float16 | bfloat16 | float32, codebook (k, d) float -> (n,) int64. weights as in
    `fit`: those of coordinates, (1, d) or (n, d), decide by sum w (x - c)^2; those of points, (n,)
    or (n, 1), change no code. Raises InputError for NaN, Inf or shapes that do not fit.
    """
    x = check_points(points)
    book = check_points(codebook, what="the codebook").to(x.device)
    if book.shape[0] < 1 or book.shape[1] != x.shape[1]:
        raise InputError(
            f"kmeans: a codebook of shape {tuple(book.shape)} does not fit points {tuple(x.shape)}"
        )
    if x.shape[0] == 0:
        return torch.empty(0, dtype=torch.int64, device=x.device)
    about, centroids = prepare(x[None], _of_one(weights)).about(book[None])
    return sweep(about, centroids).codes[0].long()


def _of_one(weights: torch.Tensor | None) -> torch.Tensor | None:
    """(n,), (n, 1), (1, d) or (n, d) -> the same as a batch of one problem."""
    if weights is None:
        return None
    return (weights[:, None] if weights.ndim == 1 else weights)[None]
