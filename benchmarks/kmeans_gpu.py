"""RoBERTa-base's weights on a GPU, in batches of equal shape; written before one was at hand."""

from __future__ import annotations

import statistics
import time
from importlib.util import find_spec
from typing import Any

import torch

from compress.kmeans import fit_batched
from compress.kmeans.distance import sweep
from compress.kmeans.points import prepare

# (matrices, blocks of 8 each): attention 768 x 768, both FFN shapes, the embedding 50,265 x 768
ROBERTA = [(48, 73_728), (24, 294_912), (1, 4_825_440)]


def gpu(seeds: int, quick: bool) -> dict[str, Any]:
    """Seconds for all weights, and for one pass over the FFN weights; nothing without CUDA."""
    if not torch.cuda.is_available():
        return {}
    generator = torch.Generator("cuda").manual_seed(0)
    weights = [torch.randn(b, n, 8, device="cuda", generator=generator) for b, n in ROBERTA]
    for x in weights:  # compiles
        fit_batched(x[:1, :65536], 256, iterations=1)
    found = {
        "all weights": timed(lambda: [fit_batched(x, 256) for x in weights], 3),
        "device": torch.cuda.get_device_name(),
    }
    x = weights[1]
    points = prepare(x)
    centroids = x[:, :256].double() * points.scale
    found["pass"] = timed(lambda: sweep(points, centroids), 15)
    if find_spec("flash_kmeans"):
        from flash_kmeans import batch_kmeans_Euclid

        start = x[:, :256].clone()

        def peer(iterations: int) -> float:
            return timed(
                lambda: batch_kmeans_Euclid(
                    x, 256, max_iters=iterations, tol=0.0, init_centroids=start
                ),
                5,
            )

        found["flash-kmeans pass"] = (peer(11) - peer(1)) / 10
    return found


def timed(work: Any, times: int) -> float:
    """Median seconds, after one run that does not count."""
    work()
    seconds = []
    for _ in range(times):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
