"""Which MLflow store is used, and whether it can be reached before work starts."""

import logging
import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from compress.config import Params
from compress.errors import InputError, ShrinkflowError
from tasks.workspace import Workspace

FAILURES = (MlflowException, SQLAlchemyError, OSError, ImportError)
SERVED = ("http:", "https:", "databricks")
# So that MLflow's pages open as those of a training project, not of a chat application.
KIND = {"mlflow.experimentKind": "custom_model_development"}
# Three attempts in some seconds, instead of MLflow's seven in four minutes.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}

# MLflow puts its notes on the terminal: they go to whatever log is configured instead.
_logger = logging.getLogger("mlflow")
_logger.handlers = [logging.NullHandler()]
_logger.propagate = True


def store_uri(workspace: Workspace, params: Params) -> str:
    """`tracking.uri`, or the SQLite file in the project."""
    return params.tracking.uri or f"sqlite:///{workspace.mlflow / 'mlflow.db'}"


def check(params: Params, workspace: Workspace) -> None:
    """Makes sure that the store answers, creating the embedded one; milliseconds once it is there.

    Raises InputError that says what to change.
    """
    check_names(params)
    kept = {name: os.environ.get(name) for name in PATIENCE}
    os.environ |= {name: value for name, value in PATIENCE.items() if kept[name] is None}
    try:
        with connected(workspace, params) as client:
            experiment_id(client, workspace, params)
    except InputError:
        raise
    except ShrinkflowError as error:
        raise InputError(
            f"tracking.uri: {error}. Correct it or start that server, or leave it out (null) for "
            "the store in the project"
        ) from None
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)


@contextmanager
def connected(workspace: Workspace, params: Params) -> Iterator[MlflowClient]:
    """A client of the store. What MLflow or the database raises becomes one ShrinkflowError."""
    uri = store_uri(workspace, params)
    if params.tracking.uri is None:
        workspace.mlflow.mkdir(parents=True, exist_ok=True)
    try:
        mlflow.set_tracking_uri(uri)  # `models:/` and `runs:/` are resolved through it
        yield MlflowClient(uri)
    except FAILURES as error:
        raise ShrinkflowError(f"MLflow at {without_password(uri)}: {reason(error)}") from error


def experiment_id(client: MlflowClient, workspace: Workspace, params: Params) -> str:
    """The experiment of `tracking.experiment`, made if it is not there.

    A server decides where artifacts go; for a bare database they go to the project's folder.
    """
    name = params.tracking.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        served = (params.tracking.uri or "").startswith(SERVED)
        location = None if served else (workspace.mlflow / "artifacts").as_uri()
        try:
            return client.create_experiment(name, artifact_location=location, tags=KIND)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return experiment_id(client, workspace, params)  # another process was faster
    if found.lifecycle_stage == "deleted":
        raise InputError(
            f"tracking.experiment: `{name}` has been deleted in MLflow; restore it with "
            f"`mlflow experiments restore -x {found.experiment_id}`, or choose another name"
        )
    return found.experiment_id


def without_password(uri: str) -> str:
    """The URI as it may be shown and stored."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))


def reason(error: BaseException) -> str:
    """Why a call failed, in a line: the system's own words where there are any, no credentials."""
    text = str(error).strip() or type(error).__name__
    system = re.search(r"\[Errno -?\d+\] [^'\")(\n]+", text)
    line = system.group() if system else text.splitlines()[0]
    line = re.sub(r"://[^/@\s]*@", "://***@", line)
    return textwrap.shorten(line, 300, placeholder=" ...").removesuffix(".")


def check_names(params: Params) -> None:
    """Raises InputError for names that MLflow, its URIs or its queries cannot take."""
    name = params.tracking.model_name
    if not name.strip() or any(c in name for c in "/:@'\"`") or name in (".", ".."):
        raise InputError(
            f"tracking.model_name: `{name}` cannot be a name in MLflow: no / : @ or quotes"
        )
    if not params.tracking.experiment.strip():
        raise InputError("tracking.experiment: a name is needed")
