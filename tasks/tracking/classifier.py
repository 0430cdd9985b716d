"""The registered model: MLflow runs this file as it is (models from code), so nothing is pickled.

It lies in the model's folder together with the package `compress` that made the weights, and needs
nothing else of this project.
"""

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel


class Classifier(PythonModel):
    """Text columns in; for every row the label and the probability of each label out."""

    def load_context(self, context: Any) -> None:
        """Loads weights and tokenizer; `context.model_config["serving"]` names the columns."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        import compress  # noqa: F401  (registers the compressed format with transformers)

        folder = context.artifacts["model"]
        self.serving = context.model_config["serving"]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        self.model = model.eval().to(self.device)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """(rows, text columns) -> `label` (str) and `scores` ({label: probability}) of each row."""
        import torch

        names = self.model.config.id2label
        batch, rows = self.serving["batch_size"], []
        texts = [model_input[column].astype(str).tolist() for column in self.serving["text"]]
        for start in range(0, len(model_input), batch):
            encoded = self.tokenizer(
                *(column[start : start + batch] for column in texts),
                truncation=True,
                max_length=self.serving["max_length"],
                padding=True,
                return_tensors="pt",
            ).to(self.device)
            with torch.inference_mode():
                scores = self.model(**encoded).logits.float().softmax(dim=-1).cpu()
            for row in scores.tolist():
                rows.append({names[i]: score for i, score in enumerate(row)})
        labels = [max(row, key=row.__getitem__) for row in rows]
        return pd.DataFrame({"label": labels, "scores": rows})


mlflow.models.set_model(Classifier())
