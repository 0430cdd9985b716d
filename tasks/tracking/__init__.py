"""MLflow: runs, and the registry of models. Nothing outside this package imports mlflow.

A parent run a pipeline run, a child for every stage. Importing this package takes more than a
second: import it inside the function that needs it. What people do with versions, and no stage
does, is in `by_hand` and `lookup`, so that a change there leaves the stages up to date.
"""

from tasks.tracking.connection import at_once, check
from tasks.tracking.registry import register
from tasks.tracking.runs import finish_run, log_stage, start_run
from tasks.tracking.version_layers import layers_of_versions, registries
from tasks.tracking_uri import store_uri

__all__ = [
    "at_once",
    "check",
    "finish_run",
    "layers_of_versions",
    "log_stage",
    "register",
    "registries",
    "start_run",
    "store_uri",
]
