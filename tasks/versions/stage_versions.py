"""The stages of one workspace as DVC sees them."""

import os
from contextlib import AbstractContextManager, chdir, nullcontext
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compress.config import Params
from compress.errors import ShrinkflowError
from tasks import source
from tasks.caching import stage_version
from tasks.pipeline_file import code_files, watches_sources
from tasks.stages import TABLE, as_recorded, values
from tasks.versions.recorded import note_recorded, read_recorded
from tasks.versions.remote import Remote
from tasks.workspace import Workspace


class Versions:
    """The stages of one workspace as DVC sees them: changed, restored from its cache, recorded."""

    def __init__(self, workspace: Workspace, repo: Any):
        self.workspace, self._repo = workspace, repo
        self.remote = Remote(workspace, repo)

    def changes(self, stage: str) -> list[str]:
        """What differs from dvc.lock, in words; empty where the stage is up to date."""
        found = []
        for entry in self._status(stage):
            if isinstance(entry, str):
                found.append(entry)
                continue
            for kind, what in entry.items():
                found.extend(_describe(kind, what))
        return found

    def known(self, stage: str) -> bool:
        """Whether dvc.lock has the stage at all."""
        (entry,) = self._repo.stage.collect(self._target(stage))
        return any(out.hash_info for out in entry.outs)

    def restore(self, stage: str) -> bool:
        """Takes the outputs of an equal earlier run, whatever branch, folder or machine it was on,
        from DVC's run cache or else its default remote. False where there is none there."""
        if self._restore(stage):
            return True
        return self.remote.fetch_runs() and self._restore(stage, pull=True)

    def _restore(self, stage: str, pull: bool = False) -> bool:
        from dvc.exceptions import ConfirmRemoveError
        from dvc.repo import lock_repo
        from dvc.stage.cache import RunCacheNotFoundError

        with self._at_root(), lock_repo(self._repo):
            (entry,) = self._repo.stage.collect(self._target(stage))
            try:
                with self.remote.asked() if pull else nullcontext():
                    self._repo.stage_cache.restore(entry, pull=pull)
                    return True
            except (RunCacheNotFoundError, ConfirmRemoveError):
                pass  # the second: an output was changed by hand or by a fault; it is made again
        return False

    def means_the_same(self, stage: str, params: Params) -> bool:
        """Whether what changed makes no difference: comments and layout of code, settings of
        other stages, a default that is now spelled out."""
        root, code = self.workspace.root, set(code_files(stage))
        params_file, code_changed = self.workspace.params_file, False
        for entry in self._status(stage):
            if isinstance(entry, str) or set(entry) != {"changed deps"}:
                return False
            changed = {Path(os.path.normpath(root / path)) for path in entry["changed deps"]}
            if not changed <= code | {params_file}:
                return False
            code_changed |= bool(changed & code)
        if code_changed:
            return read_recorded(self.workspace).get(stage) == stage_version(stage, params)
        return values(params, stage) == self._recorded_values(stage, params)

    def _recorded_values(self, stage: str, params: Params) -> dict[str, object] | None:
        """What `values` said for the parameters in dvc.lock; None where that cannot be known."""
        (entry,) = self._repo.stage.collect(self._target(stage))
        file = str(self.workspace.params_file)
        locked = [dep.hash_info.value for dep in entry.deps if dep.fs_path == file]
        if not locked or not locked[0]:
            return None
        try:
            return values(as_recorded(params, locked[0]), stage)
        except ValidationError:
            return None

    def inputs(self, stage: str) -> dict[str, Any]:
        """What the stage depends on, by name: parameters and hashes of files, code aside."""
        from dvc.repo import lock_repo

        code = set(code_files(stage))
        found: dict[str, Any] = {}
        with self._at_root(), lock_repo(self._repo):
            (entry,) = self._repo.stage.collect(self._target(stage))
            entry.save_deps()
            for dep in entry.deps:
                if Path(dep.fs_path) not in code:
                    value = dep.hash_info.value
                    found |= value if isinstance(value, dict) else {str(dep): value}
        return found

    def record(self, stage: str, params: Params, before: dict[str, Any] | None = None) -> None:
        """Writes the stage's present inputs and outputs to dvc.lock and the cache.

        `before` is what `inputs` said when the stage began. Raises ShrinkflowError where that, or
        the code, has changed since: the outputs must not be recorded as made from what is there.
        """
        if watches_sources(self.workspace):
            source.check_unchanged(TABLE[stage].code)
        now = self.inputs(stage) if before is not None else {}
        if changed := [name for name in now if now[name] != (before or {}).get(name)]:
            raise ShrinkflowError(
                f"{', '.join(changed)} changed while {stage} was running; start the run again"
            )
        with self._at_root():
            self._repo.commit(self._target(stage), force=True)
        note_recorded(self.workspace, stage, params)

    def _status(self, stage: str) -> list[Any]:
        with self._at_root():
            status = self._repo.status(targets=[self._target(stage)])
        return [entry for entries in status.values() for entry in entries]

    def _at_root(self) -> AbstractContextManager[None]:
        """DVC names paths from the working directory, and its run cache looks there, too."""
        return chdir(self.workspace.root)

    def _target(self, stage: str) -> str:
        return f"{self.workspace.dvc_file}:{stage}"


def _describe(kind: str, what: Any) -> list[str]:
    """`changed deps`, {path: state or {key: state}} -> "params.yaml: seed modified"."""
    if not isinstance(what, dict):
        return [f"{kind}: {what}"]
    words = []
    for path, state in what.items():
        if isinstance(state, dict):
            words.append(f"{Path(path).name}: {', '.join(f'{k} {v}' for k, v in state.items())}")
        else:
            words.append(f"{path} {state}")
    return words
