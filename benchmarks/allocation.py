"""How long a size budget takes for RoBERTa-base: `python -m benchmarks.allocation`.

Weights of its shapes, drawn at random (72 linear layers, embeddings of words and positions):
rate-distortion curves on `--workers` threads, then the solver for several ratios. Writes
docs/benchmarks/allocation.json.
"""

import argparse
import json
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, RobertaConfig

from compress.allocation.allocate import allocate
from compress.allocation.candidates import layer_candidates
from compress.allocation.curves import measure
from compress.allocation.sensitivity import uniform
from compress.allocation.sizes import FileSizes
from compress.config import BudgetConfig, QuantizeConfig
from compress.selection import SelectedLayer, select

OUT = Path(__file__).parent.parent / "docs" / "benchmarks" / "allocation.json"
RATIOS = (12, 16, 20, 28)
GROUPS = [
    {"name": "ffn", "layers": ["**.intermediate.dense", "**.layer.*.output.dense"]},
    {"name": "embeddings", "layers": ["**.word_embeddings", "**.position_embeddings"]},
    {"name": "attention", "layers": ["**.attention.**"]},
]


def curve(layer: SelectedLayer, quantize: QuantizeConfig, seed: int) -> dict[str, Any]:
    """The curve of a layer with random weights."""
    generator = torch.Generator().manual_seed(seed)
    weight = 0.02 * torch.randn(layer.ref.shape, generator=generator)
    candidates = layer_candidates(layer.ref.shape, layer.settings, quantize, layer.group)
    return measure(weight, candidates, seed=seed)


def main() -> None:
    """Measures, prints and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quantize = QuantizeConfig.model_validate({"groups": GROUPS})
    config = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    layers = select(model, quantize).layers
    started = time.perf_counter()
    with ThreadPoolExecutor(arguments.workers) as pool:
        found = pool.map(lambda i: curve(layers[i], quantize, i), range(len(layers)))
        curves = {layer.ref.name: c for layer, c in zip(layers, found, strict=True)}
    result: dict[str, Any] = {
        "weights": len(layers),
        "candidates": sum(
            len(layer_candidates(x.ref.shape, x.settings, quantize, x.group)) for x in layers
        ),
        "curve_seconds": round(time.perf_counter() - started, 1),
        "curve_processor_seconds": round(time.process_time(), 1),
        "workers": arguments.workers,
        "load": round(os.getloadavg()[0], 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "budgets": [],
    }
    sensitivity = uniform(curves, layers)
    for ratio in RATIOS:
        started = time.perf_counter()
        sizes = FileSizes(model, layers, quantize.rest)
        spent = allocate(sizes, layers, curves, sensitivity, BudgetConfig(ratio=ratio))
        row = {"ratio": ratio, "limit": spent.limit, "bytes": spent.bytes, "gap": spent.gap}
        result["budgets"].append(row | {"solve_seconds": round(time.perf_counter() - started, 2)})
    text = json.dumps(result, indent=2)
    print(text)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
