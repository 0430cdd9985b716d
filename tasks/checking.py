"""Everything that can be known before work starts, asked before work starts."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from compress.errors import PlanError
from tasks.planning import plan_of
from tasks.workspace import opened


@task(name="check params, model, data and tracking", cache_policy=NO_CACHE)
def check(root: str) -> None:
    """Raises InputError for the first source that cannot be used, PlanError with all that is wrong
    with the plan: layers, weights that are not finite, memory, disk."""
    from tasks import tracking

    workspace, params = opened(root)
    plan = plan_of(workspace.root, params)
    if plan.problems:
        raise PlanError(list(plan.problems))
    tracking.check(params, workspace)
