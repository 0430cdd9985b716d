"""MLflow as a team has it: a server on PostgreSQL with artifacts on S3. Everything here is real."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml

from compress.errors import InputError
from compress.params_yaml import load_params
from tasks import tracking
from tasks.tracking import packaging
from tasks.tracking.connection import connected
from tasks.workspace import STAGES
from tests import services

pytestmark = pytest.mark.slow
NAME = "tiny-served"


@pytest.fixture(scope="module")
def server(postgres, s3):
    """The URL of a server whose clients have no keys of S3."""
    database = postgres.database("postgresql+psycopg2")
    with services.mlflow_server(database, f"s3://{s3.bucket}/mlflow", s3.environment) as process:
        yield f"http://127.0.0.1:{process.port}"


@pytest.fixture(scope="module")
def registered(tmp_path_factory, tiny_bert, tiny_compressed, stage_files, server):
    """A workspace in git and with a dvc.lock, registered on the server."""
    root = tmp_path_factory.mktemp("served")
    workspace, _ = stage_files.finish(root, tiny_bert, tiny_compressed)
    params = yaml.safe_load(workspace.params_file.read_text())
    params["tracking"] = {"model_name": NAME, "uri": server}
    workspace.params_file.write_text(yaml.safe_dump(params))
    stages = {stage: {"cmd": stage} for stage in STAGES[:-1]}
    workspace.dvc_lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], cwd=root, check=True)
    loaded = load_params(workspace.params_file)
    return workspace, loaded, tracking.register(workspace, loaded)


@pytest.fixture
def client(registered):
    workspace, params, _ = registered
    with connected(workspace, params) as found:
        yield found


def test_version_is_described_tagged_and_champion(client, registered, tiny_bert):
    _, _, found = registered
    assert (found["version"], found["alias"]) == (1, "champion")
    version = client.get_model_version_by_alias(NAME, "champion")
    tags = version.tags
    assert (tags["score"], tags["drop"], tags["ratio"]) == ("85.0", "1.0", "20.0")
    assert tags["load_back"] == "passed" and tags["parent_model"] == str(tiny_bert)
    assert len(tags["git_commit"]) == 40 and len(tags["dvc_lock_sha256"]) == 64
    assert tags["data_hash"] == "b" * 64 and int(tags["bytes"]) > 0
    assert "85.00" in version.description
    assert f"models:/{NAME}@champion" in client.get_registered_model(NAME).description
    info = mlflow.models.get_model_info(f"models:/{NAME}@champion")
    assert info.signature.inputs.input_names() == ["text"]
    assert info.signature.outputs.input_names() == ["label", "scores"]
    assert info.saved_input_example_info


def test_artifacts_are_on_s3_and_only_there(client, registered, s3):
    workspace, _, _ = registered
    names = {key.rpartition("/")[2] for key in s3.keys("mlflow/")}
    assert {"model.safetensors", "report.html", "dvc.lock", "layers.json"} <= names
    assert not workspace.mlflow.exists()


def test_version_loads_back_from_the_server(client, registered):
    workspace, params, _ = registered
    texts = pd.DataFrame({"text": ["the film is great", "flat"]})
    found = mlflow.pyfunc.load_model(f"models:/{NAME}@champion").predict(texts)
    expected = packaging.predict(workspace, params, texts)
    assert list(found["label"]) == list(expected["label"])


def test_served_version_answers_requests(client, registered, server, tmp_path):
    workspace, params, _ = registered
    port = services.free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@champion"]
    command += ["--env-manager", "local", "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow calls uvicorn
    env = os.environ | {"MLFLOW_TRACKING_URI": server, "PATH": path}
    process = services.Process(command, port, tmp_path, cwd=tmp_path, env=env)
    texts = ["a dull plot", "the film is good"]
    try:
        url = f"http://127.0.0.1:{port}"
        process.start(lambda: services.is_healthy(f"{url}/ping"))
        request = urllib.request.Request(
            f"{url}/invocations",
            json.dumps(
                {"dataframe_split": {"columns": ["text"], "data": [[t] for t in texts]}}
            ).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)["predictions"]
    finally:
        process.stop()
    expected = packaging.predict(workspace, params, pd.DataFrame({"text": texts}))
    assert [row["label"] for row in found] == list(expected["label"])
    for row, scores in zip(found, expected["scores"], strict=True):
        assert row["scores"] == pytest.approx(scores, abs=1e-5)


def test_commands_move_versions_on_the_server(client, registered):
    workspace, _, _ = registered
    first = client.get_model_version(NAME, "1")
    tags = first.tags | {"score": "84.0", "drop": "2.0"}
    model = first.source.partition("/models/")[2].partition("/")[0]
    client.create_model_version(NAME, first.source, first.run_id, tags, model_id=model)

    def call(*command):
        code = f"from flows.cli import app; app({list(command)!r})"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=workspace.root, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    assert call("promote", "2") == (
        0,
        f"{NAME} version 2 is champion; version 1 is now `previous`\n",
    )
    status, text = call("compare", "previous", "champion")
    assert status == 0 and "-1.00" in text and "relative distortion" in text
    assert (workspace.artifacts / "comparisons" / "1-2.html").is_file()
    status, text = call("rollback")
    assert status == 0 and "version 1 is champion again" in text
    assert client.get_registered_model(NAME).aliases == {"champion": "1"}


def test_bare_database_wants_an_experiment_with_a_place(finished, postgres, s3, monkeypatch):
    workspace, _ = finished
    uri = postgres.database("postgresql+psycopg2")
    params = load_params(workspace.params_file, [f"tracking.uri={uri}"])
    with pytest.raises(InputError, match=r"mlflow experiments create -n shrinkflow -l s3://"):
        tracking.check(params, workspace)
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with connected(workspace, params) as client:
        client.create_experiment("shrinkflow", f"s3://{s3.bucket}/bare")
    tracking.check(params, workspace)
    tracking.start_run(workspace, params)
    assert [key.rpartition("/")[2] for key in s3.keys("bare/")] == ["params.yaml"]
    assert not workspace.mlflow.exists()
