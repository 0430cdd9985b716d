"""Reading safetensors by byte ranges: a few rows of one tensor at a time, nothing mapped.

A memory map counts as memory of the process (RSS, RLIMIT_AS) although it could be dropped; what is
read here is what is held.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.blocks import row_ranges
from compress.errors import CheckpointError
from compress.stored import DTYPES

_DTYPES = {name: dtype for dtype, name in DTYPES.items()}
LONGEST_HEADER = 100 << 20  # as in the safetensors library


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file; `start` is its first byte in the file."""

    path: Path
    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def rows(self, low: int, high: int) -> Tensor:
        """Rows `low` to `high` (exclusive) in the file's dtype, (high - low, ...); a scalar is a
        vector of one row.

        Raises CheckpointError where the file has become shorter or cannot be read.
        """
        tensor = torch.empty((high - low, *self.shape[1:]), dtype=self.dtype)
        if not tensor.numel():
            return tensor
        buffer = tensor.view(-1).view(torch.uint8).numpy().data
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self.start + low * math.prod(self.shape[1:]) * self.dtype.itemsize)
                while len(buffer):
                    count = file.readinto(buffer)
                    if not count:
                        raise OSError("the file ends early")
                    buffer = buffer[count:]
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot read `{self.key}` ({error})") from None
        return tensor

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """The whole tensor in order, some megabytes at a time: (first row, rows)."""
        for low, high in row_ranges(self.shape):
            yield low, self.rows(low, high)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by key; only its header is read.

    Raises CheckpointError where the file is missing, cut, or its header
    does not fit its size.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= min(size - 8, LONGEST_HEADER):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
        header.pop("__metadata__", None)
        found = {key: parse_entry(path, key, entry, 8 + length) for key, entry in header.items()}
        _check_places(found.values(), 8 + length, size)
        return found
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no whole safetensors file: {error}") from None


def parse_entry(path: Path, key: str, entry: Any, data: int) -> StoredTensor:
    """A header's entry for `key`, `data` being where the tensors begin. ValueError: it is none."""
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, start, end]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"the entry of `{key}` is damaged") from None
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"`{key}` is {dtype}; read are {', '.join(_DTYPES)}")
    if any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(f"the entry of `{key}` is damaged")
    tensor = StoredTensor(path, key, _DTYPES[dtype], tuple(shape), data + start)
    if end - start != tensor.bytes:
        raise ValueError(f"`{key}` {shape} has {end - start} bytes instead of {tensor.bytes}")
    return tensor


def _check_places(tensors: Any, start: int, size: int) -> None:
    """The tensors must lie one behind the other and end with the file."""
    for tensor in sorted(tensors, key=lambda t: (t.start, t.bytes)):
        if tensor.start != start:
            raise ValueError(f"`{tensor.key}` does not begin where the one before ends")
        start += tensor.bytes
    if start != size:
        raise ValueError(f"{size} bytes instead of {start}")


def check_index(weight_map: Mapping[str, str], found: Mapping[str, StoredTensor]) -> list[str]:
    """What the index of a sharded checkpoint names and its shards do not hold."""
    return [
        f"{name} lacks {key}, which the index says it holds"
        for key, name in weight_map.items()
        if key not in found or found[key].path.name != name
    ]
