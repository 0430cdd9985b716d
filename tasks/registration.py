"""The task behind the stage `register`."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifacts import show_result
from tasks.outputs import write_json
from tasks.retrying import NETWORK
from tasks.workspace import opened

TIMEOUT = 3600.0  # seconds; of uploads and calls, should a server never answer one


@task(
    name="register the model",
    task_run_name="register the model",
    cache_policy=NO_CACHE,
    timeout_seconds=TIMEOUT,
    **NETWORK,
)
def register(root: str, parent: str | None) -> dict[str, Any]:
    """Report, MLflow version and alias, and metrics/register.json, which says what was decided.

    `parent` is the MLflow run of the pipeline; without one (`dvc repro`) a run is made here.
    """
    from tasks import tracking
    from tasks.tracking.pages import run_page

    workspace, params = opened(root)
    found = tracking.register(workspace, params, parent)
    write_json(workspace.metrics("register"), found)
    show_result(workspace, found, run_page(workspace, params, parent) if parent else None)
    return found
