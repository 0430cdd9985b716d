"""Score of a model folder on the held-out rows, by scikit-learn's metrics."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from compress.loading import load_model, load_tokenizer
from compress.progress import progress_bar
from compress.rows import Rows


def score(metric: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    """The metric times 100, so that a drop is in points; labels and predictions are (rows,)."""
    if metric == "accuracy":
        return 100.0 * float(accuracy_score(labels, predictions))
    if metric == "f1":
        average = "binary" if len(np.unique(labels)) <= 2 else "macro"
        return 100.0 * float(f1_score(labels, predictions, average=average))
    return 100.0 * float(matthews_corrcoef(labels, predictions))


def evaluate(model_dir: Path, data_dir: Path, metric: str) -> dict[str, Any]:
    """Predicts validation.parquet in `data_dir` with the model in `model_dir`."""
    tokenizer, model = load_tokenizer(model_dir), load_model(model_dir)
    return evaluate_model(model, tokenizer, data_dir, metric)


def evaluate_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data_dir: Path, metric: str
) -> dict[str, Any]:
    """As `evaluate`, for a model in memory. Returns metric, score (points) and rows."""
    rows = Rows(data_dir / "validation.parquet")
    labels = np.array([row["labels"] for row in rows])  # type: ignore[attr-defined]
    predictions = predict(model, tokenizer, rows).argmax(axis=1)
    return {"metric": metric, "score": score(metric, labels, predictions), "rows": len(rows)}


@torch.inference_mode()
def predict(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows, batch_size: int = 64
) -> np.ndarray:
    """Logits (rows, classes) float32 in the order of the rows; batches hold similar lengths."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.eval().to(device)
    collate = DataCollatorWithPadding(tokenizer)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    out: list[np.ndarray] = []
    with progress_bar("evaluate", len(rows)) as bar:
        for start in range(0, len(order), batch_size):
            batch = collate([rows[i] for i in order[start : start + batch_size]])
            batch.pop("labels", None)
            logits = model(**{name: value.to(device) for name, value in batch.items()}).logits
            out.append(logits.float().cpu().numpy())
            bar.advance(len(logits))
    logits_sorted = np.concatenate(out)  # (rows, classes)
    logits_all = np.empty_like(logits_sorted)
    logits_all[order] = logits_sorted
    return logits_all
