"""The registry: log the model, load it back, judge it, set the alias. In this order, always."""

from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from compress.config import Params
from compress.errors import ShrinkflowError
from tasks import report
from tasks.results import Results, metrics
from tasks.tracking import descriptions, model_versions, packaging, runs
from tasks.tracking.connection import check_names, connected, reason
from tasks.tracking.values import scalars
from tasks.tracking.version_layers import note_layers
from tasks.workspace import STAGES, Workspace


def register(workspace: Workspace, params: Params, parent: str | None = None) -> dict[str, Any]:
    """Registers artifacts/compressed, sets its alias, writes the report and logs it.

    Without `parent` the runs are made here from what the stages left behind. Equal content is
    registered once: a second call finds the version and judges it anew. A version that does not
    load in a fresh process, or predicts differently there, is tagged, gets no alias, and raises
    ShrinkflowError. Returns what belongs into metrics/register.json.
    """
    check_names(params)
    results = Results.read(workspace)
    packaging.require_model(workspace)
    own = parent is None
    run = parent or _all_runs(workspace, params)
    try:
        found = _register(workspace, params, results, run)
    except Exception:
        if own:
            runs.finish_run(run, workspace, params, "FAILED")
        raise
    if own:
        runs.finish_run(run, workspace, params)
    return found


def _all_runs(workspace: Workspace, params: Params) -> str:
    parent = runs.start_run(workspace, params)
    for stage in STAGES[: STAGES.index("register")]:
        if metrics(workspace, stage):
            runs.log_stage(parent, workspace, params, stage)
    return parent


def _register(workspace: Workspace, params: Params, results: Results, run: str) -> dict[str, Any]:
    """The child run `register`, whatever comes of it."""
    with connected(workspace, params) as client:
        child = runs.open_child(client, run, "register", {}, cached=False)
        try:
            found = _version(client, workspace, params, results, run)
        except Exception:
            client.set_terminated(child, "FAILED")
            raise
        client.log_artifact(run, str(report.write_report(workspace, params, registration=found)))
        if workspace.dvc_lock.is_file():
            client.log_artifact(run, str(workspace.dvc_lock))
        client.log_dict(child, found, "register.json")
        runs.log_metrics(client, child, scalars(found))
        summary = f"{found['name']} version {found['version']}, {found['alias']}"
        client.set_tag(run, "registered", summary)
        client.set_tag(run, descriptions.NOTE, descriptions.of_run(params, results, found))
        client.set_terminated(child)
    return found


def _version(
    client: MlflowClient, workspace: Workspace, params: Params, results: Results, run: str
) -> dict[str, Any]:
    """Finds or makes the version, has it loaded back, judges it."""
    name = params.tracking.model_name
    content = packaging.content_hash(workspace, params)
    tags = model_versions.tags(workspace, params, results, content)
    version = model_versions.find(client, name, content)
    new = version is None
    if version is None:
        model = packaging.log_model(client, workspace, params, run)
        model_versions.log_numbers(client, model, run, results)
        version = model_versions.create(client, params, results, model, run, tags)
    else:
        model_versions.set_tags(client, version, tags)
    note_layers(client, workspace, params, version)
    if version.tags.get(model_versions.LOADS) != "passed":
        _load_back(client, version, workspace, params)
    decision = model_versions.judge(client, version, results, params)
    return {
        "name": name,
        "version": int(version.version),
        "new": new,
        "alias": decision.alias,
        "passed": decision.passed,
        "reason": decision.reason,
        "model_sha256": results.model_hash,
        "content_sha256": content,
    }


def _load_back(
    client: MlflowClient, version: ModelVersion, workspace: Workspace, params: Params
) -> None:
    try:
        packaging.load_back(workspace, params, f"models:/{version.name}/{version.version}")
    except ShrinkflowError as error:
        model_versions.set_tags(client, version, {model_versions.LOADS: f"failed: {reason(error)}"})
        raise ShrinkflowError(
            f"{version.name} version {version.version} was registered but got no alias: {error}"
        ) from error
    model_versions.set_tags(client, version, {model_versions.LOADS: "passed"})
