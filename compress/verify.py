"""Is a checkpoint whole, and does it hold what its config.json says? Each check raises
CheckpointError with the file, the tensor and what is wrong."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from compress.errors import CheckpointError, InputError
from compress.layers import CompressedLayer
from compress.manifest import LayerEntry

FLOATS = {"F16", "BF16", "F32"}


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digests(files: Iterable[Path | str], digests: Mapping[str, str]) -> None:
    """Where digests were written, every file must have one and those very bytes."""
    for path in map(Path, files):
        if digests and path.name not in digests:
            raise CheckpointError(f"{path}: config.json has no SHA-256 of it; copy the whole model")
        if digests and file_digest(path) != digests[path.name]:
            raise CheckpointError(
                f"{path} is damaged: its SHA-256 is not the one in config.json; copy it again"
            )


def is_whole(folder: Path) -> bool:
    """Whether the files of a compressed model are there with the bytes that config.json names."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        digests = config["quantization_config"]["sha256"]
        return all(file_digest(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def check_headers(files: Iterable[Path | str], entries: Iterable[LayerEntry]) -> None:
    """The files must hold each tensor of each compressed layer, in its shape and kind of dtype."""
    found: dict[str, tuple[str, list[int]]] = {}
    place = "the checkpoint"
    for path in map(str, files):
        place = path
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    part = file.get_slice(key)
                    found[key] = (part.get_dtype(), part.get_shape())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} is no whole safetensors file: {error}") from None
    if not found:  # the caller handed a state dict in
        return
    entries = list(entries)
    for entry in entries:
        with torch.device("meta"):
            expected = entry.empty_codec().state_dict()
        for tensor, empty in expected.items():
            _compare(f"{entry.name}.codec.{tensor}", empty, found, place)
        for name in (entry.name, *entry.aliases):
            if f"{name}.weight" in found:
                raise CheckpointError(f"{place} holds {name}.weight, config.json compresses it")
    listed = {entry.name for entry in entries}
    for key in found:
        layer, _, tensor = key.rpartition(".codec.")
        if layer and "." not in tensor and layer not in listed:
            raise CheckpointError(f"{place} holds {key}, config.json lists no such layer")


def _compare(key: str, empty: Any, found: dict[str, tuple[str, list[int]]], place: str) -> None:
    if key not in found:
        raise CheckpointError(f"{place} lacks {key}, a tensor of a layer that config.json lists")
    dtype, shape = found[key]
    fits = dtype in FLOATS if empty.is_floating_point() else dtype not in FLOATS
    if list(empty.shape) != list(shape) or not fits:
        raise CheckpointError(
            f"{place}: {key} is {dtype} {list(shape)}, expected {empty.dtype} {list(empty.shape)}"
        )


def check_layers(files: Mapping[str, Path], entries: Iterable[LayerEntry]) -> None:
    """As `check_codecs`, for a model on disk: one layer in memory at a time.

    `files` says where each tensor is; `check_headers` has found nothing.
    """
    for entry in entries:
        codec = entry.empty_codec()
        state = {}
        for name in codec.state_dict():
            key = f"{entry.name}.codec.{name}"
            with safe_open(files[key], framework="pt") as file:
                state[name] = file.get_tensor(key)
        codec.load_state_dict(state)
        try:
            codec.expand()
            codec.check()
        except InputError as error:
            raise CheckpointError(f"compressed layer {entry.name} is damaged: {error}") from None


def check_codecs(model: nn.Module) -> None:
    """Every compressed layer's tensors must be usable: finite, codes within the codebook.

    Afterwards they are as they are used: coded codes are packed.
    """
    for name, module in model.named_modules():
        if isinstance(module, CompressedLayer) and not module.tied:
            if any(tensor.is_meta for tensor in module.codec.state_dict().values()):
                continue  # offloaded, not read yet
            try:
                module.codec.expand()
                module.codec.check()
            except InputError as error:
                raise CheckpointError(f"compressed layer {name} is damaged: {error}") from None
