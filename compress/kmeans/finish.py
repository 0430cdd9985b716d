"""The end of a fit: a codebook in float32, and every centroid in use."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from compress.kmeans.distance import sweep
from compress.kmeans.empties import partition
from compress.kmeans.options import Options
from compress.kmeans.points import Points
from compress.kmeans.trace import Trace, count_rounds

REPAIRS = 4  # passes that may follow the last one to use every centroid


@dataclass(frozen=True)
class Assignment:
    """codes (b, n); distortion, energy (b,) in the units of the input; empty (b,) centroids."""

    codes: torch.Tensor
    distortion: torch.Tensor
    energy: torch.Tensor
    empty: torch.Tensor


def finish(
    points: Points, centroids: torch.Tensor, options: Options, traces: list[Trace]
) -> tuple[torch.Tensor, Assignment]:
    """Round to float32, assign as `assign` does, repair what either emptied: (b, k, d), codes."""
    codebook = points.denormalize(centroids)
    for attempt in range(REPAIRS + 1):
        about, book = points.about(codebook)
        state = sweep(about, book)
        if attempt == REPAIRS or options.empties != "partition" or not bool(state.empty.any()):
            break
        done = partition(about, state, book, state.empty > 0)
        if not bool(done.changed.any()):
            break
        count_rounds(traces, done.rounds, done.failed)
        fresh = about.denormalize(done.centroids)
        codebook = torch.where(done.changed[:, :, None], fresh, codebook)
    return codebook, Assignment(
        state.codes, about.unscale(state.total), state.energy(about, book), state.empty
    )
