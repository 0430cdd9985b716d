"""What is read back is what was written, or nothing."""

import torch
from safetensors import safe_open

from compress.calibration.sensitivity_file import read_digests, write_sensitivities

FOUND = {"a": torch.rand(1, 8), "b": torch.rand(6, 8) * 1e-6}


def test_equal_tensors_give_equal_bytes_and_every_tensor_has_a_hash(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    digests = write_sensitivities(one, FOUND)
    assert write_sensitivities(two, dict(reversed(FOUND.items()))) == digests
    assert read_digests(one) == read_digests(two) == digests
    assert one.read_bytes() == two.read_bytes()
    with safe_open(one, framework="pt") as file:
        for name, tensor in FOUND.items():
            torch.testing.assert_close(file.get_tensor(name).float(), tensor, rtol=2**-8, atol=0)
    changed = {**FOUND, "b": FOUND["b"] * 1.01}
    other = write_sensitivities(two, changed)
    assert other["a"] == digests["a"] and other["b"] != digests["b"]


def test_a_damaged_file_counts_as_none(tmp_path):
    path = tmp_path / "file"
    assert read_digests(path) is None
    write_sensitivities(path, FOUND)
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:40], b"", whole[:-3] + b"\0" + whole[-2:], b"\xff" * 200):
        path.write_bytes(data)
        assert read_digests(path) is None
