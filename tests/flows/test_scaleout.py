"""Layers on Dask workers, which are processes of their own in folders of their own."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import pytest
import torch
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from safetensors.torch import save_file

from compress.codecs.product_settings import CodebookConfig
from compress.config import Params
from compress.errors import InputError
from compress.params_yaml import load_params
from flows.stage_flows import compress_group
from tasks import cluster, source
from tasks.layers import LayerJob
from tasks.outputs import read_json
from tasks.results import layer_keys
from tasks.workspace import Workspace
from tests import services
from tests.flows.workspaces import TINY, edit, quantize, write_workspace

pytestmark = pytest.mark.slow
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have this file
LAYERS = 12
SHAPE = (384, 384)


@pytest.fixture(scope="module")
def dask(s3):
    """A scheduler with a worker that reaches S3 and offers a GPU, which nobody looks for."""
    with services.dask() as started:
        started.add_worker("--resources", "GPU=1", **s3.environment)
        yield started


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    """A checkpoint of two files with a few large weights in bfloat16."""
    folder = tmp_path_factory.mktemp("student")
    draw = torch.Generator().manual_seed(0)
    weight_map = {}
    for file in range(2):
        tensors = {
            f"layer.{i}.weight": torch.randn(*SHAPE, generator=draw).bfloat16()
            for i in range(file, LAYERS, 2)
        }
        name = f"model-{file}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def jobs() -> list[LayerJob]:
    settings = CodebookConfig(block_size=4, codebook_size=256, iterations=15)
    return [
        LayerJob(f"layer.{i}", "ffn", SHAPE, f"layer.{i}.weight", settings, seed=i)
        for i in range(LAYERS)
    ]


def make_workspace(folder: Path, tiny_model: Path, compute: dict) -> tuple[Workspace, Params]:
    folder.mkdir()
    write_workspace(folder, tiny_model, TINY | {"compute": compute})
    workspace = Workspace(folder)
    return workspace, load_params(workspace.params_file)


def compress(workspace: Workspace, params: Params, student: Path) -> list[dict]:
    @flow(name="compress", task_runner=cluster.task_runner(params))
    def run(root: str) -> list[dict]:
        return compress_group(root, str(student), jobs())

    return run(str(workspace.root))


def layer_files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("*/*.safetensors")}


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_worker_is_killed_in_the_middle_and_the_layers_are_those_of_threads(
    tmp_path, tiny_model, student, server, dask
):
    shared = tmp_path / "shared"
    remote = {"runner": "dask", "address": dask.address, "store": str(shared)}
    workspace, params = make_workspace(tmp_path / "remote", tiny_model, remote)
    killed = dask.add_worker()
    busy: list[str] = []

    def kill() -> None:
        from distributed import Client

        with Client(dask.address, set_as_default=False) as client:
            workers = client.scheduler_info(n_workers=-1)["workers"]
            names = {address: facts["id"] for address, facts in workers.items()}
            wait_for(lambda: len(layer_files(shared / "layers")) >= 3)
            running = client.processing()
            busy.extend(names[address] for address, tasks in running.items() if tasks)
        killed.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    made = compress(workspace, params, student)
    killer.join()
    assert "worker-1" in busy, "it was killed while it had layers to do"
    assert len(made) == LAYERS

    local, params = make_workspace(tmp_path / "local", tiny_model, {})
    expected = compress(local, params, student)
    assert [layer["key"] for layer in made] == [layer["key"] for layer in expected]
    assert layer_files(workspace.layers) == layer_files(local.layers)
    assert layer_files(shared / "layers") == layer_files(local.layers)
    assert list((shared / "students").iterdir()) == []
    assert all(p.is_dir() for p in shared.iterdir()), "no probe is left"


def test_over_s3_the_model_is_that_of_threads(finetuned, tmp_path, server, dask, s3, monkeypatch):
    """The whole stage, errors weighted; the worker shares nothing with it but the bucket."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    made = {}
    store = f"s3://{s3.bucket}/layers-of-a-team"
    remote = {"runner": "dask", "address": dask.address, "store": store, "resources": {"GPU": 1}}
    for name, compute in (("threads", {}), ("dask", remote)):
        workspace = Workspace(tmp_path / name)
        shutil.copytree(finetuned, workspace.root, symlinks=True)
        edit(workspace.root, lambda params, value=compute: params.update(compute=value))
        edit(workspace.root, lambda params: params["quantize"].update(sensitivity="fisher"))
        quantize(workspace)
        model = (workspace.compressed / "model.safetensors").read_bytes()
        made[name] = model, layer_files(workspace.layers)
    assert made["dask"] == made["threads"]
    names = s3.keys("layers-of-a-team/")
    assert {name.rsplit("/", 1)[1] for name in names} == {
        f"{key}.safetensors" for key in layer_keys(workspace)
    }

    other = Workspace(tmp_path / "other")  # of a colleague, with threads and the same store
    shutil.copytree(finetuned, other.root, symlinks=True)
    edit(other.root, lambda params: params.update(compute={"store": store}))
    edit(other.root, lambda params: params["quantize"].update(sensitivity="fisher"))
    quantize(other)
    assert read_json(other.timings("quantize"))["layers"] == {}, "no layer was computed again"
    assert (other.compressed / "model.safetensors").read_bytes() == made["threads"][0]


def test_workers_that_cannot_do_the_work_are_refused_at_once(tmp_path, tiny_model, server):
    with services.dask() as own:
        compute = {"runner": "dask", "address": own.address, "store": str(tmp_path / "shared")}
        workspace, params = make_workspace(tmp_path / "one", tiny_model, compute)
        with pytest.raises(InputError, match="has no workers; start some"):
            cluster.check(params, workspace)
        shutil.copytree(source.ROOT / "compress", tmp_path / "old" / "compress")
        shutil.copytree(source.ROOT / "tasks", tmp_path / "old" / "tasks")
        with (tmp_path / "old" / "compress" / "packing.py").open("a") as file:
            file.write("VERSION = 0\n")
        own.add_worker(PYTHONPATH=str(tmp_path / "old"))
        nobody = f"http://{services.HOST}:{services.free_port()}/api"
        with (
            temporary_settings({PREFECT_API_URL: nobody}),
            pytest.raises(InputError) as error,
        ):
            cluster.check(params, workspace)
        assert "other code of shrinkflow" in str(error.value)
        assert f"cannot reach Prefect at {nobody}" in str(error.value)
        compute["resources"] = {"GPU": 2}
        _, params = make_workspace(tmp_path / "two", tiny_model, compute)
        with pytest.raises(InputError, match="none of the 1 Dask workers has GPU=2"):
            cluster.check(params, workspace)
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, tiny_model, server, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    address = f"tcp://{services.HOST}:{services.free_port()}"
    compute = {"runner": "dask", "address": address}
    workspace, params = make_workspace(tmp_path / "one", tiny_model, compute)
    with pytest.raises(InputError, match=f"no Dask scheduler answers at {address}"):
        cluster.check(params, workspace)
