"""What a failed or crashed run leaves behind: one summary, in the log and in Prefect."""

import logging
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State

from compress.errors import InputError, ShrinkflowError
from tasks import flow_runs

logger = logging.getLogger(__name__)
KEY = "failure"


def explain(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Hook of the pipeline's flow: which stage, which error, what is kept, how to go on.

    It may run in another process than the flow did (a worker's, after a kill), so that all it knows
    comes from the server.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run.id)
        stages = flow_runs.stages_of(client, run.id)
        unfinished = [s for s in stages if s.state is None or not s.state.is_completed()]
        failed = unfinished[0] if unfinished else None
        kept = [s.name.split()[0] for s in stages if s is not failed]
        layers = _finished_layers(client, failed.id) if failed else 0
        if state.is_crashed():
            flow_runs.crash_stages(client, run.id)
        stage = failed.name.split()[0] if failed else None
        text = summary(run, stage, _error(state), kept, layers)
        logger.error("%s", text)
        made = ArtifactCreate(key=KEY, type="markdown", data=text, flow_run_id=run.id)
        client.create_artifact(made)


def summary(
    run: FlowRun, stage: str | None, error: BaseException | str, kept: list[str], layers: int
) -> str:
    """The summary as Markdown: the stage that failed, the stages that are `kept`, the number of
    finished layers of the stage."""
    given = isinstance(error, InputError)
    known = isinstance(error, ShrinkflowError | str)
    what = str(error) if known else f"{type(error).__name__}: {error}"
    held = [f"finished: {', '.join(kept)}"] if kept else []
    held += [f"in the layer store: {layers} finished layers of this run"] if layers else []
    quoted = "\n".join(f"> {line}" for line in what.splitlines())
    first = "Correct what the message names; then the" if given else "The"
    between = f"failed after {kept[-1]}" if kept else "stopped before the first stage"
    return "\n\n".join(
        [
            f"## {run.name}: {f'{stage} failed' if stage else between}",
            quoted,
            f"**Kept** {'; '.join(held) or 'nothing was finished yet'}.",
            f"**To go on** {first} next run, by hand or by its schedule, goes on from there.",
            f"Tags: {', '.join(run.tags)}. Details: the logs in .shrinkflow/logs of the workspace.",
        ]
    )


def _error(state: State[Any]) -> BaseException | str:
    if state.is_failed():
        try:
            found = state.result(raise_on_failure=False)
            if isinstance(found, BaseException):
                return found
        except Exception:  # of a process that is gone there is only what the server was told
            logger.debug("no exception in %s", state)
    return state.message or "it ended without a word"


def _finished_layers(client: SyncPrefectClient, stage: UUID) -> int:
    only = FlowRunFilter(id=FlowRunFilterId(any_=[stage]))
    runs = client.read_task_runs(flow_run_filter=only, limit=200)
    names = [r.name.split() for r in runs if r.state and r.state.is_completed()]
    # `compress NAME`, or `compress 12 layers of 384x1536`
    return sum(int(n[1]) if len(n) > 2 else 1 for n in names if n[0] == "compress")
