"""Writing a checkpoint in shards of bounded size, each tensor when it is ready, a part at a time.

model-00001-of-00003.safetensors ...  and model.safetensors.index.json, or one model.safetensors
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from compress.errors import CheckpointError
from compress.stored import Layout, safetensors_header

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 256 << 20


@dataclass(frozen=True)
class Shard:
    """One file of the output: which of the parts (by position) it holds, and its tensors."""

    name: str
    parts: tuple[int, ...]
    layout: Layout


def plan_shards(parts: Sequence[Layout], limit: int = SHARD_BYTES) -> list[Shard]:
    """Puts parts (the tensors that are written together) into shards, in their order.

    A shard has at most `limit` bytes of data, or a single part that is larger.
    """
    shares: list[list[int]] = []
    room = -1
    for i, part in enumerate(parts):
        size = layout_bytes(part)
        if not shares or size > room:
            shares.append([])
            room = limit
        shares[-1].append(i)
        room -= size
    count = len(shares)
    names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    if count == 1:
        names = ["model.safetensors"]
    return [
        Shard(name, tuple(share), {key: parts[i][key] for i in share for key in parts[i]})
        for name, share in zip(names, shares, strict=True)
    ]


def layout_bytes(layout: Layout) -> int:
    """Bytes of the tensors {name: (dtype, shape)}, without any header."""
    return sum(math.prod(shape) * dtype.itemsize for dtype, shape in layout.values())


def write_index(folder: Path, shards: Sequence[Shard]) -> None:
    """The index that from_pretrained reads; nothing where there is one file only."""
    if len(shards) < 2:
        return
    index = {
        "metadata": {"total_size": sum(layout_bytes(shard.layout) for shard in shards)},
        "weight_map": {key: shard.name for shard in shards for key in shard.layout},
    }
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (folder / INDEX).write_text(text, encoding="utf-8")


class ShardWriter:
    """Writes the tensors of one shard in any order: `with ShardWriter(path, layout) as shard: ...`.

    Every tensor's place is known from the layout, so none has to wait for another in memory.
    """

    def __init__(self, path: Path, layout: Layout):
        self._path, self._layout = path, layout
        self._missing = {name: math.prod(shape) for name, (_, shape) in layout.items()}

    def __enter__(self) -> "ShardWriter":
        header, self._starts = safetensors_header(self._layout)
        self._file = open(self._path, "wb")
        self._file.write(header)
        return self

    def write(self, name: str, tensor: Tensor, low: int = 0) -> None:
        """`tensor` is the rows of `name` from row `low` on, in the layout's dtype."""
        dtype, shape = self._layout[name]
        if tensor.dtype != dtype or tuple(tensor.shape[1:]) != tuple(shape[1:]):
            raise CheckpointError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, planned was {dtype} {shape}"
            )
        self._file.seek(self._starts[name] + low * math.prod(shape[1:]) * dtype.itemsize)
        self._file.write(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
        self._missing[name] -= tensor.numel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if kind is None and (left := [name for name, count in self._missing.items() if count]):
            raise CheckpointError(f"{self._path}: {', '.join(left[:3])} not written as planned")
