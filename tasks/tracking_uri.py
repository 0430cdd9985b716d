"""Which MLflow store a workspace uses. Imports no MLflow: what only shows the address is quick."""

import os
from pathlib import Path

from compress.config import Params
from tasks.workspace import Workspace

VARIABLE = "MLFLOW_TRACKING_URI"


def given_uri(params: Params) -> str | None:
    """`tracking.uri`, else MLFLOW_TRACKING_URI; None for the store in the project."""
    return params.tracking.uri or os.environ.get(VARIABLE) or None


def embedded_file(workspace: Workspace) -> Path:
    """The SQLite database of the store in the project."""
    return workspace.mlflow / "mlflow.db"


def store_uri(workspace: Workspace, params: Params) -> str:
    """The store that is used, with its password if it has one: for MLflow only, never shown."""
    return given_uri(params) or f"sqlite:///{embedded_file(workspace)}"
