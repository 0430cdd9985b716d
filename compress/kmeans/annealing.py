"""Annealing: noise that leaves local minima behind, for when minutes are cheap."""

from __future__ import annotations

import torch

from compress.kmeans.distance import sweep
from compress.kmeans.lloyd import resolved
from compress.kmeans.options import Options
from compress.kmeans.points import Points
from compress.kmeans.trace import Trace

NOISE = 0.25  # of the error a coordinate, at the first annealed iteration


def anneal(
    points: Points, centroids: torch.Tensor, options: Options, generators: list[torch.Generator]
) -> torch.Tensor:
    """Plain iterations with Gaussian noise on the centroids, decaying to nothing.

    The noise is measured by the present error, so it carries centroids out of the local minima
    that Lloyd's steps cannot leave.
    """
    _, k, d = centroids.shape
    traces = [Trace() for _ in range(centroids.shape[0])]
    active = torch.ones(len(traces), dtype=torch.bool)
    for step in range(options.anneal):
        state = sweep(points, centroids)
        state, centroids, _ = resolved(
            points, state, centroids, options, active, generators[0], traces
        )
        mass = torch.from_numpy(state.mass.cpu().numpy().sum(axis=1).mean(axis=1))  # (b,)
        error = (state.total / (mass * d).clamp_min(1e-300)).sqrt()
        strength = NOISE * (1.0 - step / options.anneal) * error
        draws = [torch.randn(k, d, generator=g, dtype=torch.float64) for g in generators]
        noise = strength[:, None, None] * torch.stack(draws)
        centroids = state.means(centroids) + noise.to(centroids.device)
    return centroids
