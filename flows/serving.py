"""`shrinkflow serve`: the pipeline on a schedule, for as long as this process runs."""

import asyncio
import hashlib
import logging
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from compress.errors import ShrinkflowError
from compress.params_yaml import load_params
from flows import console
from flows.pipeline import pipeline
from tasks.flow_runs import place, tags_of
from tasks.schedules import CronTimes
from tasks.workspace import Workspace, workspace_of

LOOK_SECONDS = 3.0
WAIT_MINUTES = 60.0
ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
NEWEST: dict[str, Any] = {"sort": FlowRunSort.END_TIME_DESC, "limit": 20}
logger = logging.getLogger(__name__)


def serve(params: Path, times: CronTimes) -> None:
    """Runs a params file at the times of a cron expression until Ctrl-C or SIGTERM.

    One run at a time, each with what the file then says. A run that is under way at the end is
    stopped; the next one goes on from there. Raises ShrinkflowError where Prefect's server is lost.
    """
    asyncio.run(_serve(params, times))


async def _serve(file: Path, times: CronTimes) -> None:
    workspace, params = workspace_of(file), load_params(file)
    runner = Runner(name=_name(workspace), limit=1, query_seconds=5)
    deployment = await pipeline.ato_deployment(
        name=_name(workspace),
        schedule=times.schedule(),
        parameters={"params": str(file), "wait_minutes": WAIT_MINUTES},
        tags=sorted(tags_of(workspace, params)),
        description=f"`shrinkflow serve` of {place(workspace.root)}",
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    served = await runner.aadd_deployment(deployment)
    work = {asyncio.create_task(runner.start()), asyncio.create_task(_report(served, times))}
    await asyncio.sleep(0)  # the runner sets a handler of its own, which exits at once
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    try:
        await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        console.note("stopping; the schedule is paused")
    finally:
        if runner.started:
            await runner.astop()
        for task in work:
            task.cancel()
        ends = await asyncio.gather(*work, return_exceptions=True)
    for error in ends:
        if isinstance(error, Exception):
            logger.error("serving ended", exc_info=error)
            raise ShrinkflowError(f"Prefect's server is gone or cannot be used: {error}")


async def _report(served: UUID, times: CronTimes) -> None:
    """A line for every run that has ended."""
    ended = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[served]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=ENDED)),
    )
    async with get_client() as client:
        seen = {run.id for run in await client.read_flow_runs(flow_run_filter=ended, **NEWEST)}
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for run in await client.read_flow_runs(flow_run_filter=ended, **NEWEST):
                if run.id not in seen:
                    seen.add(run.id)
                    console.run_ends(run, await asyncio.to_thread(times.next, 1))


def _name(workspace: Workspace) -> str:
    """Of the deployment; one a workspace, also where several machines use one server."""
    return f"serve@{hashlib.sha256(place(workspace.root).encode()).hexdigest()[:8]}"
