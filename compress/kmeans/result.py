"""What a fit returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class KMeansResult:
    """A fitted codebook. Example: n = 294,912 blocks of d = 8, k = 256.

    codebook             (k, d) float32, on the device of the points. Rows that no code names are
                         somewhere among the others.
    codes                (n,) int64: the row of `codebook` nearest to each point, ties to the
                         lowest row: exactly `assign(points, codebook, weights)`. (Near duplicates
                         that were consolidated share one code.)
    relative_distortion  sum w (x - c)^2 / sum w x^2 over all points; 0.0 where the points are 0.
    distortion_trace     relative distortion at the assignment of each iteration, before its
                         update; an estimate while iterations look at a sample.
    empty_trace          clusters found empty at each iteration, before their resolution.
    dead                 centroids that no point uses at the end: only where fewer than k distinct
                         points exist, or a baseline's resolution failed.
    resolution_rounds    rounds of empty-cluster resolution over the whole fit ("perturb":
                         passes over all points).
    failed               True if "perturb" ran out of tentatives and gave up.
    iterations           that were run; convergence may stop early.
    """

    codebook: torch.Tensor
    codes: torch.Tensor
    relative_distortion: float
    distortion_trace: list[float] = field(default_factory=list)
    empty_trace: list[int] = field(default_factory=list)
    dead: int = 0
    resolution_rounds: int = 0
    failed: bool = False
    iterations: int = 0
