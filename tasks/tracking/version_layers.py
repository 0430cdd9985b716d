"""Which layers of the layer store the registered versions were made of."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from compress.config import Params, TrackingConfig
from compress.errors import ShrinkflowError
from compress.redaction import without_password
from tasks.caching import key
from tasks.outputs import read_json, write_json
from tasks.results import layer_keys
from tasks.tracking.connection import at_once, connected
from tasks.tracking_uri import embedded_file, store_uri
from tasks.workspace import STATE, Workspace

FILE = "layer_keys.json"  # artifact of the version's run
REGISTRIES = "registries"  # a file for each registry that this project has registered in
PAGE = 100


def note_layers(
    client: MlflowClient, workspace: Workspace, params: Params, version: ModelVersion
) -> None:
    """Keeps the keys of the model's layers with the run of the version, and where the registry is.

    Keys that are there stay: after a change of the code, equal content is made of other layers.
    """
    uri = without_password(store_uri(workspace, params))
    folder = workspace.project / STATE / REGISTRIES
    write_json(folder / f"{key(uri=uri)[:16]}.json", {"uri": uri})
    keys, before = layer_keys(workspace), _read(client, version) or []
    if version.run_id and not set(keys) <= set(before):
        client.log_dict(version.run_id, {"keys": sorted({*before, *keys})}, FILE)


def registries(project: Workspace) -> list[str]:
    """The stores that runs of this project have registered versions in, without passwords."""
    files = sorted((project.root / STATE / REGISTRIES).glob("*.json"))
    own = embedded_file(project)
    found = [f"sqlite:///{own}"] if own.is_file() else []
    return list(dict.fromkeys([*found, *(str(read_json(file)["uri"]) for file in files)]))


def layers_of_versions(project: Workspace, uri: str) -> dict[str, list[str]]:
    """`name version N` -> layer keys, for every version of shrinkflow's in the store at `uri`.

    Raises ShrinkflowError where the store does not answer, or a version has no keys: what it needs
    is not known then.
    """
    params = Params.model_construct(tracking=TrackingConfig(uri=uri))
    found: dict[str, list[str]] = {}
    with at_once(project, params), connected(project, params) as client:
        for version in _versions(client):
            name = f"{version.name} version {version.version}"
            keys = _read(client, version)
            if keys is None:
                raise ShrinkflowError(
                    f"{name} does not say which layers it needs; register that model again with "
                    "this version of shrinkflow, or delete the version in MLflow"
                )
            found[name] = keys
    return found


def _versions(client: MlflowClient) -> Iterator[ModelVersion]:
    token = None
    while True:
        page = client.search_model_versions(max_results=PAGE, page_token=token)
        yield from (v for v in page if "content_sha256" in v.tags)
        token = page.token
        if not token:
            return


def _read(client: MlflowClient, version: ModelVersion) -> list[str] | None:
    if not version.run_id or not any(f.path == FILE for f in client.list_artifacts(version.run_id)):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = mlflow.artifacts.download_artifacts(
            run_id=version.run_id, artifact_path=FILE, dst_path=folder
        )
        return list(json.loads(Path(path).read_text(encoding="utf-8"))["keys"])
