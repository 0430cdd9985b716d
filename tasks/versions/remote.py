"""The repository's default remote: results come from it before they are computed, and go to it.

A remote that does not answer stops nothing: what is missing is computed, what was made is kept.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tasks.caching import hash_file, key
from tasks.outputs import read_json, write_json
from tasks.workspace import Workspace

logger = logging.getLogger(__name__)
PUSHED = "pushed.json"  # names the dvc.lock and the remote of the last push


class Remote:
    """What `core.remote` of DVC's configuration names (`dvc remote default`); it may be nothing."""

    def __init__(self, workspace: Workspace, repo: Any):
        self._workspace, self._repo = workspace, repo
        self.name: str | None = repo.config["core"].get("remote")
        self._problem: str | None = None
        self._fetched = False

    def fetch_runs(self) -> bool:
        """Whether there is a remote that answers; the first call takes its run cache from it."""
        if self.name and not self._problem and not self._fetched:
            with self.asked():
                self._repo.stage_cache.pull(self.name)
                self._fetched = True
        return self._fetched

    def push(self) -> str | None:
        """Hands outputs and run cache of the workspace to the remote, unless that was done.

        Returns what the user should know, None where there is nothing to say. Raises nothing.
        """
        if self.name is None:
            return None
        pushed = False
        if not self._problem and read_json(self._marker) != self._state():
            with self.asked():
                targets = [str(self._workspace.dvc_file)]
                self._repo.push(targets=targets, remote=self.name, run_cache=True)
                write_json(self._marker, self._state())
                pushed = True
        if self._problem:
            return (
                f"the DVC remote `{self.name}` does not answer ({self._problem}). Everything is "
                "kept here; `dvc push --run-cache` hands it over later, and so does the next run"
            )
        return f"everything is in the DVC remote `{self.name}`" if pushed else None

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Around every use of the remote: it is not asked again in this run once it has failed.

        What can fail here is up to the file system behind it, so everything is caught.
        """
        from dvc.stage.cache import RunCacheNotFoundError

        try:
            yield
        except RunCacheNotFoundError:
            raise
        except Exception as error:
            logger.warning("the DVC remote %s failed", self.name, exc_info=True)
            self._problem, self._fetched = reason(error), False

    @property
    def _marker(self) -> Any:
        return self._workspace.state / PUSHED

    def _state(self) -> dict[str, str]:
        place = dict(self._repo.config["remote"].get(self.name, {}))
        lock = self._workspace.dvc_file.with_suffix(".lock")
        url = str(place.get("url")) + str(place.get("endpointurl", ""))
        return {"pushed": key(remote=url, lock=hash_file(lock))}


def reason(error: BaseException) -> str:
    """The innermost message of a chain of exceptions: the outer ones say that something failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip() or type(error).__name__
