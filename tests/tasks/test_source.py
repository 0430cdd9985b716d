"""The version of the code: what it means counts, how it is written does not."""

import shutil

import pytest

from compress.errors import ShrinkflowError
from tasks import source


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A copy of the library that tests may edit."""
    shutil.copytree(source.ROOT / "compress", tmp_path / "compress")
    monkeypatch.setattr(source, "ROOT", tmp_path)
    source.forget()
    yield tmp_path
    source.forget()


def version(*entries):
    """As a new process sees it."""
    source.forget()
    return source.code_version(entries)


def test_comments_docstrings_and_layout_change_nothing(tree):
    file = tree / "compress/blocks.py"
    before = version("compress.codecs.product")
    text = file.read_text()
    head, _, rest = text.partition('"""')
    docstring, _, rest = rest.partition('"""')
    file.write_text(f'"""Other words."""\n# a comment\n\n\n{head}{rest}\n# the end\n')
    assert docstring
    assert version("compress.codecs.product") == before


def test_code_changes_what_imports_it_and_nothing_else(tree):
    names = ("compress.codecs.product", "compress.data")
    before = {name: version(name) for name in names}
    file = tree / "compress/packing.py"
    file.write_text(file.read_text() + "\nEXTRA = 1\n")
    after = {name: version(name) for name in names}
    assert after["compress.codecs.product"] != before["compress.codecs.product"]
    assert after["compress.data"] == before["compress.data"]


def test_a_new_method_leaves_the_others_alone(tree):
    before = version("compress.codecs.product"), version("compress.codecs.*")
    (tree / "compress/codecs/extra.py").write_text("from compress.packing import pack\n")
    assert version("compress.codecs.product") == before[0]
    assert version("compress.codecs.*") != before[1]


def test_imports_are_followed_through_packages_and_functions():
    found = source.modules("compress.codecs.product")
    assert "compress.kmeans.lloyd" in found  # compress.kmeans.__init__ imports it
    assert "compress.training" not in found
    assert "compress.errors" not in found  # neutral
    assert "compress.kmeans.lloyd" in source.modules("compress.training")


def test_a_package_left_out_is_left_out_with_all_its_modules(tree):
    def of_the_rest():
        source.forget()
        return source.code_version(["compress.data"], without=["compress.config"])

    whole, rest = version("compress.data"), of_the_rest()
    file = tree / "compress/config/quantize.py"
    file.write_text(file.read_text() + "\nEXTRA = 1\n")
    assert version("compress.data") != whole
    assert of_the_rest() == rest


def test_files_are_found_without_importing():
    assert source.source_file("compress.kmeans").name == "__init__.py"
    assert source.source_file("compress.blocks") == source.ROOT / "compress/blocks.py"


def test_a_process_notices_that_its_code_has_been_edited(tree):
    before = version("compress.codecs.product")
    file = tree / "compress/packing.py"
    text = file.read_text()
    file.write_text(text + "\n# a remark\n")
    source.check_unchanged(["compress.codecs.product"])
    file.write_text(text + "\nEXTRA = 1\n")
    assert source.code_version(["compress.codecs.product"]) == before
    source.check_unchanged(["compress.data"])
    with pytest.raises(ShrinkflowError, match=r"packing\.py"):
        source.check_unchanged(["compress.codecs.product"])
