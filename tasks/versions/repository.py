"""A workspace's DVC repository: opened, or made where there is none; its errors as one of ours."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.errors import ShrinkflowError
from tasks.versions.lock_file import mend
from tasks.versions.remote import reason
from tasks.versions.stage_versions import Versions
from tasks.workspace import Workspace


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
            mend(workspace, repo)
            yield Versions(workspace, repo)
    except DvcException as error:
        raise ShrinkflowError(f"DVC: {reason(error)}") from error


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
