"""Tags that say what a run was made of."""

import getpass
import subprocess

import yaml

from compress.config import Params
from tasks import results, source
from tasks.caching import key
from tasks.workspace import STAGES, Workspace

CODE = ("compress.data", "compress.training", "compress.quantization", "compress.evaluation")


def provenance(workspace: Workspace, params: Params) -> dict[str, str]:
    """Tags that say what a run was made of: code, commit, base model, user."""
    tags = {
        "code_sha256": source.code_version(CODE),
        "parent_model": params.model.source,
        "data_source": params.data.source,
        "mlflow.source.name": "shrinkflow",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user(),
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


def dvc_lock_hash(workspace: Workspace) -> str | None:
    """SHA-256 of what dvc.lock says of the stages before `register`; None where it has not all.

    `register` is left out: its own entry, made afterwards, must not change the hash.
    """
    path = workspace.dvc_lock
    found = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"] if path.is_file() else {}
    before = STAGES[: STAGES.index("register")]
    if any(stage not in found for stage in before):
        return None
    return key(**{stage: found[stage] for stage in before})


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


def user() -> str:
    """Who runs this, by the name of the account."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"
