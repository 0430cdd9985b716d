"""One run at a time in a workspace; a process that dies lets go of it."""

import os
import signal
import subprocess
import sys

import pytest

from tasks.lock import BusyError, workspace_lock
from tasks.workspace import Workspace

HOLD = """
import sys, time
from pathlib import Path
from tasks.lock import workspace_lock
from tasks.workspace import Workspace
with workspace_lock(Workspace(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_refused_and_told_who_is_first(tmp_path):
    workspace = Workspace(tmp_path)
    who = str(os.getpid())
    with (
        workspace_lock(workspace),
        pytest.raises(BusyError, match=who),
        workspace_lock(workspace),
    ):
        pass
    with workspace_lock(workspace):
        pass


def test_a_killed_process_lets_go(tmp_path):
    workspace = Workspace(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=str(holder.pid)), workspace_lock(workspace):
            pass
        holder.send_signal(signal.SIGKILL)
    with workspace_lock(workspace):
        assert (tmp_path / ".shrinkflow" / ".gitignore").read_text() == "*\n"


def test_who_waits_is_told_for_whom_and_gets_the_workspace_in_the_end(tmp_path):
    workspace, seen = Workspace(tmp_path), []
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"

        def waits(owner: str) -> None:
            seen.append(owner)
            holder.send_signal(signal.SIGKILL)

        with workspace_lock(workspace, 60.0, waits):
            assert len(seen) == 1 and str(holder.pid) in seen[0]


def test_waiting_has_an_end(tmp_path):
    workspace = Workspace(tmp_path)
    with (
        workspace_lock(workspace),
        pytest.raises(BusyError, match=str(os.getpid())),
        workspace_lock(workspace, 0.1),
    ):
        pass
