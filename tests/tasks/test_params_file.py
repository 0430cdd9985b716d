"""Overrides and copies of params files: comments stay, nothing invalid is ever written."""

import os
import re

import pytest
import yaml

from compress.errors import InputError
from compress.params_yaml import load_params
from tasks.params_file import set_up

TEXT = """\
# What is compressed.
model: {source: model}
data:
  source: rows.csv   # two columns
  label: label
  holdout: 4
pretrain:
  enabled: false
  data: {source: rows.csv}
quantize:
  codebook_size: 64  # small
  groups:
    - name: ffn
      layers: ["**.dense"]
"""


@pytest.fixture
def params_file(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n")
    (tmp_path / "params.yaml").write_text(TEXT)
    return tmp_path / "params.yaml"


def test_an_override_is_written_and_comments_stay(params_file):
    workspace, notes = set_up(params_file, ["quantize.codebook_size=128"])
    text = params_file.read_text()
    assert workspace.root == params_file.parent
    assert re.search(r"codebook_size: 128 +# small", text)
    assert "# What is compressed." in text and "# two columns" in text
    assert 'layers: ["**.dense"]' in text
    assert any("codebook_size=128" in note for note in notes)


def test_list_items_go_by_name(params_file):
    set_up(params_file, ["quantize.groups.ffn.block_size=4"])
    assert load_params(params_file).quantize.groups[0].block_size == 4


@pytest.mark.parametrize(
    "override",
    ["quantize.codebok_size=1", "quantize.codebook_size=x", "nonsense", "data.holdout=0"],
)
def test_an_invalid_override_leaves_the_file_as_it_was(params_file, override):
    with pytest.raises(InputError):
        set_up(params_file, [override])
    assert params_file.read_text() == TEXT


def test_keys_that_dvc_tracks_are_spelled_out_once(params_file):
    before = load_params(params_file)
    _, notes = set_up(params_file)
    assert load_params(params_file) == before
    assert yaml.safe_load(params_file.read_text())["seed"] == 0
    assert any("seed" in note for note in notes)
    written = params_file.stat().st_mtime_ns
    assert set_up(params_file)[1] == []
    assert params_file.stat().st_mtime_ns == written


def test_another_file_runs_in_its_own_folder_with_the_same_sources(params_file):
    other = params_file.with_name("roberta.yaml")
    params_file.rename(other)
    workspace, _ = set_up(other, ["seed=5"])
    copy = load_params(workspace.params_file)
    assert workspace.root == other.parent / "runs" / "roberta"
    assert other.read_text() == TEXT
    assert copy.seed == 5
    assert os.path.samefile(workspace.root / copy.data.source, other.parent / "rows.csv")
    assert os.path.samefile(workspace.root / copy.pretrain.data.source, other.parent / "rows.csv")
    assert copy.model.source == "model"  # no such folder: a hub id, left as it is


def test_what_dvc_could_not_read_is_refused(params_file):
    params_file.write_text(TEXT.replace("{source: model}", "{source: package:a/b}"))
    with pytest.raises(InputError, match="quotes"):
        set_up(params_file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.yaml"):
        set_up(tmp_path / "nothing.yaml")
