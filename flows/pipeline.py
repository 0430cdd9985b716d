"""The whole run as one flow: every stage that DVC finds changed is run, then recorded with DVC."""

import shutil

from prefect import flow

from compress.config import Params
from flows import console
from flows.naming import run_name
from flows.stage_flows import flow_of
from tasks.checking import check
from tasks.crashes import mark_crashed
from tasks.journal import Journal
from tasks.lock import workspace_lock
from tasks.outputs import read_json
from tasks.pipeline_file import check_code_file, write_pipeline
from tasks.source import check_unchanged
from tasks.stages import TABLE
from tasks.versions import Versions, note_recorded, open_versions
from tasks.workspace import STAGES, Workspace, opened


@flow(name="shrinkflow", flow_run_name=run_name, validate_parameters=False)
def pipeline(root: str) -> list[str]:
    """Brings the workspace up to date; returns the names of the stages that had work to do.

    What one run has finished the next does not do again, however the first one ended.
    """
    workspace, params = opened(root)
    with workspace_lock(workspace), open_versions(workspace) as versions:
        mark_crashed(root)
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
    run = flow_of(name, params)
    changes = versions.changes(name)
    if changes and (versions.means_the_same(name, params) or versions.restore(name)):
        versions.record(name, params)
        changes = []
    if not changes:
        run(str(workspace.root), cached=True)
        journal.cached(name)
        console.stage_cached(name)
        return False
    if journal.parent is None:
        check(str(workspace.root), name)
    console.stage_starts(name, changes if versions.known(name) else [])
    inputs = versions.inputs(name)
    run(str(workspace.root), journal.begin())
    versions.record(name, params, inputs)
    shutil.rmtree(workspace.work(name), ignore_errors=True)
    journal.done(name)
    console.stage_ends(name, read_json(workspace.timings(name))["seconds"])
    return True


def run_alone(workspace: Workspace, params: Params, name: str) -> None:
    """One stage for `dvc repro`, which has decided that it must run and records it afterwards.

    What the stages before it could have resumed from is dropped: DVC has recorded them by now.
    """
    with workspace_lock(workspace):
        check_code_file(workspace)
        for earlier in STAGES[: STAGES.index(name)]:
            shutil.rmtree(workspace.work(earlier), ignore_errors=True)
        flow_of(name, params)(str(workspace.root))
        check_unchanged(TABLE[name].code)
        note_recorded(workspace, name, params)
