"""Where a params file runs, and what its runs share."""

import pytest

from compress.errors import InputError
from tasks.workspace import Workspace, workspace_of


@pytest.fixture
def project(tmp_path):
    for name in ("params.yaml", "other.yaml", "params/roberta.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("model: {}\n")
    return tmp_path


def test_params_yaml_runs_in_its_folder_and_others_in_runs(project):
    assert workspace_of(project / "params.yaml").root == project
    other = workspace_of(project / "other.yaml")
    assert other.root == project / "runs" / "other"
    assert other.home == project


def test_a_project_of_dvc_keeps_all_runs_together(project):
    (project / ".dvc").mkdir()
    roberta = workspace_of(project / "params" / "roberta.yaml")
    assert roberta.root == project / "runs" / "roberta"
    for shared in ("layers", "mlflow", "prefect"):
        assert getattr(roberta, shared) == getattr(Workspace(project), shared)
    assert roberta.work("quantize").is_relative_to(roberta.root)


def test_a_missing_file_is_named(project):
    with pytest.raises(InputError, match=r"none\.yaml"):
        workspace_of(project / "none.yaml")
