"""Runs that start by themselves, while `shrinkflow serve` runs; what it listens on, and what it
writes down. Nothing is made faster than it is: a cron expression fires at the minute."""

import shutil
import signal
import sqlite3
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.flows import workspaces
from tests.flows.workspaces import TINY, call, started, working_in, write_workspace

pytestmark = pytest.mark.slow
PATIENCE = 240.0  # seconds; a minute on an idle machine
UGLY = ("Traceback", "Warning", "CancelledError", "Error")
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "sentinel-of-aws",
    "MLFLOW_TRACKING_PASSWORD": "sentinel-of-mlflow",
    "MLFLOW_TRACKING_TOKEN": "sentinel-of-token",
    "HF_TOKEN": "sentinel-of-hub",
    "PREFECT_API_KEY": "sentinel-of-prefect",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, prefect_home: Path) -> Path:
    folder = tmp_path_factory.mktemp("scheduled") / "project"
    folder.mkdir()
    write_workspace(folder, tiny_model, TINY)
    shutil.copytree(prefect_home, folder / ".shrinkflow" / "prefect")
    return folder


class Listening(threading.Thread):
    """Collects the addresses on which a process and its children wait for connections, until it
    ends."""

    def __init__(self, process_id: int):
        super().__init__(daemon=True)
        self.addresses: set[str] = set()
        self._process = psutil.Process(process_id)
        self.start()

    def run(self) -> None:
        while self._process.is_running():
            for one in [self._process, *self._children()]:
                try:
                    sockets = one.net_connections(kind="inet")
                except psutil.Error:  # it has just ended
                    continue
                self.addresses |= {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN}
            time.sleep(0.2)

    def _children(self) -> list[psutil.Process]:
        try:
            return self._process.children(recursive=True)
        except psutil.Error:
            return []


@pytest.fixture(scope="module")
def served(folder: Path) -> SimpleNamespace:
    """The workspace's first run, by `shrinkflow serve`, and Ctrl-C after it."""
    own = workspaces.environment() | SECRETS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspaces, "environment", lambda: own)
        with started(folder, "shrinkflow", "serve", "--cron", "* * * * *", fresh=True) as process:
            listening = Listening(process.pid)
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith(("✗", "✓ Mon", "✓ Tue", "✓ Wed", "✓ Thu", "✓ Fri", "✓ S")):
                    break
            process.send_signal(signal.SIGINT)
            rest = process.communicate(timeout=PATIENCE)[0]
        listening.join()
    return SimpleNamespace(
        text="".join(lines) + rest,
        line=lines[-1],
        status=process.returncode,
        addresses=listening.addresses,
    )


def test_serve_fires_at_the_minute_and_ends_cleanly(served, folder):
    assert "register" in served.line and "next" in served.line, served.text
    assert (folder / "artifacts" / "report.html").is_file()
    assert "http://127.0.0.1:" in served.text
    assert served.status == 0
    assert not [word for word in UGLY if word in served.text], served.text
    assert working_in(folder) == []


def test_it_listens_on_loopback_only(served):
    assert served.addresses == {"127.0.0.1"}


def test_it_writes_no_secret(served, folder):
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in written)
    assert any(path.name == "mlflow.db" for path in written)
    for path in folder.rglob("*.db"):  # also what is still in the write-ahead log
        with sqlite3.connect(path) as database:
            database.execute("pragma wal_checkpoint")
    told = [str(p) for p in written if p.is_file() and b"sentinel-of-" in p.read_bytes()]
    assert told == [] and "sentinel-of-" not in served.text


def test_a_bad_cron_expression_is_one_error_before_anything_starts(tiny):
    done = call(tiny, "shrinkflow", "serve", "--cron", "0 2 * *")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "five fields" in done.stderr
    assert not (tiny / ".shrinkflow" / "logs").exists()
