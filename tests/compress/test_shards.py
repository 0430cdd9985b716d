"""Sharded output: what the safetensors library would have written, in files of bounded size."""

import json

import pytest
import torch
from safetensors.torch import load_file, save

from compress.errors import CheckpointError
from compress.shards import INDEX, ShardWriter, layout_bytes, plan_shards, write_index

TENSORS = {
    "b.codes": torch.arange(33, dtype=torch.uint8),
    "b.codebook": torch.randn(4, 8).half(),
    "a": torch.randn(6, 5).bfloat16(),
    "count": torch.tensor(7),
    "none": torch.zeros(0, 3),
}
LAYOUT = {name: (t.dtype, tuple(t.shape)) for name, t in TENSORS.items()}


def test_a_shard_written_in_any_order_is_the_file_of_the_library(tmp_path):
    with ShardWriter(tmp_path / "x", LAYOUT) as shard:
        shard.write("a", TENSORS["a"][4:], 4)
        for name in ("none", "count", "b.codebook", "b.codes"):
            shard.write(name, TENSORS[name].reshape(TENSORS[name].shape or (1,)))
        shard.write("a", TENSORS["a"][:4])
    assert (tmp_path / "x").read_bytes() == save(TENSORS, metadata={"format": "pt"})


def test_what_was_not_planned_is_refused(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(CheckpointError, match="planned was"), ShardWriter(path, LAYOUT) as shard:
        shard.write("a", TENSORS["a"].float())
    with pytest.raises(CheckpointError, match="not written"), ShardWriter(path, LAYOUT) as shard:
        shard.write("a", TENSORS["a"][:5])


def test_parts_stay_together_and_shards_small(tmp_path):
    part = {"x": (torch.uint8, (60,)), "y": (torch.float16, (20,))}  # 100 bytes
    parts = [{f"{i}.{name}": what for name, what in part.items()} for i in range(5)]
    parts.insert(2, {"large": (torch.uint8, (500,))})
    shards = plan_shards(parts, limit=250)
    assert [shard.parts for shard in shards] == [(0, 1), (2,), (3, 4), (5,)]
    assert shards[1].name == "model-00002-of-00004.safetensors"
    assert sum(layout_bytes(shard.layout) for shard in shards) == 1000
    write_index(tmp_path, shards)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == 1000
    assert index["weight_map"]["4.y"] == shards[3].name


def test_one_shard_is_an_ordinary_file_without_index(tmp_path):
    (shard,) = plan_shards([{"a": LAYOUT["a"]}])
    with ShardWriter(tmp_path / shard.name, shard.layout) as writer:
        writer.write("a", TENSORS["a"])
    write_index(tmp_path, [shard])
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert torch.equal(load_file(tmp_path / shard.name)["a"], TENSORS["a"])
