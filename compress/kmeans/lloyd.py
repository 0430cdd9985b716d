"""Lloyd's iterations over a batch of equal problems."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from compress.kmeans.distance import Sweep, sweep
from compress.kmeans.empties import partition, resolve
from compress.kmeans.options import Options
from compress.kmeans.points import Points
from compress.kmeans.relaxation import factor

ANNEAL_NOISE = 0.25  # of the error a coordinate, at the first annealed iteration
_REPAIRS = 4  # passes that may follow the last one to use every centroid


@dataclass
class Trace:
    """What happened to one problem."""

    distortion: list[float] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    rounds: int = 0
    failed: bool = False


def iterate(
    points: Points,
    centroids: torch.Tensor,
    options: Options,
    steps: range,
    generator: torch.Generator,
    traces: list[Trace],
) -> torch.Tensor:
    """Over-relaxed iterations (b, k, d) -> (b, k, d): `steps` out of range(options.iterations).

    A problem that converges while its updates are still over-relaxed goes on with plain ones;
    one that converges with plain ones stops.
    """
    active = torch.tensor([not trace.failed for trace in traces])
    settled = torch.zeros_like(active)
    for step in steps:
        state = sweep(points, centroids)
        _record(traces, active, state.empty, in_input_units(state.total, points))
        state, moved, changed = _resolved(
            points, state, centroids, options, active, generator, traces
        )
        failed = torch.tensor([trace.failed for trace in traces])
        rate = torch.where(settled, 1.0, factor(step, options.iterations, options.relaxation))
        means = state.means(moved)
        updated = moved + _each(rate, means) * (means - moved)
        updated = torch.where(changed[:, :, None], means, updated)
        # fairseq's baseline ends with the centroids that its failed resolution left behind
        updated = torch.where(_each(failed, means), moved, updated)
        centroids = torch.where(_each(active, means), updated, centroids)
        still = torch.tensor([_still(trace, options.tolerance) for trace in traces])
        still &= step > steps.start  # distortions of different points do not compare
        active &= ~(failed | (still & (rate == 1.0)))
        settled |= still
        if not bool(active.any()):
            break
    return centroids


def anneal(
    points: Points, centroids: torch.Tensor, options: Options, generator: torch.Generator
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
        state, centroids, _ = _resolved(
            points, state, centroids, options, active, generator, traces
        )
        mass = torch.from_numpy(state.mass.cpu().numpy().sum(axis=1).mean(axis=1))  # (b,)
        error = (state.total / (mass * d).clamp_min(1e-300)).sqrt()
        strength = ANNEAL_NOISE * (1.0 - step / options.anneal) * error
        noise = torch.randn(k, d, generator=generator, dtype=torch.float64)
        noise = (strength[:, None, None] * noise).to(centroids.device)
        centroids = state.means(centroids) + noise
    return centroids


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
    for attempt in range(_REPAIRS + 1):
        about, book = points.about(codebook)
        state = sweep(about, book)
        if attempt == _REPAIRS or options.empties != "partition" or not bool(state.empty.any()):
            break
        done = partition(about, state, book, state.empty > 0)
        if not bool(done.changed.any()):
            break
        for trace, rounds in zip(traces, done.rounds.tolist(), strict=True):
            trace.rounds += rounds
        fresh = about.denormalize(done.centroids)
        codebook = torch.where(done.changed[:, :, None], fresh, codebook)
    total = in_input_units(state.total, about)
    return codebook, Assignment(state.codes, total, state.energy(about, book), state.empty)


def in_input_units(distortion: torch.Tensor, points: Points) -> torch.Tensor:
    return distortion / points.scale.flatten().cpu() ** 2


def _resolved(
    points: Points,
    state: Sweep,
    centroids: torch.Tensor,
    options: Options,
    active: torch.Tensor,
    generator: torch.Generator,
    traces: list[Trace],
) -> tuple[Sweep, torch.Tensor, torch.Tensor]:
    """State, centroids and which of them changed, after resolution where any is empty."""
    need = active & (state.empty > 0).cpu()
    if not bool(need.any()):
        return state, centroids, torch.zeros_like(state.count, dtype=torch.bool)
    done = resolve(options.empties, points, state, centroids, need.to(centroids.device), generator)
    for trace, rounds, failed in zip(
        traces, done.rounds.tolist(), done.failed.tolist(), strict=True
    ):
        trace.rounds += rounds
        trace.failed |= failed
    return done.state, done.centroids, done.changed


def _record(
    traces: list[Trace], active: torch.Tensor, empty: torch.Tensor, distortion: torch.Tensor
) -> None:
    for trace, on, e, v in zip(
        traces, active.tolist(), empty.tolist(), distortion.tolist(), strict=True
    ):
        if on:
            trace.distortion.append(v)
            trace.empty.append(e)


def _still(trace: Trace, tolerance: float) -> bool:
    if len(trace.distortion) < 2:
        return False
    before, now = trace.distortion[-2:]
    return abs(before - now) <= tolerance * before


def _each(flag: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return flag.to(like.device)[:, None, None]
