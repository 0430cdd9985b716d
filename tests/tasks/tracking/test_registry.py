"""The registry with a real MLflow on SQLite: one workspace that is registered again and again."""

import json
import shutil

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from compress.errors import InputError, ShrinkflowError
from compress.params_yaml import load_params
from tasks import tracking
from tasks.pruning import prune
from tasks.results import plot
from tasks.store import LayerStore
from tasks.tracking import layers_of_versions, packaging
from tasks.tracking.by_hand import promote, rollback
from tasks.tracking.connection import connected


class Project:
    """A finished workspace, and what its registry says."""

    def __init__(self, workspace, params, write_stages):
        self.workspace, self.params, self._write = workspace, params, write_stages

    def register(self, **stages):
        """Registers the workspace as it is after `evaluate` gave these numbers."""
        self._write(self.workspace, **stages)
        return tracking.register(self.workspace, self.params)

    def version(self, number):
        with connected(self.workspace, self.params) as client:
            return client.get_model_version("tiny", str(number))

    def aliases(self):
        with connected(self.workspace, self.params) as client:
            found = client.get_registered_model("tiny").aliases
            return {alias: int(version) for alias, version in found.items()}

    def set_tag(self, number, name, value):
        with connected(self.workspace, self.params) as client:
            client.set_model_version_tag("tiny", str(number), name, value)

    def run(self, number):
        with connected(self.workspace, self.params) as client:
            return client.get_run(self.version(number).run_id)


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_bert, tiny_compressed, stage_files):
    root = tmp_path_factory.mktemp("registry")
    workspace, params = stage_files.finish(root, tiny_bert, tiny_compressed)
    return Project(workspace, params, stage_files.write_stages)


@pytest.fixture(scope="module")
def first(project):
    """The first registration of all; the tests below build on it in their order."""
    return project.register(score=85.0, ratio=20.0)


def test_first_version_is_champion(project, first, tiny_bert):
    assert (first["version"], first["new"], first["alias"]) == (1, True, "champion")
    tags = project.version(1).tags
    assert tags["load_back"] == "passed" and tags["gate"] == "passed"
    assert (float(tags["ratio"]), float(tags["score"]), float(tags["drop"])) == (20.0, 85.0, 1.0)
    size = (project.workspace.compressed / "model.safetensors").stat().st_size
    assert int(tags["bytes"]) == size
    assert tags["parent_model"] == str(tiny_bert)
    assert tags["data_hash"] == "b" * 64
    assert project.version(1).description.startswith("11 kB, 20.0× smaller")
    assert json.loads(json.dumps(first)) == first


