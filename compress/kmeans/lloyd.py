"""Lloyd's iterations with over-relaxed updates, and the call that users make."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from compress.errors import InputError
from compress.kmeans.distance import Sweep, final_sweep, sweep
from compress.kmeans.empties import MAX_ROUNDS, RESOLVERS
from compress.kmeans.points import Points, energy, prepare
from compress.kmeans.result import KMeansResult
from compress.kmeans.seeding import SEEDINGS

RELAXATION = 1.7  # C += 1.7 (M - C): steps beyond the mean, which Lloyd approaches slowly
DECAY = 0.4  # the last 40 % of the iterations bring the factor back to 1


@dataclass
class _Trace:
    distortion: list[float] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    rounds: int = 0
    failed: bool = False


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
    tolerance: float = 1e-6,
) -> KMeansResult:
    """Fit a codebook of k centroids to n points: Partitioning-Guided k-means.

    points      (n, d) float16 | bfloat16 | float32 (float64 is rounded to float32); n = 0, n < k
                and constant points are fine and leave centroids unused (`dead`).
    seeding     "partition" (PG pre-assignment grown by distortion), "partition-even" (the paper's
                balanced form), "kmeans++", or "random" (iPQ's, with replacement).
    empties     "partition" (PG resolution) or "perturb" (fairseq's rule).
    weights     (n,) a point, (1, d) or (n, d) a coordinate (diagonal Hessian or Fisher), >= 0.
    relaxation  factor of the over-relaxed update; 1.0 is plain Lloyd.
    tolerance   stop when the distortion changes by less than this part of itself.

    The result is the same to the last byte for any number of threads. Raises InputError for NaN or
    Inf, k < 1, shapes that do not fit and unknown names.

    Source: Huang, Agostinelli, Chen 2023, arXiv 2306.14031; the baselines are iPQ's (Stock et al.
    2019, arXiv 1907.05686) as used by Quant-Noise (Fan et al. 2020, arXiv 2004.07320).
    """
    _check_options(k, seeding, empties, iterations)
    data = prepare(points, weights)
    if data.n == 0:
        book = torch.zeros(k, data.d, device=data.device)
        return KMeansResult(
            book, torch.zeros(0, dtype=torch.int64, device=data.device), 0.0, dead=k
        )
    generator = torch.Generator().manual_seed(seed)
    total = energy(data)
    centroids = _fill(SEEDINGS[seeding](data, k, generator), k)
    trace = _Trace()
    centroids = _iterate(
        data, centroids, empties, iterations, relaxation, tolerance, generator, trace, total
    )
    codebook, state = _finish(data, centroids, empties, generator, trace)
    return KMeansResult(
        codebook=codebook,
        codes=state.codes.long(),
        relative_distortion=_relative(state.total, total, data),
        distortion_trace=trace.distortion,
        empty_trace=trace.empty,
        dead=int((state.used == 0).sum()),
        resolution_rounds=trace.rounds,
        failed=trace.failed,
        iterations=len(trace.distortion),
    )


def _check_options(k: int, seeding: str, empties: str, iterations: int) -> None:
    if k < 1:
        raise InputError(f"kmeans: k must be at least 1, got {k}")
    if iterations < 0:
        raise InputError(f"kmeans: iterations must not be negative, got {iterations}")
    for name, value, known in (("seeding", seeding, SEEDINGS), ("empties", empties, RESOLVERS)):
        if value not in known:
            raise InputError(f"kmeans: unknown {name} {value!r}; choose from {', '.join(known)}")


def _fill(centroids: torch.Tensor, k: int) -> torch.Tensor:
    """Slots that seeding could not fill repeat row 0: on a tie the lower row wins, so they idle."""
    return torch.cat([centroids, centroids[:1].expand(k - centroids.shape[0], -1)])


def _relative(distortion: float, total: float, data: Points) -> float:
    """Normalized distortion -> share of sum w x^2."""
    return distortion / data.scale**2 / total if total > 0.0 else 0.0


def _relaxation(step: int, steps: int, top: float) -> float:
    """`top`, then linearly down to 1 at the last step."""
    left = (steps - 1 - step) / max(1.0, DECAY * steps)
    return 1.0 + (top - 1.0) * min(1.0, left)


def _iterate(
    data: Points,
    centroids: torch.Tensor,
    empties: str,
    iterations: int,
    relaxation: float,
    tolerance: float,
    generator: torch.Generator,
    trace: _Trace,
    total: float,
) -> torch.Tensor:
    settled = False  # converged once: from then on plain updates
    for step in range(iterations):
        state = sweep(data, centroids)
        trace.distortion.append(_relative(state.total, total, data))
        trace.empty.append(int((state.used == 0).sum()))
        fresh = torch.zeros(centroids.shape[0], dtype=torch.bool, device=centroids.device)
        if trace.empty[-1]:
            done = RESOLVERS[empties](data, state, centroids, generator)
            state, centroids, fresh = done.state, done.centroids, done.fresh
            trace.rounds += done.rounds
            if done.failed:
                trace.failed = True
                return centroids
        factor = 1.0 if settled else _relaxation(step, iterations, relaxation)
        means = state.means(centroids)
        relaxed = centroids + factor * (means - centroids)
        centroids = torch.where(fresh[:, None], means, relaxed)
        if _converged(trace, tolerance):
            if factor == 1.0:
                break
            settled = True
    return centroids


def _converged(trace: _Trace, tolerance: float) -> bool:
    if len(trace.distortion) < 2:
        return False
    before, now = trace.distortion[-2:]
    return abs(before - now) <= tolerance * before


def _finish(
    data: Points, centroids: torch.Tensor, empties: str, generator: torch.Generator, trace: _Trace
) -> tuple[torch.Tensor, Sweep]:
    """Round the codebook to float32 and assign to it as `assign` does; repair what that emptied."""
    low, high = (float(v) for v in torch.aminmax(data.values))
    codebook = data.denormalize(centroids)
    state = final_sweep(data, codebook, low, high)
    for _ in range(MAX_ROUNDS):
        if empties != "partition" or not bool((state.used == 0).any()):
            break
        done = RESOLVERS[empties](data, sweep(data, data.normalize(codebook)), centroids, generator)
        if not bool(done.fresh.any()):
            break
        trace.rounds += done.rounds
        codebook = data.denormalize(done.centroids)
        state = final_sweep(data, codebook, low, high)
    return codebook, state
