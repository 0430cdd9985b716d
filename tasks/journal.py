"""What a pipeline run tells MLflow, stage by stage, without letting it stop the work."""

import logging
from pathlib import Path

from compress.config import Params
from compress.errors import ShrinkflowError
from tasks.outputs import read_json, write_json
from tasks.workspace import Workspace

logger = logging.getLogger(__name__)
RUNNING = "run.json"  # there as long as a run is open; still there after a kill


class Journal:
    """The parent run of a pipeline run. It is opened by the first stage that has work to do: a run
    in which everything is cached leaves no trace."""

    def __init__(self, workspace: Workspace, params: Params):
        self._workspace, self.params = workspace, params
        self._before: list[str] = []
        self.parent: str | None = None

    def cached(self, stage: str) -> None:
        """A stage that was up to date; logged as such if the run turns out to have work."""
        if self.parent is None:
            self._before.append(stage)
        else:
            self._log(stage, cached=True)

    def begin(self) -> str:
        """Opens the run where it is not open yet. Raises ShrinkflowError where MLflow is not there.

        The run of a process that was killed is closed as such.
        """
        from tasks import tracking

        if self.parent is None:
            self._close_killed()
            self.parent = tracking.start_run(self._workspace, self.params)
            write_json(self._path, {"mlflow_run": self.parent})
            for stage in self._before:
                self._log(stage, cached=True)
        return self.parent

    def done(self, stage: str) -> None:
        """A stage that was run; `register` tells MLflow itself."""
        if stage != "register":
            self._log(stage, cached=False)

    def close(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""
        if self.parent is not None:
            self._finish(self.parent, status)
            self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self._workspace.state / RUNNING

    def _log(self, stage: str, *, cached: bool) -> None:
        from tasks import tracking

        assert self.parent is not None
        try:
            tracking.log_stage(self.parent, self._workspace, self.params, stage, cached=cached)
        except ShrinkflowError as error:
            logger.warning("stage %s is not in MLflow: %s", stage, error)

    def _finish(self, run: str, status: str) -> None:
        from tasks import tracking

        try:
            tracking.finish_run(run, self._workspace, self.params, status)
        except ShrinkflowError as error:
            logger.warning("the run %s stays open in MLflow: %s", run, error)

    def _close_killed(self) -> None:
        killed = read_json(self._path).get("mlflow_run")
        if killed:
            self._finish(killed, "KILLED")
