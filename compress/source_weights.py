"""Looking through a checkpoint before work starts, one tensor in memory at a time."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from compress.errors import CheckpointError
from compress.selection import LayerRef
from compress.skeleton import tensor_key

HALF_MAX = torch.finfo(torch.float16).max


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that from_pretrained reads. Raises CheckpointError where there are
    none, or where the index names what is no file of this very folder."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    try:
        text = index.read_text(encoding="utf-8") if index.is_file() else "{}"
        names = sorted(set(json.loads(text)["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise CheckpointError(f"{folder}: no model.safetensors; only that format is read") from None
    wrong = [
        repr(name)[:200]
        for name in names
        if not isinstance(name, str) or name != Path(name).name or not (folder / name).is_file()
    ]
    if wrong:
        raise CheckpointError(f"{index} names {', '.join(wrong[:9])}, which is no file of {folder}")
    return [folder / name for name in names]


def tensor_files(folder: Path) -> dict[str, Path]:
    """Every tensor of a model folder -> the safetensors file with it; only headers are read.

    Raises CheckpointError where a file is not whole or there are no tensors.
    """
    found = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                found.update(dict.fromkeys(file.keys(), path))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} is no whole safetensors file: {error}") from None
    if not found:
        raise CheckpointError(f"{folder}: no tensors in its safetensors files")
    return found


def weight_problems(folder: Path, refs: Iterable[LayerRef], prefix: str) -> list[str]:
    """Tensors with NaN or Inf, and selected layers (`refs`) whose tensor has another shape or
    values beyond fp16. A layer without a tensor (a new head) is no problem."""
    shapes: dict[str, tuple[int, ...]] = {}
    largest: dict[str, float] = {}
    problems = []
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    tensor = file.get_tensor(key)
                    shapes[key] = tuple(tensor.shape)
                    if tensor.is_floating_point() and tensor.numel():
                        low, high = tensor.float().aminmax()
                        largest[key] = max(-float(low), float(high))
        except (OSError, SafetensorError) as error:
            problems.append(f"{path} is no whole safetensors file: {error}")
    for key, size in largest.items():
        if not size < float("inf"):  # NaN compares false
            problems.append(f"{key} has NaN or Inf; the checkpoint in {folder} is damaged")
    for ref in refs:
        key = tensor_key(ref, shapes, prefix) or ""
        if key in shapes and shapes[key] != ref.stored_shape:
            problems.append(f"{key} is {shapes[key]}, config.json says {ref.stored_shape}")
        if HALF_MAX < largest.get(key, 0.0) < float("inf"):
            problems.append(f"{key} reaches {largest[key]:g}, beyond fp16 ({HALF_MAX:g})")
    return problems
