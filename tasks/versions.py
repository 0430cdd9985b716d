"""DVC, the judge of what is up to date. The only file that imports dvc."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, chdir, contextmanager
from pathlib import Path
from typing import Any

from compress.config import Params
from compress.errors import ShrinkflowError
from tasks import source
from tasks.caching import stage_version
from tasks.pipeline_file import code_files, watches_sources
from tasks.stages import TABLE
from tasks.workspace import Workspace

RECORDED = "recorded.json"  # stage -> version of its code and parameters when it was recorded


class Versions:
    """The stages of one workspace as DVC sees them: changed, restored from its cache, recorded."""

    def __init__(self, workspace: Workspace, repo: Any):
        self.workspace, self._repo = workspace, repo

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
        """Takes the outputs of an equal earlier run, whatever branch or folder it was in, from
        DVC's run cache. False where there was none or its files are gone."""
        from dvc.repo import lock_repo
        from dvc.stage.cache import RunCacheNotFoundError

        try:
            with self._at_root(), lock_repo(self._repo):
                (entry,) = self._repo.stage.collect(self._target(stage))
                self._repo.stage_cache.restore(entry)
        except RunCacheNotFoundError:
            return False
        return True

    def only_text_changed(self, stage: str, params: Params) -> bool:
        """Whether all that changed is source text that means the same: comments, layout, or
        settings of other stages."""
        code = set(code_files(stage))
        for entry in self._status(stage):
            if isinstance(entry, str) or set(entry) != {"changed deps"}:
                return False
            root = self.workspace.root
            if not {Path(os.path.normpath(root / p)) for p in entry["changed deps"]} <= code:
                return False
        return self._recorded().get(stage) == stage_version(stage, params)

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

    def _recorded(self) -> dict[str, str]:
        return _read_recorded(self.workspace)


@contextmanager
def open_versions(workspace: Workspace) -> Iterator[Versions]:
    """DVC's view of `workspace`, whose folder becomes a DVC repository where it is none."""
    _quiet()
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        if not (workspace.project / ".dvc").is_dir():
            _init(workspace.home)
        # Somebody's `dvc status` may take a while: hours of work must not end over its lock.
        with Repo(str(workspace.project), _wait_for_lock=True) as repo:
            yield Versions(workspace, repo)
    except DvcException as error:
        raise ShrinkflowError(f"DVC: {_reason(error)}") from error


def note_recorded(workspace: Workspace, stage: str, params: Params) -> None:
    """Remembers which code and parameters, in meaning rather than text, made the stage."""
    recorded = _read_recorded(workspace) | {stage: stage_version(stage, params)}
    path = workspace.state / RECORDED
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(recorded, indent=2, sort_keys=True), encoding="utf-8")
    os.replace(temporary, path)


def _read_recorded(workspace: Workspace) -> dict[str, str]:
    try:
        return json.loads((workspace.state / RECORDED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _init(folder: Path) -> None:
    """`dvc init`, with or without git, and without telling anybody."""
    from dvc.repo import Repo

    git = next((f for f in (folder, *folder.parents) if (f / ".git").exists()), None)
    repo = Repo.init(str(folder), no_scm=git is None, subdir=git not in (None, folder))
    with repo.config.edit("repo") as config:
        config["core"]["analytics"] = "false"
    repo.close()


def _quiet() -> None:
    """DVC installs terminal handlers when it is imported; its messages go to our log instead."""
    import dvc

    for name in (dvc.__name__, "dvc_objects", "dvc_data"):
        logging.getLogger(name).handlers.clear()
    logging.getLogger("dvc.progress").setLevel(logging.CRITICAL)  # what its bars look at


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


def _reason(error: BaseException) -> str:
    """The innermost message of a chain of exceptions: the outer ones say that something failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip() or type(error).__name__
