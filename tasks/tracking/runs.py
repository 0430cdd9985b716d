"""A parent run for the pipeline, a child for every stage: params, metrics, curves, tables."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from compress.config import Params
from tasks import results
from tasks.stages import TABLE
from tasks.tracking.connection import connected, experiment_id
from tasks.tracking.datasets import datasets
from tasks.tracking.descriptions import NOTE
from tasks.tracking.provenance import data_tags, provenance
from tasks.tracking.values import Value, curve, flat, scalars
from tasks.workspace import Workspace

PARENT = "mlflow.parentRunId"
HEADLINE = ("score", "score_uncompressed", "drop", "ratio", "bytes", "bytes_uncompressed")
MAX_PARAMS, MAX_METRICS, MAX_VALUE = 100, 1000, 6000  # MLflow's limits of one call


def start_run(
    workspace: Workspace, params: Params, opened: Callable[[str], None] | None = None
) -> str:
    """Opens the parent run of a pipeline run and returns its id, which `opened` is told at once.

    It stores params.yaml in it: so an artifact store that cannot be written to is found here.
    """
    with connected(workspace, params) as client:
        tags = provenance(workspace, params)
        run = client.create_run(
            experiment_id(client, workspace, params),
            run_name=f"{params.tracking.model_name} {time.strftime('%Y-%m-%d %H:%M')}",
            tags=tags | data_tags(workspace),
        )
        if opened is not None:
            opened(run.info.run_id)
        try:
            _log_params(client, run.info.run_id, params)
        except Exception:
            client.set_terminated(run.info.run_id, "FAILED")
            raise
        return run.info.run_id


def _log_params(client: MlflowClient, run: str, params: Params) -> None:
    given = params.model_dump(mode="json")
    listed = [Param(name, str(value)[:MAX_VALUE]) for name, value in flat(given)]
    for start in range(0, len(listed), MAX_PARAMS):
        client.log_batch(run, params=listed[start : start + MAX_PARAMS])
    client.log_text(run, yaml.safe_dump(given, sort_keys=False), "params.yaml")


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
        log_metrics(client, child, [*scalars(found), *_costs(timing)])
        log_metrics(client, child, curve(results.plot(workspace, stage)))
        if stage == "quantize":
            _log_layers(client, child, workspace)
        for path in (workspace.metrics(stage), workspace.plot(stage)):
            if path.is_file():
                client.log_artifact(child, str(path))
        if stage == "prepare":
            client.log_batch(parent, tags=_tags(data_tags(workspace)))
            for run in (parent, child):
                client.log_inputs(run, datasets(workspace, params))
        if stage == "evaluate":
            log_metrics(client, parent, [(k, found[k], 0) for k in HEADLINE if k in found])
        client.set_terminated(child, end_time=_milliseconds(timing.get("end")))
        return child


def finish_run(parent: str, workspace: Workspace, params: Params, status: str = "FINISHED") -> None:
    """Closes the parent run, and what is open below it, as FINISHED, FAILED or KILLED."""
    with connected(workspace, params) as client:
        experiment = client.get_run(parent).info.experiment_id
        below = f"tags.`{PARENT}` = '{parent}' and attributes.status = 'RUNNING'"
        for child in client.search_runs([experiment], below):
            client.set_terminated(child.info.run_id, status=status)
        client.set_terminated(parent, status=status)


def open_child(
    client: MlflowClient, parent: str, stage: str, timing: Mapping[str, Any], *, cached: bool
) -> str:
    """A run named after the stage, inside the experiment and under the run `parent`."""
    above = client.get_run(parent)
    tags = {PARENT: parent, "stage": stage, "cached": str(cached).lower()}
    tags[NOTE] = TABLE[stage].description
    kept = {k: v for k, v in above.data.tags.items() if k.startswith("mlflow.source.")}
    run = client.create_run(
        above.info.experiment_id,
        start_time=_milliseconds(timing.get("start")),
        tags=kept | tags | {"mlflow.user": above.data.tags.get("mlflow.user", "")},
        run_name=stage,
    )
    return run.info.run_id


def log_metrics(client: MlflowClient, run: str, values: list[Value]) -> None:
    """(name, value, step) in as few calls as MLflow allows: a call costs as much as a thousand."""
    now = int(time.time() * 1000)
    listed = [Metric(name, float(value), now, step) for name, value, step in values]
    for start in range(0, len(listed), MAX_METRICS):
        client.log_batch(run, metrics=listed[start : start + MAX_METRICS])


def _costs(timing: Mapping[str, Any]) -> list[Value]:
    """Seconds and memory; those of single layers are a column of the table of layers."""
    kept = {k: v for k, v in timing.items() if k not in ("start", "end", "layers")}
    return scalars(kept, "cost/")


def _log_layers(client: MlflowClient, run: str, workspace: Workspace) -> None:
    layers, groups = results.plot(workspace, "layers"), results.plot(workspace, "groups")
    if layers is not None:
        seconds = results.timings(workspace, "quantize").get("layers", {})
        table = layers.assign(seconds=layers["name"].map(seconds))
        client.log_table(run, table, "layers.json")
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


def _tags(values: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(name, value) for name, value in values.items()]


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
