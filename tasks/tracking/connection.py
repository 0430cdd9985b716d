"""The way to the MLflow store: reached in one place, its failures made one clear error."""

import logging
import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from compress.config import Params
from compress.errors import InputError, ShrinkflowError, UnreachableError
from compress.redaction import without_password
from tasks.tracking_uri import VARIABLE, embedded_file, given_uri, store_uri
from tasks.workspace import Workspace

FAILURES = (MlflowException, SQLAlchemyError, OSError, ImportError)
ARTIFACT_STORES = ("boto3", "botocore", "google", "azure")  # whose errors MLflow passes on
# Codes of an error that may be over a little later; that of a lost connection is the first.
PASSING = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
DATABASES = ("postgresql", "mysql", "mssql")  # reached directly, without a server of MLflow's
SERVED = ("http:", "https:", "databricks")
# So that MLflow's pages open as those of a training project, not of a chat application.
KIND = {"mlflow.experimentKind": "custom_model_development"}
# Three attempts in some seconds, instead of MLflow's seven in four minutes.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "PGCONNECT_TIMEOUT": "5",
}

# MLflow puts its notes on the terminal: they go to whatever log is configured instead.
_logger = logging.getLogger("mlflow")
_logger.handlers = [logging.NullHandler()]
_logger.propagate = True


def check(params: Params, workspace: Workspace) -> None:
    """Makes sure that the store answers, creating the embedded one; milliseconds once it is there.

    Raises InputError that says what to change.
    """
    check_names(params)
    with at_once(workspace, params), connected(workspace, params) as client:
        experiment_id(client, workspace, params)


@contextmanager
def at_once(workspace: Workspace, params: Params) -> Iterator[None]:
    """A store that cannot be reached is an InputError within seconds, with the remedy.

    For the time before work starts; later, MLflow's own patience bridges a server that restarts.
    """
    kept = {name: os.environ.get(name) for name in PATIENCE}
    os.environ |= {name: value for name, value in PATIENCE.items() if kept[name] is None}
    try:
        uri = store_uri(workspace, params)
        if uri.startswith(DATABASES):  # MLflow itself would try for two minutes
            with _one_error(uri):
                _reach(uri)
        yield
    except InputError:
        raise
    except ShrinkflowError as error:
        place = "tracking.uri" if params.tracking.uri else VARIABLE
        raise InputError(
            f"{place}: {error}. Correct it or start that server, or leave it out (null) for "
            "the store in the project"
        ) from None
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)


def _reach(uri: str) -> None:
    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


@contextmanager
def connected(workspace: Workspace, params: Params) -> Iterator[MlflowClient]:
    """A client of the store. What MLflow or what is behind it raises becomes one ShrinkflowError.

    MLflow exports the store that is in use to the environment; here that ends with the block.
    """
    uri = store_uri(workspace, params)
    if given_uri(params) is None:
        workspace.mlflow.mkdir(parents=True, exist_ok=True)
    before = os.environ.get(VARIABLE)
    try:
        with _one_error(uri):
            mlflow.set_tracking_uri(uri)  # `models:/` and `runs:/` are resolved through it
            yield MlflowClient(uri)
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


@contextmanager
def _one_error(uri: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _is_outage(error):
            raise
        kind = UnreachableError if _may_pass(error) else ShrinkflowError
        raise kind(f"MLflow at {without_password(uri)}: {reason(error)}") from error


def _is_outage(error: Exception) -> bool:
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, FAILURES) or module in ARTIFACT_STORES


def _may_pass(error: Exception) -> bool:
    """Whether another try may help: no answer, or one that there is no time now."""
    if isinstance(error, MlflowException):
        return error.error_code in PASSING
    return isinstance(error, OperationalError | ConnectionError | TimeoutError)


@contextmanager
def registry(workspace: Workspace, params: Params) -> Iterator[tuple[MlflowClient, str]]:
    """A client and the model's name, to look at or change what earlier runs have registered.

    Raises InputError where there is no store, or it cannot be reached: looking makes none.
    """
    check_names(params)
    if given_uri(params) is None and not embedded_file(workspace).is_file():
        raise InputError(
            f"{workspace.mlflow}: nothing has been registered here yet; `shrinkflow run` does it. "
            f"For another store set tracking.uri or {VARIABLE}"
        )
    with at_once(workspace, params), connected(workspace, params) as client:
        yield client, params.tracking.model_name


def experiment_id(client: MlflowClient, workspace: Workspace, params: Params) -> str:
    """The experiment of `tracking.experiment`, made if it is not there.

    A server decides where artifacts go, and the embedded store has the project's folder. A shared
    database has no place of its own: there, the experiment has to be made with one, by hand.
    """
    name = params.tracking.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        return _make_experiment(client, workspace, params)
    if found.lifecycle_stage == "deleted":
        raise InputError(
            f"tracking.experiment: `{name}` has been deleted in MLflow; restore it with "
            f"`mlflow experiments restore -x {found.experiment_id}`, or choose another name"
        )
    return found.experiment_id


def _make_experiment(client: MlflowClient, workspace: Workspace, params: Params) -> str:
    name, uri = params.tracking.experiment, store_uri(workspace, params)
    if uri.startswith(DATABASES):
        raise InputError(
            f"tracking.experiment: `{name}` is not in that database, which does not say where "
            "artifacts go. Make it once, with a place that all can reach: `mlflow experiments "
            f"create -n {name} -l s3://BUCKET/PATH`, with {VARIABLE} set to the database"
        )
    location = None if uri.startswith(SERVED) else (workspace.mlflow / "artifacts").as_uri()
    try:
        return client.create_experiment(name, artifact_location=location, tags=KIND)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return experiment_id(client, workspace, params)  # another process was faster


def reason(error: BaseException) -> str:
    """Why a call failed, in a line: the system's own words where there are any, no credentials."""
    text = str(error).strip() or type(error).__name__
    system = re.search(r"\[Errno -?\d+\] [^'\")(\n]+", text)
    line = system.group() if system else text.splitlines()[0]
    line = re.sub(r"://[^/@\s]*@", "://***@", without_password(line))
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
