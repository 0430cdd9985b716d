"""Everything that can be known before work starts, asked before work starts."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from compress.errors import PlanError
from tasks import cluster
from tasks.planning import plan_of
from tasks.retrying import NETWORK
from tasks.workspace import STAGES, opened


@task(
    name="check params, model, data and tracking",
    task_run_name="check params, model, data and tracking",
    cache_policy=NO_CACHE,
    **NETWORK,
)
def check(root: str, stage: str) -> None:
    """Before `stage`, the first that has work to do, and all after it.

    Raises PlanError with all that is wrong: data, layers, weights that are not finite, memory,
    disk. Raises InputError where there is no model, or no MLflow, Dask or store, to work with.
    """
    from tasks import tracking

    workspace, params = opened(root)
    if STAGES.index(stage) <= STAGES.index("quantize"):
        _, problems = plan_of(workspace.root, params)
        if problems:
            raise PlanError(problems)
        cluster.check_compute(params, workspace)
    tracking.check(params, workspace)
