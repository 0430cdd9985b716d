"""The rate-distortion curve of one layer: bytes and distortion of every candidate."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from compress.codecs.base import codec_class, sum_of_squares


@torch.no_grad()
def measure(weight: Tensor, candidates: Sequence[Any], *, seed: int = 0) -> dict[str, Any]:
    """Measures `weight` (out, ...) with each of the candidates, on a bounded part of it.

    Returns {energy: ||W||^2, points: [{settings, bytes, distortion}]} in plain JSON values;
    `bytes` are those of the tensors as stored, exactly, `distortion` is relative to the energy and
    an estimate (Codec.expected_distortion says how good). Dominated candidates, as large as another
    and no better, are left out; smallest first. The same for any number of threads.
    """
    weight = weight.detach().float()
    points = []
    for settings in candidates:
        codec = codec_class(settings.method)
        points.append(
            {
                "settings": settings.model_dump(mode="json"),
                "bytes": codec.tensor_bytes(weight.shape, settings),
                "distortion": codec.expected_distortion(weight, settings, seed=seed),
            }
        )
    return {"energy": sum_of_squares(weight), "points": undominated(points)}


def undominated(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that no other beats in both `bytes` and `distortion`, smallest first."""
    kept: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda p: (p["bytes"], p["distortion"])):
        if not kept or point["distortion"] < kept[-1]["distortion"]:
            kept.append(point)
    return kept
