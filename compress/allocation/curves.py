"""The rate-distortion curve of one layer: bytes and distortion of every candidate."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from compress.codecs.registry import codec_class
from compress.codecs.report import sum_of_squares


@torch.no_grad()
def measure(
    weight: Tensor,
    candidates: Sequence[Any],
    *,
    seed: int = 0,
    sensitivity: Tensor | None = None,
    statistics: Tensor | None = None,
) -> dict[str, Any]:
    """Measures `weight` (out, ...) with each of the candidates, on a bounded part of it.

    Returns {energy: ||W||^2, points: [{settings, bytes, distortion}]} in plain JSON values;
    `bytes` are those of the tensors as stored, at most, `distortion` is relative to the energy and
    an estimate (Codec.expected_distortions says how good). With a sensitivity s, of mean 1 and a
    shape that broadcasts to the weight's, both are weighted by it: the energy is sum s W^2.
    `statistics` are those of the layer's inputs that its method needs.
    Smallest first. Dominated candidates, as large as another and no better, are left out, but for
    those of a method whose layers belong together: they must find settings that suit all of them.
    The same for any number of threads.
    """
    weight = weight.detach().float()
    points = []
    for method in dict.fromkeys(settings.method for settings in candidates):
        codec, own = codec_class(method), [s for s in candidates if s.method == method]
        found = codec.expected_distortions(
            weight, own, seed=seed, sensitivity=sensitivity, statistics=statistics
        )
        points += [
            {
                "settings": settings.model_dump(mode="json"),
                "bytes": codec.tensor_bytes(weight.shape, settings),
                "distortion": distortion,
            }
            for settings, distortion in zip(own, found, strict=True)
        ]
    weighted = weight if sensitivity is None else weight * sensitivity.float().sqrt()
    together = any(codec_class(s.method).has_ties() for s in candidates)
    points = _by_size(points) if together else undominated(points)
    return {"energy": sum_of_squares(weighted), "points": points}


def undominated(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that no other beats in both `bytes` and `distortion`, smallest first."""
    kept: list[dict[str, Any]] = []
    for point in _by_size(points):
        if not kept or point["distortion"] < kept[-1]["distortion"]:
            kept.append(point)
    return kept


def _by_size(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(points, key=lambda p: (p["bytes"], p["distortion"]))
