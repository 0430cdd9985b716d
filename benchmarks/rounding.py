"""Learned against nearest rounding: `python -m benchmarks.rounding ARTIFACTS`, for the artifacts of
a run (finetuned/ and data/).

Every linear layer of the encoder by `adaround`, nothing trained after it. Prints, for each kind of
layer, the mean square of its output's error over that of nearest rounding on the same grid, and
the score of the model with each.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.markdown import table
from compress.calibration.measure import measure
from compress.codecs.adaround import AdaRoundCodec, AdaRoundConfig
from compress.codecs.uniform import UniformCodec, UniformConfig
from compress.config import DataConfig, ModelConfig, Params, PretrainConfig, TextConfig
from compress.evaluation import evaluate_model
from compress.loading import load_model, load_tokenizer
from compress.progress import progress_bar
from compress.replacement import replace
from compress.selection import LayerRef, compressible, weight_of


def fitted(model: Any, refs: list[LayerRef], moments: Mapping[str, Tensor], bits: int) -> list[Any]:
    """(ref, codec by nearest rounding, codec by learned rounding, report) of every layer."""
    found = []
    with progress_bar(f"{bits} bits", len(refs)) as bar:
        for ref in refs:
            weight = weight_of(model, ref).detach()
            nearest, _ = UniformCodec.fit(weight, UniformConfig(bits=bits))
            settings, own = AdaRoundConfig(bits=bits), moments[ref.name]
            found.append((ref, nearest, *AdaRoundCodec.fit(weight, settings, statistics=own)))
            bar.advance()
    return found


def compressed(folder: Path, codecs: Mapping[LayerRef, Any]) -> PreTrainedModel:
    """The finetuned model with these layers compressed."""
    model = load_model(folder / "finetuned")
    for ref, codec in codecs.items():
        replace(model, ref, codec)
    return model


def score(folder: Path, codecs: Mapping[LayerRef, Any]) -> float:
    """Accuracy on the held-out rows with these layers compressed."""
    model = compressed(folder, codecs)
    tokenizer = load_tokenizer(folder / "finetuned")
    return float(evaluate_model(model, tokenizer, folder / "data", "accuracy")["score"])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("--bits", type=int, nargs="+", default=[3])
    arguments = parser.parse_args()
    folder = arguments.artifacts
    model = load_model(folder / "finetuned").eval()
    refs = [ref for ref in compressible(model) if ".layer." in ref.name and ref.kind == "linear"]
    moments = statistics("moments", folder, [ref.name for ref in refs])
    kinds, scores = [], [["32", f"{score(folder, {}):.1f}", ""]]
    for bits in arguments.bits:
        found = fitted(model, refs, moments, bits)
        ratios = defaultdict(list)
        for ref, _, _, report in found:
            kind = ref.name.rpartition(".layer.")[2].partition(".")[2]
            ratios[kind].append(report.output_distortion / report.output_distortion_nearest)
        kinds += [
            [str(bits), kind, str(len(r)), f"{sum(r) / len(r):.2f}", f"{max(r):.2f}"]
            for kind, r in ratios.items()
        ]
        values = (score(folder, {row[0]: row[i] for row in found}) for i in (1, 2))
        scores.append([str(bits), *(f"{value:.1f}" for value in values)])
    print(table(("bits", "layer", "layers", "error, mean", "error, most"), kinds), end="\n\n")
    print(table(("bits", "accuracy, nearest", "accuracy, learned"), scores))


def statistics(kind: str, folder: Path, names: list[str]) -> dict[str, Tensor]:
    """What is measured of the named layers, on the rows that a run takes."""
    text = TextConfig(source="")
    params = Params(
        model=ModelConfig(source=""),
        data=DataConfig(source="", holdout=1),
        pretrain=PretrainConfig(data=text),
        quantize={"groups": [{"name": "all", "layers": ["**"]}]},  # type: ignore[arg-type]
    )
    with TemporaryDirectory() as temporary:
        path, rows = Path(temporary) / kind, folder / "data/train.parquet"
        measure(kind, folder / "finetuned", rows, names, params, path)
        return load_file(path)


if __name__ == "__main__":
    main()
