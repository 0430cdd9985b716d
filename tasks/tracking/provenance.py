"""Tags that say what a run was made of."""

import getpass
import subprocess

from compress.config import Params
from tasks import results, source
from tasks.workspace import Workspace

CODE = ("compress.data", "compress.training", "compress.quantization", "compress.evaluation")


def provenance(workspace: Workspace, params: Params) -> dict[str, str]:
    """Tags that say what a run was made of: code, commit, base model, user."""
    tags = {
        "code_sha256": source.code_version(CODE),
        "parent_model": params.model.source,
        "data_source": params.data.source,
        "mlflow.source.name": "shrinkflow",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
    }
    if params.model.revision:
        tags["parent_model_revision"] = params.model.revision
    commit = git_commit(workspace)
    if commit:
        tags |= {"git_commit": commit, "mlflow.source.git.commit": commit.removesuffix("-dirty")}
    return tags


def data_tags(workspace: Workspace) -> dict[str, str]:
    """Hashes of the rows that `prepare` wrote, none where it has not been run."""
    hashes = results.data_facts(workspace).get("sha256", {})
    return {f"data_sha256.{split}": sha for split, sha in hashes.items()}


def git_commit(workspace: Workspace) -> str | None:
    """The commit that is checked out, `-dirty` where tracked files differ; None outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=workspace.root, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"
