"""One run at a time in a workspace."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from compress.errors import ShrinkflowError
from tasks.workspace import Workspace

POLL_SECONDS = 1.0


class BusyError(ShrinkflowError):
    """Another process is working in the workspace."""


@contextmanager
def workspace_lock(
    workspace: Workspace, patience: float = 0.0, waits: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Holds the workspace; the system lets go of it when the process dies, however it dies.

    Where it is held already, `waits` is called with who holds it, and it is waited for, `patience`
    seconds at most. Raises BusyError, which names the other process, after that.
    """
    workspace.state.mkdir(parents=True, exist_ok=True)
    ignore = workspace.state / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    owner = workspace.state / "run.owner"
    lock = FileLock(workspace.state / "run.lock")
    if not _acquired(lock, 0.0):
        who = owner.read_text(encoding="utf-8") if owner.exists() else "another process"
        if patience and waits is not None:
            waits(who)
        if not (patience and _acquired(lock, patience)):
            raise BusyError(
                f"{workspace.root} is in use by {who}; wait for it to end, or use another "
                "workspace (--params with another file name)"
            )
    try:
        since = time.strftime("%H:%M:%S")
        owner.write_text(f"process {os.getpid()} (since {since})", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _acquired(lock: FileLock, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds, poll_interval=POLL_SECONDS)
    except Timeout:
        return False
    return True
