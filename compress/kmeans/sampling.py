"""Bounded samples that keep the rare large points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from compress.kmeans.points import Points, prepare
from compress.kmeans.sums import cumulative

_CHUNK = 32767  # values at a time: torch keeps to one thread below 2^15 ...
_GPU_CHUNK = 1 << 24  # ... and a GPU has all it can take


def coreset(points: Points, size: int, generators: Sequence[torch.Generator]) -> Points:
    """A weighted sample whose k-means cost is, in expectation, that of all points.

    Half of the probability is even, half goes with the squared distance from the mean (a
    lightweight coreset: Bachem, Lucic, Krause 2018, arXiv 1702.08248). Even draws alone miss the
    few outliers that hold a percent of a layer's energy, and waste themselves on zeroed blocks.
    One point a stratum, in the order of the points; all of them where size >= n.
    """
    if size >= points.shape[1]:
        return points
    index, masses = draw_by_chance(_reach(points), size, generators)
    share = masses[:, :, None]  # (b, size, 1)
    drawn = points.take(index)
    if drawn.weights is not None:
        share = share * drawn.weights
    return replace(drawn, weights=share.float())


def draw_by_chance(
    reach: torch.Tensor, size: int, generators: Sequence[torch.Generator]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One point of each of `size` strata of the running chances `reach` (b, n) float64.

    Returns indices (b, size), ascending, and how many points each stands for.
    """
    b, n = reach.shape
    ticket = strata(size, generators).to(reach.device)
    index = torch.searchsorted(reach, ticket.expand(b, size).contiguous()).clamp_max(n - 1)
    before = reach.gather(1, (index - 1).clamp_min(0)).where(index > 0, 0.0)
    chance = (reach.gather(1, index) - before).clamp_min(1e-300)
    return index, 1.0 / (size * chance)


def sample_parts(
    parts: Iterable[tuple[torch.Tensor, torch.Tensor | None]], n: int, size: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A coreset of about `size` of n points that come in parts, one at a time: points (m, d) and
    their weights, None, (m,) or (m, d).

    The coresets of the parts, each in proportion to its points, are together one of the whole.
    Returns points (s, d) float32 and their weights (s, 1) or (s, d). InputError for NaN or Inf.
    """
    generator = torch.Generator().manual_seed(seed)
    points, weights = [], []
    for part, own in parts:
        own = own[:, None] if own is not None and own.ndim == 1 else own
        whole = prepare(part[None], None if own is None else own[None])
        drawn = coreset(whole, -(-size * len(part) // n), [generator])
        points.append(drawn.values[0])
        even = torch.ones(len(drawn.values[0]), 1)
        unit = 1.0  # of the part's weights: `prepare` divides them by a power of two
        if own is not None and whole.weights is not None and float(own.max()) > 0.0:
            unit = float(own.max()) / float(whole.weights.max())
        weights.append(even if drawn.weights is None else drawn.weights[0] * unit)
    return torch.cat(points), torch.cat(weights)


def thin(points: Points, size: int, generators: Sequence[torch.Generator]) -> Points:
    """One point from each of `size` equal runs of the points, or all of them: O(size)."""
    n = points.shape[1]
    if size >= n:
        return points
    index = (strata(size, generators) * n).long().clamp_max(n - 1)
    return points.take(index.to(points.device).expand(points.shape[0], size))


def strata(size: int, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """(b | 1, size) float64 in [0, 1): one draw in each of `size` equal intervals.

    A generator for each problem of the batch, or one whose draws they share.
    """
    jitter = [torch.rand(size, generator=g, dtype=torch.float64) for g in generators]
    return (torch.arange(size) + torch.stack(jitter)) / size


def _reach(points: Points) -> torch.Tensor:
    """(b, n) running share of the probability, 1.0 at the end."""
    b, n, d = points.shape
    rows = max(1, (_GPU_CHUNK if points.device.type == "cuda" else _CHUNK) // (b * d))
    far = torch.empty(b, n, dtype=torch.float64, device=points.device)
    for lo in range(0, n, rows):
        part = slice(lo, lo + rows)
        z = (points.values[:, part] - points.offset.float()) * points.scale.float()
        far[:, part] = z.square().sum(dim=2)
    if points.weights is None:
        even = torch.arange(1, n + 1, device=points.device) / n
        return (even.double() + cumulative(far)) / 2
    mass = points.weights.double().sum(dim=2)
    return (cumulative(mass) + cumulative(far * mass)) / 2
