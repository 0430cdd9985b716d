"""Bits that flip in what a run has left behind, and clocks that jump: found, and nothing redone."""

import os
import random
import shutil
import time

import pytest

from compress.errors import CheckpointError
from compress.layer_file import read_layer
from compress.verify import is_whole
from tests.faults.kills import LAYERS, outputs
from tests.flows.workspaces import call

FLIPS = 200
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("users_server")]


def flip(path, draw):
    damaged = bytearray(path.read_bytes())
    damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    path.write_bytes(damaged)


def test_every_flipped_bit_is_found(done, tmp_path):
    """Of a layer file, and of the weights of a compressed model, by their digests."""
    draw = random.Random(0)
    layer = sorted(done.glob(LAYERS))[0]
    copy, folder = tmp_path / layer.name, tmp_path / "compressed"
    for _ in range(FLIPS):
        shutil.copyfile(layer, copy)
        flip(copy, draw)
        with pytest.raises(CheckpointError):
            read_layer(copy)
    shutil.copytree(done / "artifacts" / "compressed", folder)
    assert is_whole(folder)
    for _ in range(FLIPS):
        shutil.copyfile(
            done / "artifacts/compressed/model.safetensors", folder / "model.safetensors"
        )
        flip(folder / "model.safetensors", draw)
        assert not is_whole(folder)


def test_a_damaged_model_in_artifacts_is_put_right(done, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(done, folder, symlinks=True)
    flip(folder / "artifacts" / "compressed" / "model.safetensors", random.Random(1))
    refused = call(folder, "shrinkflow", "inspect", "artifacts/compressed")
    assert refused.returncode == 2 and "error: " in refused.stderr
    run = call(folder, "shrinkflow", "run")
    assert run.returncode == 0, run.stderr
    assert outputs(folder) == outputs(done)


@pytest.mark.parametrize("shift", [-400 * 86400, 400 * 86400])
def test_a_clock_that_jumped_redoes_nothing(done, tmp_path, shift):
    """As if every file had been written a year before, or in the year to come."""
    folder = tmp_path / "copy"
    shutil.copytree(done, folder, symlinks=True)
    then = time.time() + shift
    for place in ("artifacts", ".shrinkflow/layers", ".dvc"):
        for path in (folder / place).rglob("*"):
            os.utime(path, (then, then), follow_symlinks=False)
    run = call(folder, "shrinkflow", "run")
    assert run.returncode == 0, run.stderr
    assert "→" not in run.stderr
    assert run.stderr.count("up to date") >= 6
