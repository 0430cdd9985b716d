"""Versions of the registered model: found by content, known by their tags, judged by the gate."""

import json
import time
from dataclasses import replace

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from compress.config import Params
from compress.errors import InputError
from tasks.gate import Candidate, Decision, decide
from tasks.results import Results
from tasks.tracking import aliases, descriptions
from tasks.tracking.provenance import dvc_lock_hash, provenance
from tasks.workspace import Workspace

JUDGED = ("score", "drop", "ratio", "bytes", "metric", "data_hash")  # fields of Candidate, as tags
KEPT = (  # of provenance
    "git_commit", "dvc_lock_sha256", "code_sha256", "parent_model", "parent_model_revision",
    "data_source",
)  # fmt: skip
ROLLED_BACK = "rolled_back"  # tag: when and by whom the version was taken out of use
LOADS = "load_back"  # tag: `passed`, or why it failed


def find(client: MlflowClient, name: str, content: str) -> ModelVersion | None:
    """The version that was made of the same content, the oldest if there are several."""
    query = f"name = '{name}' and tags.content_sha256 = '{content}'"
    versions = client.search_model_versions(query)
    return min(versions, key=lambda v: int(v.version)) if versions else None


def create(
    client: MlflowClient,
    params: Params,
    results: Results,
    model: LoggedModel,
    run: str,
    tags: dict[str, str],
) -> ModelVersion:
    """Makes a version of a logged model, and the registered model where it is the first."""
    name = params.tracking.model_name
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name, description=descriptions.of_model(params))
    version = client.create_model_version(
        name,
        model.artifact_location,
        run_id=run,
        tags=tags,
        description=descriptions.of_version(params, results),
        model_id=model.model_id,
    )
    link = json.dumps([{"name": name, "version": version.version}])
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": link})
    return version


def log_numbers(client: MlflowClient, model: LoggedModel, run: str, results: Results) -> None:
    """The scores of the logged model: MLflow's list of models is sorted by them."""
    found, now = results.metrics["evaluate"], int(time.time() * 1000)
    values = {name: float(found[name]) for name in ("score", "drop", "ratio", "bytes")}
    metrics = [
        Metric(name, value, now, 0, model_id=model.model_id, run_id=run)
        for name, value in values.items()
    ]
    client.log_batch(run, metrics=metrics)


def set_tags(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    for name, value in tags.items():
        if version.tags.get(name) != value:
            client.set_model_version_tag(version.name, version.version, name, value)


def judge(
    client: MlflowClient, version: ModelVersion, results: Results, params: Params
) -> Decision:
    """Decides, says so in the version's tags, then moves the alias."""
    rolled_back = ROLLED_BACK in version.tags
    candidate = replace(results.candidate(str(version.version)), rolled_back=rolled_back)
    decision = decide(candidate, _champion(client, version.name), params.gate)
    gate = "passed" if decision.passed else "not passed"
    set_tags(client, version, {"gate": gate, "reason": decision.reason})
    if decision.alias == aliases.CHAMPION:
        aliases.make_champion(client, version)
    else:
        client.set_registered_model_alias(version.name, decision.alias, version.version)
    return decision


def _champion(client: MlflowClient, name: str) -> Candidate | None:
    """The present champion as its tags describe it, None where there is none."""
    number = aliases.held(client, name).get(aliases.CHAMPION)
    return None if number is None else candidate(client.get_model_version(name, number))


def candidate(version: ModelVersion) -> Candidate:
    """A version as its tags describe it. InputError where they are not ours."""
    tags, name = version.tags, f"{version.name} version {version.version}"
    missing = [tag for tag in JUDGED if tag not in tags]
    if missing:
        raise InputError(
            f"{name} has no tag {', '.join(missing)}: it was not registered by shrinkflow; give "
            "another tracking.model_name or remove its aliases"
        )
    return Candidate(
        score=float(tags["score"]),
        drop=float(tags["drop"]),
        ratio=float(tags["ratio"]),
        bytes=int(tags["bytes"]),
        metric=tags["metric"],
        data_hash=tags["data_hash"],
        version=str(version.version),
        rolled_back=ROLLED_BACK in tags,
    )


def tags(workspace: Workspace, params: Params, results: Results, content: str) -> dict[str, str]:
    """What a version is known by. Numbers are written so that they are read back exactly."""
    judged = results.candidate()
    tags = {name: str(getattr(judged, name)) for name in JUDGED}
    tags |= {"content_sha256": content, "model_sha256": results.model_hash or ""}
    made_of = provenance(workspace, params)
    if locked := dvc_lock_hash(workspace):
        made_of["dvc_lock_sha256"] = locked
    return tags | {name: made_of[name] for name in KEPT if name in made_of}