def test_registration_without_flow_logs_every_stage(project, first):
    run = project.run(1)
    assert run.info.status == "FINISHED"
    with connected(project.workspace, project.params) as client:
        children = client.search_runs(
            [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        )
        artifacts = {a.path for a in client.list_artifacts(run.info.run_id)}
    names = sorted(child.info.run_name for child in children)
    assert names == ["evaluate", "finetune", "prepare", "quantize", "register"]
    assert artifacts == {"params.yaml", "report.html", "layer_keys.json"}
    assert "tiny version 1**, champion: gate passed" in run.data.tags["mlflow.note.content"]
    assert "version 1" in project.workspace.report.read_text()


def test_version_carries_the_code_that_reads_it_and_no_pickle(project, first):
    files = {f.name: f for f in project.workspace.mlflow.rglob("*") if f.is_file()}
    assert files["quantizer.py"].parent.parts[-2:] == ("code", "compress")
    assert "classifier.py" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pyc"))]


def test_version_predicts_as_the_folder_does(project, first):
    with connected(project.workspace, project.params):
        model = mlflow.pyfunc.load_model("models:/tiny@champion")
    texts = pd.DataFrame({"text": ["the film is great", "flat", "a plot " * 30]})
    found = model.predict(texts)
    expected = packaging.predict(project.workspace, project.params, texts)
    assert list(found.columns) == ["label", "scores"]
    assert list(found["label"]) == list(expected["label"])
    for scores, right in zip(found["scores"], expected["scores"], strict=True):
        assert scores == pytest.approx(right, abs=1e-5)
    with pytest.raises(MlflowException, match="text"):
        model.predict(pd.DataFrame({"review": ["the film is great"]}))


def test_logged_model_has_the_scores(project, first):
    with connected(project.workspace, project.params) as client:
        experiment = client.get_experiment_by_name(project.params.tracking.experiment)
        (model,) = client.search_logged_models([experiment.experiment_id])
    found = {metric.key: metric.value for metric in model.metrics}
    assert (found["score"], found["drop"], found["ratio"]) == (85.0, 1.0, 20.0)


def test_same_content_is_one_version(project, first):
    again = project.register(score=85.0, ratio=20.0)
    assert (again["version"], again["new"], again["alias"]) == (1, False, "champion")
    assert "is the champion already" in again["reason"]


def test_layers_of_registered_versions_are_never_pruned(project, first, stage_files):
    """The outputs are of other layers by now; the version still needs those it was made of."""
    workspace, store = project.workspace, LayerStore(project.workspace.layers)
    old, new = [f"{i:02x}" * 32 for i in range(4)], "ee" * 32
    for key in (*old, new):
        store.path(key).parent.mkdir(parents=True, exist_ok=True)
        store.path(key).write_bytes(b"x")
    workspace.plot("layers").unlink()
    prune(workspace.root, max_age=None, max_bytes=0, dry_run=False)
    assert [file.key for file in store.files()] == old
    uri = tracking.store_uri(workspace, project.params)
    assert layers_of_versions(workspace, uri) == {"tiny version 1": old}

    stage_files.write_stages(workspace)  # equal content, made of other layers as well
    table = plot(workspace, "layers")
    table.assign(key=[new, *old[1:]]).to_csv(workspace.plot("layers"), index=False)
    tracking.register(workspace, project.params)
    assert layers_of_versions(workspace, uri) == {"tiny version 1": [*old, new]}


def test_a_version_that_does_not_say_its_layers_stops_pruning(project, first):
    uri = tracking.store_uri(project.workspace, project.params)
    with connected(project.workspace, project.params) as client:
        client.create_registered_model("old")
        client.create_model_version("old", "file:///none", tags={"content_sha256": "x"})
        try:
            with pytest.raises(ShrinkflowError, match="old version 1 does not say which layers"):
                layers_of_versions(project.workspace, uri)
        finally:
            client.delete_registered_model("old")


def test_champion_keeps_its_alias_when_the_gate_gets_stricter(project, first):
    overrides = ["gate.max_drop=0.5"]
    strict = load_params(project.workspace.params_file, overrides)
    found = tracking.register(project.workspace, strict)
    assert found["alias"] == "champion" and not found["passed"]
    assert project.aliases() == {"champion": 1}
    assert project.version(1).tags["gate"] == "not passed"


def test_worse_model_is_challenger_and_says_why(project, first):
    config = project.workspace.compressed / "config.json"
    other = json.loads(config.read_text()) | {"problem_type": "single_label_classification"}
    config.write_text(json.dumps(other))  # another content, the same weights
    found = project.register(score=84.0, ratio=20.0)
    assert (found["version"], found["new"], found["alias"]) == (2, True, "challenger")
    assert project.aliases() == {"champion": 1, "challenger": 2}
    assert "does not beat the champion (version 1)" in project.version(2).tags["reason"]


def test_challenger_that_does_better_takes_over(project, first):
    found = project.register(score=85.5, ratio=20.0)
    assert (found["version"], found["alias"]) == (2, "champion")
    assert project.aliases() == {"champion": 2, "previous": 1}
    assert float(project.version(2).tags["score"]) == 85.5


def test_rolled_back_version_is_not_made_champion_by_the_next_run(project, first):
    rollback(project.workspace, project.params)
    assert project.aliases() == {"champion": 1}
    found = project.register(score=85.5, ratio=20.0)
    assert (found["version"], found["alias"], found["passed"]) == (2, "challenger", True)
    assert "rolled back" in found["reason"]
    assert project.aliases() == {"champion": 1, "challenger": 2}
    promote(project.workspace, project.params, "challenger")
    assert project.aliases() == {"champion": 2, "previous": 1}


def test_version_that_does_not_load_gets_no_alias(project, first):
    with connected(project.workspace, project.params) as client:
        for alias in ("champion", "previous"):
            client.delete_registered_model_alias("tiny", alias)
        source = client.get_model_version("tiny", "2").source.removeprefix("file://")
    project.set_tag(2, "load_back", "not yet")
    weights = f"{source}/artifacts/{project.workspace.compressed.name}/model.safetensors"
    shutil.copyfile(__file__, weights)
    with pytest.raises(ShrinkflowError, match=r"version 2 .* got no alias"):
        project.register(score=85.5, ratio=20.0)
    assert project.aliases() == {}
    assert project.version(2).tags["load_back"].startswith("failed: ")


def test_nothing_to_register(tmp_path, stage_files, tiny_bert, tiny_compressed):
    workspace, params = stage_files.finish(tmp_path / "a", tiny_bert, tiny_compressed)
    (workspace.compressed / "model.safetensors").unlink()
    with pytest.raises(InputError, match="run `quantize` first"):
        tracking.register(workspace, params)
    workspace.metrics("evaluate").unlink()
    with pytest.raises(InputError, match="run the stage `evaluate` first"):
        tracking.register(workspace, params)
    assert not workspace.mlflow.exists()
