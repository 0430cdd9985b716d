"""Around every command that runs flows: log, Prefect server, one message for what fails."""

import _thread
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.errors import InputError, ShrinkflowError
from tasks.diagnosis import machine_fault
from tasks.environment import log_to
from tasks.server import flows_on, prefect_server
from tasks.workspace import Workspace

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
_log: Path | None = None
_root: Path | None = None


@contextmanager
def flow_session(workspace: Workspace, stays: bool = False) -> Iterator[str | None]:
    """Flows may be imported and run inside; with `stays`, schedules fire. Yields the address of the
    server's pages where it is ours and stays."""
    global _log, _root
    _root = workspace.root
    _log = log_to(workspace.logs)
    with prefect_server(workspace.prefect, stays) as server, flows_on(server):
        yield server.url.removesuffix("/api") if server is not None and stays else None


@contextmanager
def failures() -> Iterator[None]:
    """Whatever goes wrong inside becomes one clear message and an exit status.

    2: what the user gave cannot be worked with; 1: anything else; 130: Ctrl-C.
    """
    try:
        yield
    except InputError as error:
        _end(BAD_INPUT, str(error))
    except KeyboardInterrupt:
        _end(INTERRUPTED, "stopped; the same command goes on where it was")
    except Exception as error:
        if not isinstance(error, ShrinkflowError) and _log is not None:
            logging.getLogger(__name__).exception("failed")
        _end(FAILED, _message(error), _log)


def _message(error: Exception) -> str:
    """What the machine lacks, where that is the cause; else the error in its own words."""
    fault = machine_fault(error, _root or Path.cwd())
    if isinstance(error, ShrinkflowError):
        return f"{error}\n{fault}" if fault else str(error)
    if fault:
        return fault
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{place}"
    return f"{type(error).__name__}: {error}"


def keep_ctrl_c() -> None:
    """Ctrl-C reaches every process of a terminal at once. Runs are ours to stop: they inherit that
    SIGINT is blocked, and here a thread hands it to the main one. Call it before threads start."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def hand_over() -> None:
        while True:
            signal.sigwait({signal.SIGINT})
            _thread.interrupt_main()

    threading.Thread(target=hand_over, daemon=True).start()


def _end(status: int, message: str, log: Path | None = None) -> None:
    from rich.text import Text

    from compress.progress import console

    message = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    console.print(
        Text("error: " if status != INTERRUPTED else "", style="bold red") + message, soft_wrap=True
    )
    if log is not None:
        console.print(Text(f"What happened in detail: {log}", style="dim"), soft_wrap=True)
    sys.stdout.flush()
    logging.shutdown()
    # Threads that still compute for a run that has ended must not hold up its exit.
    os._exit(status)
