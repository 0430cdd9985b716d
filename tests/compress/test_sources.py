import pytest

from compress.errors import InputError
from compress.sources import local_path, model_folder


def test_relative_paths_are_read_against_base(tmp_path):
    (tmp_path / "rows.csv").touch()
    assert local_path("rows.csv", tmp_path) == tmp_path / "rows.csv"
    assert local_path("owner/model", tmp_path) is None


def test_inside_a_package(tmp_path):
    assert local_path("package:compress/errors.py", tmp_path).name == "errors.py"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("package:no_such_package/model", "pip install no-such-package"),
        ("package:compress/none.csv", "holds no `none.csv`"),
        ("package:compress/../setup", "holds no"),
        ("./nowhere", "no such file or folder"),
    ],
)
def test_missing(tmp_path, source, message):
    with pytest.raises(InputError, match=message):
        local_path(source, tmp_path)


def test_model_folder_needs_config_and_safetensors(tmp_path, roberta_folder):
    assert model_folder(str(roberta_folder)) == roberta_folder
    with pytest.raises(InputError, match="no config.json"):
        model_folder(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(InputError, match="never pickle"):
        model_folder(str(tmp_path))


def test_hub_that_does_not_answer(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="no-one/nothing"):
        model_folder("no-one/nothing", base=tmp_path)
