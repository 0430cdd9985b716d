"""DVC's judgement, on real repositories: what changed, what is restored, what only looks new."""

import shutil
import subprocess

import pytest
import yaml

from compress.errors import InputError, ShrinkflowError
from compress.params_yaml import load_params
from tasks import source
from tasks.params_file import set_up
from tasks.versions import open_versions
from tasks.workspace import STAGES
from tests.tasks.versions.recorded import DVC, make, record_all


@pytest.fixture(params=["git", "no git"])
def workspace(tmp_path, request):
    if request.param == "git":
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return make(tmp_path)


def changed(workspace, *overrides):
    """The stages that DVC finds changed by overrides, before any of them is run."""
    set_up(workspace.params_file, overrides)
    with open_versions(workspace) as versions:
        return [name for name in STAGES if versions.changes(name)]


def test_recorded_stages_are_clean_for_dvc_too(workspace):
    record_all(workspace)
    done = subprocess.run([DVC, "status"], cwd=workspace.root, capture_output=True, text=True)
    assert "up to date" in done.stdout, done.stdout + done.stderr
    config = (workspace.root / ".dvc" / "config").read_text()
    assert "analytics = false" in config


def test_each_parameter_concerns_only_the_stages_that_read_it(tmp_path):
    workspace = make(tmp_path)
    record_all(workspace)
    cases = {
        "gate.max_drop=1": ["register"],
        "tracking.experiment=other": ["register"],
        "quantize.finetune.temperature=4": ["quantize"],
        "quantize.workers=4": [],
        "quantize.iterations=16": ["quantize"],
        "quantize.block_size=4": ["pretrain", "finetune", "quantize"],
        "finetune.epochs=1": ["finetune"],
        "pretrain.max_steps=3": ["pretrain"],
        "noise.rate=0.2": ["pretrain", "finetune"],
        "data.metric=f1": ["prepare", "quantize", "evaluate"],
        "seed=1": ["pretrain", "finetune", "quantize"],
    }
    text = workspace.params_file.read_text()
    for override, stages in cases.items():
        assert changed(workspace, override) == stages, override
        workspace.params_file.write_text(text)


def test_settings_of_other_stages_mean_nothing(workspace):
    """DVC compares `quantize.groups` as a whole; training has to do with the layers in it alone."""
    record_all(workspace)

    def meaning(*overrides):
        set_up(workspace.params_file, overrides)
        params = load_params(workspace.params_file)
        with open_versions(workspace) as versions:
            found = [name for name in STAGES if versions.changes(name)]
            return found, [name for name in found if versions.means_the_same(name, params)]

    trained = ["pretrain", "finetune"]
    assert meaning("quantize.groups.ffn.block_size=4") == ([*trained, "quantize"], trained)
    changed = ["quantize.groups.ffn.layers=['**.output.dense']"]
    assert meaning(*changed) == ([*trained, "quantize"], [])
    shutil.rmtree(workspace.state, ignore_errors=True)  # as in a new clone
    text = "quantize.groups.ffn={name: ffn, layers: ['**.dense'], iterations: 3}"
    assert meaning(text) == ([*trained, "quantize"], trained)
    (workspace.finetuned / "data.json").write_text("[]\n")
    assert "finetune" not in meaning()[1]


def test_local_data_and_outputs_count(workspace):
    record_all(workspace)
    (workspace.root / "rows.csv").write_text("text,label\nb,1\n")
    assert changed(workspace) == ["prepare"]
    (workspace.root / "rows.csv").write_text("text,label\na,0\n")
    (workspace.finetuned / "data.json").write_text("[]\n")
    assert changed(workspace) == ["finetune", "quantize", "evaluate"]


def test_what_changed_during_a_stage_is_not_recorded_as_its_input(tmp_path):
    workspace = make(tmp_path)
    record_all(workspace)
    params = load_params(workspace.params_file)
    with open_versions(workspace) as versions:
        inputs = versions.inputs("finetune")
        versions.record("finetune", params, inputs)
        set_up(workspace.params_file, ["gate.max_drop=1"])
        versions.record("finetune", params, inputs)
        set_up(workspace.params_file, ["noise.rate=0.3"])
        with pytest.raises(ShrinkflowError, match="noise changed while finetune was running"):
            versions.record("finetune", params, inputs)
        assert versions.changes("finetune")


def test_what_was_made_before_is_taken_from_the_cache(workspace):
    record_all(workspace)
    shutil.rmtree(workspace.finetuned)
    with open_versions(workspace) as versions:
        assert versions.changes("finetune")
        assert versions.restore("finetune")
        assert not versions.changes("finetune")
    shutil.rmtree(workspace.finetuned)
    shutil.rmtree(workspace.root / ".dvc" / "cache")
    with open_versions(workspace) as versions:
        assert not versions.restore("finetune")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A copy of this repository's code as the code that runs, so that a test may change it."""
    for package in ("compress", "tasks"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source.ROOT / package, tmp_path / package, ignore=ignored)
    monkeypatch.setattr(source, "ROOT", tmp_path)
    source.forget()
    yield tmp_path
    source.forget()


def test_a_comment_in_the_code_is_no_change_and_a_statement_is(repository):
    (repository / ".dvc").mkdir()  # the repository that DVC manages holds the code
    (repository / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    workspace = make(repository)
    record_all(workspace)
    params = load_params(workspace.params_file)
    file = repository / "compress" / "packing.py"
    file.write_text(file.read_text() + "\n# a remark\n")
    with open_versions(workspace) as versions:
        assert versions.changes("quantize") == ["compress/packing.py modified"]
        assert versions.means_the_same("quantize", params)
        file.write_text(file.read_text() + "\nEXTRA = 1\n")
        with pytest.raises(ShrinkflowError, match=r"packing\.py"):
            versions.record("quantize", params)
        source.forget()
        assert not versions.means_the_same("quantize", params)
        assert not versions.changes("finetune")


def test_params_of_a_copy_are_complete(tmp_path):
    workspace = make(tmp_path)
    assert "seed" in yaml.safe_load(workspace.params_file.read_text())


@pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.9])
def test_a_lock_file_cut_short_is_made_whole_from_the_cache(tmp_path, share):
    workspace = make(tmp_path)
    record_all(workspace)
    lock = workspace.dvc_file.with_suffix(".lock")
    whole = lock.read_bytes()
    lock.write_bytes(whole[: int(len(whole) * share)])
    params = load_params(workspace.params_file)
    with open_versions(workspace) as versions:
        for stage in STAGES:
            if versions.changes(stage):
                assert versions.restore(stage)
                versions.record(stage, params)
    assert yaml.safe_load(lock.read_text()) == yaml.safe_load(whole)
    assert (workspace.state / lock.name).exists() or share > 0  # a part may be whole stages


def test_a_lock_file_with_a_conflict_is_left_to_its_user(workspace):
    record_all(workspace)
    lock = workspace.dvc_file.with_suffix(".lock")
    lock.write_text("<<<<<<< HEAD\n" + lock.read_text() + "=======\n>>>>>>> other\n")
    text = lock.read_text()
    with pytest.raises(InputError, match="merge conflict"), open_versions(workspace):
        pass
    assert lock.read_text() == text
