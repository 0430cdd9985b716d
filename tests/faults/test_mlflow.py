"""A server of MLflow's that is lost in the middle of a run, and back before the next."""

import sqlite3

import pytest

from tests.faults.conftest import without_quantize
from tests.faults.kills import LAYERS, not_whole, outputs, stamps, wait_until
from tests.flows import workspaces
from tests.flows.workspaces import call, edit, started
from tests.services import HOST, is_healthy, mlflow_server

# As a user may set it: MLflow's own patience is four minutes a call.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_server")]


def test_work_is_kept_and_mlflow_is_told_later(done, tmp_path, monkeypatch):
    folder, store = tmp_path / "copy", tmp_path / "mlflow.db"
    without_quantize(done, folder)
    own = workspaces.environment()
    monkeypatch.setattr(workspaces, "environment", lambda: own | IMPATIENT)
    with mlflow_server(f"sqlite:///{store}", str(tmp_path / "artifacts")) as server:
        url = f"http://{HOST}:{server.port}"
        edit(folder, lambda params: params["tracking"].update(uri=url))
        with started(folder, "shrinkflow", "run") as process:
            wait_until(lambda: len(stamps(folder, LAYERS)) > 1 or process.poll() is not None)
            server.kill()
            text = process.communicate(timeout=300)[0]
        assert process.returncode == 1 and text.count("error: ") == 1, text
        assert "Traceback" not in text and f"MLflow at {url}" in text, text
        assert not_whole(folder) == []
        kept = stamps(folder, LAYERS)

        refused = call(folder, "shrinkflow", "run")
        assert refused.returncode == 2 and "start that server" in refused.stderr, refused.stderr

        server.start(lambda: is_healthy(f"{url}/health"))
        again = call(folder, "shrinkflow", "run")
        assert again.returncode == 0, again.stderr
    assert stamps(folder, LAYERS) == kept
    assert outputs(folder) == outputs(done)
    with sqlite3.connect(store) as database:
        states = list(database.execute("select name, status from runs order by start_time"))
        told = {name for name, status in states}
        assert {"quantize", "evaluate", "register"} <= told, states
        assert not [name for name, status in states if status == "RUNNING"], states
