"""The student's weights for tasks on other machines: in the shared store while they need them.

A workspace has a folder of its own there, so that runs do not take each other's files away; what a
killed run left is removed by the next one.
"""

import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path

from compress.progress import progress_bar
from tasks.shared import SharedFolder
from tasks.workspace import Workspace


def put(
    shared: SharedFolder, workspace: Workspace, tensors: Mapping[str, Path]
) -> dict[str, tuple[str, str]]:
    """Copies tensors, of which each lies in a safetensors file, there: a file for each.

    What is there already stays. Returns, for each, its URL and the SHA-256 of its bytes.
    """
    placed = {}
    there = set(shared.names(_folder(workspace)))
    with progress_bar("hand out weights", len(tensors)) as bar:
        for tensor, file in tensors.items():
            data, sha256 = _file_of(file, tensor)
            name = hashlib.sha256(f"{tensor}:{sha256}".encode()).hexdigest()
            name = f"{_folder(workspace)}/{name}.safetensors"
            if name not in there or shared.size(name) != len(data):
                shared.write(data, name)
            there.discard(name)
            placed[tensor] = shared.file(name), sha256
            bar.advance()
    for name in there:
        shared.remove(name)
    return placed


def clear(shared: SharedFolder, workspace: Workspace) -> None:
    """Removes all of this workspace."""
    shared.remove_folder(_folder(workspace))


def _file_of(file: Path, tensor: str) -> tuple[bytes, str]:
    """A safetensors file with nothing but the tensor, and the hash of the tensor's bytes."""
    from safetensors import safe_open
    from safetensors.torch import save

    with safe_open(file, framework="pt") as source:
        values = source.get_tensor(tensor).contiguous()
    data = save({tensor: values})
    header = int.from_bytes(data[:8], "little")
    return data, hashlib.sha256(memoryview(data)[8 + header :]).hexdigest()


def _folder(workspace: Workspace) -> str:
    place = f"{platform.node()}:{workspace.root.resolve()}"
    return f"students/{hashlib.sha256(place.encode()).hexdigest()[:16]}"
