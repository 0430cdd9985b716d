"""The rows that a run worked with, as MLflow's datasets: name, digest, number of rows."""

import json

from mlflow.entities import Dataset, DatasetInput, InputTag

from compress.config import Params
from tasks import results
from tasks.workspace import Workspace

CONTEXT = "mlflow.data.context"
DIGITS = 36  # of a hash, the most that MLflow keeps


def datasets(workspace: Workspace, params: Params) -> list[DatasetInput]:
    """One for each split that `prepare` wrote, none where it has not been run."""
    facts = results.data_facts(workspace)
    rows = facts.get("rows", {})
    found = []
    for split, digest in facts.get("sha256", {}).items():
        source = (params.pretrain.data if split == "pretrain" else params.data).source
        dataset = Dataset(
            name=source,
            digest=digest[:DIGITS],
            source_type="local",
            source=json.dumps({"uri": source}),
            profile=json.dumps({"num_rows": rows[split]}) if split in rows else None,
        )
        found.append(DatasetInput(dataset, [InputTag(CONTEXT, split)]))
    return found
