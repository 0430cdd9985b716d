"""Flow runs of processes that were killed: nobody else can say that they have ended."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.runtime import flow_run
from prefect.states import Crashed


def mark_crashed(root: str) -> int:
    """Ends what Prefect still takes for running in the workspace `root`, whose lock we hold.

    Returns the number of flow runs.
    """
    running = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
    )
    with get_client(sync_client=True) as client:
        dead = [
            run
            for run in client.read_flow_runs(flow_run_filter=running)
            if run.parameters.get("root") == root and str(run.id) != flow_run.get_id()
        ]
        for run in dead:
            state: State[None] = Crashed(
                message="the process was killed; a later run took its place"
            )
            client.set_flow_run_state(run.id, state, force=True)
    return len(dead)
