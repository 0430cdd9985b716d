"""The engine, its baselines and its peers behind one call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from compress.kmeans import assign, fit

FAIRSEQ = {
    "seeding": "random",
    "empties": "perturb",
    "relaxation": 1.0,
    "tolerance": 0.0,
    "consolidation": "off",
}


@dataclass(frozen=True)
class Outcome:
    """relative distortion, what the fit took (wall and processor time), and its clusters."""

    distortion: float
    seconds: float
    processor: float
    initial_empty: int | None = None
    total_empty: int | None = None
    rounds: int | None = None
    dead: int = 0
    failed: bool = False


class Watch:
    """Wall time, and processor time over all threads, which other programs disturb less."""

    def __init__(self) -> None:
        self.started = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.started[0], time.process_time() - self.started[1]


def engine(x: torch.Tensor, k: int, seed: int, iterations: int = 15, **options: Any) -> Outcome:
    watch = Watch()
    result = fit(x, k, seed=seed, iterations=iterations, **options)
    taken = watch.read()
    empty = result.empty_trace or [0]
    return Outcome(
        relative_distortion(x, result.codebook, result.codes),
        *taken,
        empty[0],
        sum(empty),
        result.resolution_rounds,
        k - result.codes.unique().numel(),
        result.failed,
    )


def sklearn(init: str) -> Callable[..., Outcome]:
    def run(x: torch.Tensor, k: int, seed: int, iterations: int = 15, tol: float = 0.0) -> Outcome:
        from sklearn.cluster import KMeans

        watch = Watch()
        model = KMeans(k, init=init, n_init=1, max_iter=iterations, tol=tol, random_state=seed)
        model.fit(x.numpy())
        return _outcome(x, model.cluster_centers_, watch)

    return run


def faiss(points_a_centroid: int) -> Callable[..., Outcome]:
    def run(x: torch.Tensor, k: int, seed: int, iterations: int = 15) -> Outcome:
        import faiss as library

        library.omp_set_num_threads(torch.get_num_threads())
        array = x.numpy()
        watch = Watch()
        model = library.Kmeans(
            x.shape[1],
            k,
            niter=iterations,
            seed=seed,
            max_points_per_centroid=points_a_centroid,
            min_points_per_centroid=1,
        )
        model.train(array)
        model.index.search(array, 1)  # the codes, which every other method also returns
        return _outcome(x, model.centroids, watch)

    return run


def methods() -> dict[str, Callable[..., Outcome]]:
    """What is installed, the engine first."""
    found: dict[str, Callable[..., Outcome]] = {
        "shrinkflow": engine,
        "shrinkflow, anneal 60": lambda x, k, seed, iterations=15: engine(
            x, k, seed, iterations, anneal=60
        ),
        "fairseq's rule": lambda x, k, seed, iterations=15: engine(
            x, k, seed, iterations, **FAIRSEQ
        ),
    }
    if find_spec("sklearn"):
        found["sklearn k-means++"] = sklearn("k-means++")
        found["sklearn random"] = sklearn("random")
    if find_spec("faiss"):
        found["faiss"] = faiss(1 << 30)
        found["faiss, its sample of 256 k"] = faiss(256)
    return found


def fairseq_iteration(x: torch.Tensor, k: int) -> float:
    """Seconds of one iteration with broadcast differences (k, d, n) and a loop over the means."""
    centroids = x[torch.randint(len(x), (k,), generator=torch.Generator().manual_seed(0))].clone()
    points = x.T.contiguous()  # (d, n)
    started = time.perf_counter()
    distance = (points[None] - centroids[:, :, None]).norm(p=2, dim=1)  # (k, n)
    codes = distance.argmin(dim=0)
    for j in range(k):
        centroids[j] = points[:, codes == j].mean(dim=1)
    return time.perf_counter() - started


def relative_distortion(x: torch.Tensor, codebook: torch.Tensor, codes: torch.Tensor) -> float:
    error = energy = 0.0
    for lo in range(0, len(x), 16384):  # in parts, or it would be the peak of a fit's memory
        part = x[lo : lo + 16384].double()
        error += float((part - codebook[codes[lo : lo + 16384]]).square().sum())
        energy += float(part.square().sum())
    return error / energy


def _outcome(x: torch.Tensor, centroids: Any, watch: Watch) -> Outcome:
    taken = watch.read()
    codebook = torch.as_tensor(centroids, dtype=torch.float32)
    codes = assign(x, codebook)
    dead = codebook.shape[0] - codes.unique().numel()
    return Outcome(relative_distortion(x, codebook, codes), *taken, dead=dead)
