"""Quantizing as mapped tasks: failures of some layers, damaged files, and stopping by hand."""

import shutil
import signal
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from compress.errors import InputError
from tasks.outputs import read_json
from tests.flows.workspaces import LAYERS, edit, quantize, stamps, started


def test_a_failing_layer_loses_no_other_and_is_the_only_one_redone(workspace):
    """A weight that is not finite fails in its task: the checks before a run do not see it here."""
    path = workspace.finetuned / "model.safetensors"
    whole = load_file(path)
    name = "bert.encoder.layer.1.output.dense"
    broken = dict(whole)
    broken[f"{name}.weight"] = torch.full_like(whole[f"{name}.weight"], torch.nan)
    save_file(broken, path, metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=f"(?s)1 of the 4 layers of group ffn failed.*{name}"
    ) as error:
        quantize(workspace)
    assert str(error.value).count("\n") == 1
    kept = stamps(workspace)
    assert len(kept) == 3
    assert not workspace.compressed.exists()

    save_file(whole, path, metadata={"format": "pt"})
    quantize(workspace)
    after = stamps(workspace)
    assert {file: after[file] for file in kept} == kept
    assert len(after) == 8
    metrics = read_json(workspace.metrics("quantize"))
    assert metrics["layers"] == 8 and set(metrics["groups"]) == {"ffn", "attention"}


def test_in_batches_a_bad_weight_is_the_only_one_that_fails(workspace, monkeypatch):
    """As on a GPU, where layers of one shape are handed out together."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    quantize(workspace)
    layers = {p.name: p.read_bytes() for p in workspace.root.glob(LAYERS)}
    path = workspace.finetuned / "model.safetensors"
    whole = load_file(path)
    name = "bert.encoder.layer.1.output.dense"
    broken = {k: t.fill_(torch.nan) if k == f"{name}.weight" else t for k, t in whole.items()}
    save_file(broken, path, metadata={"format": "pt"})
    shutil.rmtree(workspace.layers)
    with pytest.raises(InputError, match=f"(?s)1 of the 4 layers of group ffn failed.*{name}"):
        quantize(workspace)
    kept = {p.name: p.read_bytes() for p in workspace.root.glob(LAYERS)}
    assert len(kept) == 3 and kept.items() <= layers.items()


def test_equal_work_gives_equal_bytes_and_a_damaged_layer_is_redone(workspace):
    quantize(workspace)
    first = {p.name: p.read_bytes() for p in workspace.compressed.iterdir()}
    layer = sorted(workspace.root.glob(LAYERS))[0]
    whole, before = layer.read_bytes(), stamps(workspace)
    layer.write_bytes(whole[: len(whole) // 2])
    shutil.rmtree(workspace.work("quantize"))
    shutil.rmtree(workspace.compressed)
    quantize(workspace)
    after = stamps(workspace)
    assert [n for n in before if after[n] != before[n]] == [layer.name]
    assert {p.name: p.read_bytes() for p in workspace.compressed.iterdir()} == first


def test_another_block_size_of_attention_shares_all_other_layers(workspace):
    """Everything from the training on is done again; the store finds what has not changed."""
    from flows.stage_flows import FLOWS

    def change(params):
        params["noise"] = {"function": "codebook", "rate": 0.1}
        embeddings = {"name": "embeddings", "layers": ["**.word_embeddings"], "codebook_size": 4}
        params["quantize"]["groups"].insert(1, embeddings)

    edit(workspace.root, change)
    FLOWS["finetune"](str(workspace.root))
    quantize(workspace)
    before = stamps(workspace)
    assert len(before) == 4 + 1 + 4  # ffn, embeddings, attention
    edit(workspace.root, lambda params: params["quantize"]["groups"][2].update(block_size=2))
    for made in (workspace.finetuned, workspace.compressed, workspace.work("quantize")):
        shutil.rmtree(made)
    FLOWS["finetune"](str(workspace.root))
    quantize(workspace)
    after = stamps(workspace)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 4


def test_mapped_layers_cost_little_orchestration(workspace):
    from prefect import flow

    from flows.stage_flows import compress_group
    from tasks.quantization import list_groups

    @flow(name="twice")
    def twice(root, student):
        for jobs in list_groups(root, student):
            compress_group(root, student, jobs)
        begin = time.perf_counter()
        count = 0
        for jobs in list_groups(root, student):
            compress_group(root, student, jobs)
            count += len(jobs)
        return (time.perf_counter() - begin) / count

    seconds = twice(str(workspace.root), str(workspace.finetuned))
    assert seconds < 0.5  # about 0.02 on an idle machine, listing the layers included


def test_ctrl_c_ends_cleanly_and_the_stage_goes_on_later(workspace, prefect_home):
    shutil.copytree(prefect_home, workspace.prefect)
    with started(workspace.root, "python", "-m", "flows.stages", "quantize") as process:
        deadline = time.monotonic() + 120
        while not stamps(workspace):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        text = process.communicate(timeout=60)[0]
    assert process.returncode == 130, text
    assert "Traceback" not in text and "stopped" in text
    kept = stamps(workspace)
    quantize(workspace)
    assert {name: stamps(workspace)[name] for name in kept} == kept
