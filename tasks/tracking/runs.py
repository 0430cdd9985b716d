"""A parent run for the pipeline, a child for every stage: params, metrics, curves, tables."""

import getpass
import math
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from compress.config import Params
from tasks import results, source
from tasks.tracking.connection import connected, experiment_id, without_password
from tasks.workspace import Workspace

PARENT = "mlflow.parentRunId"
HEADLINE = ("score", "score_uncompressed", "drop", "ratio", "bytes", "bytes_uncompressed")
CODE = ("compress.data", "compress.training", "compress.quantization", "compress.evaluation")
MAX_PARAMS, MAX_METRICS, MAX_VALUE = 100, 1000, 6000  # MLflow's limits of one call


def start_run(workspace: Workspace, params: Params) -> str:
    """Opens the parent run of a pipeline run and returns its id."""
    with connected(workspace, params) as client:
        tags = provenance(workspace, params)
        run = client.create_run(
            experiment_id(client, workspace, params),
            run_name=f"{params.tracking.model_name} {time.strftime('%Y-%m-%d %H:%M')}",
            tags=tags | data_tags(workspace),
        )
        given = loggable(params)
        listed = [Param(name, str(value)[:MAX_VALUE]) for name, value in flat(given)]
        for start in range(0, len(listed), MAX_PARAMS):
            client.log_batch(run.info.run_id, params=listed[start : start + MAX_PARAMS])
        client.log_text(run.info.run_id, yaml.safe_dump(given, sort_keys=False), "params.yaml")
        return run.info.run_id


def loggable(params: Params) -> dict[str, Any]:
    """The params as they may be stored where others read them."""
    given = params.model_dump(mode="json")
    if params.tracking.uri:
        given["tracking"]["uri"] = without_password(params.tracking.uri)
    return given


def log_stage(
    parent: str, workspace: Workspace, params: Params, stage: str, *, cached: bool = False
) -> str:
    """Logs what a finished stage left behind as a child of `parent`; returns the child's id.

    `cached` marks a stage that was not run again; its numbers are those of the run that made it.
    """
    with connected(workspace, params) as client:
        timing = results.timings(workspace, stage)
        child = open_child(client, parent, stage, timing, cached=cached)
        found = results.metrics(workspace, stage)
        log_metrics(client, child, [*scalars(found), *scalars(timing, "cost/", ("start", "end"))])
        log_metrics(client, child, curve(results.plot(workspace, stage)))
        if stage == "quantize":
            _log_layers(client, child, workspace)
        for path in (workspace.metrics(stage), workspace.plot(stage)):
            if path.is_file():
                client.log_artifact(child, str(path))
        if stage == "prepare":
            client.log_batch(parent, tags=_tags(data_tags(workspace)))
        if stage == "evaluate":
            log_metrics(client, parent, [(k, found[k], 0) for k in HEADLINE if k in found])
        client.set_terminated(child, end_time=_milliseconds(timing.get("end")))
        return child


def finish_run(parent: str, workspace: Workspace, params: Params, status: str = "FINISHED") -> None:
    """Closes the parent run as FINISHED, FAILED or KILLED."""
    with connected(workspace, params) as client:
        client.set_terminated(parent, status=status)


def open_child(
    client: MlflowClient, parent: str, stage: str, timing: Mapping[str, Any], *, cached: bool
) -> str:
    """A run named after the stage, inside the experiment and under the run `parent`."""
    above = client.get_run(parent)
    tags = {PARENT: parent, "stage": stage, "cached": str(cached).lower()}
    kept = {k: v for k, v in above.data.tags.items() if k.startswith("mlflow.source.")}
    run = client.create_run(
        above.info.experiment_id,
        start_time=_milliseconds(timing.get("start")),
        tags=kept | tags | {"mlflow.user": above.data.tags.get("mlflow.user", "")},
        run_name=stage,
    )
    return run.info.run_id


def log_metrics(client: MlflowClient, run: str, values: list[tuple[str, float, int]]) -> None:
    """(name, value, step) in as few calls as MLflow allows: a call costs as much as a thousand."""
    now = int(time.time() * 1000)
    listed = [Metric(name, float(value), now, step) for name, value, step in values]
    for start in range(0, len(listed), MAX_METRICS):
        client.log_batch(run, metrics=listed[start : start + MAX_METRICS])


def _log_layers(client: MlflowClient, run: str, workspace: Workspace) -> None:
    layers, groups = results.plot(workspace, "layers"), results.plot(workspace, "groups")
    if layers is not None:
        client.log_table(run, layers, "layers.json")
        client.log_artifact(run, str(workspace.plot("layers")))
    if groups is not None:
        numbers = groups.select_dtypes("number")
        steps = [
            (f"group/{column}", value, step)
            for column in numbers
            for step, value in enumerate(numbers[column], start=1)
        ]
        log_metrics(client, run, steps)
        client.log_artifact(run, str(workspace.plot("groups")))


def curve(table: pd.DataFrame | None) -> list[tuple[str, float, int]]:
    """Every number of a training curve with its step; groups are told apart by name."""
    if table is None:
        return []
    columns = [c for c in table.select_dtypes("number") if c != "step"]
    group = table["group"].astype(str) + "/" if "group" in table else [""] * len(table)
    return [
        (f"train/{name}{column}", value, int(step))
        for column in columns
        for name, value, step in zip(group, table[column], table["step"], strict=True)
        if not math.isnan(value)
    ]


def scalars(
    node: Any, prefix: str = "", without: tuple[str, ...] = ()
) -> list[tuple[str, float, int]]:
    """The numbers of a JSON object, nested names joined by dots."""
    numbers = []
    for name, value in flat(node, prefix):
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append((name, float(value), 0))
    return [n for n in numbers if n[0].removeprefix(prefix) not in without]


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of nested mappings; list items go by their `name`, else position."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from flat(value, f"{prefix}{name}.")
    elif isinstance(node, list) and node and all(isinstance(item, dict) for item in node):
        for i, item in enumerate(node):
            yield from flat(item, f"{prefix}{item.get('name', i)}.")
    else:
        yield prefix.removesuffix("."), node


def provenance(workspace: Workspace, params: Params) -> dict[str, str]:
    """Tags that say what a run was made of: code, commit, base model, user."""
    tags = {
        "code_sha256": source.code_version(CODE),
        "parent_model": params.model.source,
        "data_source": params.data.source,
        "mlflow.source.name": "shrinkflow",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
    }
    if params.model.revision:
        tags["parent_model_revision"] = params.model.revision
    commit = git_commit(workspace)
    if commit:
        tags |= {"git_commit": commit, "mlflow.source.git.commit": commit.removesuffix("-dirty")}
    return tags


def data_tags(workspace: Workspace) -> dict[str, str]:
    """Hashes of the rows that `prepare` wrote, none where it has not been run."""
    hashes = results.data_facts(workspace).get("sha256", {})
    return {f"data_sha256.{split}": sha for split, sha in hashes.items()}


def git_commit(workspace: Workspace) -> str | None:
    """The commit that is checked out, `-dirty` where tracked files differ; None outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=workspace.root, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"


def _tags(values: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(name, value) for name, value in values.items()]


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
