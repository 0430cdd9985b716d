"""What a pipeline run tells MLflow, stage by stage, without letting it stop the work."""

import logging
from pathlib import Path

from compress.config import Params
from compress.errors import ShrinkflowError
from tasks.outputs import read_json, write_json
from tasks.workspace import Workspace

logger = logging.getLogger(__name__)
RUNNING = "run.json"  # there until MLflow knows that the run has ended


class Journal:
    """The parent run of a pipeline run. It is opened by the first stage that has work to do: a run
    in which everything is cached leaves no trace.

    What MLflow cannot be told, because it is away for a while, is told before the next stage.
    """

    def __init__(self, workspace: Workspace, params: Params):
        self._workspace, self.params = workspace, params
        self._untold: list[tuple[str, bool]] = []  # stage, cached
        self.parent: str | None = None

    def cached(self, stage: str) -> None:
        """A stage that was up to date; logged as such if the run turns out to have work."""
        self._untold.append((stage, True))
        if self.parent is not None:
            self._catch_up()

    def begin(self) -> str:
        """Opens the run where it is not open yet. Raises ShrinkflowError where MLflow is not there.

        A run that was left open, because its process was killed or MLflow was away, is closed.
        """
        from tasks import tracking

        if self.parent is None:
            self._close_left()
            self.parent = tracking.start_run(self._workspace, self.params, opened=self._note)
        self._catch_up()
        return self.parent

    def done(self, stage: str) -> None:
        """A stage that was run; `register` tells MLflow itself."""
        if stage != "register":
            self._untold.append((stage, False))
            self._catch_up()

    def close(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""
        if self.parent is None:
            self._close_left()
        else:
            self._catch_up()
            write_json(self._path, {"mlflow_run": self.parent, "status": status})
            self._finish(self.parent, status)

    @property
    def _path(self) -> Path:
        return self._workspace.state / RUNNING

    def _note(self, run: str) -> None:
        write_json(self._path, {"mlflow_run": run})

    def _close_left(self) -> None:
        left = read_json(self._path)
        if "mlflow_run" in left:
            self._finish(left["mlflow_run"], left.get("status", "KILLED"))

    def _catch_up(self) -> None:
        """Tells what has not been told, in order; gives up, until the next time, in seconds."""
        from tasks import tracking

        assert self.parent is not None
        try:
            while self._untold:
                stage, cached = self._untold[0]
                with tracking.at_once(self._workspace, self.params):
                    tracking.log_stage(
                        self.parent, self._workspace, self.params, stage, cached=cached
                    )
                self._untold.pop(0)
        except ShrinkflowError as error:
            names = ", ".join(stage for stage, _ in self._untold)
            logger.warning("not in MLflow yet: %s: %s", names, error)

    def _finish(self, run: str, status: str) -> None:
        from tasks import tracking

        try:
            with tracking.at_once(self._workspace, self.params):
                tracking.finish_run(run, self._workspace, self.params, status)
            self._path.unlink(missing_ok=True)
        except ShrinkflowError as error:
            logger.warning("the run %s is closed in MLflow by the next run: %s", run, error)
