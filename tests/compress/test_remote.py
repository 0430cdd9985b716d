"""One tensor over fsspec: the same values as from a local file, and nothing else is read."""

import hashlib

import fsspec
import pytest
import torch
from safetensors.torch import save, save_file

from compress.errors import CheckpointError
from compress.quantization import read_tensor
from compress.remote import read_remote_tensor

TENSORS = {
    "a": torch.randn(3, 5),
    "b": torch.randn(64, 32).bfloat16(),
    "c": torch.randn(7).half(),
    "empty": torch.empty(0, 4),
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    return path


@pytest.mark.parametrize("name", TENSORS)
def test_equals_the_local_reader_and_has_its_hash(file, name):
    stored = TENSORS[name].contiguous().view(torch.uint8).numpy().tobytes()
    found = read_remote_tensor(str(file), name, hashlib.sha256(stored).hexdigest())
    assert found.dtype == torch.float32
    assert torch.equal(found, read_tensor(file, name))


def test_only_the_header_and_the_tensor_are_read(file, monkeypatch):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/model.safetensors", file.read_bytes())
    read = []
    cat = type(memory).cat_file

    def watched(self, path, start=None, end=None, **options):
        data = cat(self, path, start, end, **options)
        read.append(len(data))
        return data

    monkeypatch.setattr(type(memory), "cat_file", watched)
    read_remote_tensor("memory://model.safetensors", "c")
    assert read[0] == 8 and read[2] == 14 and len(read) == 3
    assert sum(read) < file.stat().st_size - 64 * 32 * 2


def test_other_bytes_missing_tensors_and_files_are_named(file):
    with pytest.raises(CheckpointError, match="`b` is not what was put there"):
        read_remote_tensor(str(file), "b", hashlib.sha256(b"").hexdigest())
    with pytest.raises(CheckpointError, match="cannot read `d`"):
        read_remote_tensor(str(file), "d")
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        read_remote_tensor(str(file.with_name("none.safetensors")), "a")


def test_damaged_files_are_refused_and_never_unpickled(tmp_path):
    whole = save(TENSORS)
    path = tmp_path / "damaged.safetensors"
    for damaged in (
        b"",
        whole[:7],
        whole[:40],
        whole[: len(whole) // 2],
        (1 << 40).to_bytes(8, "little") + whole[8:],
        whole[:8] + b"[" + whole[9:],
        whole.replace(b"[64,32]", b"[64,33]"),
        whole.replace(b"BF16", b"XF16"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_remote_tensor(str(path), "b")
