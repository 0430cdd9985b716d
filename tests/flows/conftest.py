"""What the tests of flows share: a Prefect server, and a workspace ready to be quantized."""

import shutil

import pytest

from tasks.server import flows_on
from tasks.workspace import Workspace
from tests.flows.workspaces import TINY, write_workspace

PREPARED = ("prepare", "pretrain", "finetune")


@pytest.fixture(scope="package")
def server(server):
    """Flows run in this process, on the server of all tests."""
    with flows_on(server):
        yield server


@pytest.fixture(scope="package")
def finetuned(tmp_path_factory, tiny_model, server):
    """A tiny workspace whose first three stages have been run, one process, as a flow."""
    from flows.stage_flows import FLOWS

    folder = tmp_path_factory.mktemp("finetuned")
    write_workspace(folder, tiny_model, TINY)
    for name in PREPARED:
        FLOWS[name](str(folder))
    return folder


@pytest.fixture
def workspace(finetuned, tmp_path):
    """A copy of it, with nothing quantized."""
    folder = tmp_path / "copy"
    shutil.copytree(finetuned, folder, symlinks=True)
    return Workspace(folder)
