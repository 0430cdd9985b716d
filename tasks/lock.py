"""One run at a time in a workspace."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from compress.errors import ShrinkflowError
from tasks.workspace import Workspace


class BusyError(ShrinkflowError):
    """Another process is working in the workspace."""


@contextmanager
def workspace_lock(workspace: Workspace) -> Iterator[None]:
    """Holds the workspace; the system lets go of it when the process dies, however it dies.

    Raises BusyError, which names the other process, where the workspace is held already.
    """
    workspace.state.mkdir(parents=True, exist_ok=True)
    ignore = workspace.state / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    owner = workspace.state / "run.owner"
    lock = FileLock(workspace.state / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = owner.read_text(encoding="utf-8") if owner.exists() else "another process"
        raise BusyError(
            f"{workspace.root} is in use by {who}; wait for it to end, or use another workspace "
            "(--params with another file name)"
        ) from None
    try:
        since = time.strftime("%H:%M:%S")
        owner.write_text(f"process {os.getpid()} (since {since})", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
