"""What the command line says, and with which status it ends. Each command is a real process."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.flows.workspaces import call, edit


def fails(folder, *command, status=2):
    """The message of a command that must fail with `status`, without a traceback."""
    done = call(folder, "shrinkflow", *command)
    text = done.stdout + done.stderr
    assert done.returncode == status, text
    assert "Traceback" not in text
    assert "error: " in done.stderr
    return done.stderr


def test_plan_shows_layers_and_changes_nothing(tiny):
    before = sorted(p.name for p in tiny.iterdir())
    done = call(tiny, "shrinkflow", "plan", "-S", "quantize.codebook_size=4")
    assert done.returncode == 0, done.stderr
    assert "bert.encoder.layer.1.output.dense" in done.stdout
    assert "codebook_size 4" in done.stdout
    assert sorted(p.name for p in tiny.iterdir()) == before
    assert "codebook_size: 8" in (tiny / "params.yaml").read_text()


def test_every_problem_is_listed_before_any_work(tiny):
    def change(params):
        params["data"]["label"] = "lable"
        params["quantize"]["groups"].append({"name": "none", "layers": ["**.nothing"]})
        params["quantize"]["groups"][0]["block_size"] = 7

    edit(tiny, change)
    shutil.copytree(tiny / "model", tiny / "broken")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    weights = load_file(tiny / "broken" / "model.safetensors")
    weights[name][0, 0] = torch.nan
    save_file(weights, tiny / "broken" / "model.safetensors", metadata={"format": "pt"})
    message = fails(tiny, "run", "-S", "model.source=broken")
    for word in ("lable", "**.nothing", "block size 7", "attention.self.query"):
        assert word in message
    assert not (tiny / "artifacts").exists()


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (["run", "-S", "quantize.codebok_size=3"], "codebok_size"),
        (["plan", "--params", "none.yaml"], "none.yaml"),
        (["plan", "-S", "model.source=./none"], "none"),
        (["inspect", "."], "config.json"),
        (["evaluate", "none"], "none"),
        (["promote"], "nothing has been registered here yet"),
    ],
)
def test_what_cannot_be_worked_with_is_one_message_and_status_2(tiny, command, word):
    assert word in fails(tiny, *command)


def test_a_second_run_in_the_same_workspace_is_refused(tiny):
    from tasks.lock import workspace_lock
    from tasks.workspace import Workspace

    with workspace_lock(Workspace(tiny)):
        assert "in use by process" in fails(tiny, "run", status=1)


def test_a_stage_of_an_unknown_name_is_refused(tiny):
    done = call(tiny, "python", "-m", "flows.stages", "nothing")
    assert done.returncode == 2
    assert "prepare, pretrain" in done.stderr


def test_stream_writes_a_model_and_keeps_its_layers(tiny):
    done = call(tiny, "shrinkflow", "stream", "model", "out", "-S", "quantize.codebook_size=8")
    assert done.returncode == 0, done.stderr
    for word in ("compressed layers", "size on disk", "relative distortion", "peak memory"):
        assert word in done.stdout
    shown = call(tiny, "shrinkflow", "inspect", "out")
    assert "bert.encoder.layer.1.output.dense" in shown.stdout
    again = call(tiny, "shrinkflow", "stream", "model", "out", "--params", "params.yaml")
    assert again.returncode == 0, again.stderr


def test_stream_names_every_problem(tiny):
    groups = "quantize.groups=[{name: a, layers: ['**.nothing']}, {name: b, layers: ['**.query'],"
    message = fails(tiny, "stream", "model", "model", "-S", f"{groups} block_size: 7}}]")
    for word in ("**.nothing", "block size 7", "replace its source"):
        assert word in message
    assert "no such file" in fails(tiny, "stream", "./none", "out")
    assert not (tiny / "out").exists()
