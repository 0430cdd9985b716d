"""Which code and parameters, in meaning rather than text, made the recorded stages."""

import json

from compress.config import Params
from tasks.caching import stage_version
from tasks.outputs import write_json
from tasks.workspace import Workspace

RECORDED = "recorded.json"  # stage -> version of its code and parameters when it was recorded


def note_recorded(workspace: Workspace, stage: str, params: Params) -> None:
    """Remembers the stage's version; called when it is recorded."""
    recorded = read_recorded(workspace) | {stage: stage_version(stage, params)}
    write_json(workspace.state / RECORDED, dict(sorted(recorded.items())))


def read_recorded(workspace: Workspace) -> dict[str, str]:
    """Stage -> version; empty where nothing was recorded here, as in a new clone."""
    try:
        return dict(json.loads((workspace.state / RECORDED).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
