"""The pipeline's own flow run: where it works, on what, and what a killed one left behind."""

import platform
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.runtime import deployment, flow_run
from prefect.states import Crashed, Running

from compress.config import Params
from tasks.workspace import Workspace

WAITING = "Waiting"
RUNNING = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))


def place(root: Path) -> str:
    """`machine:/folder`, the tag of everything that runs in a workspace: several machines may use
    one server and the same paths."""
    return f"{platform.node()}:{root}"


def tags_of(workspace: Workspace, params: Params) -> set[str]:
    """Tags of the pipeline's flow run and those of its stages."""
    return {place(workspace.root), params.tracking.model_name}


def is_deployed() -> bool:
    """Whether a schedule or a server started this flow run, rather than somebody's call."""
    return deployment.get_id() is not None


def take_over(workspace: Workspace, params: Params) -> None:
    """Tags this flow run, and ends what Prefect still takes for running in the workspace, whose
    lock we hold: its process was killed, and nobody else can say that it has ended."""
    own = flow_run.get_id()
    here = FlowRunFilterTags(all_=[place(workspace.root)])
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=RUNNING, tags=here)):
            if str(run.id) != own:
                _crash(client, run, "the process was killed; a later run took its place")
                crash_stages(client, run.id)
        mine = client.read_flow_run(UUID(own))
        client.update_flow_run(mine.id, tags=sorted({*mine.tags, *tags_of(workspace, params)}))
        if mine.state is not None and mine.state.name == WAITING:
            running: State[None] = Running()
            client.set_flow_run_state(mine.id, running, force=True)


def stages_of(client: SyncPrefectClient, run: UUID) -> list[FlowRun]:
    """The flow runs of the stages of a pipeline's flow run, in the order in which they began."""
    below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run]))
    found = client.read_flow_runs(flow_run_filter=below)
    return sorted(found, key=lambda stage: stage.created.timestamp() if stage.created else 0.0)


def crash_stages(client: SyncPrefectClient, run: UUID) -> None:
    """Ends what is below a flow run whose process was killed."""
    for stage in stages_of(client, run):
        if stage.state is not None and stage.state.is_running():
            _crash(client, stage, "the process was killed")
            crash_stages(client, stage.id)


def show_waiting(owner: str) -> None:
    """Names the state of this flow run while `owner` works in the workspace."""
    message = f"the workspace is in use by {owner}"
    with get_client(sync_client=True) as client:
        state: State[None] = Running(name=WAITING, message=message)
        client.set_flow_run_state(UUID(flow_run.get_id()), state, force=True)


def _crash(client: SyncPrefectClient, run: FlowRun, message: str) -> None:
    state: State[None] = Crashed(message=message)
    client.set_flow_run_state(run.id, state, force=True)
