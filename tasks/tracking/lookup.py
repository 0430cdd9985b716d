"""A registered version with what was logged when it was made, to compare it with another."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from compress.config import Params
from tasks.comparison import Version
from tasks.tracking import aliases, model_versions
from tasks.tracking.connection import registry
from tasks.tracking.runs import PARENT
from tasks.workspace import Workspace

LAYERS = "layers.csv"  # logged by `quantize`
GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def versions(workspace: Workspace, params: Params, *wanted: str) -> list[Version]:
    """The versions of these numbers or aliases. InputError where one is not there, or not ours."""
    with registry(workspace, params) as (client, name):
        return [_version(client, name, text) for text in wanted]


def _version(client: MlflowClient, name: str, wanted: str) -> Version:
    found = aliases.find(client, name, wanted)
    number = str(found.version)
    held = [alias for alias, n in aliases.held(client, name).items() if n == number]
    params, layers = _logged(client, found.run_id)
    return Version(
        name=name,
        judged=model_versions.candidate(found),
        aliases=tuple(sorted(held)),
        created=int(found.creation_timestamp) / 1000,
        tags=dict(found.tags),
        params=params,
        layers=layers,
    )


def _logged(client: MlflowClient, run_id: str | None) -> tuple[dict[str, str], pd.DataFrame | None]:
    """Params and table of layers of the pipeline run; nothing where it has been deleted."""
    try:
        run = client.get_run(run_id or "")
    except MlflowException as error:
        if error.error_code not in GONE:
            raise
        return {}, None
    query = f"tags.`{PARENT}` = '{run.info.run_id}' and tags.stage = 'quantize'"
    for child in client.search_runs([run.info.experiment_id], query, max_results=1):
        if any(file.path == LAYERS for file in client.list_artifacts(child.info.run_id)):
            with TemporaryDirectory() as folder:
                path = client.download_artifacts(child.info.run_id, LAYERS, folder)
                return run.data.params, pd.read_csv(Path(path))
    return run.data.params, None
