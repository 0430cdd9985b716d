"""params.yaml of a workspace: overrides written into it, the effective copy of another file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.config import Params
from compress.params_yaml import apply_override, load_params
from compress.sources import PACKAGE
from tasks.stages import tracked_params
from tasks.workspace import Workspace, workspace_of
from tasks.yaml_file import load, save

SOURCES = (("model", "source"), ("data", "source"), ("pretrain", "data", "source"))


def set_up(
    params_file: Path, overrides: Sequence[str] = (), workspace: Workspace | None = None
) -> tuple[Workspace, list[str]]:
    """The workspace of a params file, its params.yaml in place, and notes on what was written.
    Another `workspace` gets a copy, as that of a file of another name does.

    Overrides go into the workspace's params.yaml, as `dvc exp run -S` does it. Any other file than
    params.yaml is copied into its workspace first. Keys that DVC tracks are written out where the
    file leaves them to their defaults. Nothing is written unless all of it is valid.
    """
    params = load_params(params_file, overrides)
    workspace = workspace or workspace_of(params_file)
    document = load(params_file)
    notes = []
    if workspace.params_file != params_file.absolute():
        _rebase(document, params_file.absolute().parent, workspace.root)
        notes.append(f"{params_file} runs in {workspace.root}")
    for override in overrides:
        apply_override(document, override)
        notes.append(f"{override} written to {workspace.params_file}")
    if added := complete(document, params):
        notes.append(f"defaults of {', '.join(added)} written to {workspace.params_file}")
    if not workspace.params_file.is_file() or load(workspace.params_file) != document:
        workspace.root.mkdir(parents=True, exist_ok=True)
        save(workspace.params_file, document)
    return workspace, notes


def complete(document: Any, params: Params) -> list[str]:
    """Adds the keys that DVC tracks and `document` leaves out, with their defaults.

    Without them a default that is spelled out, or one that changes, would go unnoticed by DVC.
    """
    full = params.model_dump(mode="json")
    added = []
    for name in tracked_params(params):
        node, default = document, full
        *parents, last = name.split(".")
        for part in parents:
            node, default = node.setdefault(part, {}), default[part]
        if last not in node:
            node[last] = default[last]
            added.append(name)
    return added


def _rebase(document: Any, old: Path, new: Path) -> None:
    """Relative paths of local sources are read from the file's folder: they follow it."""
    for *parents, last in SOURCES:
        node = document
        for part in parents:
            node = node[part]
        value = node[last]
        if not value.startswith((PACKAGE, "/", "~")) and (old / value).exists():
            node[last] = os.path.relpath(old / value, new)
