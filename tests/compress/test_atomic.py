import pytest

from compress.atomic import new_file, new_folder
from compress.errors import InputError


def test_a_file_appears_at_the_end(tmp_path):
    path = tmp_path / "sub" / "x"
    with new_file(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "x"
    path.write_text("before")
    with pytest.raises(RuntimeError), new_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "model"
    for name in ("first", "second"):
        with new_folder(path) as part:
            (part / "config.json").write_text(name)
            (part / name).touch()
    assert {p.name for p in path.iterdir()} == {"config.json", "second"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_what_was_there(tmp_path):
    path = tmp_path / "model"
    with new_folder(path) as part:
        (part / "config.json").write_text("before")
    with pytest.raises(RuntimeError), new_folder(path) as part:
        raise RuntimeError
    assert (path / "config.json").read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_a_killed_process_do_not_hinder(tmp_path):
    part = tmp_path / ".model.part"
    part.mkdir()
    (part / "half").touch()
    with new_folder(tmp_path / "model") as part:
        assert not list(part.iterdir())


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds no config\.json"), new_folder(tmp_path):
        pass
    assert (tmp_path / "thesis.tex").exists()
