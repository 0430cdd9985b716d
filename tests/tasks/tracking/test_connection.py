"""Which store is used, and the messages when it cannot be."""

import os
import socket
import time

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import InputError
from compress.params_yaml import load_params
from tasks import tracking
from tasks.tracking.connection import connected, reason
from tasks.tracking_uri import VARIABLE, store_uri


@pytest.fixture
def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def with_uri(workspace, uri):
    return load_params(workspace.params_file, [f"tracking.uri={uri}"])


def test_embedded_store_is_made_quietly_and_can_be_opened(finished, capfd):
    workspace, params = finished
    tracking.check(params, workspace)
    assert capfd.readouterr() == ("", "")
    assert (workspace.mlflow / "mlflow.db").is_file()
    found = mlflow.MlflowClient(tracking.store_uri(workspace, params)).get_experiment_by_name(
        params.tracking.experiment
    )
    assert found.artifact_location == (workspace.mlflow / "artifacts").as_uri()
    start = time.perf_counter()
    tracking.check(params, workspace)
    assert time.perf_counter() - start < 2

    with connected(workspace, params) as client:
        client.delete_experiment(found.experiment_id)
    with pytest.raises(InputError, match="has been deleted"):
        tracking.check(params, workspace)


@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg2"])
def test_store_that_is_not_there_is_an_error_at_once(finished, closed_port, monkeypatch, scheme):
    workspace, params = finished
    monkeypatch.setenv(VARIABLE, f"{scheme}://me:secret@127.0.0.1:{closed_port}/db")
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        tracking.check(params, workspace)
    assert time.perf_counter() - start < 60  # a few seconds; MLflow itself tries for minutes
    message = str(caught.value)
    assert message.startswith(f"{VARIABLE}: MLflow at {scheme}://me:***@127.0.0.1:{closed_port}/db")
    assert "refused" in message and "secret" not in message
    assert "\n" not in message
    assert not workspace.mlflow.exists()


def test_params_come_before_the_environment(finished, monkeypatch):
    workspace, params = finished
    embedded = store_uri(workspace, params)
    assert embedded.startswith("sqlite:///") and str(workspace.mlflow) in embedded
    monkeypatch.setenv(VARIABLE, "http://theirs")
    assert store_uri(workspace, params) == "http://theirs"
    assert store_uri(workspace, with_uri(workspace, "http://ours")) == "http://ours"


def test_environment_is_as_before(finished, monkeypatch):
    workspace, params = finished
    with connected(workspace, params):
        pass
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, "http://theirs")
    with connected(workspace, with_uri(workspace, f"sqlite:///{workspace.root}/a.db")):
        pass
    assert os.environ[VARIABLE] == "http://theirs"


def test_artifacts_of_a_bare_database_go_to_the_project(finished):
    workspace, _ = finished
    params = with_uri(workspace, f"sqlite:///{workspace.root}/elsewhere.db")
    tracking.check(params, workspace)
    with connected(workspace, params) as client:
        found = client.get_experiment_by_name(params.tracking.experiment)
    assert found.artifact_location == (workspace.mlflow / "artifacts").as_uri()


@pytest.mark.parametrize("uri", ["nonsense://x", "sqlite:////proc/none/x.db", "/etc/hostname/x"])
def test_store_that_cannot_be(finished, uri):
    workspace, _ = finished
    with pytest.raises(InputError, match=r"tracking.uri: MLflow at "):
        tracking.check(with_uri(workspace, uri), workspace)


@pytest.mark.parametrize("name", ["a/b", "a:b", "a@b", "a`b", " ", ".."])
def test_names_that_mlflow_refuses(finished, name):
    workspace, _ = finished
    params = load_params(workspace.params_file, [f"tracking.model_name='{name}'"])
    with pytest.raises(InputError, match="model_name"):
        tracking.check(params, workspace)
    assert not workspace.mlflow.exists()


words = st.text(st.characters(categories=["L", "N"]), min_size=1)


@given(words, words, words)
def test_reasons_hold_no_password(user, password, host):
    uri = f"postgresql://{user}:{password}@{host}:5432/db"
    shown = reason(ValueError(f"cannot open {uri}: no such host"))
    assert f":{password}@" not in shown and "no such host" in shown
