"""Another try where it can help: a server or a hub that did not answer. A wrong input, or a
computation that failed, would only fail again."""

from typing import Any

from prefect.tasks import exponential_backoff

from compress.errors import UnreachableError


def may_pass(task: Any, run: Any, state: Any) -> bool:
    """Whether the failure of a task run is one that may be over a little later."""
    try:
        return isinstance(state.result(raise_on_failure=False), UnreachableError)
    except Exception:  # its exception is gone with its process
        return False


# Options of tasks that talk to a hub or a tracking server: after 10 and 20 seconds, about.
NETWORK: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": exponential_backoff(10),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": may_pass,
}
