"""A dvc.lock that a killed process cut short: put aside, so that its stages come from the cache."""

import logging
import os
from typing import Any

from compress.errors import InputError
from tasks.workspace import Workspace

logger = logging.getLogger(__name__)
CONFLICT = "\n>>>>>>> "


def mend(workspace: Workspace, repo: Any) -> None:
    """Moves a dvc.lock that DVC could not read into the workspace's state folder.

    DVC writes it in place, so a kill can leave it empty or half. Everything in it is in DVC's run
    cache, too: what is restored from there writes it again. Raises InputError for the conflict of
    a merge.
    """
    from dvc.repo import lock_repo

    path = workspace.dvc_file.with_suffix(".lock")
    with lock_repo(repo):  # nobody is writing it
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
        if text is None or _is_readable(text):
            return
        if CONFLICT in text:
            raise InputError(f"{path} holds a merge conflict: take one side of it, then run again")
        aside = workspace.state / path.name
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, aside)
    logger.warning("%s was cut short, by a kill or a full disk, and is written again", path)


def _is_readable(text: str) -> bool:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(text, ""))
    except (YAMLFileCorruptedError, Invalid):
        return False
    return True
