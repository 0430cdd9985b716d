"""Feed-forward neurons pruned by each measure of importance, nothing trained after it:
`python -m benchmarks.pruning ARTIFACTS`, for the artifacts of a run (finetuned/ and data/).

Prints, with the removed neurons' mean added to the next bias and without, the divergence of the
outputs from those of the uncompressed model, and the accuracy.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
from scipy.special import log_softmax

from benchmarks.markdown import table
from benchmarks.rounding import compressed, statistics
from compress.codecs.neuron_settings import NeuronsConfig
from compress.codecs.neurons import NeuronsCodec
from compress.evaluation import predict, score
from compress.loading import load_model, load_tokenizer
from compress.progress import progress_bar
from compress.rows import Rows
from compress.selection import LayerRef, compressible, matches, weight_of

LAYERS = ("**.intermediate.dense", "**.layer.*.output.dense")
IMPORTANCES = get_args(NeuronsConfig.model_fields["importance"].annotation)


def outputs(folder: Path, rows: Rows, codecs: Mapping[LayerRef, NeuronsCodec]) -> np.ndarray:
    """Logits (rows, classes) of the finetuned model with these layers compressed."""
    return predict(compressed(folder, codecs), load_tokenizer(folder / "finetuned"), rows)


def divergence(logits: np.ndarray, other: np.ndarray) -> float:
    """Mean KL(p || q) over rows, in nats, of what both logits (rows, classes) say."""
    p, q = (log_softmax(x.astype(np.float64), axis=1) for x in (logits, other))
    return float((np.exp(p) * (p - q)).sum(1).mean())


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.75, 0.5])
    arguments = parser.parse_args()
    folder = arguments.artifacts
    model = load_model(folder / "finetuned")
    blocks = [r for r in compressible(model) if any(matches(p, r.name) for p in LAYERS)]
    found = statistics("neurons", folder, [ref.name for ref in blocks])
    held_out = Rows(folder / "data/validation.parquet")
    labels = np.array([row["labels"] for row in held_out])  # type: ignore[attr-defined]
    whole, rows = outputs(folder, held_out, {}), []
    with progress_bar("score", 2 * len(arguments.keep) * len(IMPORTANCES)) as bar:
        for keep in arguments.keep:
            for importance in IMPORTANCES:
                found_logits = []
                for balance in (True, False):
                    settings = NeuronsConfig(keep=keep, importance=importance, balance=balance)
                    codecs = {
                        ref: NeuronsCodec.fit(
                            weight_of(model, ref), settings, statistics=found[ref.name]
                        )[0]
                        for ref in blocks
                    }
                    found_logits.append(outputs(folder, held_out, codecs))
                    bar.advance()
                values = [f"{divergence(whole, logits):.3f}" for logits in found_logits]
                values += [f"{accuracy(labels, logits):.1f}" for logits in found_logits]
                rows.append([f"{keep:g}", f"`{importance}`", *values])
    print(f"uncompressed {accuracy(labels, whole):.1f}")
    head = ("keep", "importance", "divergence, balanced", "plain", "accuracy, balanced", "plain")
    print(table(head, rows))


def accuracy(labels: np.ndarray, logits: np.ndarray) -> float:
    """In percent."""
    return score("accuracy", labels, logits.argmax(axis=1))


if __name__ == "__main__":
    main()
