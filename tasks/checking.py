"""Everything that can be known before work starts, asked before work starts."""

from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from compress.config import Params
from compress.errors import PlanError
from tasks.workspace import Workspace, opened

if TYPE_CHECKING:
    from compress.plan import Plan


@task(name="check params, model, data and tracking", cache_policy=NO_CACHE)
def check(root: str) -> None:
    """Raises InputError for the first source that cannot be used, PlanError with all that is wrong
    with the plan: layers, weights that are not finite, memory, disk."""
    from tasks import tracking

    workspace, params = opened(root)
    plan = plan_of(workspace, params)
    if plan.problems:
        raise PlanError(list(plan.problems))
    tracking.check(params, workspace)


def plan_of(workspace: Workspace, params: Params) -> "Plan":
    """What would be compressed, how, into how many bytes; the data are looked at, too."""
    from compress import data
    from compress.plan import make_plan
    from compress.sources import model_folder

    data.check(params, workspace.root)
    folder = model_folder(params.model.source, params.model.revision, workspace.root)
    return make_plan(params, folder)
