"""A disk that fills up or cannot be written to: one message, nothing half there, nothing lost."""

import os
import shutil

import pytest

from tests.faults.conftest import fails, without_quantize
from tests.faults.kills import LAYERS, outputs, stamps
from tests.flows.workspaces import call


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_nothing_that_is_finished(done, small_disk):
    without_quantize(done, small_disk)
    left = int(os.environ.get("SHRINKFLOW_DISK_LEFT", "200000"))  # bytes
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - left))
    fails(small_disk, "make room")
    kept = stamps(small_disk, LAYERS)
    ballast.unlink()
    again = call(small_disk, "shrinkflow", "run")
    assert again.returncode == 0, again.stderr
    after = stamps(small_disk, LAYERS)
    assert {path: after[path] for path in kept} == kept
    assert outputs(small_disk) == outputs(done)


@pytest.mark.slow
def test_a_layer_store_that_cannot_be_written_to_is_told_before_work(done, tmp_path, read_only):
    without_quantize(done, tmp_path)
    store = tmp_path / ".shrinkflow" / "layers"
    shutil.copytree(done / ".shrinkflow" / "layers", store)
    sorted(store.glob("*/*.safetensors"))[0].unlink()
    read_only(store)
    assert "make it writable" in fails(tmp_path, "cannot be written")
