"""The environment of the libraries below: quiet, no telemetry, state inside the project.

Only defaults: whatever the user has set stays as it is.
"""

import logging
import os
import time
import warnings
from pathlib import Path

DEFAULTS = {
    # Nobody is told anything about a run.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # The terminal belongs to our own lines; everything else goes to the log file.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "TOKENIZERS_PARALLELISM": "false",
    # A server that is lost stops a run after some 15 seconds a call, not a minute.
    "PREFECT_CLIENT_MAX_RETRIES": "3",
    # Results are never pickled.
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
}
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s  %(message)s"
KEPT_LOGS = 20


def apply_defaults() -> None:
    """Before any of these libraries is imported; called once by the package `tasks`."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def log_to(folder: Path) -> Path:
    """Sends warnings and the libraries' logs to a new file in `folder`; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.log"))[: -KEPT_LOGS + 1]:
        old.unlink(missing_ok=True)
    path = folder / time.strftime(f"%Y%m%d-%H%M%S-{os.getpid()}.log")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logging.raiseExceptions = False  # a full disk is reported by what failed, not by the log
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    return path
