"""Parent and child runs in a real MLflow on SQLite."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from compress.errors import ShrinkflowError
from tasks import tracking
from tasks.tracking.connection import connected
from tasks.tracking.provenance import dvc_lock_hash
from tasks.workspace import STAGES, Workspace


@pytest.fixture(scope="module")
def logged(tmp_path_factory, tiny_bert, tiny_compressed, stage_files):
    """A workspace whose runs are logged as the flow does it: (client, parent, children by name)."""
    root = tmp_path_factory.mktemp("runs")
    workspace, params = stage_files.finish(root, tiny_bert, tiny_compressed)
    data = workspace.data / "data.json"
    shutil.move(data, root / "data.json")  # `prepare` has not been run when the run starts
    parent = tracking.start_run(workspace, params)
    shutil.move(root / "data.json", data)
    for stage in ("prepare", "finetune", "quantize"):
        tracking.log_stage(parent, workspace, params, stage)
    tracking.log_stage(parent, workspace, params, "evaluate", cached=True)
    tracking.finish_run(parent, workspace, params)
    with connected(workspace, params) as client:
        run = client.get_run(parent)
        query = f"tags.`mlflow.parentRunId` = '{parent}'"
        children = client.search_runs([run.info.experiment_id], query)
    return client, run, {child.info.run_name: child for child in children}


def test_parent_has_params_headline_and_hashes(logged, tiny_bert):
    _, run, children = logged
    assert run.info.status == "FINISHED"
    assert set(children) == {"prepare", "finetune", "quantize", "evaluate"}
    assert run.data.params["quantize.groups.ffn.layers"] == "['**.dense']"
    assert run.data.params["gate.max_drop"] == "3.0"
    assert run.data.metrics["score"] == 85.0 and run.data.metrics["drop"] == 1.0
    tags = run.data.tags
    assert tags["data_sha256.validation"] == "b" * 64
    assert len(tags["code_sha256"]) == 64
    assert tags["parent_model"] == str(tiny_bert)


def test_rows_are_datasets_of_the_run(logged):
    _, run, children = logged
    for found in (run, children["prepare"]):
        inputs = {i.tags[0].value: i.dataset for i in found.inputs.dataset_inputs}
        assert set(inputs) == {"train", "validation"}
        assert inputs["validation"].digest == "b" * 36
        assert inputs["train"].name == "reviews.csv"
        assert json.loads(inputs["train"].profile) == {"num_rows": 8}


def test_child_says_what_its_stage_does(logged):
    _, _, children = logged
    assert "cluster the layers" in children["quantize"].data.tags["mlflow.note.content"]


def test_child_lasts_as_long_as_its_stage(logged):
    _, _, children = logged
    for child in children.values():
        assert child.info.end_time - child.info.start_time == 7000
        assert child.data.metrics["cost/seconds"] == 7.0
    assert children["evaluate"].data.tags["cached"] == "true"
    assert children["quantize"].data.tags["cached"] == "false"


def test_curves_keep_their_steps(logged):
    client, _, children = logged
    run = children["finetune"].info.run_id
    history = client.get_metric_history(run, "train/loss")
    assert [(m.step, m.value) for m in history] == [(s, 1 / s) for s in range(1, 21)]
    assert client.get_run(run).data.metrics["loss"] == 0.5  # the stage's own, not the curve's
    run = children["quantize"].info.run_id
    steps = [m.step for m in client.get_metric_history(run, "train/attention/loss")]
    assert steps == list(range(11, 21))
    scores = [(m.step, m.value) for m in client.get_metric_history(run, "group/score")]
    assert scores == [(1, 85.5), (2, 85.0)]


def test_layers_are_a_table(logged):
    client, _, children = logged
    run = children["quantize"].info.run_id
    experiment = children["quantize"].info.experiment_id
    table = client.load_table(experiment, "layers.json", run_ids=[run])
    assert list(table["relative_distortion"]) == pytest.approx([0.4, 0.3, 0.2, 0.1])
    names = {artifact.path for artifact in client.list_artifacts(run)}
    assert names == {"layers.json", "layers.csv", "groups.csv", "quantize.csv", "quantize.json"}


def test_password_of_the_store_is_not_logged(finished, monkeypatch):
    workspace, params = finished
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace.root}/a.db?password=secret")
    run = tracking.start_run(workspace, params)
    with connected(workspace, params) as client:
        found = client.get_run(run)
        text = client.download_artifacts(run, "params.yaml", str(workspace.root))
    assert "secret" not in json.dumps([found.data.params, found.data.tags, found.info.run_name])
    assert "secret" not in Path(text).read_text()


def test_run_whose_artifacts_cannot_be_written_is_closed(finished):
    workspace, params = finished
    tracking.check(params, workspace)
    (workspace.mlflow / "artifacts").write_text("in the way")
    with pytest.raises(ShrinkflowError, match="^MLflow at sqlite"):
        tracking.start_run(workspace, params)
    with connected(workspace, params) as client:
        experiment = client.get_experiment_by_name(params.tracking.experiment).experiment_id
        (run,) = client.search_runs([experiment])
    assert run.info.status == "FAILED"


def test_lock_of_dvc_is_known_by_what_comes_before_registering(tmp_path):
    workspace = Workspace(tmp_path)
    lock = {"schema": "2.0", "stages": {stage: {"cmd": stage} for stage in STAGES}}
    assert dvc_lock_hash(workspace) is None
    workspace.dvc_lock.write_text(yaml.safe_dump(lock))
    before = dvc_lock_hash(workspace)
    del lock["stages"]["register"]
    lock["stages"]["somebody's"] = {"cmd": "true"}
    workspace.dvc_lock.write_text(yaml.safe_dump(lock))
    assert dvc_lock_hash(workspace) == before
    lock["stages"]["quantize"]["cmd"] = "other"
    workspace.dvc_lock.write_text(yaml.safe_dump(lock))
    assert dvc_lock_hash(workspace) not in (before, None)
    del lock["stages"]["quantize"]
    workspace.dvc_lock.write_text(yaml.safe_dump(lock))
    assert dvc_lock_hash(workspace) is None
