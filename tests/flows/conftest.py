"""What the tests of flows share: a Prefect server, and a workspace ready to be quantized."""

import shutil

import pytest

from tasks.server import flows_on, prefect_server
from tests.flows.workspaces import TINY, write_workspace

PREPARED = ("prepare", "pretrain", "finetune")


@pytest.fixture(scope="package")
def server(prefect_home, tmp_path_factory):
    """One server for all flows of these tests that run in this process."""
    home = tmp_path_factory.mktemp("server") / "prefect"
    shutil.copytree(prefect_home, home)
    with prefect_server(home) as started_server, flows_on(started_server):
        yield started_server


@pytest.fixture(scope="package")
def finetuned(tmp_path_factory, tiny_model, prefect_home, server):
    """A tiny workspace whose first three stages have been run, one process, as a flow."""
    from flows.stage_flows import FLOWS

    folder = tmp_path_factory.mktemp("finetuned")
    write_workspace(folder, tiny_model, TINY)
    for name in PREPARED:
        FLOWS[name](str(folder))
    return folder
