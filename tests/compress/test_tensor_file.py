"""Reading safetensors by byte ranges: equal to the library, and nothing damaged gets through."""

import json

import pytest
import torch
from safetensors.torch import save_file

from compress.errors import CheckpointError
from compress.stored import DTYPES
from compress.tensor_file import read_header


@pytest.fixture
def tensors():
    draw = torch.Generator().manual_seed(0)
    made = {f"x.{dtype}": torch.randn(7, 3, generator=draw).mul(9).to(dtype) for dtype in DTYPES}
    return made | {"scalar": torch.tensor(3), "nothing": torch.zeros(0, 4), "é": torch.ones(2)}


@pytest.fixture
def path(tmp_path, tensors):
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def test_all_tensors_are_read_as_the_library_wrote_them(path, tensors):
    found = read_header(path)
    assert set(found) == set(tensors)
    for key, tensor in tensors.items():
        assert found[key].shape == tuple(tensor.shape) and found[key].dtype == tensor.dtype
        parts = [rows for _, rows in found[key].chunks()]
        read = torch.cat(parts).view(tensor.shape) if parts else tensor
        assert torch.equal(read, tensor)
        if tensor.ndim == 2 and len(tensor):
            assert torch.equal(found[key].rows(2, 5), tensor[2:5])


def test_large_tensors_come_in_parts(tmp_path):
    tensor = torch.arange(5_000_000).view(-1, 2).float()
    save_file({"x": tensor}, tmp_path / "x")
    parts = list(read_header(tmp_path / "x")["x"].chunks())
    assert len(parts) == 2 and parts[1][0] == len(parts[0][1])
    assert torch.equal(torch.cat([rows for _, rows in parts]), tensor)


def rewritten(path, change):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = change(json.loads(data[8 : 8 + length]))
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def entry(**changes):
    def change(header):
        header["é"] |= changes
        return header

    return change


@pytest.mark.parametrize(
    "change",
    [
        entry(dtype="F8_E4M3"),
        entry(dtype=["F32"]),
        entry(shape=[3]),
        entry(shape=[-2]),
        entry(shape=[2.0]),
        entry(shape=[True, 2]),
        entry(shape=None),
        entry(data_offsets=[0, 8]),
        entry(data_offsets=[0]),
        entry(data_offsets=[10**30, 10**30 + 8]),
        lambda header: header | {"more": 3},
        lambda header: {k: v for k, v in header.items() if k != "é"},
        lambda header: [header],
    ],
)
def test_a_header_that_does_not_fit_is_refused(path, change):
    rewritten(path, change)
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        read_header(path)


@pytest.mark.parametrize("size", [0, 5, 8, 60, -1])
def test_a_cut_file_is_refused(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        read_header(path)


def test_a_file_that_is_cut_later_is_an_error_too(path):
    found = read_header(path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(CheckpointError, match="cannot read"):
        for tensor in found.values():
            list(tensor.chunks())
