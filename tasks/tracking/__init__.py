"""MLflow: runs, and the registry of models. Nothing outside this package imports mlflow.

A parent run a pipeline run, a child for every stage. Importing this package takes more than a
second: import it inside the function that needs it.
"""

from tasks.tracking.connection import check, store_uri
from tasks.tracking.registry import register
from tasks.tracking.runs import finish_run, log_stage, start_run

__all__ = ["check", "finish_run", "log_stage", "register", "start_run", "store_uri"]
