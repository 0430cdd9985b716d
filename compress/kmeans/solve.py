"""A fit from checked input to result: consolidate, seed, anneal, iterate, finish."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from compress.errors import InputError
from compress.kmeans import baselines
from compress.kmeans.annealing import anneal
from compress.kmeans.consolidate import Consolidated, consolidate, pays
from compress.kmeans.finish import Assignment, finish
from compress.kmeans.lloyd import iterate
from compress.kmeans.options import Options
from compress.kmeans.points import Points
from compress.kmeans.relaxation import relaxed_steps
from compress.kmeans.result import KMeansResult
from compress.kmeans.sampling import coreset
from compress.kmeans.seeding import pad, partition
from compress.kmeans.trace import Trace

_BASELINES = {
    "random": baselines.random_rows,
    "kmeans++": baselines.kmeans_plus_plus,
    "partition-even": baselines.partition_even,
}


def solve(data: Points, options: Options, merged: Consolidated | None) -> list[KMeansResult]:
    """One result a problem of the batch; merged stands for the only one where it is given."""
    points = data if merged is None else merged.points
    generators = [torch.Generator().manual_seed(seed) for seed in options.seeds]
    pool = points
    if options.guided and options.sample is not None and not options.anneal:
        pool = coreset(points, options.sample * options.k, generators)
    centroids = _seeded(points, pool, options, generators)
    traces = [Trace() for _ in range(points.shape[0])]
    if options.anneal:
        centroids = anneal(points, centroids, options, generators)
    split = relaxed_steps(options.iterations) if pool.shape[1] < points.shape[1] else 0
    for phase, steps in ((pool, range(split)), (points, range(split, options.iterations))):
        centroids = iterate(phase, centroids, options, steps, generators[0], traces)
    codebook, last = finish(points, centroids, options, traces)
    scatter, member = (merged.scatter, merged.member) if merged is not None else (0.0, None)
    return [_result(i, trace, codebook[i], last, scatter, member) for i, trace in enumerate(traces)]


def solve_batch(
    data: Points, options: Options, consolidation: Literal["auto", "off"]
) -> list[KMeansResult]:
    """`solve` for all problems at once, but for those that consolidation pays for: one by one."""
    b = data.shape[0]
    if consolidation == "off":
        return solve(data, options, None)
    seeds = options.seeds * (b if len(options.seeds) == 1 else 1)
    found: dict[int, KMeansResult] = {}
    for i in range(b):
        merged = consolidated(data.element(i), options, consolidation)
        if merged is not None:
            alone = replace(options, seed=seeds[i])
            found[i] = solve(data.element(i), alone, merged)[0]
    rest = [i for i in range(b) if i not in found]
    if rest:
        part = data if len(rest) == b else data.subset(rest)
        together = replace(options, seed=tuple(seeds[i] for i in rest))
        found |= dict(zip(rest, solve(part, together, None), strict=True))
    return [found[i] for i in range(b)]


def _result(
    i: int,
    trace: Trace,
    codebook: torch.Tensor,
    last: Assignment,
    scatter: float,
    member: torch.Tensor | None,
) -> KMeansResult:
    """The i-th problem's, with what consolidation took away put back."""
    energy = float(last.energy[i]) + scatter

    def relative(distortion: float) -> float:
        return (distortion + scatter) / energy if energy > 0.0 else 0.0

    codes = last.codes[i].long()
    return KMeansResult(
        codebook=codebook,
        codes=codes if member is None else codes[member],
        relative_distortion=relative(float(last.distortion[i])),
        distortion_trace=[relative(v) for v in trace.distortion],
        empty_trace=trace.empty,
        dead=int(last.empty[i]),
        resolution_rounds=trace.rounds,
        failed=trace.failed,
        iterations=len(trace.distortion),
    )


def _seeded(
    points: Points, pool: Points, options: Options, generators: list[torch.Generator]
) -> torch.Tensor:
    """(b, k, d) float64 normalized."""
    if options.seeding == "partition":
        return partition(pool, options.k, generators)
    rows = _BASELINES[options.seeding](points, options.k, generators[0])
    return pad(rows[None], options.k)


def consolidated(
    data: Points, options: Options, consolidation: float | Literal["auto", "off"]
) -> Consolidated | None:
    if consolidation == "auto":
        # the baselines are what they are on the points as given: duplicates are their difficulty
        return consolidate(data, options.k, 0.0) if options.guided and pays(data) else None
    if consolidation == "off":
        return None
    if isinstance(consolidation, str) or not 0.0 <= consolidation <= 1.0:
        raise InputError(
            f'kmeans: consolidation must be "auto", "off" or in [0, 1], got {consolidation!r}'
        )
    return consolidate(data, options.k, float(consolidation))


def nothing(x: torch.Tensor, k: int) -> KMeansResult:
    codebook = torch.zeros(k, x.shape[2], device=x.device)
    return KMeansResult(codebook, torch.zeros(0, dtype=torch.int64, device=x.device), 0.0, dead=k)
