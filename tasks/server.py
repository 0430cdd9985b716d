"""A Prefect server of our own, where the user has named none: for one run, or while we serve.

It starts in the background while the rest is imported, listens on loopback only, and ends with the
process that started it, even when that is killed: it watches for its parent.
"""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.errors import ShrinkflowError

START_SECONDS = 90.0
WATCH_SECONDS = 0.5
DRAIN_SECONDS = 10.0
# Schedules, pages and the like are for servers that stay.
FOR_ONE_RUN = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}


class Server:
    """A starting or running server. One that `stays` runs schedules and shows its pages."""

    def __init__(self, home: Path, stays: bool = False):
        home.mkdir(parents=True, exist_ok=True)
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        self.stays = stays
        self.log = home / "server.log"
        kind = {"PREFECT_UI_API_URL": self.url} if stays else FOR_ONE_RUN
        own = {"PREFECT_HOME": str(home), "PREFECT__SERVER_FINAL": "1"}
        with listener, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tasks.server", str(listener.fileno())],
                env=os.environ | own | kind,
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we stop it when we are done
            )

    def wait(self) -> None:
        """Returns when the server answers. Raises ShrinkflowError, naming its log, if it fails."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                left = max(0.1, deadline - time.monotonic())
                with urllib.request.urlopen(f"{self.url}/health", timeout=left) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        self.stop()
        raise ShrinkflowError(f"Prefect's server did not start; see {self.log}")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def prefect_home(home: Path) -> Iterator[bool]:
    """Prefect keeps its state in `home` inside, which it reads when it is first imported.

    False where PREFECT_API_URL or PREFECT_HOME is set: then the user's server or profile is used.
    """
    kept = os.environ.get("PREFECT_HOME")
    if os.environ.get("PREFECT_API_URL") or kept not in (None, str(home)):
        yield False
        return
    os.environ["PREFECT_HOME"] = str(home)
    try:
        yield True
    finally:
        if kept is None:
            del os.environ["PREFECT_HOME"]


@contextmanager
def prefect_server(home: Path, stays: bool = False) -> Iterator[Server | None]:
    """Starts a server for Prefect with its state in `home`; None where the user has one."""
    with prefect_home(home) as ours:
        server = Server(home, stays) if ours else None
        try:
            yield server
        finally:
            if server is not None:
                server.stop()


@contextmanager
def flows_on(server: Server | None) -> Iterator[None]:
    """Flows may run inside: the server, if it is ours, is up.

    Heartbeats tell a server that stays that a run has died. Ours dies with the run, and without
    them every flow ends a second earlier.
    """
    if server is None:
        yield
        return
    from prefect import settings

    server.wait()
    changes: dict[Any, Any] = {settings.PREFECT_API_URL: server.url}
    if not server.stays:
        changes[settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = None
    with settings.temporary_settings(changes):
        try:
            yield
        finally:
            _send_the_rest()


def _send_the_rest() -> None:
    """Events and logs that wait in queues: without their server they would be retried for ever."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=DRAIN_SECONDS)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(0)


def main() -> None:
    """`python -m tasks.server FD`: serves Prefect's API on a listening socket until orphaned."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    import uvicorn

    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        fd=int(sys.argv[1]),
        log_level="error",
        lifespan="on",
    )


if __name__ == "__main__":
    main()
