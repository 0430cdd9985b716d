"""The whole run as one flow: every stage that DVC finds changed is run, then recorded with DVC."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from prefect import flow, tags
from prefect.client.schemas import State
from prefect.states import Completed

from compress.config import Params
from compress.params_yaml import load_params
from flows import console
from flows.naming import pipeline_name
from flows.stage_flows import flow_of
from tasks import flow_runs
from tasks.checking import check
from tasks.environment import log_to
from tasks.failures import explain
from tasks.journal import Journal
from tasks.lock import BusyError, workspace_lock
from tasks.outputs import read_json
from tasks.params_file import set_up
from tasks.pipeline_file import check_code_file, write_pipeline
from tasks.source import check_unchanged
from tasks.stages import TABLE
from tasks.versions import Versions, note_recorded, open_versions
from tasks.workspace import PARAMS_FILE, STAGES, Workspace, workspace_of


@flow(
    name="shrinkflow",
    flow_run_name=pipeline_name,
    validate_parameters=False,
    on_failure=[explain],
    on_crashed=[explain],
)
def pipeline(
    params: str = PARAMS_FILE, overrides: list[str] | None = None, wait_minutes: float = 0.0
) -> State[list[str]]:
    """Compress: every stage that is not up to date, to a registered model.

    What one run has finished the next does not do again, however the first one ended. Returns the
    names of the stages that had work to do.

    Args:
        params: The params file; its workspace is brought up to date.
        overrides: Changes written into it first, such as `quantize.codebook_size=128`.
        wait_minutes: How long a run waits where another one works in the workspace, before it is
            skipped. 0: it is refused at once.
    """
    patience = 60 * wait_minutes
    try:
        with workspace_lock(workspace_of(params), patience, flow_runs.show_waiting):
            done = _all_stages(*_opened(params, overrides or ()))
    except BusyError as error:
        if not wait_minutes:
            raise
        return Completed(name="Skipped", message=str(error), data=[])
    return Completed(message=", ".join(done) or "everything was up to date", data=done)


def _opened(file: str, overrides: Sequence[str]) -> tuple[Workspace, Params]:
    """The workspace, whose lock we hold, and what its params.yaml says now."""
    workspace, _ = set_up(Path(file), overrides)
    if flow_runs.is_deployed():
        log_to(workspace.logs)
    params = load_params(workspace.params_file)
    flow_runs.take_over(workspace, params)
    return workspace, params


def _all_stages(workspace: Workspace, params: Params) -> list[str]:
    with open_versions(workspace) as versions:
        write_pipeline(workspace, params)
        journal = Journal(workspace, params)
        try:
            done = [name for name in STAGES if _bring_up_to_date(name, versions, journal)]
        except BaseException as error:
            journal.close("FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        journal.close("FINISHED")
        if text := versions.remote.push():
            console.note(text)
    return done


def _bring_up_to_date(name: str, versions: Versions, journal: Journal) -> bool:
    """Whether the stage had to be run."""
    workspace, params = versions.workspace, journal.params
    changes = versions.changes(name)
    if changes and (versions.means_the_same(name, params) or versions.restore(name)):
        versions.record(name, params)
        changes = []
    if not changes:
        _run(workspace, params, name, cached=True)
        journal.cached(name)
        console.stage_cached(name)
        return False
    if journal.parent is None:
        check(str(workspace.root), name)
    console.stage_starts(name, changes if versions.known(name) else [])
    inputs = versions.inputs(name)
    _run(workspace, params, name, journal.begin())
    versions.record(name, params, inputs)
    shutil.rmtree(workspace.work(name), ignore_errors=True)
    journal.done(name)
    console.stage_ends(name, read_json(workspace.timings(name))["seconds"])
    return True


def _run(
    workspace: Workspace,
    params: Params,
    name: str,
    parent: str | None = None,
    cached: bool = False,
) -> None:
    with tags(*flow_runs.tags_of(workspace, params), name):
        flow_of(name, params)(str(workspace.root), parent, cached)


def run_alone(workspace: Workspace, params: Params, name: str) -> None:
    """One stage for `dvc repro`, which has decided that it must run and records it afterwards.

    What the stages before it could have resumed from is dropped: DVC has recorded them by now.
    """
    with workspace_lock(workspace):
        check_code_file(workspace)
        for earlier in STAGES[: STAGES.index(name)]:
            shutil.rmtree(workspace.work(earlier), ignore_errors=True)
        _run(workspace, params, name)
        check_unchanged(TABLE[name].code)
        note_recorded(workspace, name, params)
