"""The task behind the stage `register`."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.outputs import write_json
from tasks.workspace import opened


@task(name="register the model", cache_policy=NO_CACHE)
def register(root: str, parent: str | None) -> dict[str, Any]:
    """Report, MLflow version and alias, and metrics/register.json, which says what was decided.

    `parent` is the MLflow run of the pipeline; without one (`dvc repro`) a run is made here.
    """
    from tasks import tracking

    workspace, params = opened(root)
    found = tracking.register(workspace, params, parent)
    write_json(workspace.metrics("register"), found)
    return found
