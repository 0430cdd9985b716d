"""What a version is made of."""

import ast
import os
import sys

import pytest

from compress.errors import InputError
from compress.params_yaml import load_params
from tasks import source
from tasks.tracking import packaging

# module -> package that brings it, where they differ
NAMES = {"yaml": "pyyaml", "pydantic_core": "pydantic"}


def test_requirements_name_every_library_that_reading_needs():
    modules = {
        "compress",
        *source.modules("compress.quantizer"),
        *source.modules("compress.codecs.*"),
    }
    needed = set()
    for module in modules:
        tree = ast.parse(source.source_file(module).read_text())
        for node in tree.body:  # what is imported when the module is
            if isinstance(node, ast.Import):
                needed.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                needed.add(node.module.partition(".")[0])
    needed -= sys.stdlib_module_names | {"compress", "triton"}  # triton comes with torch for GPUs
    assert {NAMES.get(name, name) for name in needed} <= set(packaging.REQUIREMENTS)
    assert all("+" not in requirement for requirement in packaging.requirements())


def test_content_hash_follows_content_only(finished):
    workspace, params = finished
    before = packaging.content_hash(workspace, params)
    weights = workspace.compressed / "model.safetensors"
    os.utime(weights, (0, 0))
    assert packaging.content_hash(workspace, params) == before
    gate = load_params(workspace.params_file, ["gate.max_drop=1"])
    assert packaging.content_hash(workspace, gate) == before
    shorter = load_params(workspace.params_file, ["data.max_length=8"])
    assert packaging.content_hash(workspace, shorter) != before
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    assert packaging.content_hash(workspace, params) != before


def test_input_example_needs_the_text_columns(finished):
    workspace, params = finished
    assert list(packaging.input_example(workspace, params)["text"])[1] == "a dull plot"
    pair = load_params(workspace.params_file, ["data.text=[premise,hypothesis]"])
    with pytest.raises(InputError, match="no sample of premise, hypothesis"):
        packaging.input_example(workspace, pair)
