"""One tensor of a safetensors file that lies elsewhere: over fsspec, in three small reads.

The format (github.com/huggingface/safetensors): 8 bytes with the length of the header, the header
as JSON {name: {dtype, shape, data_offsets}}, the tensors' bytes. Nothing is unpickled.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import torch
from torch import Tensor

from compress.errors import CheckpointError
from compress.tensor_file import LONGEST_HEADER, parse_entry

LENGTH = 8  # bytes of the header's length


def read_remote_tensor(url: str, tensor: str, sha256: str | None = None) -> Tensor:
    """The tensor as float32; of the file only its header and the tensor's own bytes are read.

    url: any that fsspec knows (/folder/file, s3://bucket/file). sha256: of the tensor's bytes as
    they are stored. Raises CheckpointError where the file is missing, no safetensors file, has no
    such tensor, or where its bytes have another hash.
    """
    try:
        read = _reader(url)
        length = int.from_bytes(read(0, LENGTH), "little")
        if not 2 <= length <= LONGEST_HEADER:
            raise ValueError("it is no safetensors file")
        header = json.loads(read(LENGTH, LENGTH + length))
        found = parse_entry(Path(url), tensor, header[tensor], LENGTH + length)
        data = bytearray(read(found.start, found.start + found.bytes))
        if len(data) != found.bytes:
            raise ValueError("it is cut off")
    except Exception as error:  # each kind of store has errors of its own
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"{url}: cannot read `{tensor}` ({reason})") from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(f"{url}: `{tensor}` is not what was put there; start the run again")
    if not data:
        return torch.empty(found.shape)
    return torch.frombuffer(data, dtype=found.dtype).reshape(found.shape).float()


def _reader(url: str) -> Callable[[int, int], bytes]:
    """read(start, end) -> these bytes of the file."""
    filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False)

    def read(start: int, end: int) -> bytes:
        # Empty ranges cannot be asked for; the order of arguments differs between filesystems.
        return filesystem.cat_file(path, start=start, end=end) if start < end else b""

    return read
