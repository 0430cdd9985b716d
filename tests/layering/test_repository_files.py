"""dvc.yaml and params.yaml of this repository are what the table of stages makes of the code."""

from pathlib import Path

from compress.params_yaml import load_params
from tasks.params_file import complete
from tasks.pipeline_file import render
from tasks.source import ROOT
from tasks.workspace import STAGES, Workspace
from tasks.yaml_file import load

REMEDY = "`python -m tasks.pipeline_file` (or `shrinkflow run`) brings it up to date"


def test_dvc_yaml_lists_the_code_that_the_stages_import():
    written = load(ROOT / "dvc.yaml")["stages"]
    params = load_params(ROOT / "params.yaml")
    for stage in STAGES:
        assert written[stage] == render(Workspace(ROOT), stage, params), REMEDY


def test_params_yaml_spells_out_what_dvc_tracks():
    path = Path(ROOT / "params.yaml")
    assert complete(load(path), load_params(path)) == []
