"""Addresses of MLflow's pages."""

from compress.config import Params
from compress.errors import ShrinkflowError
from compress.redaction import without_password
from tasks.tracking.connection import connected
from tasks.tracking_uri import given_uri
from tasks.workspace import Workspace


def run_page(workspace: Workspace, params: Params, run: str) -> str | None:
    """Of a run; None where the store is a bare database, or does not answer."""
    uri = given_uri(params) or ""
    if not uri.startswith("http"):
        return None
    try:
        with connected(workspace, params) as client:
            experiment = client.get_run(run).info.experiment_id
    except ShrinkflowError:
        return None
    return f"{without_password(uri)}/#/experiments/{experiment}/runs/{run}"
