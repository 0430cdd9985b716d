"""A server of Prefect's that is lost in the middle of a run."""

import shutil

import pytest

from tasks.server import Server
from tests.faults.conftest import without_quantize
from tests.faults.kills import LAYERS, not_whole, outputs, stamps, wait_until
from tests.flows import workspaces
from tests.flows.workspaces import call, started


@pytest.mark.slow
def test_no_work_is_lost_with_the_server_of_prefect(done, tmp_path, prefect_home, monkeypatch):
    """The run ends, well or with one message, and the next one goes on."""
    folder = tmp_path / "copy"
    without_quantize(done, folder)
    shutil.copytree(prefect_home, tmp_path / "server")
    server = Server(tmp_path / "server")
    server.wait()
    own = workspaces.environment()
    lost = {"PREFECT_API_URL": server.url, "PREFECT_CLIENT_MAX_RETRIES": "1"}
    with monkeypatch.context() as patch:
        patch.setattr(workspaces, "environment", lambda: own | lost)
        with started(folder, "shrinkflow", "run") as process:
            wait_until(lambda: len(stamps(folder, LAYERS)) > 1 or process.poll() is not None)
            server._process.kill()
            server.stop()
            text = process.communicate(timeout=300)[0]
    assert "Traceback" not in text, text
    assert process.returncode in (0, 1), text
    assert text.count("error: ") == process.returncode, text
    kept = stamps(folder, LAYERS)
    assert not_whole(folder) == []
    again = call(folder, "shrinkflow", "run")
    assert again.returncode == 0, again.stderr
    after = stamps(folder, LAYERS)
    assert {path: after[path] for path in kept} == kept
    assert outputs(folder) == outputs(done)
